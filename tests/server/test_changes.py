"""Adding, replacing and removing rows."""
import io

import pytest
import torch
from PIL import Image

from retrieval.gallery import Gallery
from retrieval.server.changes import checked_id
from retrieval.server.service import Source

from .conftest import COLOURS, ask, jpeg, picture

ITEM = dict(label='x', metadata=dict(year=2024))


def vector(place):
    return torch.eye(12)[place].tolist()


def test_rows_of_a_store(store_service):
    client, store = ask(store_service), store_service.served.store
    added = client.post('/v1/items', json=dict(items=[
        dict(ITEM, id='new', vector=vector(0)), dict(ITEM, id='next', vector=vector(1))]))
    assert added.status_code == 200 and added.json()['ids'] == ['new', 'next']
    assert len(store.load()) == 7  # on the disk
    found = client.post('/v1/search', json=dict(queries=[dict(vector=vector(1))], k=1)).json()
    hit = found['results'][0]
    assert (hit['id'], hit['label'], hit['metadata']) == ('next', 'x', dict(year=2024))
    again = client.post('/v1/items', json=dict(items=[dict(ITEM, id='new', vector=vector(2))]))
    assert again.status_code == 422 and 'replace' in again.json()['detail']
    mixed = client.post('/v1/items', json=dict(replace=True, items=[
        dict(ITEM, id='new', vector=vector(2)), dict(ITEM, id='third', vector=vector(3))]))
    assert mixed.status_code == 200 and len(store.load()) == 8
    assert client.request('DELETE', '/v1/items', json=dict(ids=['new', 'a'])).status_code == 200
    assert set(store.load().ids) == {'b', 'c', 'd', 'e', 'next', 'third'}
    listed = client.post('/v1/search', json={}).json()
    assert {one['id'] for one in listed['results']} == set(store.load().ids)


def test_a_batch_is_there_or_not(store_service):
    client, store = ask(store_service), store_service.served.store
    good = dict(ITEM, id='good', vector=vector(0))
    for bad in (dict(ITEM, id='bad', vector=[1.0]), dict(id='bad', vector=vector(0)),
                dict(ITEM, id='good', vector=vector(1)), dict(ITEM, id='a', vector=vector(1)),
                dict(ITEM, id='../bad', vector=vector(1)), dict(ITEM, id='', vector=vector(1)),
                dict(id='bad', vector=vector(0), label='x', metadata=dict(other=1))):
        refused = client.post('/v1/items', json=dict(items=[good, bad]))
        assert refused.status_code == 422, bad
    assert client.request('DELETE', '/v1/items', json=dict(ids=['a', 'no'])).status_code == 404
    every = client.request('DELETE', '/v1/items', json=dict(ids=list('abcde')))
    assert every.status_code == 422 and len(store.load()) == 5


def test_rows_keep_their_numbers(store_service):
    """A client that holds a number gets that row or none, never another."""
    client = ask(store_service)
    before = {hit['id']: hit['row'] for hit in client.post('/v1/search', json={}).json()['results']}
    client.request('DELETE', '/v1/items', json=dict(ids=['a']))
    client.post('/v1/items', json=dict(items=[dict(ITEM, id='new', vector=vector(0))]))
    after = {hit['id']: hit['row'] for hit in client.post('/v1/search', json={}).json()['results']}
    assert {one: after[one] for one in 'bcde'} == {one: before[one] for one in 'bcde'}
    assert after['new'] not in before.values()
    assert client.get(f'/v1/items/{before["a"]}').status_code == 404


def test_an_id_names_no_file_of_the_machine(store_service, folder):
    client = ask(store_service)
    secret = folder / 'red' / '0.png'
    for name in (str(secret), 'file:' + str(secret), '..', 'a/b', '.hidden', 'a\\b', 'a\nb'):
        refused = client.post('/v1/items', json=dict(items=[dict(ITEM, id=name, vector=vector(0))]))
        assert refused.status_code == 422
    for name in ('a/../b', '/a.png', '.a/b.png', 'a//b.png'):
        with pytest.raises(ValueError, match='no name'):
            checked_id(name, True)


def test_pictures_into_a_store(services, tmp_path):
    from retrieval.gallery import GalleryStore
    store = GalleryStore.create(tmp_path / 'p.gallery', Gallery(torch.randn(2, 12), 'ab'))
    service = services(Source('p', tmp_path / 'state'), store.load(copy=True), store=store)
    client = ask(service)
    added = client.post('/v1/items', files=[
        ('picture', ('red.jpg', jpeg(picture(COLOURS['red'], 1))))])
    assert added.status_code == 200, added.text
    found = client.post('/v1/search', files=dict(
        picture=('q.jpg', jpeg(picture(COLOURS['red'], 1))))).json()['results'][0]
    assert found['id'] == 'red.jpg' and found['score'] > 0.9999
    shown = client.get(f'/v1/image/{found["row"]}')
    assert Image.open(io.BytesIO(shown.content)).size == (60, 40)


def test_pictures_into_a_folder(client, folder):
    new = jpeg(picture(COLOURS['red'], 5))
    added = client.post('/v1/items', files=[('picture', ('red/5.jpg', new))])
    assert added.status_code == 200 and (folder / 'red' / '5.jpg').read_bytes() == new
    listed = client.post('/v1/search', json=dict(k=100)).json()['results']
    assert 'red/5.jpg' in [hit['id'] for hit in listed]
    for name, data in (('red/5.jpg', new), ('../x.jpg', new), ('x.sh', new), ('y.jpg', b'no')):
        refused = client.post('/v1/items', files=[('picture', ('ok.jpg', new)),
                                                  ('picture', (name, data))])
        assert refused.status_code == 422
    assert not (folder / 'ok.jpg').exists() and not (folder.parent / 'x.jpg').exists()
    refused = client.request('DELETE', '/v1/items', json=dict(ids=['red/5.jpg']))
    assert refused.status_code == 409 and (folder / 'red' / '5.jpg').exists()


def test_nothing_changes_read_only(services, store_service, tmp_path):
    service = services(Source('s', tmp_path / 'state'), store_service.own_gallery,
                       read_only=True, store=store_service.served.store)
    client = ask(service)
    assert client.get('/v1/info').json()['read_only'] is True
    body = dict(items=[dict(ITEM, id='new', vector=vector(0))])
    assert client.post('/v1/items', json=body).status_code == 403
    assert client.request('DELETE', '/v1/items', json=dict(ids=['a'])).status_code == 403
    mark = dict(query=dict(row=0), row=1, right=True)
    for path, json in (('/v1/feedback', mark), ('/v1/training', None),
                       ('/v1/model', dict(use='trained'))):
        assert client.post(path, json=json).status_code == 403


def test_a_gallery_file_is_not_changed(services, tmp_path):
    gallery = Gallery(torch.eye(12), list('abcdefghijkl'))
    client = ask(services(Source('g', tmp_path / 'state'), gallery))
    refused = client.post('/v1/items', json=dict(items=[dict(id='new', vector=vector(0))]))
    assert refused.status_code == 409 and 'store' in refused.json()['detail']

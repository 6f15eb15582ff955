"""Another model beside the one that is served: compared, switched to, and back."""
import numpy as np
import pytest
import torch
from torch import nn

from retrieval.gallery import Gallery, GalleryStore
from retrieval.retrievers import ImageToImageRetriever
from retrieval.server import Client
from retrieval.server.follow import follow_folder
from retrieval.server.reload import Reload
from retrieval.server.served import Served
from retrieval.server.service import Source

from .conftest import COLOURS, PIPELINE, ask, jpeg, picture


class Brightness(nn.Module):
    """One number and its complement: colours that are equally bright are one."""

    def __init__(self):
        super().__init__()
        self.most = nn.Parameter(torch.tensor(255.))

    def forward(self, inputs):
        grey = inputs.mean((1, 2, 3))
        return torch.stack([grey, self.most - grey], 1)


@pytest.fixture
def reload(folder_service, tmp_path):
    def load():
        return Served(ImageToImageRetriever(Brightness(), topk=10).eval(), PIPELINE,
                      cache=tmp_path / 'new.safetensors')
    made = Reload(folder_service, load)
    yield made
    made.close()


def loaded(client, reload):
    """The state after a reload."""
    assert client.post('/v1/model/reload').status_code == 202
    reload._thread.join(30)
    return client.get('/v1/model/reload').json()


def first(client, **query):
    hit = client.post('/v1/search', json=dict(queries=[query], k=1, stack=False)).json()
    return hit['results'][0]


def test_a_model_is_compared_switched_to_and_back(folder_service, reload):
    client = ask(folder_service, reload=reload)
    state = client.get('/v1/model/reload').json()
    assert (state['state'], state['use'], state['comparison']) == ('none', 'old', None)
    assert client.post('/v1/model', json=dict(use='new')).status_code == 409
    sent = client.post('/v1/uploads', content=jpeg(picture(COLOURS['red'], 1))).json()['upload']
    before = client.get('/v1/info').json()
    state = loaded(client, reload)
    assert (state['state'], state['use']) == ('ready', 'old')
    found = state['comparison']
    assert found['num_queries'] == 12 and found['rows'] == [12, 12]
    assert found['differences'] and '/' in found['most_changed'][0]['id']
    # one brightness for three colours: the same class is no longer nearest
    assert found['results']['MAP@R'][0] == 100 > found['results']['MAP@R'][1]
    assert client.get('/v1/info').json()['fingerprint'] == before['fingerprint']
    row = first(client, id='red/1.png')['row']

    assert client.post('/v1/model', json=dict(use='new')).json()['use'] == 'new'
    info = client.get('/v1/info').json()
    assert info['fingerprint'] != before['fingerprint'] and info['images'] == 12
    assert info['generation'] > before['generation']
    vector = client.post('/v1/embed', json=dict(upload=sent)).json()['embedding']
    assert len(vector) == 2
    assert {hit['row'] for hit in client.post('/v1/search', json=dict(
        queries=[dict(upload=sent)], k=12, stack=False)).json()['results']} >= {row}

    assert client.post('/v1/model', json=dict(use='old')).json()['use'] == 'old'
    assert client.get('/v1/info').json()['fingerprint'] == before['fingerprint']
    assert first(client, id='red/1.png')['row'] == row


def test_a_client_reloads(folder_service, reload):
    client = Client('http://127.0.0.1:8000', http=ask(folder_service, reload=reload))
    assert client.reload()['state'] == 'ready' and client.use('new')['use'] == 'new'
    assert client.reload_state()['use'] == 'new' and client.use('old')['use'] == 'old'


def test_what_was_added_meanwhile_is_there_after_the_switch(folder_service, reload, folder):
    client = ask(folder_service, reload=reload)
    loaded(client, reload)
    data = jpeg(picture(COLOURS['blue'], 9))
    client.post('/v1/items', files=[('picture', ('late.jpg', data))])
    client.post('/v1/model', json=dict(use='new'))
    assert first(client, id='late.jpg') and client.get('/v1/info').json()['images'] == 13
    client.post('/v1/items', files=[('picture', ('later.jpg', data))])
    assert len(client.post('/v1/embed', json=dict(id='later.jpg')).json()['embedding']) == 2
    client.post('/v1/model', json=dict(use='old'))
    assert client.get('/v1/info').json()['images'] == 14
    assert len(client.post('/v1/embed', json=dict(id='later.jpg')).json()['embedding']) == 12


def test_a_failure_changes_nothing_and_is_said(folder_service):
    def load():
        raise FileNotFoundError(f'There is no {folder_service.source.folder}/better.pth.')
    reload = Reload(folder_service, load)
    client = ask(folder_service, reload=reload)
    state = loaded(client, reload)
    assert state['state'] == 'failed' and state['error'] == 'There is no better.pth.'
    assert client.get('/v1/info').json()['images'] == 12
    refused = ask(folder_service).post('/v1/model/reload')
    assert refused.status_code == 409 and 'no other model' in refused.json()['detail']


def test_another_store(store_service, tmp_path):
    torch.manual_seed(2)
    other = GalleryStore.create(tmp_path / 'new.gallery', Gallery(
        torch.randn(6, 7), 'abcdef', ['x', 'x', 'y', 'y', 'y', 'y'],
        metadata=dict(year=np.arange(2019, 2025))))

    def load():
        return Served(ImageToImageRetriever(nn.Flatten(), other.load(copy=True), topk=10).eval(),
                      PIPELINE, store=other)
    reload = Reload(store_service, load)
    client = ask(store_service, reload=reload)
    state = loaded(client, reload)
    assert state['comparison']['rows'] == [5, 6] and state['comparison']['only_new'] == 1
    client.post('/v1/model', json=dict(use='new'))
    item = dict(id='g', vector=[1.0] * 7, label='x', metadata=dict(year=2030))
    assert client.post('/v1/items', json=dict(items=[item])).status_code == 200
    assert len(other.load()) == 7 and first(client, vector=[1.0] * 7)['id'] == 'g'
    client.post('/v1/model', json=dict(use='old'))
    assert client.get('/v1/info').json()['images'] == 5
    assert client.post('/v1/items', json=dict(items=[item])).status_code == 422  # of width 12


def test_reading_alone_does_not_reload(folder_service, reload):
    client = ask(folder_service, reload=reload, token='w', read_token='r')  # noqa: S106
    reads = {'authorization': 'Bearer r'}
    assert client.post('/v1/model/reload', headers=reads).status_code == 403
    assert client.get('/v1/model/reload', headers=reads).status_code == 200


def test_a_picture_a_class_is_compared(services, tmp_path):
    for number in range(12):
        (tmp_path / 'pictures' / str(number)).mkdir(parents=True)
        picture(COLOURS['red'], number).save(tmp_path / 'pictures' / str(number) / 'a.png')
    service = services(Source('pictures', tmp_path / 'state', str(tmp_path / 'pictures')),
                       cache=tmp_path / 'cache.safetensors')
    follow_folder(service).refresh()
    reload = Reload(service, lambda: Served(
        ImageToImageRetriever(Brightness(), topk=10).eval(), PIPELINE,
        cache=tmp_path / 'new.safetensors'))
    state = loaded(ask(service, reload=reload), reload)
    assert state['state'] == 'ready' and state['comparison']['results'] == {}
    reload.close()

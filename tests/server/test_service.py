"""What the service finds, lists and refuses, by its own methods; over HTTP it is in test_app.py."""
import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from retrieval.gallery import Gallery
from retrieval.server.pictures import NoPictureError, UnknownUploadError
from retrieval.server.service import Encoding, Query, Source, UnknownRowError, cut

from .conftest import COLOURS, jpeg, picture


def ids(answer):
    return [hit['id'] for hit in answer['results']]


def vectors(service):
    gallery = service.own_gallery
    return {name: gallery.embeddings[row] for row, name in enumerate(gallery.ids)}


def ranked(service, query, leave_out=()):
    """By cosine, one row at a time."""
    scores = {name: float(normalize(query, dim=0) @ normalize(row, dim=0))
              for name, row in vectors(service).items() if name not in leave_out}
    return sorted(scores, key=lambda name: -scores[name]), scores


def test_vectors_rows_and_ids_are_searched_for(store_service):
    query = torch.randn(12)
    order, scores = ranked(store_service, query)
    found = store_service.search([Query(vector=query.tolist())], k=3)
    assert ids(found) == order[:3] and found['total'] == 5
    assert [hit['score'] for hit in found['results']] == pytest.approx(
        [scores[name] for name in order[:3]], abs=1e-5)
    by_id = store_service.search([Query(id='c')])
    assert ids(by_id) == ranked(store_service, vectors(store_service)['c'], 'c')[0]
    handle = by_id['queries'][0]['row']
    assert ids(store_service.search([Query(row=handle)])) == ids(by_id)
    assert ids(store_service.search([Query(id='c')], k=2, offset=1)) == ids(by_id)[1:3]


def test_parts_of_a_query_are_added_with_their_weights(store_service):
    rows = vectors(store_service)
    query = normalize(rows['a'], dim=0) - 0.5 * normalize(rows['e'], dim=0)
    found = store_service.search([Query(id='a'), Query(id='e', weight=-0.5)])
    order, scores = ranked(store_service, query, 'ae')
    assert ids(found) == order
    assert [hit['score'] for hit in found['results']] == pytest.approx(
        [scores[name] for name in order], abs=1e-5)


def test_only_some_rows(store_service):
    listed = store_service.search(filter=dict(label=['y']))
    assert sorted(ids(listed)) == list('cde') and listed['total'] == 3
    assert [hit['score'] for hit in listed['results']] == [None] * 3
    handles = [hit['row'] for hit in listed['results'] if hit['id'] in 'cd']
    among = store_service.search([Query(id='a')], among=handles)
    assert sorted(ids(among)) == list('cd') and among['total'] == 2
    assert store_service.search([Query(id='a')], among=[])['results'] == []


@pytest.mark.parametrize(('query', 'error', 'says'), [
    (Query(), ValueError, 'got none'), (Query(id='a', row=0), ValueError, 'got row and id'),
    (Query(vector=[1.0]), ValueError, '12 finite numbers here, got 1'),
    (Query(vector=[float('nan')] * 12), ValueError, 'finite'),
    (Query(vector=[1.] * 12, box=[0, 0, 1, 1]), ValueError, 'a vector has none'),
    (Query(text='red', box=[0, 0, 1, 1]), ValueError, 'words have none'),
    (Query(id='x'), UnknownRowError, "no id 'x'"), (Query(row=99), UnknownRowError, 'no row 99'),
    (Query(upload='0' * 64), UnknownUploadError, 'no upload'),
    (Query(id='a', box=[0, 0, 1, 1]), NoPictureError, 'not on this machine')])
def test_queries_that_are_none(query, error, says, store_service):
    with pytest.raises(error, match=says):
        store_service.search([query])


@pytest.mark.parametrize(('options', 'says'), [
    (dict(k=0), 'k'), (dict(offset=-1), 'offset'), (dict(sort='size'), 'sort is one of score'),
    (dict(rerank=True), 'no rerankers')])
def test_searches_that_are_none(options, says, store_service):
    with pytest.raises(ValueError, match=says):
        store_service.search([Query(id='a')], **options)


def test_uploads_and_parts_of_pictures(folder_service):
    name = folder_service.uploads.add(jpeg(picture(COLOURS['blue'], 1)))[0]
    assert ids(folder_service.search([Query(upload=name)], k=1)) == ['blue/1.png']
    bar = folder_service.search([Query(id='red/3.png', box=[0.5, 0, 0.5, 1])], k=1)
    assert ids(bar) == ['red/0.png'], 'without its grey bar it is plain'
    embedded = folder_service.embed(Query(upload=name))
    assert len(embedded['embedding']) == 12
    assert embedded['fingerprint'] == folder_service.fingerprint


def test_results_are_sorted_by_date_and_folder(folder_service):
    by_date = folder_service.search(sort='date', k=12)['results']
    assert [hit['date'] for hit in by_date] == sorted((hit['date'] for hit in by_date),
                                                      reverse=True)
    found = folder_service.search([Query(id='red/0.png')], sort='folder', k=11)
    assert ids(found) == sorted(ids(found)) and len(ids(found)) == 11


def test_near_duplicates_stand_behind_the_best(services, tmp_path):
    rows = torch.randn(6, 12)
    rows[4], rows[5] = rows[1] * 2, rows[2] * 2  # whose cosines are the same bit for bit
    service = services(Source('g', tmp_path / 'state'), Gallery(rows, list('abcdef')))
    found = service.search([Query(vector=rows[1].tolist())], k=6, stack=True)['results']
    behind = {hit['id']: len(hit['stacked']) for hit in found}
    assert sorted(behind) == list('abcd') and behind['b'] == behind['c'] == 1
    assert behind['a'] == behind['d'] == 0


def test_a_projection_is_searched_through_and_taken_away(store_service):
    before = ids(store_service.search([Query(id='a')]))
    projection = torch.zeros(12, 2)
    projection[0, 0] = projection[1, 1] = 1
    store_service.use(projection)
    generation = store_service.generation
    found = store_service.search([Query(id='a')])
    rows = {name: normalize(row[:2], dim=0) for name, row in vectors(store_service).items()}
    assert ids(found) == sorted('bcde', key=lambda name: -float(rows['a'] @ rows[name]))
    assert store_service.info()['projected']
    query = vectors(store_service)['a'].tolist()
    assert ids(store_service.search([Query(vector=query)], k=1)) == ['a']
    store_service.use(None)
    assert ids(store_service.search([Query(id='a')])) == before
    assert store_service.generation == generation + 1


def test_published_and_withdrawn(services, tmp_path):
    service = services(Source('g', tmp_path / 'state'))
    assert service.info()['images'] == 0 and service.generation == 0
    assert service.search()['results'] == []
    with pytest.raises(UnknownRowError, match='Nothing is served yet'):
        service.search([Query(row=0)])
    service.publish(Gallery(torch.randn(3, 12), list('abc')))
    assert service.info()['images'] == 3 and service.generation == 1
    snapshot, gallery = service.both()
    assert list(gallery.ids) == snapshot.ids == list('abc')
    service.withdraw()
    with pytest.raises(UnknownRowError):
        service.current()


def test_what_is_known_of_a_row(folder_service):
    handle = folder_service.search([Query(id='green/2.png')])['queries'][0]['row']
    item = folder_service.item(handle)
    assert (item['name'], item['folder'], item['label']) == ('2.png', 'green', 'green')
    assert (item['width'], item['height'], item['camera']) == (60, 40, 'Cam green')
    assert item['date'] == '2022-05-31 10:00:00' and 'path' not in item
    folder_service.show_paths = True
    assert folder_service.item(handle)['path'] == folder_service.name_of(handle)
    with pytest.raises(UnknownRowError):
        folder_service.item(4711)


def test_how_far_the_encoding_is():
    assert Encoding(30, 100, True, 7.04).as_dict() == dict(
        done=30, total=100, running=True, rate=7.0, seconds_left=10)
    assert Encoding(100, 100, False, 7.0).as_dict()['seconds_left'] is None
    assert Encoding(0, 100, True).as_dict()['seconds_left'] is None


def test_a_part_of_a_picture():
    pixels = np.arange(200, dtype=np.uint8).reshape(10, 20, 1)
    np.testing.assert_array_equal(cut(pixels, [0.25, 0.5, 0.5, 0.5]), pixels[5:, 5:15])
    np.testing.assert_array_equal(cut(pixels, [0, 0, 1, 1]), pixels)


@pytest.mark.parametrize(('box', 'says'), [
    ([0, 0, 1], 'A box is'), ([-0.1, 0, 1, 1], 'within 0 and 1'), ([0.5, 0, 0.6, 1], 'within'),
    ([0, 0.5, 1, 0.6], 'within'), ([0.5, 0.5, 0.01, 0.5], 'no pixel of the picture of 20 x 10')])
def test_boxes_that_are_none(box, says):
    with pytest.raises(ValueError, match=says):
        cut(np.zeros((10, 20, 3), np.uint8), box)


def test_what_is_shown_is_counted_and_kept(services, store_service, tmp_path):
    import json as plain

    from retrieval.server.service import Query, Service
    rows = store_service.own_gallery.embeddings
    for _ in range(2):
        store_service.search([Query(vector=rows[1].tolist())], k=2, stack=False)
    store_service.search()
    assert store_service.returned['b'] == 2 and sum(store_service.returned.values()) == 4
    store_service.close()
    kept = plain.loads((store_service.source.state / 'returned.json').read_text())
    assert next(iter(kept.values())) == 2
    again = Service(store_service.served, store_service.source)
    assert again.returned == store_service.returned

"""The interface as clients meet it."""
import csv
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.rerank import LocalRerank
from retrieval.server.follow import follow_folder
from retrieval.server.service import Source

from ..scenes import resized, scene
from .conftest import COLOURS, ask, jpeg, picture


def search(client, **body):
    answer = client.post('/v1/search', json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def row_of(client, name):
    return next(hit['row'] for hit in search(client, k=100)['results'] if hit['id'] == name)


def test_a_picture_that_is_sent_finds_its_like(client):
    sent = client.post('/v1/uploads', content=jpeg(picture(COLOURS['green'], 2)))
    assert sent.status_code == 200 and sent.json()['width'] == 60 and sent.json()['height'] == 40
    found = search(client, queries=[dict(upload=sent.json()['upload'])], k=4, stack=False)
    first = found['results'][0]
    assert first['id'] == 'green/2.png' and first['score'] > 0.999
    assert first['folder'] == first['label'] == 'green' and first['name'] == '2.png'
    assert (first['width'], first['height']) == (60, 40)
    assert {hit['folder'] for hit in found['results']} == {'green'} and found['total'] == 12
    assert found['threshold'] is None and found['no_match'] is False


def test_scores_are_those_of_the_retriever(client, folder_service):
    """An independent product of the gallery's own embeddings."""
    found = search(client, queries=[dict(id='red/1.png')], k=11, stack=False)['results']
    gallery = folder_service.own_gallery
    unit = torch.nn.functional.normalize(gallery.embeddings)
    names = [name.split('pictures/')[1] for name in gallery.ids]
    scores = dict(zip(names, (unit @ unit[names.index('red/1.png')]).tolist(), strict=True))
    assert {hit['id'] for hit in found} == set(names) - {'red/1.png'}
    assert np.allclose([hit['score'] for hit in found], [scores[hit['id']] for hit in found],
                       atol=1e-5)
    assert [hit['score'] for hit in found] == sorted((hit['score'] for hit in found), reverse=True)


def test_plus_and_minus(client):
    red, blue = row_of(client, 'red/0.png'), row_of(client, 'blue/0.png')
    both = search(client, queries=[dict(row=red), dict(row=blue)], k=3, stack=False)['results']
    less = search(client, queries=[dict(row=red), dict(row=blue, weight=-1)], k=12, stack=False)
    ids = [hit['id'] for hit in less['results']]
    assert not {'red/0.png', 'blue/0.png'} & {*ids, *(hit['id'] for hit in both)}
    assert {name.split('/')[0] for name in ids[:3]} == {'red'} and ids[-1].startswith('blue')


def test_a_part_of_a_picture(client):
    pixels = np.full((40, 60, 3), COLOURS['red'], np.uint8)
    pixels[:20, :30] = COLOURS['blue']
    name = client.post('/v1/uploads', content=jpeg(Image.fromarray(pixels))).json()['upload']
    found = search(client, queries=[dict(upload=name, box=[0, 0, .5, .5])], k=1)['results']
    assert found[0]['folder'] == 'blue'
    outside = client.post('/v1/search', json=dict(queries=[dict(upload=name, box=[.6, 0, .6, 1])]))
    assert outside.status_code == 422 and 'box' in outside.json()['detail']


def test_without_a_query_the_rows_are_listed(client):
    whole = search(client, k=100)['results']
    assert [hit['id'] for hit in whole] == sorted(f'{name}/{n}.png' for name in COLOURS
                                                  for n in range(4))
    assert search(client, k=3, offset=4)['results'] == whole[4:7]
    assert [hit['date'][:4] for hit in search(client, k=3, sort='date')['results']] == ['2023'] * 3


def test_filters(client):
    reds = search(client, filter=dict(camera=['Cam red'], date=dict(min='2021', max='2022')))
    assert [hit['id'] for hit in reds['results']] == ['red/1.png', 'red/2.png']
    assert reds['total'] == 2
    counts = {facet['name']: facet for facet in reds['facets']}
    assert counts['folder']['values'] == [dict(value='red', count=2)]
    assert counts['date']['kind'] == 'date'
    searched = search(client, queries=[dict(id='red/0.png')], filter=dict(folder=['blue']), k=9,
                      stack=False)
    assert len(searched['results']) == 4 and searched['total'] == 4
    wrong = client.post('/v1/search', json=dict(filter=dict(colour=['red'])))
    assert wrong.status_code == 422 and 'colour' in wrong.json()['detail']
    none = search(client, queries=[dict(id='red/0.png')], filter=dict(date=['1999']))
    assert none['results'] == [] and none['total'] == 0


def test_held_to_some_rows(client):
    rows = [row_of(client, name) for name in ('blue/0.png', 'blue/3.png', 'red/2.png')]
    listed = search(client, rows=rows, filter=dict(label=['blue']))
    assert [hit['id'] for hit in listed['results']] == ['blue/0.png', 'blue/3.png']
    found = search(client, rows=rows, queries=[dict(id='red/1.png')], stack=False)
    assert found['results'][0]['id'] == 'red/2.png' and found['total'] == 3
    assert search(client, rows=[])['results'] == []


def test_says_what_was_asked_for(client):
    sent = client.post('/v1/uploads', content=jpeg(picture(COLOURS['green'], 2))).json()
    asked = search(client, queries=[dict(id='red/1.png'), dict(upload=sent['upload'])])['queries']
    assert asked[0]['id'] == 'red/1.png' and asked[0]['row'] == row_of(client, 'red/1.png')
    assert asked[1] is None


def test_near_identical_hits_stand_behind_the_best(client, folder_service):
    alone = search(client, queries=[dict(id='blue/3.png')], k=11, stack=False)['results']
    stacked = search(client, queries=[dict(id='blue/3.png')], k=11, stack=True)['results']
    shown = [hit['row'] for hit in stacked] + [row for hit in stacked for row in hit['stacked']]
    assert sorted(shown) == sorted(hit['row'] for hit in alone) and len(stacked) < len(alone)


def test_curl_sends_a_form(client):
    found = client.post('/v1/search', data=dict(k='1', filter='{"label": ["red"]}'),
                        files=dict(picture=('q.jpg', jpeg(picture(COLOURS['blue'], 0)))))
    assert found.status_code == 200 and found.json()['results'][0]['folder'] == 'red'


def test_embeddings(client):
    row = row_of(client, 'red/0.png')
    by_row = client.post('/v1/embed', json=dict(row=row)).json()['embedding']
    by_bytes = client.post('/v1/embed', content=client.get(f'/v1/image/{row}').content)
    assert np.allclose(by_row, by_bytes.json()['embedding'], atol=1e-4)
    found = search(client, queries=[dict(vector=by_row)], k=1)['results'][0]
    assert found['id'] == 'red/0.png' and found['score'] > 0.9999
    short = client.post('/v1/search', json=dict(queries=[dict(vector=[1.0])]))
    assert short.status_code == 422 and '12' in short.json()['detail']


def test_pictures_and_thumbnails(client):
    row = row_of(client, 'green/1.png')
    small = client.get(f'/v1/thumbnail/{row}?size=20')
    image = Image.open(io.BytesIO(small.content))
    assert small.headers['content-type'] == 'image/jpeg' and image.size == (60, 40)
    assert not image.getexif()
    again = client.get(f'/v1/thumbnail/{row}?size=20', headers={
        'if-none-match': small.headers['etag']})
    assert again.status_code == 304 and not again.content
    whole = client.get(f'/v1/image/{row}')
    assert whole.headers['content-type'] == 'image/png' and whole.content[1:4] == b'PNG'
    assert client.get('/v1/thumbnail/4711').status_code == 404
    item = client.get(f'/v1/items/{row}').json()
    assert item['camera'] == 'Cam green' and item['date'] == '2021-05-31 10:00:00'


def test_what_is_sent_is_shown_anew(client):
    exif = Image.Exif()
    exif[0x0110] = 'Secret'
    out = io.BytesIO()
    picture(COLOURS['red'], 1).save(out, 'JPEG', exif=exif)
    name = client.post('/v1/uploads', content=out.getvalue()).json()['upload']
    shown = client.get(f'/v1/uploads/{name}')
    assert shown.status_code == 200 and b'Secret' not in shown.content
    assert client.get(f'/v1/uploads/{"0" * 64}').status_code == 404
    assert client.get('/v1/uploads/..%2f..%2fetc%2fpasswd').status_code == 404


def test_what_is_no_picture_is_refused(client):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    for data in (b'', svg, b'%!PS-Adobe-3.0 EPSF-3.0\n', jpeg(picture((1, 2, 3), 0))[:300]):
        refused = client.post('/v1/uploads', content=data)
        assert refused.status_code == 422, data[:20]
        assert refused.headers['content-type'] == 'application/problem+json'
        assert '/tmp' not in refused.text  # noqa: S108


def test_errors_are_problems(client):
    for answer in (client.get('/v1/nothing'), client.post('/v1/search', json=dict(k=0)),
                   client.get('/v1/items/x'), client.put('/v1/info'),
                   client.post('/v1/search', content=b'{"k":')):
        body = answer.json()
        assert answer.status_code >= 400 and set(body) == {'type', 'title', 'status', 'detail'}
        assert body['status'] == answer.status_code
    said = client.post('/v1/search', json=dict(sort='size')).json()['detail']
    assert 'sort' in said and 'score' in said


def test_info_and_state(client):
    info = client.get('/v1/info').json()
    assert info['name'] == 'pictures' and info['images'] == 12 and info['has_pictures']
    assert info['encoding'] == dict(done=12, total=12, running=False, rate=0.0, seconds_left=None)
    assert {facet['name'] for facet in info['facets']} == {'label', 'folder', 'date', 'camera'}
    assert client.get('/healthz').json() == dict(status='ok')
    assert client.get('/readyz').status_code == 200
    text = client.get('/metrics').text
    assert 'retrieval_images 12' in text
    assert 'retrieval_requests_total{method="GET",path="/v1/info",status="200"} 1' in text
    paths = client.get('/openapi.json').json()['paths']
    docs = client.get('/docs').text
    assert '/v1/search' in paths and all(path in docs for path in paths) and '<script' not in docs


@pytest.fixture
def scenes_folder(services, tmp_path):
    """A service over pictures with something to see, whose results are checked."""
    folder = tmp_path / 'scenes'
    folder.mkdir()
    for number in range(3):
        Image.fromarray(scene(number)).save(folder / f'{number}.png')
    Image.fromarray(resized(scene(0), 180, 135)).save(folder / 'small.png')
    service = services(Source('scenes', tmp_path / 'state', str(folder)))
    service.model.rerankers.append(LocalRerank())
    follow_folder(service)
    service.refresh()
    service._fact_reader.join()
    return service


def test_a_result_says_where_the_query_lies_in_it(scenes_folder):
    client = ask(scenes_folder)
    part = Image.fromarray(scene(2)[60:220, 90:300])
    sent = client.post('/v1/uploads', content=jpeg(part)).json()['upload']
    first, *others = search(client, queries=[dict(upload=sent)], stack=False)['results']
    assert first['id'] == '2.png' and first['inliers'] > 50 and first['mirrored'] is False
    assert np.allclose(first['box'], [.25, 60 / 270, 210 / 360, 160 / 270], atol=0.02)
    assert all(hit['box'] is None for hit in others)
    box = [.5, .5, .5, .5]
    first = search(client, queries=[dict(id='1.png', box=box)], stack=False)['results'][0]
    assert first['id'] == '1.png' and np.allclose(first['box'], box, atol=0.02)
    plain = search(client, queries=[dict(upload=sent)], rerank=False, stack=False)['results']
    assert all('box' not in hit for hit in plain)


def test_duplicates_are_proved(scenes_folder):
    client = ask(scenes_folder)
    answer = client.post('/v1/duplicates', json=dict(prove=True, threshold=-1)).json()
    (group,) = answer['groups']
    assert [(one['name'], one['proof'], one['sure']) for one in group['members']] == [
        ('0.png', None, False), ('small.png', 'resized', True)]
    assert group['best'] == group['members'][0]['row'] and group['members'][1]['as_name'] is None


def test_duplicates_and_their_plan(client, folder_service, folder):
    twin = Image.open(folder / 'red' / '3.png').resize((120, 80))
    twin.save(folder / 'red' / 'larger.png')
    folder_service.refresh()
    groups = client.post('/v1/duplicates', json=dict(threshold=0.9999)).json()['groups']
    group = next(one for one in groups if any(m['name'] == 'red/3.png' for m in one['members']))
    assert group['best'] == row_of(client, 'red/larger.png')
    keep, others = group['best'], [row for row in group['rows'] if row != group['best']]
    plan = client.post('/v1/duplicates/plan', json=dict(groups=[dict(keep=keep, others=others)]))
    lines = list(csv.DictReader(io.StringIO(plan.text)))
    assert [line['action'] for line in lines] == ['keep'] + ['remove'] * len(others)
    assert (folder / 'red' / '3.png').exists()


def test_export(client):
    rows = [row_of(client, 'red/0.png'), row_of(client, 'blue/0.png')]
    table = client.post('/v1/export', json=dict(rows=rows, format='csv'))
    assert [line['id'] for line in csv.DictReader(io.StringIO(table.text))] == [
        'red/0.png', 'blue/0.png']
    listed = client.post('/v1/export', json=dict(rows=rows, format='json'))
    assert [one['row'] for one in json.loads(listed.content)] == rows
    packed = client.post('/v1/export', json=dict(rows=rows, format='zip'))
    assert 'attachment' in packed.headers['content-disposition']
    names = zipfile.ZipFile(io.BytesIO(packed.content)).namelist()
    assert names == ['export.csv', '0.png', '0-2.png']


def test_a_calibration_draws_a_line(services, store_service, tmp_path):
    from retrieval.evaluation import MatchCalibration
    from retrieval.server.service import Source
    calibration = MatchCalibration(0.5, method='platt', slope=8., offset=-4.)
    service = services(Source('g', tmp_path / 'other'), store_service.own_gallery,
                       calibration=calibration)
    client = ask(service)
    vector = store_service.own_gallery.embeddings[0].tolist()
    found = search(client, queries=[dict(vector=vector)], k=5)
    assert found['threshold'] == 0.5 and found['no_match'] is False
    assert found['results'][0]['match'] is True and found['results'][0]['probability'] > 0.98
    assert any(hit['match'] is False for hit in found['results'])
    opposite = search(client, queries=[dict(vector=vector, weight=-1)], k=5)
    assert opposite['results'][0]['match'] == (not opposite['no_match'])


def test_a_calibration_without_labels_draws_a_line_for_each_query(services, tmp_path):
    import torch

    from retrieval.evaluation import MatchCalibration
    from retrieval.gallery import Gallery
    from retrieval.server.service import Source
    rows = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    rows[1] = rows[0] + 0.05 * rows[1]
    service = services(Source('g', tmp_path / 'other'), Gallery(rows, list(map(str, range(400)))),
                       calibration=MatchCalibration(4., method='tail', slope=20., offset=-8.))
    client = ask(service)
    asked = [search(client, queries=[dict(row=row)], k=5) for row in (0, 2)]
    assert [hit['match'] for hit in asked[0]['results']] == [True] + 4 * [False]
    assert asked[1]['no_match'] and asked[0]['threshold'] != asked[1]['threshold']
    assert asked[0]['results'][0]['probability'] > 0.99
    assert search(client)['threshold'] is None and client.get('/v1/info').json()['calibrated']
    few = search(client, queries=[dict(row=0)], rows=list(range(6)))
    assert few['threshold'] is None and few['results'][0]['match'] is None


def test_an_empty_server_says_so(services, tmp_path):
    from retrieval.server.service import Source
    client = ask(services(Source('empty', tmp_path / 'state', str(tmp_path))))
    assert client.get('/readyz').status_code == 503
    assert client.get('/readyz').headers['retry-after'] == '1'
    assert search(client)['results'] == []
    assert client.get('/v1/info').json()['images'] == 0
    assert client.post('/v1/search', json=dict(queries=[dict(row=0)])).status_code == 404


def test_words(client, services, folder, tmp_path):
    """Against the encoder's own vectors; the calibration, which is of pictures, does not count."""
    from retrieval.evaluation import MatchCalibration
    from retrieval.server.follow import follow_folder
    from retrieval.server.service import Source

    class Words(torch.nn.Module):
        has_words = True

        def forward(self, images):
            return images.mean((2, 3))

        def embed_words(self, texts):
            return torch.tensor([COLOURS[text] for text in texts], dtype=torch.float32)

        def word_state(self):
            return []

    assert client.get('/v1/info').json()['words'] is False
    refused = client.post('/v1/search', json=dict(queries=[dict(text='red')]))
    assert refused.status_code == 422 and 'has no text tower' in refused.json()['detail']
    service = services(Source('pictures', tmp_path / 'words', str(folder)),
                       calibration=MatchCalibration(0.9999, method='platt', slope=9.))
    service.model.image_encoder = Words()
    follow_folder(service)
    service.refresh()
    asked = ask(service)
    assert asked.get('/v1/info').json()['words'] is True
    found = search(asked, queries=[dict(text='red')], k=4, stack=False)
    assert {hit['folder'] for hit in found['results']} == {'red'} and found['queries'] == [None]
    assert found['threshold'] is None and not found['no_match']
    assert {hit['match'] for hit in found['results']} == {None}
    mixed = search(asked, queries=[dict(text='green'), dict(id='red/0.png', weight=-2)], k=12,
                   stack=False)['results']
    assert mixed[0]['folder'] == 'green' and mixed[-1]['folder'] == 'red'
    for wrong in (dict(text=''), dict(text='red', box=[0, 0, 1, 1]), dict(text='red', id='x')):
        assert asked.post('/v1/search', json=dict(queries=[wrong])).status_code == 422
    assert np.allclose(asked.post('/v1/embed', json=dict(text='blue')).json()['embedding'],
                       COLOURS['blue'])

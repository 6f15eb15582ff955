"""Marks, training, switching and undoing."""
import csv

import torch

from retrieval.gallery import Gallery
from retrieval.server.marks import train_projection
from retrieval.server.service import Source

from .conftest import COLOURS, ask, jpeg, picture


def noisy_classes(seed=0, classes=4, each=12):
    """Rows whose first four numbers are the class, drowned in the other twelve."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes * each) % classes
    kind = torch.nn.functional.one_hot(labels, 4).float()
    noise = torch.randn(len(labels), 12, generator=generator)
    return torch.cat([kind, noise], 1), labels


def test_marks_are_kept(client, folder_service):
    listed = client.post('/v1/search', json={}).json()['results']
    one, other = listed[0]['row'], listed[1]['row']
    body = dict(query=dict(row=one), row=other, right=True)
    assert client.post('/v1/feedback', json=body).json()['right'] == 1
    counts = client.post('/v1/feedback', json=dict(body, right=False)).json()
    assert (counts['right'], counts['wrong']) == (0, 1)  # the later one counts
    name = client.post('/v1/uploads', content=jpeg(picture(COLOURS['red'], 1))).json()['upload']
    client.post('/v1/feedback', json=dict(query=dict(upload=name), row=one, right=True))
    lines = list(csv.DictReader((folder_service.source.state / 'marks.csv').open()))
    assert [line['right'] for line in lines] == ['1', '0', '1'] and name in lines[2]['query']
    assert client.get('/v1/feedback').json()['queries'] == 2
    refused = client.post('/v1/feedback', json=dict(query=dict(vector=[1]), row=one, right=True))
    assert refused.status_code == 422
    assert client.post('/v1/training').status_code == 422


def test_training_makes_held_out_marks_better_and_is_undone(services, tmp_path):
    vectors, labels = noisy_classes()
    service = services(Source('g', tmp_path / 'state'),
                       Gallery(vectors, [f'{n}' for n in range(len(labels))]))
    client = ask(service)
    rows = {hit['id']: hit['row'] for hit in client.post(
        '/v1/search', json=dict(k=100)).json()['results']}
    for query in range(24):
        for step in (4, 8, 1, 2):
            other = (query + step) % len(labels)
            client.post('/v1/feedback', json=dict(
                query=dict(row=rows[str(query)]), row=rows[str(other)],
                right=bool(labels[query] == labels[other])))
    counts = client.get('/v1/feedback').json()
    assert counts['right'] == counts['wrong'] == 48 and counts['can_train']
    assert client.post('/v1/model', json=dict(use='trained')).status_code == 404
    trained = client.post('/v1/training').json()
    assert trained['after']['ordered'] > trained['before']['ordered'] + 0.1
    assert trained['changed'] and trained['marks'] == 96

    def purity():
        hits = [client.post('/v1/search', json=dict(
            queries=[dict(row=rows[str(n)])], k=5, stack=False)).json()['results']
            for n in range(24, 48)]
        return sum(int(labels[int(hit['id'])] == labels[n]) for n, found in
                   zip(range(24, 48), hits, strict=True) for hit in found)
    before = purity()
    assert client.post('/v1/model', json=dict(use='trained')).json()['use'] == 'trained'
    assert client.get('/v1/info').json()['projected'] is True
    assert purity() > before
    vector = client.post('/v1/search', json=dict(
        queries=[dict(vector=vectors[0].tolist())], k=1)).json()['results'][0]
    assert vector['id'] == '0' and vector['score'] > 0.999
    # after a restart it is in use again, until one goes back, and not by another model
    again = ask(services(service.source, Gallery(vectors, [f'{n}' for n in range(len(labels))])))
    assert again.get('/v1/info').json()['projected'] is True
    other = services(service.source, Gallery(vectors, [f'{n}' for n in range(len(labels))]))
    other.served.fingerprint = dict(weights='others')
    assert ask(other).get('/v1/info').json()['projected'] is False
    assert client.post('/v1/model', json=dict(use='original')).json()['use'] == 'original'
    assert purity() == before
    again = ask(services(service.source, Gallery(vectors, [f'{n}' for n in range(len(labels))])))
    assert again.get('/v1/info').json()['projected'] is False


def test_the_gradient_pulls_right_pairs_together():
    vectors, labels = noisy_classes(1)
    unit = torch.nn.functional.normalize(vectors)
    ones, others = unit[:40], unit[4:44]
    wrong = unit[1:41]
    right = torch.cat([torch.ones(40), torch.zeros(40)])
    found = train_projection(torch.cat([ones, ones]), torch.cat([others, wrong]), right)
    assert found.shape == (16, 16) and bool(found.isfinite().all())
    size = found.norm(dim=1)
    assert size[:4].mean() > size[4:].mean()  # the class counts for more than the noise

"""Several servers over one Milvus."""
import importlib.util
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch

from retrieval.gallery import Fingerprint
from retrieval.index import MilvusIndex
from retrieval.retrievers import ImageToImageRetriever
from retrieval.server import Client
from retrieval.server.served import Served
from retrieval.server.service import Query, Service, Source

from ..commands.conftest import (  # noqa: F401  (fixtures)
    checkpoint,
    config,
    folder,
    gallery,
    work_dir,
)
from .conftest import ask

ROWS = torch.eye(8)


@pytest.fixture
def milvus(tmp_path):
    """An index of six rows in an embedded Milvus."""
    if not all(map(importlib.util.find_spec, ('pymilvus', 'milvus_lite'))):
        pytest.skip('needs pymilvus and milvus-lite')
    index = MilvusIndex(str(tmp_path / 'x.db'), 'pictures')
    index.add(ROWS[:6], [f'r{row}' for row in range(6)],
              dict(label=list('aabbcc'), year=list(range(2020, 2026))))
    yield index
    index.close()


def servers(uri, parent, count=2):
    return [Service(Served(ImageToImageRetriever(
        torch.nn.Flatten(), MilvusIndex(uri, 'pictures'), topk=10).eval(), []),
        Source('x', parent / str(number))) for number in range(count)]


def test_each_server_sees_what_another_process_has_changed(milvus, tmp_path):
    both = servers(milvus._store.connection.uri, tmp_path)
    try:
        one, other = map(ask, both)
        for client in (one, other):
            found = client.post('/v1/search', json=dict(
                queries=[dict(id='r2')], filter=dict(label=['b']))).json()
            assert [(hit['id'], hit['label'], hit['metadata']) for hit in found['results']] == [
                ('r3', 'b', dict(year=2023))]
            assert {facet['name'] for facet in found['facets']} == {'label', 'year'}
        milvus.add(ROWS[6:7], ['r6'], dict(label=['z'], year=[2030]))
        milvus.remove(['r0'])
        milvus.upsert(ROWS[7:], ['r1'], dict(label=['a'], year=[2021]))
        listed = [client.post('/v1/search', json={}).json()['results'] for client in (one, other)]
        assert listed[0] == listed[1]  # the numbers of rows too
        assert [hit['id'] for hit in listed[0]] == ['r1', 'r2', 'r3', 'r4', 'r5', 'r6']
        for client in (one, other):
            found = client.post('/v1/search', json=dict(queries=[dict(
                vector=ROWS[7].tolist())], k=1)).json()['results'][0]
            assert found['id'] == 'r1' and found['score'] == 1 and found['row'] == 1
            assert client.post('/v1/search', json=dict(queries=[dict(id='r0')])).status_code == 404
            item = client.get(f'/v1/items/{listed[0][-1]["row"]}').json()
            assert item['id'] == 'r6' and item['label'] == 'z'
            refused = client.post('/v1/items', json=dict(items=[dict(id='a', vector=[1.] * 8)]))
            assert refused.status_code == 409
        milvus.remove(list(milvus.ids))
        assert one.get('/readyz').status_code == 503
        milvus.add(ROWS[:1], ['again'], dict(label=['a'], year=[1]))
        assert other.post('/v1/search', json={}).json()['total'] == 1
        assert one.get('/readyz').status_code == 200
    finally:
        for service in both:
            service.close()
            service.model.prototype.close()


def test_rows_of_another_model_are_not_searched(milvus, tmp_path):
    """Where another process replaces the collection, until a server of that model is started."""
    model = ImageToImageRetriever(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 8)),
                                  MilvusIndex(milvus._store.connection.uri, 'pictures'), topk=3)
    service = Service(Served(model.eval(), []), Source('x', tmp_path))
    try:
        client = ask(service)
        query = dict(queries=[dict(vector=ROWS[2].tolist())])
        assert client.post('/v1/search', json=query).status_code == 200  # nobody knows whose
        milvus.overwrite = True
        for made_by, status in ((Fingerprint('another'), 503), (model.fingerprint(), 200)):
            milvus.fingerprint = made_by
            milvus.replace(ROWS[:5], list('abcde'), dict(label=list('aabbc'), year=range(5)))
            answer = client.post('/v1/search', json=query)
            assert answer.status_code == status
            assert ("the encoder's weights differ" in answer.text) == (status == 503)
    finally:
        service.close()
        model.prototype.close()


def test_two_models_on_one_name(milvus, tmp_path):
    """The servers of both models run, and the name decides whose answers; at no moment neither."""
    uri = milvus._store.connection.uri
    torch.manual_seed(0)
    models = [ImageToImageRetriever(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 8)),
                                    MilvusIndex(uri, 'pictures'), topk=3).eval() for _ in range(2)]
    milvus.overwrite, milvus.keep = True, True
    query = dict(queries=[dict(vector=ROWS[2].tolist())], k=3)
    services = []

    def answers():
        found = [ask(service).post('/v1/search', json=query) for service in services]
        ready = [ask(service).get('/readyz').status_code for service in services]
        assert [one.status_code for one in found] == ready
        return [[hit['id'] for hit in one.json()['results']] if one.status_code == 200 else None
                for one in found]

    def replace(model, ids):
        milvus.fingerprint = model.fingerprint()
        milvus.replace(ROWS[:len(ids)], list(ids), dict(label=[*ids], year=range(len(ids))))
    try:
        replace(models[0], 'abcd')
        for number, model in enumerate(models):  # the second one waits for its rows
            services.append(Service(Served(model, []), Source('x', tmp_path / str(number))))
        assert "the encoder's weights differ" in services[1].trouble
        assert ask(services[1]).get('/healthz').status_code == 200
        assert ask(services[1]).get('/v1/info').status_code == 503
        assert answers() == [['c', 'a', 'b'], None] and services[0].trouble is None
        reads = []
        services[1].model.prototype._store.rows = lambda: reads.append(1)
        assert answers()[1] is None and not reads  # the rows of others are not read
        del services[1].model.prototype._store.rows
        snapshot = services[0].current()
        replace(models[1], 'stuvw')
        assert snapshot.gallery.index.search(ROWS[2:3], 1).ids == [['c']]  # what runs, ends
        assert answers() == [None, ['u', 's', 't']] and services[1].trouble is None
        milvus.undo()
        assert answers() == [['c', 'a', 'b'], None]
        milvus.undo()
        assert answers() == [None, ['u', 's', 't']]
    finally:
        for service in services:
            service.close()
        for model in models:
            model.prototype.close()


def test_rows_that_are_read_anew_within_a_search_are_not_mixed_up(milvus, tmp_path):
    """The rows change between the look and the search: it is made again, over the new rows."""
    service, = servers(milvus._store.connection.uri, tmp_path, 1)
    try:
        embedding, changed = service.embedding, []

        def change(snapshot, query):
            if not changed:
                changed.append(True)
                milvus.remove(['r0'])  # those behind move up
                milvus.add(ROWS[6:7] + 0.9 * ROWS[5:6], ['near'], dict(label=['c'], year=[1]))
            return embedding(snapshot, query)
        service.embedding = change
        found = service.search([Query(vector=ROWS[5].tolist())], k=2)['results']
        assert [hit['id'] for hit in found] == ['r5', 'near']
    finally:
        service.close()
        service.model.prototype.close()


@pytest.mark.slow
def test_two_processes_on_one_milvus(gallery, config, checkpoint, folder, tmp_path):  # noqa: F811
    """As a person starts them; RETRIEVAL_TEST_MILVUS is the address of a server."""
    uri = os.environ.get('RETRIEVAL_TEST_MILVUS')
    if not uri:
        pytest.skip('RETRIEVAL_TEST_MILVUS names no Milvus server')
    name = f'test_{uuid.uuid4().hex[:12]}'
    options = ['--cfg-options', 'model.index.type=retrieval.MilvusIndex',
               f'model.index.uri={uri}', f'model.index.collection={name}']
    from retrieval.gallery import Gallery
    rows, index = Gallery.load(gallery), MilvusIndex(uri, name)
    index.add(rows.embeddings, rows.ids, dict(label=rows.labels))
    root = str(Path(__file__).parents[2])
    processes = [subprocess.Popen(
        [sys.executable, '-m', 'retrieval', 'serve', str(config), str(checkpoint), '--port', '0',
         '--state', str(tmp_path / 'state'), *options], stdout=subprocess.PIPE, text=True,
        cwd=tmp_path, env=os.environ | {'PYTHONPATH': root, 'PYTHONUNBUFFERED': '1'})
        for _ in range(2)]
    try:
        one, other = (Client(re.search(r'http://127\.0\.0\.1:\d+', next(
            line for line in process.stdout if 'Serving' in line))[0]) for process in processes)
        assert one.info()['images'] == other.info()['images'] == 20
        picture = folder / 'class1' / '2.png'
        upload = one.upload(picture)  # at one, and asked for at the other
        answers = [client.search(dict(upload=upload), k=5, stack=False)['results']
                   for client in (one, other)]
        assert answers[0] == answers[1] and len(answers[0]) == 5
        best = answers[0][0]
        assert other.thumbnail(best['row']) == one.thumbnail(best['row'])
        index.add(rows.embeddings[:1], ['new'], dict(label=[0]))
        for client in (one, other):
            end = time.monotonic() + 20  # at session consistency others see it a moment later
            while 'new' not in [hit['id'] for hit in client.search(k=30)['results']]:
                assert time.monotonic() < end
            assert client.search(dict(id='new'), k=1)['results'][0]['score'] > 0.9999
        processes[0].kill()  # the other goes on, and a new one finds everything
        assert other.search(dict(upload=upload), k=5, stack=False)['results'][0]['id'] == best['id']
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        index.close()

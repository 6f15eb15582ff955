"""An index alone: rows, ids and vectors are searched, pictures where an encoder is known."""
import numpy as np
import pytest
import torch

from retrieval.commands.serve import open_service, parser
from retrieval.index import ExactIndex, FaissIndex, index_type, open_index

from .conftest import COLOURS, ask, jpeg, picture


@pytest.fixture
def vectors():
    return torch.randn(30, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('make', [
    ExactIndex, lambda: ExactIndex('euclidean'), FaissIndex,
    lambda: FaissIndex('IVF2,Flat', 'inner_product', dict(nprobe=2)),
    lambda: FaissIndex('SQ8', rescore=True)])
def test_an_index_is_searched_by_row_id_and_vector(make, vectors, tmp_path):
    index = make()
    index.add(vectors, [f'row {number}' for number in range(30)])
    path = tmp_path / 'x.index'
    index.save(path)
    assert index_type(path) == type(index).__name__
    service, follower, reload = open_service(parser().parse_args([str(path)]))
    try:
        assert follower is None
        client = ask(service, reload=reload)
        info = client.get('/v1/info').json()
        assert info['images'] == 30 and not info['encodes'] and not info['writable']
        assert info['model'] == type(index).__name__ and info['has_pictures'] is False

        def found(**query):
            answer = client.post('/v1/search', json=dict(queries=[query], k=4, stack=False))
            assert answer.status_code == 200, answer.text
            return [(hit['id'], hit['score']) for hit in answer.json()['results']]
        query = vectors[7] if index.similarity.name != 'cosine_similarity' else \
            torch.nn.functional.normalize(vectors[7], dim=0)
        wanted = open_index(path).search(query[None], 5)
        names = [name for name in wanted.ids[0] if name != 'row 7']
        for asked in (dict(row=7), dict(id='row 7')):
            assert [name for name, _ in found(**asked)] == names[:4]
        exact = found(vector=vectors[7].tolist())
        oracle = open_index(path).search(vectors[7][None], 4)
        assert [name for name, _ in exact] == oracle.ids[0]
        assert np.allclose([score for _, score in exact], oracle.scores[0], atol=1e-5)
        assert client.post('/v1/search', json=dict(k=3)).json()['total'] == 30

        data = jpeg(picture(COLOURS['red'], 1))
        for refused in (client.post('/v1/uploads', content=data),
                        client.post('/v1/embed', content=data),
                        client.post('/v1/search', files=dict(picture=('q.jpg', data))),
                        client.post('/v1/model/reload'),
                        client.post('/v1/items', json=dict(items=[dict(id='a', vector=[1.] * 8)]))):
            assert 400 <= refused.status_code < 500, refused.text
        assert '--config' in client.post('/v1/uploads', content=data).json()['detail']
        assert client.post('/v1/duplicates', json={}).status_code == 422
        assert client.get('/v1/map').status_code == 422
        assert client.get('/v1/image/3').status_code == 404
    finally:
        service.close()


def test_what_gives_no_vectors_back_is_searched_by_vector(vectors, tmp_path):
    index = FaissIndex('IVF2,PQ4x4fs')
    index.add(vectors, [f'row {number}' for number in range(30)])
    index.save(tmp_path / 'x.index')
    service, _, _ = open_service(parser().parse_args([str(tmp_path / 'x.index')]))
    try:
        client = ask(service)
        refused = client.post('/v1/search', json=dict(queries=[dict(row=1)]))
        assert refused.status_code == 422 and 'rescore' in refused.json()['detail']
        found = client.post('/v1/search', json=dict(queries=[dict(vector=vectors[1].tolist())]))
        assert len(found.json()['results']) == 30
    finally:
        service.close()

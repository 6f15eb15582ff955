"""Cosine in faiss: vectors of length 1, searched by inner product or by distance."""
import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex

from ..toys import blobs, ids


def test_zero_vectors():
    index = FaissIndex()
    index.add(np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), list('abc'))
    found = index.search(np.array([[2.0, 0.0]]), 3)
    assert found.ids == [['a', 'b', 'c']] and found.scores.tolist() == [[1.0, 0.0, -1.0]]
    by_distance = FaissIndex('HNSW8_PQ8')
    with pytest.raises(ValueError, match='row 256 is'):
        by_distance.add(np.concatenate([blobs(256), blobs(1) * 0]), range(257))
    assert len(by_distance) == 0
    lists = FaissIndex('IVF4,Flat', search_parameters=dict(nprobe=4))
    lists.add(blobs(200), ids(200))
    exact = ExactIndex()
    exact.add(blobs(200), ids(200))
    queries = np.concatenate([blobs(1) * 0, blobs(3)])
    np.testing.assert_allclose(lists.search(queries, 5).scores, exact.search(queries, 5).scores,
                               atol=1e-6)


@pytest.mark.parametrize(('factory', 'similarity', 'by_distance'), [
    ('IVF4,Flat', 'cosine_similarity', True), ('IVF4,Flat', 'inner_product', False),
    ('Flat', 'cosine_similarity', False), ('HNSW8', 'cosine_similarity', False)])
def test_lists_are_searched_by_distance(factory, similarity, by_distance):
    index = FaissIndex(factory, similarity, search_parameters=(
        dict(nprobe=4) if 'IVF' in factory else None))
    index.add(blobs(200), ids(200))
    assert index.store.engine.l2 == by_distance
    vectors = torch.as_tensor(blobs(200)).float()
    if similarity == 'cosine_similarity':
        vectors = torch.nn.functional.normalize(vectors, dim=1)
    wanted = (vectors[:5] @ vectors.T).sort(dim=1, descending=True).values[:, :3]
    torch.testing.assert_close(index.search(blobs(200)[:5], 3).scores, wanted, atol=1e-5,
                               rtol=1e-5)

"""The older indexer: arrays or tensors, indices first."""
import faiss
import numpy as np
import pytest
import torch

from retrieval.inference import FaissIndexer


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
def test_indices_come_first(kind, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    indexer = FaissIndexer()
    assert indexer.index is None and indexer.emb_dim is None
    indexer.train_index(kind(vectors[:20]))
    indexer.add_to_index(kind(vectors[20:]))
    indices, distances = indexer.search_nn(kind(vectors), 3)
    flat = faiss.IndexFlatL2(4)
    flat.add(vectors)
    expected, wanted = flat.search(vectors, 3)
    assert type(indices) is type(kind(vectors)) and np.array_equal(np.asarray(indices), wanted)
    assert np.allclose(np.asarray(distances), expected, atol=1e-5)
    indexer.save(tmp_path / 'index')
    again = FaissIndexer(emb_dim=4)
    again.load(tmp_path / 'index')
    assert again.index.ntotal == 30 and again.emb_dim == 4


def test_an_index_to_go_on_with():
    indexer = FaissIndexer(faiss.IndexFlatIP(2))
    indexer.add_to_index(torch.tensor([[1., 0], [3, 0]]))
    assert indexer.search_nn(torch.tensor([[1., 0]]), 2)[0].tolist() == [[1, 0]]

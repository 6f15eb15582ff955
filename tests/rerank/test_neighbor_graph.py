"""Neighbour lists against full sorts, and similarities of pairs one by one."""
import numpy as np
import pytest
import torch

from retrieval.ranking import PreparedGallery
from retrieval.rerank.neighbor_graph import neighbor_lists, pair_similarities, score_tiles

from .dense import ranking, similarities

NAMES = ['cosine_similarity', 'inner_product', 'euclidean']


@pytest.fixture
def vectors():
    made = np.random.default_rng(0).integers(-3, 4, (150, 3)).astype(np.float32)
    made[7] = made[30]  # whole numbers, so that many scores are equal
    return made


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(('count', 'tiles'), [(5, None), (5, (64, 32)), (400, (64, 64))])
def test_the_nearest_other_rows_of_every_row(name, count, tiles, vectors, monkeypatch):
    vectors = vectors[np.abs(vectors).any(1)]
    gallery = PreparedGallery(torch.from_numpy(vectors), name)
    if tiles:
        monkeypatch.setattr(PreparedGallery, 'tiles', lambda self, *args, **options: tiles)
    found = neighbor_lists(gallery, count)
    scores = similarities(vectors, vectors, name)
    width = min(count, len(vectors) - 1)
    assert found.rows.shape == found.scores.shape == (len(vectors), width)
    for row, one in enumerate(scores):
        np.testing.assert_allclose(found.scores[row], one[found.rows[row]], atol=1e-4)
        wanted = ranking(one, width, row)
        np.testing.assert_allclose(found.scores[row], one[wanted], atol=1e-4)
        assert row not in found.rows[row]
        if name == 'inner_product':  # exact, so ties are too
            assert found.rows[row].tolist() == list(wanted)
    np.testing.assert_allclose(found.least, scores.min(1), atol=1e-4)


def test_a_row_alone_has_no_others():
    found = neighbor_lists(PreparedGallery(torch.ones(1, 3), 'inner_product'), 5)
    assert found.rows.shape == (1, 0) and found.least.tolist() == [3]


def test_tiles_are_the_whole(vectors):
    gallery = PreparedGallery(torch.from_numpy(vectors), 'inner_product')
    queries = gallery.prepare_queries(torch.from_numpy(vectors[:4]))
    parts = [(start, scores.copy()) for start, scores in score_tiles(gallery, queries, 64)]
    assert [start for start, _ in parts] == [0, 64, 128]
    np.testing.assert_array_equal(np.concatenate([scores for _, scores in parts], axis=1),
                                  vectors[:4] @ vectors.T)


@pytest.mark.parametrize('name', ['cosine_similarity', 'euclidean'])
def test_single_pairs_in_pieces(name, vectors, monkeypatch):
    monkeypatch.setattr('retrieval.rerank.neighbor_graph._GATHERED', 30)
    vectors = vectors[np.abs(vectors).any(1)]
    gallery = PreparedGallery(torch.from_numpy(vectors), name)
    query, row = np.random.default_rng(1).integers(0, 40, (2, 101))
    queries = gallery.prepare_queries(torch.from_numpy(vectors))
    found = pair_similarities(gallery, queries, query, row)
    np.testing.assert_allclose(found, similarities(vectors, vectors, name)[query, row], atol=1e-5)
    assert found.dtype == np.float32

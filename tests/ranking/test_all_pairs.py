from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking import PreparedGallery, topk
from retrieval.ranking.all_pairs import best_others


def joined(shares, k):
    scores = np.concatenate([share[0].numpy() for share in shares], axis=1)
    rows = np.concatenate([share[1].numpy() for share in shares], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


@pytest.mark.parametrize('parts', [1, 2, 3])
@pytest.mark.parametrize(('count', 'width', 'k', 'budget'), [
    (500, 3, 7, 64 * 128), (1000, 4, 20, 64 * 320), (300, 2, 64, 100), (70, 3, 64, 2 ** 22),
    (5, 2, 4, 2 ** 22), (640, 1, 3, 1)])
def test_against_the_whole_matrix_with_many_ties(count, width, k, budget, parts):
    vectors = torch.from_numpy(np.random.default_rng(count).integers(-2, 3, (count, width))).float()
    gallery = PreparedGallery(vectors, 'inner_product')
    scores = (vectors.double() @ vectors.double().T).fill_diagonal_(-torch.inf)
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    best, rows = joined([best_others(gallery, k, budget, part, parts) for part in range(parts)], k)
    found = min(k, count - 1)
    assert rows[:, :found].tolist() == expected.indices[:, :found].tolist()
    assert best[:, :found].tolist() == expected.values[:, :found].tolist()
    assert (rows[:, found:] == -1).all()


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'euclidean'])
def test_the_same_as_a_search(similarity):
    vectors = torch.randn(700, 12)
    gallery = PreparedGallery(vectors, similarity)
    scores, rows = best_others(gallery, 9, 64 * 256)
    found = topk(vectors, vectors, 9, similarity, exclude=torch.arange(700))
    assert torch.equal(rows, found.indices)
    torch.testing.assert_close(scores, found.scores, rtol=1e-5, atol=1e-5)


def test_identical_vectors_take_no_more_than_others():
    vectors = torch.randn(1, 8).expand(3000, 8)
    scores, rows = best_others(PreparedGallery(vectors), 5, 64 * 1024)
    assert rows[10].tolist() == [0, 1, 2, 3, 4] and rows[2].tolist() == [0, 1, 3, 4, 5]
    assert (scores == scores[0, 0]).all()

"""Selections and ranks by NumPy against stable sorts, with ties, gaps and skew."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking.cpu import best_columns, lower_bound, ranks_in_block, ranks_of_query
from retrieval.ranking.ranks import BEYOND, Depth

from .toys import stable, tile


@pytest.mark.parametrize('distinct', [1, 5, 10 ** 6])
@pytest.mark.parametrize(('width', 'k'), [
    (1, 1), (7, 3), (100, 1), (100, 99), (100, 100), (100, 130), (3000, 10), (3000, 700),
    (5000, 64)])
def test_best_columns(width, k, distinct):
    scores = tile(width + k, 9, width, distinct)
    values, columns = best_columns(scores, k)
    expected, places = stable(scores, min(k, width))
    assert np.array_equal(values, expected) and np.array_equal(columns, places)


def test_a_query_with_nearly_everything_above_the_rest():
    scores = np.zeros((50, 4000), dtype=np.float32)
    scores[:, :10] = np.arange(10)  # fifty queries, one of which has a thousand ties at its bar
    scores[7] = 5
    values, columns = best_columns(scores, 8)
    expected, places = stable(scores, 8)
    assert np.array_equal(values, expected) and np.array_equal(columns, places)


@pytest.mark.parametrize('k', [1, 9, 200])
def test_the_bar_is_reached_by_k(k):
    scores = tile(k, 20, 1000, 10 ** 6)
    bar = lower_bound(scores, k)
    assert ((scores >= bar[:, None]).sum(axis=1) >= k).all()


@pytest.mark.parametrize('distinct', [1, 3, 50, 1000])
@pytest.mark.parametrize('seed', range(5))
def test_ranks_of_a_query(seed, distinct):
    numbers = np.random.default_rng(seed)
    scores = numbers.integers(0, distinct, 600).astype(np.float32)
    rows = np.sort(numbers.choice(600, 200, replace=False))
    order = sorted(range(600), key=lambda row: (-scores[row], row))
    chosen = set(rows.tolist())
    expected = [place for place, row in enumerate(order, 1) if row in chosen]
    assert ranks_of_query(scores, rows, scores[rows]).tolist() == expected


def test_a_block_without_relevant_rows():
    none = torch.zeros(0, dtype=torch.int64)
    for depth in (Depth(everything=True), Depth(best=5), Depth(rows=3, relevant=True)):
        ranks = ranks_in_block(np.eye(3, 5, dtype=np.float32), (none, none), None, depth)
        assert ranks.num_relevant.tolist() == [0, 0, 0] and len(ranks.ranks) == 0


@pytest.mark.parametrize('depth', [Depth(relevant=True), Depth(rows=300), Depth(rows=899)])
@pytest.mark.parametrize('steps', [3, 40, 4000])
def test_ranks_among_scores_that_differ_in_the_last_bit_or_not_at_all(steps, depth):
    rng = np.random.default_rng(steps)
    scores = (0.5 + rng.integers(0, steps, (6, 900)) * 2.0 ** -24).astype(np.float32)
    scores[3:] *= -1
    query, row = np.nonzero(rng.random((6, 900)) < 0.2)
    out = np.arange(6), rng.integers(0, 900, 6)
    pairs = [tuple(map(torch.from_numpy, one)) for one in ((query, row), out)]
    found = ranks_in_block(scores.copy(), *pairs, depth)
    scores[out] = -np.inf
    for one in range(6):
        order = np.lexsort((np.arange(900), -scores[one]))[:899]
        own = row[(query == one) & (row != out[1][one])]
        ranks = 1 + np.flatnonzero(np.isin(order, own))
        ranks[ranks > (len(own) if depth.relevant else depth.rows)] = BEYOND
        assert found.ranks[found.offsets[one]:found.offsets[one + 1]].tolist() == ranks.tolist()

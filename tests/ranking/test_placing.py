"""Ranks of one query with every kind of tie, against a plain sort."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking.placing import ranks_of_block, ranks_of_query
from retrieval.ranking.ranks import Depth


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
        ranks = ranks_of_block(np.eye(3, 5, dtype=np.float32), (none, none), None, depth)
        assert ranks.num_relevant.tolist() == [0, 0, 0] and len(ranks.ranks) == 0

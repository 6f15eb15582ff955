"""Lists of scored rows against a sort by score and row."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking.lists import best_of_lists, from_keys, keys_of


def test_keys_keep_scores_and_order():
    scores = np.array([0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf, 1, -1], np.float32)
    places = np.arange(10)
    keys = keys_of(scores, places)
    assert np.array_equal(np.argsort(keys), np.lexsort((places, -scores)))
    values, back = from_keys(keys)
    assert np.array_equal(values, scores) and back.tolist() == [0, 1, 2, 3, 4, 5, 6, -1, 8, 9]


@pytest.mark.parametrize('k', [None, 1, 20, 200])
def test_the_best_of_lists_in_any_order(k):
    numbers = np.random.default_rng(0)
    scores = (numbers.integers(-3, 4, (30, 60)) / 2).astype(np.float32)
    rows = np.stack([numbers.choice(10 ** 9, 60, replace=False) for _ in range(30)])
    scores[numbers.random((30, 60)) < 0.2] = -np.inf
    rows[:, ::7][scores[:, ::7] == -np.inf] = -1
    values, found = best_of_lists(torch.from_numpy(scores), torch.from_numpy(rows), k)
    for one in range(30):
        order = sorted(range(60), key=lambda place: (-scores[one, place], rows[one, place]))[:k]
        assert values[one].tolist() == scores[one, order].tolist()
        assert found[one].tolist() == [int(rows[one, place]) if scores[one, place] > -np.inf else -1
                                       for place in order]

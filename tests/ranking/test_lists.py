"""Lists of scored rows against a sort by score and row."""
from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from retrieval.ranking.lists import (
    LAST_KEY,
    best_keys,
    best_of_lists,
    from_keys,
    keys_of,
    kth_scores,
)


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


def drawn(num_queries, count, seed=0):
    """Pairs with many equal scores, in any order."""
    numbers = np.random.default_rng(seed)
    query = numbers.integers(0, num_queries, count)
    return query, keys_of((numbers.integers(-40, 41, count) / 8).astype(np.float32),
                          numbers.choice(10 ** 9, count, replace=False))


@pytest.mark.parametrize('k', [1, 3, 50])
def test_the_kth_score_of_every_query(k):
    parts = [drawn(40, 900), drawn(40, 5, 1), drawn(7, 0, 2)]
    query, keys = (np.concatenate(part) for part in zip(*parts, strict=True))
    wanted = []
    for one in range(41):  # the last has none
        scores = np.sort(from_keys(keys[query == one])[0])[::-1]
        wanted.append(scores[k - 1] if len(scores) >= k else -np.inf)
    assert kth_scores(parts, 41, k).tolist() == wanted


def test_lists_of_more_queries_than_are_cut_at_once():
    num_queries = 2 ** 15 + 1000
    parts = [tuple(part[np.argsort(query, kind='stable')] for part in (query, keys))
             for query, keys in (drawn(num_queries, 150_000), drawn(num_queries, 60_000, 1))]
    found = best_keys(parts, num_queries, 3)
    query, keys = (np.concatenate(part) for part in zip(*parts, strict=True))
    for one in (0, 5, 2 ** 15 - 1, 2 ** 15, num_queries - 1):
        own = np.sort(keys[query == one])[:3].tolist()
        assert found[one].tolist() == own + [LAST_KEY] * (3 - len(own))


def test_a_few_long_lists_do_not_widen_the_table_of_all():
    num_queries, k = 200_000, 4
    query = np.sort(np.concatenate([np.arange(num_queries), np.repeat(np.arange(500), 13)]))
    keys = keys_of(np.random.default_rng(0).random(len(query), np.float32), np.arange(len(query)))
    tracemalloc.start()
    found = best_keys([(query, keys)], num_queries, k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[3].tolist() == np.sort(keys[query == 3])[:4].tolist()
    assert peak < 16e6  # the result is 6.4 MB; one table of all took 51 MB

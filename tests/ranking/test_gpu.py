"""What runs on a GPU, run on the CPU against the ranks that NumPy finds and a plain sort."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking.cpu import ranks_of_block
from retrieval.ranking.gpu import ranks_on_device, select_on_device
from retrieval.ranking.ranks import BEYOND, Depth

DEPTHS = [Depth(everything=True), Depth(rows=5), Depth(rows=70), Depth(relevant=True),
          Depth(best=BEYOND), Depth(best=9), Depth(rows=3, best=200, relevant=True)]


def block(seed, count, distinct):
    numbers = np.random.default_rng(seed)
    scores = numbers.integers(0, distinct, (6, count)).astype(np.float32)
    relevant = numbers.random((6, count)) < numbers.choice([0.02, 0.4])
    left_out = numbers.random((6, count)) < 0.05
    return scores, relevant, left_out


def pairs(matrix):
    return torch.from_numpy(matrix).nonzero(as_tuple=True)


def plain(scores, relevant, left_out):
    """Ranks of every query's relevant rows, by a plain sort."""
    lists = []
    for row in range(len(scores)):
        order = sorted((column for column in range(scores.shape[1]) if not left_out[row, column]),
                       key=lambda column: (-scores[row, column], column))
        lists.append([place for place, column in enumerate(order, 1) if relevant[row, column]])
    return lists


def needed(ranks, depth):
    """The ranks that must be exact at that depth, BEYOND for the others."""
    wanted = max(depth.rows, len(ranks) if depth.relevant else 0)
    kept = [rank if depth.everything or rank <= wanted else BEYOND for rank in ranks]
    if ranks and kept[0] == BEYOND and ranks[0] <= depth.best:
        kept[0] = ranks[0]
    return kept


@pytest.mark.parametrize('distinct', [2, 40, 10 ** 6])
@pytest.mark.parametrize('depth', DEPTHS, ids=str)
@pytest.mark.parametrize('count', [30, 700])
def test_ranks_against_a_plain_sort(count, depth, distinct):
    for seed in range(3):
        scores, relevant, left_out = block(seed, count, distinct)
        expected = plain(scores, relevant, left_out)
        on_device = ranks_on_device(torch.from_numpy(scores.copy()), pairs(relevant),
                                    pairs(left_out), depth)
        by_numpy = ranks_of_block(scores.copy(), pairs(relevant), pairs(left_out), depth)
        for found in (on_device, by_numpy):
            assert found.num_relevant.tolist() == [len(ranks) for ranks in expected]
            assert found.rankable.tolist() == (count - left_out.sum(axis=1)).tolist()
            for query, ranks in enumerate(expected):
                got = found.ranks[found.offsets[query]:found.offsets[query + 1]].tolist()
                for one, should, exact in zip(got, needed(ranks, depth), ranks, strict=True):
                    assert one in ((exact,) if should == exact else (exact, BEYOND))


@pytest.mark.parametrize('k', [1, 3, 60, 99, 100, 120])
def test_selection_is_the_stable_sort(k):
    scores = torch.cat([torch.randn(5, 100), torch.randint(0, 3, (5, 100)).float()])
    values, columns = select_on_device(scores, k)
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(values, expected.values[:, :k])
    assert torch.equal(columns, expected.indices[:, :k])

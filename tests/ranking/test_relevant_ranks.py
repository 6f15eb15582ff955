from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from retrieval.ranking import (
    BEYOND,
    TILE_BUDGET,
    Depth,
    PreparedGallery,
    RowSets,
    relevant_ranks,
)
from retrieval.ranking.all_pairs import best_others
from retrieval.ranking.lists import best_of_lists
from retrieval.ranking.relevant_ranks import ranks_among_themselves

DEPTHS = [Depth(everything=True), Depth(best=BEYOND), Depth(rows=3), Depth(relevant=True),
          Depth(rows=100), Depth(rows=2, relevant=True, best=5), Depth(best=2)]


def plain_ranks(queries, gallery, relevant, left_out):
    """Ranks of the relevant rows by sorting every query's scores in float64."""
    ranks = []
    for query, vector in enumerate(queries.double()):
        scores = (gallery.double() @ vector).tolist()
        order = [row for row in sorted(range(len(gallery)), key=lambda r: (-scores[r], r))
                 if not left_out[query, row]]
        ranks.append([place for place, row in enumerate(order, 1) if relevant[query, row]])
    return ranks


def engine_ranks(*arguments, **options):
    ranks, rankable = [], []
    for block in relevant_ranks(*arguments, **options):
        assert block.start == len(ranks)
        bounds = block.offsets.tolist()
        ranks += [block.ranks[a:b].tolist() for a, b in zip(bounds, bounds[1:], strict=False)]
        rankable += block.rankable.tolist()
    return ranks, rankable


@pytest.mark.parametrize('depth', DEPTHS)
@pytest.mark.parametrize('seed', range(6))
def test_against_a_plain_loop_with_many_ties(seed, depth):
    numbers = np.random.default_rng(seed)
    num_queries, num_rows = int(numbers.integers(1, 20)), int(numbers.integers(1, 150))
    draw = lambda n: torch.from_numpy(numbers.integers(-2, 3, (n, 2))).float()  # noqa: E731
    queries, gallery = draw(num_queries), draw(num_rows)
    relevant = torch.from_numpy(numbers.random((num_queries, num_rows)) < 0.2)
    left_out = torch.from_numpy(numbers.random((num_queries, num_rows)) < 0.1)
    expected = plain_ranks(queries, gallery, relevant, left_out)
    for budget in (2 ** 22, 300, 1):
        ranks, rankable = engine_ranks(
            queries, gallery, RowSets.from_matrix(relevant), RowSets.from_matrix(left_out), depth,
            'inner_product', tile_budget=budget)
        assert rankable == (~left_out).sum(1).tolist()
        for got, want in zip(ranks, expected, strict=True):
            deep = max(depth.rows, len(want) if depth.relevant else 0)
            assert len(got) == len(want)
            for place, (one, other) in enumerate(zip(got, want, strict=False)):
                if depth.everything or other <= deep or (place == 0 and other <= depth.best):
                    assert one == other
                else:
                    assert one in (other, BEYOND)


@pytest.mark.parametrize('depth', DEPTHS)
def test_identical_vectors_rank_by_row(depth):
    vectors = torch.randn(1, 7).expand(101, 7)
    labels = torch.arange(101) % 5
    ranks, _ = engine_ranks(vectors, vectors, RowSets.from_labels(labels, labels),
                            RowSets.from_rows(torch.arange(101), 101), depth)
    for query, got in enumerate(ranks):
        others = [row for row in range(101) if row != query]
        want = [place for place, row in enumerate(others, 1) if row % 5 == query % 5]
        deep = max(depth.rows, depth.best, len(want) if depth.relevant else 0)
        assert len(got) == len(want) and (got[0] == want[0] or deep < want[0])
        if depth.everything:
            assert got == want


def test_shares_cut_the_blocks_in_the_same_places():
    queries, gallery = torch.randn(23, 4), torch.randn(60, 4)
    labels, theirs = torch.arange(23) % 3, torch.arange(60) % 3
    sets = RowSets.from_labels(labels, theirs)
    whole = [(b.start, b.ranks.tolist()) for b in
             relevant_ranks(queries, gallery, sets, tile_budget=300)]
    for parts in (1, 2, 3, 7):
        shares = [(b.start, b.ranks.tolist()) for part in range(parts) for b in relevant_ranks(
            queries, gallery, sets, tile_budget=300, part=part, parts=parts)]
        assert shares == whole


def test_sets_of_another_size():
    with pytest.raises(ValueError, match='3 queries and 5 gallery rows, but there are 3 and 4'):
        next(relevant_ranks(torch.ones(3, 2), torch.ones(4, 2),
                            RowSets.from_rows(torch.zeros(3, dtype=torch.int64), 5)))


@pytest.mark.parametrize('parts', [1, 2])
def test_lists_of_shares_are_exchanged(parts, monkeypatch):
    """Each of several processes then knows those of all; one alone has nobody to ask."""
    vectors, labels = torch.randn(300, 16), torch.randint(0, 100, (300,))
    gallery, relevant = PreparedGallery(vectors), RowSets.from_labels(labels, labels)
    whole, = ranks_among_themselves(gallery, relevant, Depth(rows=2))
    asked = []

    def gathered(scores, rows):
        asked.append(rows)
        every = [best_others(gallery, rows.shape[1], TILE_BUDGET, part, parts)
                 for part in range(parts)]
        return best_of_lists(*(torch.cat(part, 1) for part in zip(*every, strict=True)),
                             rows.shape[1])
    monkeypatch.setattr(sys.modules[ranks_among_themselves.__module__], 'gathered', gathered)
    for part in range(parts):
        found, = ranks_among_themselves(gallery, relevant, Depth(rows=2), part=part, parts=parts)
        assert torch.equal(found.ranks, whole.ranks)
    assert len(asked) == (0 if parts == 1 else parts)


def test_blocks_of_lists_leave_each_row_out_of_its_own(monkeypatch):
    vectors, labels = torch.randn(300, 16), torch.randint(0, 100, (300,))
    gallery, relevant = PreparedGallery(vectors), RowSets.from_labels(labels, labels)
    whole, = ranks_among_themselves(gallery, relevant, Depth(rows=2))
    monkeypatch.setattr(sys.modules[ranks_among_themselves.__module__], '_LISTED', 70)
    parts = list(ranks_among_themselves(gallery, relevant, Depth(rows=2)))
    assert [part.start for part in parts] == [0, 70, 140, 210, 280]
    assert torch.equal(torch.cat([part.ranks for part in parts]), whole.ranks)
    assert torch.equal(torch.cat([part.rankable for part in parts]), whole.rankable)

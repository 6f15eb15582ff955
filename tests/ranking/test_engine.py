"""Both engines, on the CPU, against plain and stable sorts."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking import PreparedGallery, cpu, gpu
from retrieval.ranking.engine import engine_of
from retrieval.ranking.ranks import BEYOND, Depth

from .toys import stable, tile

ENGINES = [pytest.param(cpu, id='cpu'), pytest.param(gpu, id='gpu')]
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


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('distinct', [2, 40, 10 ** 6])
@pytest.mark.parametrize('depth', DEPTHS, ids=str)
@pytest.mark.parametrize('count', [30, 700])
def test_ranks_against_a_plain_sort(count, depth, distinct, engine):
    for seed in range(3):
        scores, relevant, left_out = block(seed, count, distinct)
        expected = plain(scores, relevant, left_out)
        found = engine.ranks_in_block(as_tile(engine, scores), pairs(relevant), pairs(left_out),
                                      depth)
        assert found.num_relevant.tolist() == [len(ranks) for ranks in expected]
        assert found.rankable.tolist() == (count - left_out.sum(axis=1)).tolist()
        for query, ranks in enumerate(expected):
            got = found.ranks[found.offsets[query]:found.offsets[query + 1]].tolist()
            for one, should, exact in zip(got, needed(ranks, depth), ranks, strict=True):
                assert one in ((exact,) if should == exact else (exact, BEYOND))


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('edge', [1, 13, 64, 400])
@pytest.mark.parametrize('k', [1, 5, 50, 399])
def test_the_best_of_tile_after_tile(edge, k, engine):
    for seed in range(4):
        scores = tile(seed, 6, 400, (1, 20, 10 ** 6, 3)[seed])
        best = engine.BestOfTiles(6, k)
        for start in range(0, 400, edge):
            best.offer(as_tile(engine, scores[:, start:start + edge]), start)
        values, rows = best.result()
        expected, places = stable(scores, k)
        assert np.array_equal(values, expected) and np.array_equal(rows, places)


def as_tile(engine, scores):
    return torch.from_numpy(scores.copy()) if engine is gpu else scores.copy()


@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_tiles_are_the_scores_and_end_with_the_gallery(similarity, engine):
    rows, queries = torch.randn(150, 5), torch.randn(4, 5)
    gallery = PreparedGallery(rows, similarity)
    tiles = list(gallery.column_tiles(64))
    found = [(start, np.array(scores)) for start, scores in
             engine.score_tiles(gallery, gallery.prepare_queries(queries), tiles)]
    assert [start for start, _ in found] == [0, 64, 128]
    expected = gallery.similarity.function(queries.double(), rows.double())
    np.testing.assert_allclose(np.concatenate([scores for _, scores in found], axis=1), expected,
                               rtol=1e-4, atol=1e-5)


def test_which_engine_works_on_a_gallery():
    assert engine_of(PreparedGallery(torch.eye(2))) is cpu
    assert engine_of(PreparedGallery(torch.eye(2), lambda q, g: q @ g.T)) is gpu

"""One search: what may be found, how candidates are scored, and until when more are fetched."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex
from retrieval.index.faiss.engine import trained_engine
from retrieval.index.faiss.search import (
    FaissSearch,
    KeptVectors,
    Scope,
    _filled,
    check_half,
    ordered,
)
from retrieval.ranking import RowSets
from retrieval.similarity import SIMILARITIES

from ..toys import WIDTH, blobs, ids, recall


@pytest.mark.parametrize('dtype', ['float16', 'float32'])
@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_kept_vectors_score_pairs(similarity, dtype, monkeypatch):
    prepare = SIMILARITIES[similarity].prepare
    rows, queries = (prepare(torch.from_numpy(blobs(count, count))) for count in (30, 5))
    kept = KeptVectors(similarity, dtype)
    kept.add(rows[:10])
    kept.add(rows[10:])
    assert kept.rows.shape == (30, WIDTH) and str(kept.rows.dtype) == f'torch.{dtype}'
    chosen = np.random.default_rng(0).integers(-1, 30, (5, 8))
    whole = kept.scores(queries.numpy(), chosen)
    for query, numbers, scores in zip(queries.double(), chosen, whole, strict=True):
        for row, score in zip(numbers, scores, strict=True):
            other = rows[row].double()
            wanted = -torch.inf if row < 0 else -(query - other).norm() if (
                similarity == 'euclidean') else query @ other
            assert score == pytest.approx(float(wanted), rel=1e-2 if dtype == 'float16' else 1e-5,
                                          abs=1e-3 if dtype == 'float16' else 1e-6)
    monkeypatch.setattr('retrieval.index.faiss.search._BLOCK', 1)
    np.testing.assert_allclose(kept.scores(queries.numpy(), chosen), whole, rtol=1e-6)


def test_kept_vectors_are_left_in_a_new_order():
    kept = KeptVectors('euclidean', 'float32', torch.arange(8.).reshape(4, 2))
    kept.keep(np.array([3, 0]))
    kept.add(torch.full((1, 2), 9.))
    assert kept.rows.tolist() == [[6, 7], [0, 1], [9, 9]]
    assert kept.floats(slice(1, 3)).tolist() == [[0, 1], [9, 9]]


def test_kept_cosines_have_length_one_again():
    unit = torch.nn.functional.normalize(torch.from_numpy(blobs(20)), dim=1)
    kept = KeptVectors('cosine_similarity', 'float16', unit.half())
    lengths = kept.floats(np.arange(20)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(20), atol=1e-6, rtol=0)


def test_what_half_precision_cannot_hold():
    check_half(torch.full((1, 2), 65504.), 'which x')
    with pytest.raises(ValueError, match='above 65504, which x cannot keep'):
        check_half(torch.full((1, 2), 65536.), 'which x')
    check_half(torch.zeros(0, 2), 'which x')
    KeptVectors('euclidean', 'float32').check(torch.full((1, 2), 1e9))
    with pytest.raises(ValueError, match="rescore_dtype='float16'"):
        KeptVectors('euclidean', 'float16').check(torch.full((1, 2), 1e9))
    with pytest.raises(ValueError, match="'int8'"):
        KeptVectors('euclidean', 'int8')


def test_the_row_of_a_slot():
    scope = Scope(np.array([0, 3, 4, 9]), None, None, 2)
    slots = np.array([[9, 0, 5], [-1, 4, 99]])
    assert scope.rows(np.arange(2), slots).tolist() == [[3, 0, -1], [-1, 2, -1]]
    dense = Scope(np.arange(4), None, None, 2)
    assert dense.rows(np.arange(2), slots).tolist() == [[-1, 0, -1], [-1, -1, -1]]


def test_rows_that_may_not_be_found():
    allowed = np.array([True, True, False, True])
    excluded = RowSets.from_lists([[0, 2], [], [3]], 4)
    scope = Scope(np.arange(4), allowed, excluded, 3)
    assert scope.available.tolist() == [2, 3, 2] and scope.most_excluded == 1
    slots = np.tile(np.arange(4), (3, 1))
    wanted = [[-1, 1, -1, 3], [0, 1, -1, 3], [0, 1, -1, -1]]
    assert scope.rows(np.arange(3), slots).tolist() == wanted
    part = scope.of(np.array([2, 0]))
    assert part.available.tolist() == [2, 2]
    assert part.rows(np.arange(2), slots[:2]).tolist() == [wanted[2], wanted[0]]


def test_a_selector_only_where_something_is_left_out():
    assert Scope(np.arange(4), None, None, 1).selector(4) is None
    removed = Scope(np.array([0, 2, 9]), None, None, 1).selector(10)
    assert [slot for slot in range(10) if removed.is_member(slot)] == [0, 2, 9]
    some = Scope(np.array([0, 2, 9]), np.array([False, True, True]), None, 1).selector(10)
    assert [slot for slot in range(10) if some.is_member(slot)] == [2, 9]


def test_best_first_and_the_lower_row_first_among_equals():
    scores = np.array([[1, 5, 5, 2], [4, 3, 2, 1], [7, 7, 7, 7]], np.float32)
    rows = np.array([[8, 6, 4, -1], [0, 1, 2, 3], [3, -1, 2, 1]])
    found, order = ordered(scores, rows)
    assert order.tolist() == [[4, 6, 8, -1], [0, 1, 2, 3], [1, 2, 3, -1]]
    assert found.tolist() == [[5, 5, 1, -np.inf], [4, 3, 2, 1], [7, 7, 7, -np.inf]]


@pytest.mark.parametrize('factory', ['Flat', 'IVF16,Flat'])
def test_a_search_finds_what_a_full_sort_finds(factory):
    vectors = torch.from_numpy(blobs(400))
    engine = trained_engine(factory, 'euclidean', vectors, None, 0, False)
    engine.add(vectors, 0)
    allowed = np.arange(400) % 5 > 0
    queries = blobs(6, 4)
    squares = ((queries[:, None] - vectors.numpy()) ** 2).sum(2)
    order = np.argsort(squares, axis=1, kind='stable')
    excluded = RowSets.from_lists([row[:40].tolist() for row in order], 400)
    search = FaissSearch(engine, queries, Scope(np.arange(400), allowed, excluded, 6),
                         float(vectors.norm(dim=1).max()))
    wanted = [[row for row in line[40:] if allowed[row]] for line in order]
    scores, rows = search.best(400)  # more than there are
    for query, left in enumerate(wanted):
        assert rows[query, :len(left)].tolist() == left
        assert (rows[query, len(left):] == -1).all()
        assert np.isneginf(scores[query, len(left):]).all()
        np.testing.assert_allclose(scores[query, :len(left)], -np.sqrt(squares[query, left]),
                                   rtol=1e-3)
    part = search.of(np.array([4, 1])).best(3)[1]
    if factory == 'Flat':
        assert part.tolist() == [wanted[4][:3], wanted[1][:3]]
    few = search.best(400, complete=False)[1]
    assert (few >= 0).sum() < (rows >= 0).sum() or factory == 'Flat'


def test_scores_that_are_no_numbers():
    engine = trained_engine('Flat', 'inner_product', torch.eye(2), None, 0, False)
    engine.add(torch.full((1, 2), 3e38), 0)
    search = FaissSearch(engine, np.full((1, 2), 3e38, np.float32),
                         Scope(np.arange(1), None, None, 1), 1.0)
    with pytest.raises(ValueError, match='out of the range of this factory'):
        search.best(1)


@pytest.mark.parametrize('queries', [1, 3, 64])
def test_flat_ties_at_the_cut_rank_by_row_however_many_queries(queries):
    """faiss scores larger batches in blocks, whose edges round otherwise."""
    base = np.random.default_rng(0).normal(size=(40, 33)).astype(np.float32)
    vectors = np.tile(base, (150, 1))  # every vector 150 times
    for similarity in ('cosine_similarity', 'inner_product', 'euclidean'):
        index = FaissIndex('Flat', similarity)
        index.add(vectors, range(6000))
        for k in (7, 200):
            found = index.search(base[:1].repeat(queries, 0), k)
            # all copies of the best vector, from the lower row on, then those of the second
            groups = found.indices[0] % 40
            best = [int(groups[0]), int(groups[-1])]
            wanted = [*range(best[0], 6000, 40), *range(best[1], 6000, 40)][:k]
            assert found.indices.tolist() == [wanted] * queries
            alone = index.search(base[:1], k)
            assert torch.equal(found.scores[-1], alone.scores[0])


def test_few_lists_still_give_k_results():
    vectors = blobs(3000)
    index = FaissIndex('IVF64,Flat', search_parameters=dict(nprobe=1))
    index.add(vectors, ids(3000))
    assert index.search(vectors[:7], 2500).indices.shape == (7, 2500)
    sparse = index.search(vectors[:7], 5, filter=lambda name: name in ('#3', '#2999'))
    assert [sorted(row) for row in sparse.ids] == [['#2999', '#3']] * 7
    near = index.range_search(vectors[:1], 0.999).ids
    assert near == [['#0']]


def test_a_graph_whose_parts_are_out_of_reach():
    """Far more duplicates than links: the graph alone cannot reach every row."""
    index = FaissIndex('HNSW4', 'euclidean', search_parameters=dict(efSearch=4))
    index.add(np.repeat(blobs(3), 400, axis=0), range(1200))
    found = index.search(blobs(3), 1200)
    assert found.lengths.tolist() == [1200] * 3
    assert found.row(0)[0][:400].abs().max() == 0 and found.row(0)[0][400] < 0


def test_many_exclusions_are_fetched_over():
    vectors = blobs(2000)
    for factory in ('Flat', 'IVF8,Flat', 'HNSW16'):
        index = FaissIndex(factory, search_parameters=dict(nprobe=8) if 'IVF' in factory else {})
        index.add(vectors, ids(2000))
        first = index.search(vectors[:2], 1990).ids
        found = index.search(vectors[:2], 5, exclude=[first[0][:1500], None])
        assert found.lengths.tolist() == [5, 5] and not set(found.ids[0]) & set(first[0][:1500])
        if factory != 'HNSW16':
            assert found.ids == [first[0][1500:1505], first[1][:5]]


def test_rescoring_gives_exact_scores_and_better_order():
    vectors, queries = blobs(3000), blobs(40, 4)
    exact = ExactIndex()
    exact.add(vectors, ids(3000))
    wanted = exact.search(queries, 10)
    plain = FaissIndex('IVF8,PQ4', search_parameters=dict(nprobe=8))
    rescored = FaissIndex('IVF8,PQ4', search_parameters=dict(nprobe=8), rescore=True,
                          rescore_factor=20)
    for index in (plain, rescored):
        index.add(vectors, ids(3000))
    found = rescored.search(queries, 10)
    assert recall(found.ids, wanted.ids) > 0.97 > recall(plain.search(queries, 10).ids,
                                                         wanted.ids) + 0.2
    best = (found.indices == wanted.indices)
    torch.testing.assert_close(found.scores[best], wanted.scores[best], atol=1e-3, rtol=0)


def test_lists_that_are_too_short_are_filled():
    lists = np.array([[3., 2.]])
    np.testing.assert_array_equal(_filled(lists, 5, -np.inf), [[3, 2, -np.inf, -np.inf, -np.inf]])
    np.testing.assert_array_equal(_filled(lists, 1, -np.inf), [[3]])


def test_a_query_that_may_find_nothing_beside_one_that_may():
    index = FaissIndex('Flat')
    index.add(np.eye(3), list('abc'))
    found = index.search(np.eye(3)[:2], 2, exclude=[list('abc'), []])
    assert found.ids == [[], ['b', 'a']] and found.indices[0].tolist() == [-1, -1]
    assert torch.isneginf(found.scores[0]).all()

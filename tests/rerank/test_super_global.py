"""SuperGlobal's re-ranking against a plain loop."""
import numpy as np
import pytest
import torch

from retrieval.rerank import SuperGlobalReranking, rerank

from .dense import check_ranking, clustered, ranking, similarities, unit


def scores_of(query, gallery, top_m, top_k, beta, pooling, own=-1):
    """The new scores of the first ``top_m`` rows by row, and the similarities ``(N,)``."""
    plain = similarities(query[None], gallery)[0]
    rows = ranking(plain, top_m, own)
    vectors, query = unit(gallery)[rows], unit(query[None])[0]
    among = vectors @ vectors.T
    refined = []
    for place in range(len(rows)):
        total, weights = vectors[place].copy(), 1.0
        for other in ranking(among[place], top_k, place):
            weight = beta * max(among[place, other], 0)
            total, weights = total + weight * vectors[other], weights + weight
        refined.append(total / weights)
    first = np.array([vector @ query for vector in refined])
    best = [refined[place] for place in ranking(first, top_k + 1)]
    pooled = np.max(best, axis=0) if pooling == 'max' else np.mean(best, axis=0)
    second = np.array([vector @ pooled for vector in refined])
    return dict(zip(rows, (first + second) / 2, strict=True)), plain


@pytest.mark.parametrize('pooling', ['max', 'mean'])
@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('top_m, k', [(30, 30), (30, 10), (80, 79)])
def test_against_a_loop(pooling, own, top_m, k):
    gallery = clustered(80, seed=2)[0]
    queries = gallery[:15] if own else clustered(15, seed=1)[0]
    own_rows = range(15) if own else [-1] * 15
    found = rerank(queries, gallery, SuperGlobalReranking(top_m, 4, 0.15, pooling), k,
                   own_rows=own_rows)
    wanted = np.full((15, 80), -np.inf)
    for query in range(15):
        new, _ = scores_of(queries[query], gallery, top_m, 4, 0.15, pooling, own_rows[query])
        wanted[query, list(new)] = list(new.values())
    check_ranking(found, wanted, k, own_rows, atol=1e-4)


def test_rows_of_opposite_directions_have_no_weight():
    gallery = torch.tensor([[1., 0.], [0.8, 0.6], [-1., 0.2], [-0.6, -0.8]])
    found = rerank(torch.tensor([[1., 0.3]]), gallery, SuperGlobalReranking(4, 3))
    new, _ = scores_of(torch.tensor([1., 0.3]), gallery, 4, 3, 0.15, 'max')
    check_ranking(found, [[new[row] for row in range(4)]], 4)


def test_rows_behind_the_first_keep_their_order():
    queries, gallery = clustered(10, seed=1)[0], clustered(60, seed=2)[0]
    found = rerank(queries, gallery, SuperGlobalReranking(20, 4))
    for query in range(10):
        new, plain = scores_of(queries[query], gallery, 20, 4, 0.15, 'max')
        scores, rows = found.row(query)
        assert set(rows[:20].tolist()) == set(new)
        assert rows[20:].tolist() == ranking(plain, 60)[20:]
        assert bool((scores[1:] <= scores[:-1]).all()) and float(scores[19]) > float(scores[20])
        np.testing.assert_allclose(np.diff(scores[20:].numpy()),
                                   np.diff(plain[rows[20:].numpy()]), atol=1e-5)


def test_short_rows():
    vectors = clustered(5)[0]
    found = rerank(vectors[:2], vectors, SuperGlobalReranking(), own_rows=[1, -1])
    assert found.lengths.tolist() == [4, 5]
    assert 1 not in found.row(0)[1].tolist()
    alone = rerank(vectors[:1], vectors[:1], SuperGlobalReranking(), own_rows=[-1])
    assert alone.indices.tolist() == [[0]]
    mixed = rerank(vectors[:2], vectors[:1], SuperGlobalReranking(), own_rows=[0, -1])
    assert mixed.lengths.tolist() == [0, 1]


def test_equal_rows_rank_by_number():
    found = rerank(torch.ones(1, 3), torch.ones(70, 3), SuperGlobalReranking(), 66)
    assert found.indices.tolist() == [list(range(66))]


@pytest.mark.parametrize('arguments, message', [
    (dict(top_m=0), 'top_m must be an integer of at least 1'),
    (dict(top_k=0), 'top_k must be an integer of at least 1'),
    (dict(beta=-0.1), 'beta must be at least 0'),
    (dict(pooling='sum'), "pooling must be 'max' or 'mean', got 'sum'")])
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SuperGlobalReranking(**arguments)


@pytest.mark.parametrize('name', ['inner_product', 'euclidean'])
def test_other_similarities_are_refused(name):
    with pytest.raises(ValueError, match=f"wants .*'cosine_similarity', got '{name}'"):
        rerank(torch.randn(2, 4), torch.randn(5, 4), SuperGlobalReranking(), similarity=name)

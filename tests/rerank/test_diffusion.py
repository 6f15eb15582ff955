"""Diffusion against a dense solution."""
import numpy as np
import pytest
import torch

from retrieval.rerank import Diffusion, rerank

from .dense import check_ranking, clustered, ranking, similarities

EXACT = dict(iterations=500)


def spread(query, gallery, k, query_k, alpha, gamma, truncation, own=-1):
    """f of every row ``(N,)`` by a dense solver, and the similarities."""
    total = len(gallery)
    among = similarities(gallery, gallery)
    lists = [ranking(among[row], k, row) for row in range(total)]
    weights = np.zeros((total, total))
    for row in range(total):
        for other in lists[row]:
            if row in lists[other]:
                weights[row, other] = max(among[row, other], 0) ** gamma
    sums = weights.sum(axis=1)
    root = np.array([1 / np.sqrt(value) if value > 0 else 0 for value in sums])
    spreading = root[:, None] * weights * root
    scores = similarities(query[None], gallery)[0]
    inside = ranking(scores, truncation, own)
    start = np.zeros(len(inside))
    for place in range(min(query_k, len(inside))):
        start[place] = max(scores[inside[place]], 0) ** gamma
    system = np.eye(len(inside)) - alpha * spreading[np.ix_(inside, inside)]
    result = np.zeros(total)
    result[inside] = (1 - alpha) * np.linalg.solve(system, start)
    return result, scores


@pytest.mark.parametrize('truncation', [20, 60, None])
@pytest.mark.parametrize('own', [False, True])
def test_against_a_dense_solution(truncation, own):
    gallery = clustered(90, seed=2)[0]
    queries = gallery[:20] if own else clustered(20, seed=1)[0]
    own_rows = range(20) if own else [-1] * 20
    reranker = Diffusion(8, 3, 0.9, 3.0, truncation, **EXACT)
    found = rerank(queries, gallery, reranker, own_rows=own_rows)
    for query in range(20):
        wanted, scores = spread(queries[query], gallery, 8, 3, 0.9, 3.0, truncation or 90,
                                own_rows[query])
        values, rows = found.row(query)
        assert len(rows) == 90 - own and own_rows[query] not in rows.tolist()
        reached = int((wanted > 0).sum())
        np.testing.assert_allclose(values[:reached].numpy(), np.sort(wanted)[::-1][:reached],
                                   atol=1e-5)
        np.testing.assert_allclose(wanted[rows[:reached].numpy()],
                                   np.sort(wanted)[::-1][:reached], atol=1e-5)
        behind = rows[reached:].tolist()
        assert behind == [row for row in ranking(scores, 90) if row in set(behind)]
        assert bool((values[1:] <= values[:-1]).all())


def test_twenty_iterations_order_nearly_as_the_solution():
    vectors, labels = clustered(200, noise=0.8)
    exact = rerank(vectors, vectors, Diffusion(10, 3, iterations=500), 20, own_rows=range(200))
    rough = rerank(vectors, vectors, Diffusion(10, 3), 20, own_rows=range(200))
    same = [len(set(left) & set(right)) / 20 for left, right in
            zip(exact.indices.tolist(), rough.indices.tolist(), strict=True)]
    assert np.mean(same) > 0.9


def test_it_reaches_rows_that_the_query_is_far_from():
    """A chain of rows, each near the next; the last is nearer to its chain than a stray row."""
    angles = np.array([0, 20, 40, 60, 80, -75]) * np.pi / 180
    gallery = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=1), dtype=torch.float32)
    found = rerank(gallery[:1], gallery, Diffusion(2, 1, 0.99, 3.0, None, **EXACT), own_rows=[-1])
    assert found.indices.tolist()[0][-1] == 5
    plain = rerank(gallery[:1], gallery, [])
    assert plain.indices.tolist()[0].index(5) < plain.indices.tolist()[0].index(4)


def test_k_results_are_the_first_of_all():
    queries, gallery = clustered(10, seed=1)[0], clustered(80, seed=2)[0]
    short = rerank(queries, gallery, Diffusion(8, 3, truncation=40), 7)
    full = rerank(queries, gallery, Diffusion(8, 3, truncation=40))
    assert torch.equal(short.indices, full.indices[:, :7])


@pytest.mark.parametrize('rows', [1, 2, 5])
def test_galleries_with_fewer_rows(rows):
    queries, gallery = clustered(3, seed=1)[0], clustered(rows, seed=2)[0]
    found = rerank(queries, gallery, Diffusion())
    assert all(sorted(row) == list(range(rows)) for row in found.indices.tolist())
    assert bool(torch.isfinite(found.scores).all())


def test_opposite_rows_keep_the_order_of_the_search():
    gallery = -clustered(12, classes=1, noise=0.1)[0]
    query = clustered(1, classes=1, noise=0.1)[0]
    found, plain = rerank(query, gallery, Diffusion(3)), rerank(query, gallery, [])
    assert torch.equal(found.indices, plain.indices)
    check_ranking(found, similarities(query, gallery), 12)


def test_equal_rows_rank_by_number():
    found = rerank(torch.ones(1, 3), torch.ones(30, 3), Diffusion(40, 40), 30)
    assert found.indices.tolist() == [list(range(30))]


@pytest.mark.parametrize('arguments, message', [
    (dict(k=0), 'k must be an integer of at least 1'),
    (dict(alpha=1), 'alpha must be at least 0 and below 1'),
    (dict(gamma=-1), 'gamma must be at least 0'),
    (dict(truncation=5, query_k=10), 'truncation must be at least query_k, 10, got 5'),
    (dict(iterations=0), 'iterations must be an integer of at least 1')])
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Diffusion(**arguments)


@pytest.mark.parametrize('name', ['inner_product', 'euclidean'])
def test_other_similarities_are_refused(name):
    with pytest.raises(ValueError, match=f"Diffusion wants .*'cosine_similarity', got '{name}'"):
        rerank(torch.randn(2, 4), torch.randn(5, 4), Diffusion(), similarity=name)

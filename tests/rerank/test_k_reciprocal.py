"""k-reciprocal re-ranking against the dense published form."""
import numpy as np
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.rerank import KReciprocal, rerank

from .dense import check_ranking, clustered, published_distance, ranking, similarities


def squared(vectors, name):
    scores = similarities(vectors, vectors, name)
    return scores ** 2 if name == 'euclidean' else 2 - 2 * scores


@pytest.mark.parametrize('name', ['cosine_similarity', 'euclidean'])
@pytest.mark.parametrize('k1, k2, weight', [(20, 6, 0.3), (7, 1, 0.0), (3, 2, 0.5), (4, 9, 0.1)])
def test_queries_in_the_gallery(name, k1, k2, weight):
    vectors, _ = clustered(200)
    own = torch.arange(200)
    found = rerank(vectors, vectors, KReciprocal(k1, k2, weight), 100, name, own)
    wanted = 1 - published_distance(squared(vectors, name), k1, k2, weight)
    check_ranking(found, wanted, 100, own)


@pytest.mark.parametrize('name', ['cosine_similarity', 'euclidean'])
def test_joint_queries_outside_the_gallery(name):
    queries, gallery = clustered(50, seed=1)[0], clustered(150, seed=2)[0]
    found = rerank(queries, gallery, KReciprocal(10, 4, 0.3, joint=True), 60, name)
    distance = published_distance(squared(torch.cat([queries, gallery]), name), 10, 4, 0.3)
    check_ranking(found, 1 - distance[:50, 50:], 60)


def outside(query, gallery, k1, k2, weight, own=-1):
    """The distances of one query that meets a gallery whose lists stay as they are; a row of its
    own is none of its neighbours.
    """
    total, half = len(gallery), int(np.around(k1 / 2))
    among = squared(gallery, 'cosine_similarity')
    scaled = among / among.max(axis=1, keepdims=True)
    forced = scaled.copy()
    np.fill_diagonal(forced, -1)
    order = np.argsort(forced, axis=1, kind='stable')
    distance = 2 - 2 * similarities(query[None], gallery)[0]
    near = np.array(ranking(-distance, total, own))

    def reciprocal(node, k):
        return {int(j) for j in order[node, :k + 1] if node in order[j, :k + 1]}

    def encode(members, distances):
        row = np.zeros(total + 1)
        for member in members:
            row[member] = np.exp(-distances[member])
        return row / row.sum()

    def mutual(k):
        return {int(j) for j in near[:k] if distance[j] < among[j, order[j, k]]} | {total}

    def expanded(members, halves):
        more = set(members)
        for candidate in members:
            theirs = halves(candidate)
            if len(theirs & members) > 2 / 3 * len(theirs):
                more |= theirs
        return more

    rows = np.stack([encode(expanded(reciprocal(node, k1), lambda c: reciprocal(c, half)),
                            np.append(scaled[node], 0)) for node in range(total)])
    mine = expanded(mutual(k1), lambda c: mutual(half) if c == total else (
        reciprocal(c, half) | ({total} if c in mutual(half) else set())))
    scaled_query = np.append(distance / distance.max(), 0)
    mine = np.mean([encode(mine, scaled_query), *rows[near[:k2 - 1]]], axis=0)
    averaged = np.stack([rows[order[node, :k2]].mean(axis=0) for node in range(total)])
    shared = np.minimum(mine, averaged).sum(axis=1)
    return (1 - weight) * (1 - shared / (2 - shared)) + weight * scaled_query[:total]


@pytest.mark.parametrize('k1, k2', [(12, 4), (5, 1), (1, 1)])  # in the last some have no neighbour
def test_queries_outside_the_gallery(k1, k2):
    queries, gallery = clustered(24, seed=1)[0], clustered(130, seed=2)[0]
    found = rerank(queries, gallery, KReciprocal(k1, k2, 0.3), 130)
    wanted = [1 - outside(query, gallery, k1, k2, 0.3) for query in queries]
    check_ranking(found, wanted, 130)


def test_a_query_does_not_depend_on_those_beside_it():
    queries, gallery = clustered(24, seed=1)[0], Gallery(clustered(130, seed=2)[0])
    together = rerank(queries, gallery, KReciprocal(12, 4), 20)
    for query in range(24):
        alone = rerank(queries[query:query + 1], gallery, KReciprocal(12, 4), 20)
        assert alone.indices[0].tolist() == together.indices[query].tolist()
        torch.testing.assert_close(alone.scores[0], together.scores[query])


def test_rows_that_the_search_did_not_find_take_part():
    vectors, _ = clustered(200, noise=1.2)
    own = torch.arange(200)
    short = rerank(vectors, vectors, KReciprocal(), 5, own_rows=own)
    full = rerank(vectors, vectors, KReciprocal(), own_rows=own)
    plain = rerank(vectors, vectors, [], 5, own_rows=own)
    assert torch.equal(short.indices, full.indices[:, :5])
    found = [set(row) <= set(other) for row, other in
             zip(short.indices.tolist(), plain.indices.tolist(), strict=True)]
    assert not all(found)


def test_scores_are_between_zero_and_one():
    vectors, _ = clustered(60)
    found = rerank(vectors, vectors, KReciprocal(), own_rows=range(60))
    assert float(found.scores.min()) >= 0 and float(found.scores.max()) <= 1


@pytest.mark.parametrize('rows', [1, 2, 3, 9])
def test_galleries_smaller_than_the_lists(rows):
    gallery, queries = clustered(rows, seed=3)[0], clustered(2, seed=4)[0]
    found = rerank(queries, gallery, KReciprocal(20, 6))
    assert sorted(found.indices[0].tolist()) == list(range(rows))
    assert bool(torch.isfinite(found.scores).all())
    if rows > 1:
        inside = rerank(gallery, gallery, KReciprocal(20, 6), own_rows=range(rows))
        wanted = 1 - published_distance(squared(gallery, 'cosine_similarity'), 20, 6, 0.3)
        check_ranking(inside, wanted, rows, range(rows))


def test_equal_vectors_rank_by_row():
    gallery = torch.ones(40, 4)
    found = rerank(torch.ones(1, 4), gallery, KReciprocal(5, 3), 40)
    assert bool((found.scores[0, 1:] <= found.scores[0, :-1]).all())
    inside = rerank(gallery, gallery, KReciprocal(50, 3), 39, own_rows=range(40))
    assert inside.indices[7].tolist() == [row for row in range(40) if row != 7]


def test_an_expanded_query_is_no_node_and_still_leaves_its_row_out():
    vectors, _ = clustered(100)
    own = torch.arange(100)
    steps = [dict(type='AverageQueryExpansion', top_n=3), dict(type='KReciprocal', k1=8, k2=3)]
    found = rerank(vectors, vectors, steps, 99, own_rows=own)
    means = []
    for query in range(100):
        near = ranking(similarities(vectors[query:query + 1], vectors)[0], 3, query)
        unit = torch.nn.functional.normalize(vectors, dim=1)
        means.append((unit[query] + unit[near].sum(dim=0)) / 4)
    wanted = [1 - outside(mean, vectors, 8, 3, 0.3, own) for own, mean in enumerate(means)]
    check_ranking(found, wanted, 99, own)


@pytest.mark.parametrize('arguments, message', [
    (dict(k1=0), 'k1 must be an integer of at least 1'),
    (dict(k2=2.5), 'k2 must be an integer of at least 1'),
    (dict(lambda_value=1.5), 'lambda_value must be at least 0 and at most 1'),
    (dict(lambda_value='0.3'), 'lambda_value must be a number')])
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        KReciprocal(**arguments)


def test_an_inner_product_is_refused():
    with pytest.raises(ValueError, match="'cosine_similarity' or 'euclidean', got 'inner_product'"):
        rerank(torch.randn(2, 4), torch.randn(5, 4), KReciprocal(), similarity='inner_product')


def test_how_the_work_is_cut_changes_nothing(monkeypatch):
    vectors = torch.randn(90, 8, generator=torch.Generator().manual_seed(3))
    whole = rerank(vectors, vectors.clone(), KReciprocal(k1=6, k2=3), 20, own_rows=range(90))
    monkeypatch.setattr('retrieval.rerank.neighbor_graph._GATHERED', 8 * 7)
    monkeypatch.setattr('retrieval.rerank.k_reciprocal._ROWS', 4)
    cut = rerank(vectors, vectors.clone(), KReciprocal(k1=6, k2=3), 20, own_rows=range(90))
    assert torch.equal(cut.indices, whole.indices)
    torch.testing.assert_close(cut.scores, whole.scores, atol=1e-6, rtol=0)

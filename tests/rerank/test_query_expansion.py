"""Query expansion and database augmentation against plain loops, and what is kept of them."""
import gc
import weakref

import numpy as np
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.rerank import (
    AlphaQueryExpansion,
    AverageQueryExpansion,
    DatabaseAugmentation,
    rerank,
)

from .dense import check_ranking, clustered, ranking, similarities, unit


def expanded(query, gallery, top_n, alpha, name, own=-1):
    """The expanded query ``(D,)`` float64."""
    scores = similarities(query[None], gallery, name)[0]
    side = unit if name == 'cosine_similarity' else lambda vectors: np.asarray(vectors, np.float64)
    start, rows = side(query[None])[0], side(gallery)
    weight = max(start @ start, 0) ** alpha
    total, weights = weight * start, weight
    for row in ranking(scores, top_n, own):
        weight = max(scores[row], 0) ** alpha if alpha else 1.0
        total, weights = total + weight * rows[row], weights + weight
    return total / weights


def scores_of(queries, gallery, top_n, alpha, name, own_rows=None):
    own_rows = [-1] * len(queries) if own_rows is None else own_rows
    means = np.stack([expanded(query, gallery, top_n, alpha, name, own)
                      for query, own in zip(queries.numpy(), own_rows, strict=True)])
    return similarities(means, gallery, name)


@pytest.mark.parametrize('name', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_average_expansion(name):
    queries, gallery = clustered(20, seed=1)[0], clustered(80, seed=2)[0]
    found = rerank(queries, gallery, AverageQueryExpansion(4), 30, name)
    check_ranking(found, scores_of(queries, gallery, 4, 0, name), 30, atol=1e-4)


@pytest.mark.parametrize('name', ['cosine_similarity', 'inner_product'])
@pytest.mark.parametrize('alpha', [0, 1, 3, 2.5])
def test_alpha_expansion(name, alpha):
    queries, gallery = clustered(20, seed=1)[0], clustered(80, seed=2)[0]
    found = rerank(queries, gallery, AlphaQueryExpansion(6, alpha), 30, name)
    check_ranking(found, scores_of(queries, gallery, 6, alpha, name), 30, atol=1e-4)


def test_a_query_in_the_gallery_neither_adds_nor_finds_itself():
    vectors, _ = clustered(60)
    found = rerank(vectors, vectors, AlphaQueryExpansion(5, 3.0), own_rows=range(60))
    wanted = scores_of(vectors, vectors, 5, 3.0, 'cosine_similarity', range(60))
    check_ranking(found, wanted, 59, range(60))
    assert found.indices.shape == (60, 59)


def test_fewer_results_than_rows_to_add_search_again():
    queries, gallery = clustered(10, seed=1)[0], clustered(80, seed=2)[0]
    short = rerank(queries, gallery, AverageQueryExpansion(9), 2)
    full = rerank(queries, gallery, AverageQueryExpansion(9))
    assert torch.equal(short.indices, full.indices[:, :2])
    assert torch.equal(short.scores, full.scores[:, :2])


def test_a_gallery_with_fewer_rows_gives_all():
    queries, gallery = clustered(3, seed=1)[0], clustered(4, seed=2)[0]
    found = rerank(queries, gallery, AverageQueryExpansion(10))
    check_ranking(found, scores_of(queries, gallery, 4, 0, 'cosine_similarity'), 4)
    alone = rerank(gallery[:1], gallery[:1], AverageQueryExpansion(3), own_rows=[0])
    assert alone.indices.shape == (1, 0)


def test_a_row_of_the_opposite_direction_has_no_weight():
    gallery = torch.tensor([[1., 0.], [-1., 0.1], [0.6, 0.8]])
    found = rerank(torch.tensor([[1., 0.]]), gallery, AlphaQueryExpansion(3, 1.0))
    mean = np.array([1 + 1 + 0.36, 0.48]) / 2.6
    wanted = similarities(mean[None], gallery)
    check_ranking(found, wanted, 3)


def test_long_vectors_do_not_overflow():
    gallery = torch.tensor([[3e18, 0], [1e18, 1e18], [0, 1e18]])
    found = rerank(gallery[:1], gallery, AlphaQueryExpansion(2, 9.0), similarity='inner_product')
    assert found.indices.tolist() == [[0, 1, 2]] and bool(torch.isfinite(found.scores).all())


def test_zero_vectors_stay_finite_and_rank_by_row():
    found = rerank(torch.zeros(1, 3), torch.zeros(4, 3), AlphaQueryExpansion(2, 3.0))
    assert found.indices.tolist() == [[0, 1, 2, 3]] and found.scores.tolist() == [[0, 0, 0, 0]]


def test_equal_rows_rank_by_number():
    found = rerank(torch.ones(1, 3), torch.ones(70, 3), AverageQueryExpansion(5), 66)
    assert found.indices.tolist() == [list(range(66))]


def test_a_callable_similarity_takes_plain_means():
    def manhattan(left, right):
        return -torch.cdist(left, right, p=1)
    queries, gallery = clustered(5, seed=1)[0], clustered(30, seed=2)[0]
    found = rerank(queries, gallery, AverageQueryExpansion(2), similarity=manhattan)
    near = manhattan(queries, gallery).topk(2).indices
    means = torch.stack([torch.cat([query[None], gallery[rows]]).mean(dim=0)
                         for query, rows in zip(queries, near, strict=True)])
    check_ranking(found, manhattan(means, gallery), 30)


@pytest.mark.parametrize('build, message', [
    (lambda: AverageQueryExpansion(0), 'top_n must be an integer of at least 1'),
    (lambda: AverageQueryExpansion(True), 'top_n must be an integer of at least 1'),
    (lambda: AlphaQueryExpansion(1.5), 'top_n must be an integer of at least 1'),
    (lambda: AlphaQueryExpansion(3, -1), 'alpha must be at least 0'),
    (lambda: AlphaQueryExpansion(3, float('nan')), 'alpha must be at least 0'),
    (lambda: AlphaQueryExpansion(3, float('inf')), 'alpha must be at least 0')])
def test_bad_arguments(build, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build()


def test_powers_of_a_distance_are_refused():
    with pytest.raises(ValueError, match="got 'euclidean'.*AverageQueryExpansion"):
        rerank(torch.randn(2, 3), torch.randn(4, 3), AlphaQueryExpansion(2, 3.0),
               similarity='euclidean')


def augmented(gallery, top_n, alpha, name):
    return np.stack([expanded(vector, gallery, top_n, alpha, name, row)
                     for row, vector in enumerate(gallery.numpy())])


@pytest.mark.parametrize('name, alpha', [
    ('cosine_similarity', 0), ('cosine_similarity', 3.0), ('inner_product', 2.0), ('euclidean', 0)])
def test_against_a_loop(name, alpha):
    queries, gallery = clustered(20, seed=1)[0], clustered(80, seed=2)[0]
    found = rerank(queries, gallery, DatabaseAugmentation(4, alpha), 30, name)
    wanted = similarities(queries, augmented(gallery, 4, alpha, name), name)
    check_ranking(found, wanted, 30, atol=1e-4)


def test_a_query_in_the_gallery_does_not_find_itself():
    vectors, _ = clustered(60)
    found = rerank(vectors, vectors, DatabaseAugmentation(3), own_rows=range(60))
    wanted = similarities(vectors, augmented(vectors, 3, 3.0, 'cosine_similarity'))
    check_ranking(found, wanted, 59, range(60))


@pytest.mark.parametrize('rows', [1, 2, 3])
def test_galleries_with_fewer_rows(rows):
    queries, gallery = clustered(3, seed=1)[0], clustered(rows, seed=2)[0]
    found = rerank(queries, gallery, DatabaseAugmentation(10, 0))
    wanted = similarities(queries, augmented(gallery, rows - 1, 0, 'cosine_similarity'))
    check_ranking(found, wanted, rows)


def test_augmentation_equal_rows_rank_by_number():
    found = rerank(torch.ones(1, 3), torch.ones(70, 3), DatabaseAugmentation(5), 66)
    assert found.indices.tolist() == [list(range(66))]


def test_rows_that_are_one_anothers_neighbours_tie():
    """Three rows have the same mean, and the lower row comes first, whatever the rounding."""
    for seed in range(20):
        gallery = clustered(30, classes=10, noise=0.1, seed=seed)[0]
        found = rerank(clustered(10, noise=0.1)[0], gallery, DatabaseAugmentation(2, 0))
        for rows, scores in zip(found.indices, found.scores, strict=True):
            for place in range(0, 30, 3):
                group = rows[place:place + 3].tolist()
                assert group == sorted(group) and len({row % 10 for row in group}) == 1
                assert len(set(scores[place:place + 3].tolist())) == 1


def test_it_is_made_once_for_a_gallery(monkeypatch):
    made = []
    original = DatabaseAugmentation._augmented
    monkeypatch.setattr(DatabaseAugmentation, '_augmented',
                        lambda self, state: made.append(1) or original(self, state))
    gallery, queries = Gallery(clustered(30)[0]), clustered(4, seed=1)[0]
    first = rerank(queries, gallery, DatabaseAugmentation(3))
    rerank(queries, gallery, DatabaseAugmentation(3))
    assert len(made) == 1
    rerank(queries, gallery, DatabaseAugmentation(2))
    assert len(made) == 2, 'other arguments are another augmentation'
    gallery.embeddings.mul_(torch.linspace(-1, 1, 16))
    changed = rerank(queries, gallery, DatabaseAugmentation(3))
    assert len(made) == 3 and not torch.equal(changed.scores, first.scores)
    gallery.embeddings = clustered(30)[0]
    again = rerank(queries, gallery, DatabaseAugmentation(3))
    torch.testing.assert_close(again.scores, first.scores)


def test_it_goes_with_its_gallery():
    gallery = Gallery(clustered(30)[0])
    rerank(clustered(4)[0], gallery, [DatabaseAugmentation(3), dict(type='KReciprocal', k1=4)])
    alive = weakref.ref(gallery)
    del gallery
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize('arguments, message', [
    (dict(top_n=0), 'top_n must be an integer of at least 1'),
    (dict(alpha='high'), 'alpha must be a number')])
def test_augmentation_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DatabaseAugmentation(**arguments)


def test_augmentation_powers_of_a_distance_are_refused():
    with pytest.raises(ValueError, match="got 'euclidean'.*alpha=0"):
        rerank(torch.randn(2, 3), torch.randn(4, 3), DatabaseAugmentation(2),
               similarity='euclidean')

"""Database augmentation against a plain loop, and what is kept of it."""
import gc
import weakref

import numpy as np
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.rerank import DatabaseAugmentation, rerank

from .dense import check_ranking, clustered, similarities
from .test_expansion import expanded


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


def test_equal_rows_rank_by_number():
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
def test_bad_arguments(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DatabaseAugmentation(**arguments)


def test_powers_of_a_distance_are_refused():
    with pytest.raises(ValueError, match="got 'euclidean'.*alpha=0"):
        rerank(torch.randn(2, 3), torch.randn(4, 3), DatabaseAugmentation(2),
               similarity='euclidean')

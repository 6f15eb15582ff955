from __future__ import annotations

import pytest
import torch

from retrieval.ranking import kmeans


def test_every_row_is_with_its_nearest_centre_and_centres_are_means():
    vectors = torch.randn(500, 3)
    centres, clusters = kmeans(vectors, 8, iterations=300)
    assert torch.equal(clusters, torch.cdist(vectors, centres).argmin(dim=1))
    for cluster in range(8):
        torch.testing.assert_close(centres[cluster], vectors[clusters == cluster].mean(dim=0),
                                   rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same():
    vectors = torch.randn(100, 3)
    assert torch.equal(kmeans(vectors, 5, seed=3)[1], kmeans(vectors, 5, seed=3)[1])


def test_as_many_clusters_as_rows_and_identical_rows():
    assert sorted(kmeans(torch.eye(6), 6)[1].tolist()) == list(range(6))
    centres, _ = kmeans(torch.ones(10, 2), 3)
    assert torch.isfinite(centres).all()


@pytest.mark.parametrize(('k', 'error'), [(0, ValueError), (11, ValueError), ('2', TypeError)])
def test_bad_k(k, error):
    with pytest.raises(error, match='k must be'):
        kmeans(torch.randn(10, 2), k)

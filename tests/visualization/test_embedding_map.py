"""Embeddings in the plane keep what is near near."""
import numpy as np
import pytest

from retrieval.visualization import embedding_map, two_dimensions


@pytest.mark.parametrize('most', [2000, 10])  # by t-SNE, and by principal components
def test_clusters_stay_together(monkeypatch, most):
    monkeypatch.setattr(embedding_map, '_TSNE', most)
    numbers = np.random.default_rng(0)
    labels = np.arange(40) % 2
    vectors = 10 * np.eye(6)[labels] + numbers.normal(size=(40, 6))
    points = two_dimensions(vectors.astype(np.float32))
    assert points.shape == (40, 2) and np.abs(points).max() == pytest.approx(1)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (labels[apart.argmin(1)] == labels).all()


@pytest.mark.parametrize('shape', [(1, 4), (5, 1), (3, 4)])
def test_few_vectors(shape):
    assert np.isfinite(two_dimensions(np.ones(shape, np.float32))).all()

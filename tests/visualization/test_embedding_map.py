"""Embeddings in the plane keep what is near near."""
import numpy as np
import pytest

from retrieval.visualization import components, embedding_map, two_dimensions


def three_heaps(each=20, width=16):
    """Rows in three heaps far apart, and which heap each is in."""
    generator = np.random.default_rng(0)
    kinds = np.arange(3 * each) % 3
    return (np.eye(width)[kinds] * 4 + generator.normal(size=(len(kinds), width)) * 0.2).astype(
        np.float32), kinds


def nearest_is_of_its_kind(points, kinds):
    apart = ((points[:, None] - points) ** 2).sum(2)
    np.fill_diagonal(apart, np.inf)
    return (kinds[apart.argmin(1)] == kinds).mean()


def test_rows_beyond_those_of_tsne_stand_beside_their_like(monkeypatch):
    monkeypatch.setattr(embedding_map, '_TSNE', 60)
    vectors, kinds = three_heaps(each=50)
    points = two_dimensions(components(vectors))
    assert len(points) == 150 and nearest_is_of_its_kind(points, kinds) == 1
    assert np.abs(points).max() == pytest.approx(1)


@pytest.mark.parametrize('vectors', [np.zeros((1, 4)), np.ones((20, 3)), np.eye(5), np.eye(2, 1)])
def test_few_and_equal_rows(vectors):
    points = two_dimensions(components(vectors.astype(np.float32)))
    assert points.shape == (len(vectors), 2) and np.isfinite(points).all()

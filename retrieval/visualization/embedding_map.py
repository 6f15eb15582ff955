"""Embeddings in two dimensions, to look at."""
from __future__ import annotations

from typing import Protocol

import numpy as np

_TSNE = 5000  # rows whose neighbours are kept together by t-SNE; the others are put between them
_NEAREST = 5  # rows of t-SNE that another one is put between
_COMPONENTS = 50
_FITTED = 20_000  # rows that the principal components are found on


class Progress(Protocol):
    """Who is told how far the work is."""

    def begin(self, step: str, total: int = 0) -> None:
        """A step begins, of so many parts; 0 where they cannot be counted."""

    def advance(self, parts: int = 1) -> None:
        """So many parts more are done."""


def components(vectors: np.ndarray) -> np.ndarray:
    """The principal components ``(N, min(50, N, D))`` float32 of vectors ``(N, D)``.

    Example:
        >>> components(np.eye(8, 4, dtype=np.float32)).shape
        (8, 4)
    """
    from sklearn.decomposition import PCA

    count, width = vectors.shape
    step = max(1, count // _FITTED)
    made = PCA(min(_COMPONENTS, len(vectors[::step]), width), random_state=0)
    with np.errstate(invalid='ignore'):  # of the variance of one row, or of equal ones
        return np.asarray(made.fit(vectors[::step]).transform(vectors), dtype=np.float32)


def two_dimensions(vectors: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Vectors ``(N, D)``, the main directions first, as points ``(N, 2)`` float32 in [-1, 1].

    t-SNE of up to 5,000 of them; each other one is put between the five of these that it is
    nearest to. Fewer than eight are shown by their first two numbers.

    Args:
        vectors: such as :func:`components` gives.
        progress: is told of every step that begins, and of rows that are placed.

    Example:
        >>> two_dimensions(components(np.random.default_rng(0).random((20, 4)))).shape
        (20, 2)
    """
    from sklearn.manifold import TSNE

    count, width = vectors.shape
    if min(count, width) < 2:
        return np.zeros((count, 2), dtype=np.float32)
    if count < 8 or not vectors[:, :2].std() > 0:
        points = vectors[:, :2]
    else:
        chosen = np.arange(count) if count <= _TSNE else np.sort(
            np.random.default_rng(0).choice(count, _TSNE, replace=False))
        if progress is not None:
            progress.begin(f't-SNE of {len(chosen):,} pictures')
        drawn = TSNE(2, init='pca', perplexity=min(30, (len(chosen) - 1) / 3), max_iter=500,
                     random_state=0).fit_transform(vectors[chosen])
        points = np.empty((count, 2), dtype=np.float32)
        points[chosen] = drawn
        others = np.setdiff1d(np.arange(count), chosen)
        if len(others):
            if progress is not None:
                progress.begin('placing the others', len(others))
            points[others] = _between(vectors, chosen, others, drawn, progress)
    middle = (points.max(0) + points.min(0)) / 2
    points = points - middle
    return np.ascontiguousarray(points / max(float(np.abs(points).max()), 1e-12), dtype='<f4')


def _between(vectors: np.ndarray, chosen: np.ndarray, others: np.ndarray, drawn: np.ndarray,
             progress: Progress | None) -> np.ndarray:
    """The points ``(M, 2)`` of other rows: the mean of the nearest chosen ones, by nearness."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=_NEAREST, algorithm='brute').fit(vectors[chosen])
    points = np.empty((len(others), 2), dtype=np.float32)
    for start in range(0, len(others), 2000):
        distances, near = found.kneighbors(vectors[others[start:start + 2000]])
        weights = 1 / (distances ** 2 + 1e-9)
        weights /= weights.sum(1, keepdims=True)
        points[start:start + 2000] = (drawn[near] * weights[:, :, None]).sum(1)
        if progress is not None:
            progress.advance(len(near))
    return points

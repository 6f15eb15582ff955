"""Embeddings in two dimensions, to look at."""
from __future__ import annotations

import numpy as np

_TSNE = 2000  # rows up to which neighbours are kept together; more would take minutes
_FITTED = 20_000  # rows that the principal components are found on


def two_dimensions(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(N, D)`` as points ``(N, 2)`` float32 within [-1, 1]: t-SNE of a few thousand,
    principal components of more.

    Example:
        >>> two_dimensions(np.eye(8, 4, dtype=np.float32)).shape
        (8, 2)
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = vectors.shape
    if min(count, width) < 2:
        return np.zeros((count, 2), dtype=np.float32)
    if count < 8 or count > _TSNE:
        step = max(1, count // _FITTED)
        points = PCA(2, random_state=0).fit(vectors[::step]).transform(vectors)
    else:
        kept = PCA(min(50, count, width), random_state=0).fit_transform(vectors)
        init = 'pca' if kept[:, :2].std() > 0 else 'random'
        points = TSNE(2, init=init, perplexity=min(30, (count - 1) / 3), max_iter=500,
                      random_state=0).fit_transform(kept)
    points = points - points.mean(0)
    return np.ascontiguousarray(points / max(float(np.abs(points).max()), 1e-12), dtype='<f4')

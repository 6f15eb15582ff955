"""k-means: scikit-learn's first centres, moved by faiss."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks import whole_number
from .prepared import as_vectors


def kmeans(vectors: Any, k: int, iterations: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from k-means++ centres (Arthur and Vassilvitskii, 2007).

    Args:
        vectors: ``(N, D)`` floats.
        k: how many clusters, at most N.
        iterations: how often the centres are moved.
        seed: of the choice of the first centres.

    Returns:
        Centres ``(k, D)`` float32, and the cluster of every row, ``(N,)`` int64.

    Raises:
        TypeError, ValueError: the vectors are not finite floats, or k is not between 1 and N.

    Example:
        >>> centres, clusters = kmeans([[0., 0.], [0., 1.], [9., 9.]], 2)
        >>> bool(clusters[0] == clusters[1] != clusters[2])
        True
    """
    import faiss
    from sklearn.cluster import kmeans_plusplus

    rows = as_vectors(vectors, 'vectors').cpu().contiguous().numpy()
    k = whole_number('k', k, 1, len(rows))
    # One candidate for each centre: several give tighter clusters for twice the time of all.
    first, _ = kmeans_plusplus(rows, k, random_state=seed, n_local_trials=1)
    clusters = faiss.Kmeans(rows.shape[1], k, niter=whole_number('iterations', iterations),
                            seed=seed, min_points_per_centroid=1,
                            max_points_per_centroid=len(rows))
    clusters.train(rows, init_centroids=first)
    _, nearest = clusters.index.search(rows, 1)
    return torch.from_numpy(clusters.centroids), torch.from_numpy(nearest[:, 0])

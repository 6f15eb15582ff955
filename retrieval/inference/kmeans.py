"""``FaissKMeans``, as pytorch-metric-learning has it."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks import whole_number
from ..index.faiss.factory import load_faiss
from ..ranking import as_vectors


class FaissKMeans:
    """k-means of faiss: ``FaissKMeans(niter=300, gpu=True)(x, nmb_clusters)``.

    Args:
        kwargs: those of ``faiss.Kmeans``: ``niter``, ``nredo``, ``seed``, ``spherical``,
            ``verbose``, ``gpu``, ``min_points_per_centroid``, ``max_points_per_centroid`` …

    Example:
        >>> clusters = FaissKMeans(niter=5)(torch.tensor([[0.], [1.], [9.]]), 2)
        >>> (clusters[0] == clusters[1]).item(), (clusters[0] == clusters[2]).item()
        (True, False)
    """

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def __call__(self, x: Any, nmb_clusters: int) -> Tensor:
        """The cluster of every row.

        Args:
            x: ``(N, D)`` floats.
            nmb_clusters: how many clusters, at most N.

        Returns:
            ``(N,)`` int64, from 0, on the device of ``x``.

        Raises:
            ValueError: there are fewer rows than clusters, or faiss refuses an argument.
            TypeError: ``faiss.Kmeans`` takes no such argument.
        """
        vectors, count = as_vectors(x, 'x'), whole_number('nmb_clusters', nmb_clusters)
        if count > len(vectors):
            raise ValueError(f'There are {len(vectors)} vectors for {count} clusters: ask for at '
                             'most as many.')
        rows = vectors.cpu().contiguous().numpy()
        try:
            kmeans = load_faiss().Kmeans(rows.shape[1], count, **self.kwargs)
            kmeans.train(rows)
        except (AttributeError, AssertionError) as error:
            raise TypeError(f'faiss.Kmeans refuses the arguments {self.kwargs}: {error}') from error
        _, nearest = kmeans.index.search(rows, 1)
        return torch.from_numpy(nearest[:, 0]).to(vectors.device)

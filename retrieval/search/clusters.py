"""Clustering a gallery."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import whole_number
from ..ranking import kmeans
from ..ranking.range_search import checked_threshold
from ..registry import unknown_name
from ..similarity import SIMILARITIES
from .duplicates import connected, similar_pairs, vectors_of

METHODS = ('kmeans', 'connected', 'hdbscan')


@dataclass
class Clusters:
    """Which cluster each row is in.

    Args:
        labels: ``(N,)`` int64; 0 is the largest cluster, and -1 a row that is in none.
        ids: the ids of the rows.
        method: how they were found.
        distances: ``(N,)`` float32, how far each row is from the mean of its cluster; infinite for
            a row that is in none.
    """

    labels: Tensor
    ids: Sequence[str]
    method: str
    distances: Tensor

    def __len__(self) -> int:
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    @property
    def sizes(self) -> list[int]:
        """How many rows each cluster has."""
        return torch.bincount(self.labels[self.labels >= 0], minlength=len(self)).tolist()

    def members(self, label: int) -> list[int]:
        """The rows of one cluster, rising; those in none for -1."""
        return (self.labels == label).nonzero()[:, 0].tolist()

    def from_the_centre(self, label: int) -> list[int]:
        """The rows of one cluster, the most central one first; the lower row among equals."""
        return sorted(self.members(label), key=self.distances.tolist().__getitem__)


def cluster(gallery: Any, method: str = 'kmeans', *, k: int | None = None,
            threshold: float | None = None, min_size: int = 5, normalize: bool = True,
            seed: int = 0, **options: Any) -> Clusters:
    """Cluster a gallery by its embeddings.

    Args:
        gallery: a gallery, its file, or vectors ``(N, D)``.
        method: ``'kmeans'``: ``k`` clusters; ``'connected'``: the components of the graph whose
            edges are the pairs with a similarity of at least ``threshold``; ``'hdbscan'``: dense
            regions of at least ``min_size`` rows (scikit-learn's HDBSCAN), the rest in none.
        k: how many clusters, of k-means; by default the square root of half the rows.
        threshold: of the cosine (of the inner product without ``normalize``), 0.8 by default.
        min_size: the smallest cluster of HDBSCAN; of ``'connected'``, smaller components are in
            no cluster.
        normalize: cluster directions: scale the embeddings to length 1 first.
        seed: of k-means.
        options: further arguments of HDBSCAN.

    Raises:
        ValueError: there is no such method, or a value that it cannot take.
        TypeError: an argument that the method does not take.

    Example:
        >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]], dtype=np.float32)
        >>> len(cluster(rows, k=2).sizes)
        2
    """
    vectors, ids, _ = vectors_of(gallery, 'gallery')
    if method not in METHODS:
        raise ValueError(unknown_name('method of clustering', method, METHODS))
    if method != 'hdbscan' and options:
        raise TypeError(f'{method!r} does not take {", ".join(sorted(options))}.')
    whole_number('min_size', min_size)
    vectors = SIMILARITIES['cosine_similarity'].prepare(vectors) if normalize else vectors
    if method == 'kmeans':
        count = max(1, round((len(vectors) / 2) ** 0.5)) if k is None else k
        found = kmeans(vectors, count, seed=seed)[1]
    elif method == 'connected':
        least = 0.8 if threshold is None else checked_threshold(
            threshold, 'cosine_similarity' if normalize else 'inner_product')
        found = _connected(vectors, least, min_size)
    else:
        found = _hdbscan(vectors, min_size, options)
    labels = _largest_first(found)
    return Clusters(labels, ids, method, _distances(vectors, labels))


def _connected(vectors: Tensor, threshold: float, min_size: int) -> Tensor:
    rows, others, _ = similar_pairs(vectors, None, threshold, 'inner_product')
    found = connected(rows.numpy(), others.numpy(), len(vectors))
    labels = torch.from_numpy(found.astype(np.int64))
    labels[torch.bincount(labels)[labels] < min_size] = -1
    return labels


def _hdbscan(vectors: Tensor, min_size: int, options: dict[str, Any]) -> Tensor:
    from sklearn.cluster import HDBSCAN

    if min_size < 2:
        raise ValueError('A cluster of HDBSCAN has at least 2 rows: set min_size to 2 or more.')
    options = {'copy': True, **options}
    found = HDBSCAN(min_cluster_size=min_size, **options).fit_predict(vectors.cpu().numpy())
    return torch.from_numpy(found.astype(np.int64)).clamp_(min=-1)


def _distances(vectors: Tensor, labels: Tensor) -> Tensor:
    """How far each row is from the mean of its cluster, ``(N,)``."""
    distances = torch.full((len(vectors),), torch.inf)
    for label in range(int(labels.max()) + 1 if len(labels) else 0):
        inside = labels == label
        rows = vectors[inside]
        distances[inside] = (rows - rows.mean(dim=0)).norm(dim=1).cpu()
    return distances


def _largest_first(labels: Tensor) -> Tensor:
    """Labels renumbered by falling size; among equal ones, the one with the lowest row first."""
    inside = labels >= 0
    if not inside.any():
        return labels
    names, places = torch.unique(labels[inside], return_inverse=True)
    sizes = torch.bincount(places)
    first = torch.full((len(names),), len(labels)).scatter_reduce(
        0, places, torch.arange(len(places)), 'amin')
    order = sorted(range(len(names)), key=lambda n: (-int(sizes[n]), int(first[n])))
    rank = torch.empty(len(names), dtype=torch.int64)
    rank[torch.tensor(order)] = torch.arange(len(names))
    renumbered = labels.clone()
    renumbered[inside] = rank[places]
    return renumbered

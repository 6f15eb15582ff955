"""How well clusters of the embeddings agree with the classes."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ranking import as_vectors, kmeans
from .relevance import check_length, label_codes


def evaluate_clusters(embeddings: Any, labels: Any, seed: int = 0,
                      iterations: int = 50) -> dict[str, float]:
    """``NMI`` and ``AMI`` in percent of k-means with as many clusters as there are classes.

    Args:
        embeddings: ``(N, D)`` floats, clustered as they are: normalise them first for cosine.
        labels: ``(N,)`` whole numbers or strings.
        seed, iterations: of k-means.

    Raises:
        TypeError, ValueError: vectors or labels are wrong.
    """
    vectors = as_vectors(embeddings, 'embeddings')
    if not len(vectors):
        raise ValueError('There are no embeddings to cluster.')
    numbers, _, _ = label_codes(labels)
    check_length('labels', numbers, len(vectors), 'embeddings')
    _, clusters = kmeans(vectors, len(torch.unique(numbers)), iterations, seed)
    return {'NMI': 100 * normalized_mutual_information(numbers, clusters),
            'AMI': 100 * adjusted_mutual_information(numbers, clusters)}


def normalized_mutual_information(labels: Tensor, clusters: Tensor) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1].

    1 where both are one single group (Vinh et al., 2010).
    """
    rows, columns, table = _contingency(labels, clusters)
    mean = (_entropy(rows) + _entropy(columns)) / 2
    return 1.0 if mean == 0 else max(0.0, _mutual_information(rows, columns, table) / mean)


def adjusted_mutual_information(labels: Tensor, clusters: Tensor) -> float:
    """Mutual information above what chance gives, over its largest value: at most 1.

    The mean of the entropies stands for the largest value, and chance is the hypergeometric model
    of fixed group sizes (Vinh et al., 2010).
    """
    rows, columns, table = _contingency(labels, clusters)
    if len(rows) == len(columns) == 1:
        return 1.0
    expected = _expected_information(rows, columns)
    mean = (_entropy(rows) + _entropy(columns)) / 2
    above = mean - expected
    if abs(above) < 1e-15:  # nothing can be above chance, as where every row is its own group
        return 1.0 if len(rows) == len(columns) == len(labels) else 0.0
    return (_mutual_information(rows, columns, table) - expected) / above


def _contingency(labels: Tensor, clusters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Group sizes of both sides ``(A,)`` and ``(B,)``, and ``(3, P)``: row, column, how many."""
    _, a = torch.unique(labels, return_inverse=True)
    _, b = torch.unique(clusters, return_inverse=True)
    width = int(b.max()) + 1
    pairs, many = torch.unique(a * width + b, return_counts=True)
    return torch.bincount(a), torch.bincount(b), torch.stack([pairs // width, pairs % width, many])


def _entropy(sizes: Tensor) -> float:
    share = sizes.double() / sizes.sum()
    return float(-(share * share.log()).sum()) + 0.0


def _mutual_information(rows: Tensor, columns: Tensor, table: Tensor) -> float:
    total = rows.sum().double()
    many = table[2].double()
    return float((many / total * (total * many / (
        rows[table[0]].double() * columns[table[1]])).log()).sum())


def _expected_information(rows: Tensor, columns: Tensor) -> float:
    """The mean mutual information of random groups of these sizes.

    Pairs of groups of the same sizes count together, so that the work grows with the number of
    different sizes.
    """
    total = rows.sum().double()
    factorial = torch.lgamma(torch.arange(int(total) + 2, dtype=torch.float64) + 1)
    expected = 0.0
    n = int(total)
    for a, times_a in zip(*(part.tolist() for part in torch.unique(rows, return_counts=True)),
                          strict=True):
        for b, times_b in zip(*(part.tolist() for part in torch.unique(
                columns, return_counts=True)), strict=True):
            many = torch.arange(max(1, a + b - n), min(a, b) + 1)
            log_chance = (factorial[a] + factorial[b] + factorial[n - a] + factorial[n - b]
                          - factorial[n] - factorial[many] - factorial[a - many]
                          - factorial[b - many] - factorial[n - a - b + many])
            terms = many / total * (total * many / (a * b)).log() * log_chance.exp()
            expected += times_a * times_b * float(terms.sum())
    return expected

"""How well clusters of the embeddings agree with the classes."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..checks import same_length
from ..ranking import as_vectors, kmeans
from .relevance import label_codes


def evaluate_clusters(embeddings: Any, labels: Any, seed: int = 0,
                      iterations: int = 50) -> dict[str, float]:
    """``NMI`` and ``AMI`` in percent of k-means with as many clusters as there are classes.

    Args:
        embeddings: ``(N, D)`` floats, clustered as they are: normalise them first for cosine.
        labels: ``(N,)`` whole numbers or strings.
        seed, iterations: of k-means.

    Raises:
        TypeError, ValueError: vectors or labels are wrong.

    Example:
        >>> result = evaluate_clusters([[0., 0.], [0., 1.], [9., 9.]], ['a', 'a', 'b'])
        >>> round(result['NMI']), round(result['AMI'])
        (100, 100)
    """
    vectors = as_vectors(embeddings, 'embeddings')
    if not len(vectors):
        raise ValueError('There are no embeddings to cluster.')
    numbers, _, _ = label_codes(labels)
    same_length('labels', numbers, len(vectors), 'embeddings')
    _, clusters = kmeans(vectors, len(torch.unique(numbers)), iterations, seed)
    return {'NMI': 100 * normalized_mutual_information(numbers, clusters),
            'AMI': 100 * adjusted_mutual_information(numbers, clusters)}


def normalized_mutual_information(labels: Any, clusters: Any) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1]; 1 where both
    are one single group (Vinh et al., 2010).

    Args:
        labels, clusters: ``(N,)`` whole numbers each.

    Example:
        >>> normalized_mutual_information([0, 0, 1, 1], [5, 5, 7, 7])
        1.0
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(np.asarray(labels), np.asarray(clusters)))


def adjusted_mutual_information(labels: Any, clusters: Any) -> float:
    """Mutual information above what chance gives, over its largest value: at most 1.

    The mean of the entropies stands for the largest value, and chance is the hypergeometric model
    of fixed group sizes (Vinh et al., 2010).

    Args:
        labels, clusters: ``(N,)`` whole numbers each.

    Example:
        >>> adjusted_mutual_information([0, 0, 1, 1], [5, 5, 7, 7])
        1.0
    """
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    first, second = np.asarray(labels), np.asarray(clusters)
    sizes = [np.unique(groups, return_counts=True)[1] for groups in (first, second)]
    if len(sizes[0]) == len(sizes[1]) in (1, len(first)):  # one group, or each row its own
        return 1.0  # nothing can be above chance
    expected = _expected_information(*sizes)
    above = (entropy(sizes[0]) + entropy(sizes[1])) / 2 - expected
    return float((mutual_info_score(first, second) - expected) / above)


def _expected_information(first: np.ndarray, second: np.ndarray) -> float:
    """The mean mutual information of random groups of these sizes.

    Pairs of groups of the same sizes count together, so that the work grows with the number of
    different sizes: scikit-learn goes through every pair of groups, which takes half a minute
    where there are 10,000 classes.
    """
    from scipy.special import gammaln

    n = int(first.sum())
    factorial = gammaln(np.arange(n + 2) + 1.)
    expected = 0.0
    for a, times_a in zip(*np.unique(first, return_counts=True), strict=True):
        for b, times_b in zip(*np.unique(second, return_counts=True), strict=True):
            many = np.arange(max(1, a + b - n), min(a, b) + 1)
            log_chance = (factorial[a] + factorial[b] + factorial[n - a] + factorial[n - b]
                          - factorial[n] - factorial[many] - factorial[a - many]
                          - factorial[b - many] - factorial[n - a - b + many])
            gain = np.log(n) + np.log(many) - np.log(a) - np.log(b)
            expected += float(times_a * times_b * (many / n * gain * np.exp(log_chance)).sum())
    return expected

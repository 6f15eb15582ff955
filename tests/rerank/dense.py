"""Dense plain loops that the rerankers are compared with."""
import numpy as np
import torch


def similarities(left, right, name='cosine_similarity'):
    """``(L, R)`` float64."""
    left, right = (np.asarray(side, np.float64) for side in (left, right))
    if name == 'euclidean':
        return -np.sqrt(np.square(left[:, None] - right[None]).sum(axis=2))
    if name == 'cosine_similarity':
        left, right = unit(left), unit(right)
    return left @ right.T


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    length = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def ranking(scores, k, own=-1):
    """The rows of one query's scores ``(N,)``: descending, the lower row first among equals."""
    order = sorted((row for row in range(len(scores)) if row != own),
                   key=lambda row: (-scores[row], row))
    return order[:k]


def published_distance(squared, k1, k2, lambda_value):
    """The final distances ``(N, N)`` of k-reciprocal re-ranking among N nodes, by the paper.

    ``squared (N, N)`` holds squared Euclidean distances; each node stands first in its own list.
    """
    total = len(squared)
    scaled = squared / squared.max(axis=1, keepdims=True)
    forced = scaled.copy()
    np.fill_diagonal(forced, -1)
    order = np.argsort(forced, axis=1, kind='stable')

    def reciprocal(node, k):
        return {int(j) for j in order[node, :k + 1] if node in order[j, :k + 1]}

    weights = np.zeros((total, total))
    half = int(np.around(k1 / 2))
    for node in range(total):
        own = reciprocal(node, k1)
        expanded = set(own)
        for candidate in own:
            theirs = reciprocal(candidate, half)
            if len(theirs & own) > 2 / 3 * len(theirs):
                expanded |= theirs
        for member in expanded:
            weights[node, member] = np.exp(-scaled[node, member])
        weights[node] /= weights[node].sum()
    if k2 > 1:
        weights = np.stack([weights[order[node, :k2]].mean(axis=0) for node in range(total)])
    jaccard = np.empty((total, total))
    for node in range(total):
        shared = np.minimum(weights[node], weights).sum(axis=1)
        jaccard[node] = 1 - shared / (2 - shared)
    return (1 - lambda_value) * jaccard + lambda_value * scaled


def check_ranking(found, wanted_scores, k, own_rows=None, atol=1e-5):
    """``found`` holds the k best of ``wanted_scores (Q, N)``, up to near ties."""
    wanted_scores = np.asarray(wanted_scores)
    for query, wanted in enumerate(wanted_scores):
        own = -1 if own_rows is None else int(own_rows[query])
        scores, rows = found.row(query)
        order = ranking(wanted, k, own)
        assert len(rows) == len(order), (len(rows), len(order))
        assert len(set(rows.tolist())) == len(rows) and own not in rows.tolist()
        np.testing.assert_allclose(scores.numpy(), wanted[order], atol=atol)
        np.testing.assert_allclose(wanted[rows.numpy()], wanted[order], atol=atol)
        assert bool((scores[1:] <= scores[:-1]).all()) and bool(torch.isfinite(scores).all())
        tied = scores[1:] == scores[:-1]
        assert bool((rows[1:] > rows[:-1])[tied].all())


def clustered(count=120, width=16, classes=12, seed=0, noise=0.5):
    """Vectors around class centres ``(count, width)`` float32, and labels ``(count,)``."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = np.arange(count) % classes
    vectors = centres[labels] + noise * generator.normal(size=(count, width))
    return torch.from_numpy(vectors.astype(np.float32)), labels

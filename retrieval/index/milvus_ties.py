"""Scores that are equal but for rounding.

A server computes the scores of equal vectors in different places of its loops, so that they may
differ in the last digits. What lies so close together is scored here again, in float64, each row
alike.
"""
from __future__ import annotations

import numpy as np

_ROUNDING = 2.0 ** -20  # of the largest score, about what float32 products are off by


def tolerance(scores: np.ndarray) -> float:
    """How far two scores may differ that stand for equal vectors."""
    return float(np.abs(scores).max()) * _ROUNDING if len(scores) else 0.0


def close_together(scores: np.ndarray, k: int) -> np.ndarray:
    """The places, bool ``(m,)``, of descending scores whose order is not sure; m is ``k``, or
    more where the k-th is among them.
    """
    close = scores[:-1] - scores[1:] <= tolerance(scores)
    end = min(k, len(scores))
    while 0 < end < len(scores) and close[end - 1]:
        end += 1
    unsure = np.zeros(len(scores), dtype=bool)
    unsure[:-1] |= close
    unsure[1:] |= close
    return unsure[:end]


def scored(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """The similarity of a query ``(D,)`` to vectors ``(n, D)``, ``(n,)`` float32."""
    query, vectors = query.astype(np.float64), vectors.astype(np.float64)
    if metric == 'L2':
        return -np.sqrt(np.square(vectors - query).sum(axis=1)).astype(np.float32)
    products = (vectors * query).sum(axis=1)
    if metric == 'COSINE':
        lengths = np.sqrt(np.square(vectors).sum(axis=1) * np.square(query).sum())
        products = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return products.astype(np.float32)

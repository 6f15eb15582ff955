"""Tiles of scores with ties and gaps, and the stable sort that a selection must equal."""
from __future__ import annotations

import numpy as np


def stable(scores, k):
    order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
    values = np.take_along_axis(scores, order, 1)
    return values, np.where(values == -np.inf, -1, order)


def tile(seed, rows, width, distinct):
    numbers = np.random.default_rng(seed)
    scores = (numbers.integers(-distinct, distinct + 1, (rows, width)) / 4).astype(np.float32)
    scores[numbers.random((rows, width)) < 0.1] = -np.inf
    return scores

"""Vectors as every engine wants them: two-dimensional, float32, finite."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CHECKED_ROWS = 65536  # rows looked at together while the first bad one is searched


def as_vectors(values: Any, name: str = 'embeddings', width: int | None = None) -> Tensor:
    """``values`` as a float32 tensor ``(N, D)`` on the device that they are on.

    Args:
        values: an array, tensor or nested sequence of floats ``(N, D)``; float16, bfloat16 and
            float64 are converted.
        name: what the vectors are, for the error messages.
        width: the number of columns that they must have, or None.

    Raises:
        TypeError: it holds no floats.
        ValueError: it is not two-dimensional, has another width, or holds NaN or infinity.
    """
    vectors = _as_tensor(values, name)
    if not vectors.is_floating_point():
        raise TypeError(f'{name} must hold floats, got {vectors.dtype}: convert to float32.')
    if vectors.ndim != 2:
        raise ValueError(f'{name} must be two-dimensional (N, D), got {tuple(vectors.shape)}'
                         f'{": give one vector as [vector]" if vectors.ndim == 1 else ""}.')
    if vectors.shape[1] == 0:
        raise ValueError(f'{name} have no columns: {tuple(vectors.shape)}.')
    if width is not None and vectors.shape[1] != width:
        raise ValueError(f'{name} have {vectors.shape[1]} columns, but {width} are needed: '
                         'both sides must come from the same encoder.')
    vectors = vectors.to(torch.float32)
    _check_finite(vectors, name)
    return vectors


def _as_tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], Tensor):
        return torch.stack([value.detach() for value in values])
    try:
        array = np.asarray(values)
        if not array.flags.writeable or any(stride < 0 for stride in array.strides):
            array = array.copy()
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise TypeError(f'{name} must be an array or tensor of floats (N, D), got '
                        f'{type(values).__name__} that is none: {error}') from error


def _check_finite(vectors: Tensor, name: str) -> None:
    if math.isfinite(float(vectors.sum())):  # a finite sum has no NaN and no infinity in it
        return
    for start in range(0, len(vectors), _CHECKED_ROWS):
        bad = ~torch.isfinite(vectors[start:start + _CHECKED_ROWS]).all(dim=1)
        if bad.any():
            row = start + int(bad.nonzero()[0, 0])
            raise ValueError(f'{name} must be finite in float32, but row {row} holds NaN or '
                             'infinity: look for an image that the encoder cannot take, or a '
                             'diverged training.')

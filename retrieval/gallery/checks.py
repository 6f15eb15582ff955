"""What every gallery must hold: embeddings of one shape, finite, and columns of their length."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def checked_shape(shape: Sequence[int]) -> tuple[int, int]:
    """``shape`` as it is. Raises ValueError where it is not (N, D) or there is no row."""
    if len(shape) != 2:
        raise ValueError(f'A gallery wants embeddings of shape (N, D), got {tuple(shape)}.')
    if not shape[0] or not shape[1]:
        raise ValueError(f'The gallery is empty (shape {tuple(shape)}): there is '
                         'nothing to search in. Give a prototype with at least one image.')
    return shape[0], shape[1]


def checked_embeddings(embeddings: Any) -> Tensor:
    """Embeddings as a finite float32 tensor ``(N, D)``. Raises TypeError or ValueError."""
    if isinstance(embeddings, np.ndarray):
        embeddings = torch.from_numpy(np.ascontiguousarray(embeddings))
    if not isinstance(embeddings, Tensor) or not embeddings.is_floating_point():
        kind = embeddings.dtype if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise TypeError(f'A gallery wants embeddings (N, D) of floating-point numbers, got {kind}.')
    checked_shape(embeddings.shape)
    embeddings = embeddings.detach().to(torch.float32)
    finite = torch.isfinite(embeddings).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten()
        raise ValueError(f'{len(bad)} of {len(embeddings)} gallery embeddings are not finite '
                         f'(NaN or infinite), the first in row {int(bad[0])}. Encode the gallery '
                         'again with a model whose weights and inputs are finite.')
    return embeddings


def check_length(name: str, values: Any, count: int) -> None:
    """Raises ValueError where a column is not as long as the gallery."""
    if len(values) != count:
        raise ValueError(f'The gallery has {count} embeddings but {len(values)} {name}: give one '
                         'for each row.')

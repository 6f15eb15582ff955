"""Vectors of 32 or 16 bits, as a Milvus field takes and gives them."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...registry import unknown_name
from .connection import Connection

FIELDS = {'float32': 'FLOAT_VECTOR', 'float16': 'FLOAT16_VECTOR', 'bfloat16': 'BFLOAT16_VECTOR'}
DTYPES = {field: dtype for dtype, field in FIELDS.items()}
_SINCE = (2, 4)  # 2.3 takes float16, and finds other rows than the nearest


def check_dtype(dtype: Any, connection: Connection) -> None:
    """Refuse a dtype that the server does not search.

    Raises:
        ValueError: there is no such dtype, or the server has it not.
    """
    if dtype not in FIELDS:
        raise ValueError(unknown_name('dtype of a MilvusIndex', dtype, FIELDS))
    if dtype != 'float32' and (connection.server_version or (0, 0)) < _SINCE:
        raise ValueError(f'Milvus at {connection.uri} is {connection.version}, and {dtype} vectors '
                         f'are searched by a server from {_SINCE[0]}.{_SINCE[1]} on: leave dtype '
                         'out, or use such a server.')


def rounded(vectors: np.ndarray, dtype: str) -> np.ndarray:
    """Vectors ``(N, D)`` float32 as they come back from the field.

    Raises:
        ValueError: a number is too large for it.

    Example:
        >>> rounded(np.array([[1, 1.001]], dtype=np.float32), 'bfloat16').tolist()
        [[1.0, 1.0]]
    """
    if dtype == 'float32':
        return vectors
    found = torch.from_numpy(vectors).to(getattr(torch, dtype)).float().numpy()
    if not np.isfinite(found).all():
        raise ValueError(f'The vectors hold {np.abs(vectors).max():g}, which {dtype} cannot: make '
                         'them of length 1, or use bfloat16 or float32.')
    return found


def packed(vectors: np.ndarray, dtype: str) -> np.ndarray | list[bytes]:
    """Vectors ``(N, D)`` float32 as pymilvus takes each of them: an array, or bytes.

    Example:
        >>> packed(np.array([[1, -2]], dtype=np.float32), 'float16')
        [b'\\x00<\\x00\\xc0']
    """
    if dtype == 'float32':
        return vectors
    halves = torch.from_numpy(vectors).to(getattr(torch, dtype)).view(torch.int16).numpy()
    return [row.tobytes() for row in halves]


def unpacked(values: Sequence[Any], dtype: str) -> np.ndarray:
    """What a query gives for vectors, as ``(N, D)`` float32.

    Example:
        >>> unpacked([[b'\\x00<\\x00\\xc0']], 'float16')
        array([[ 1., -2.]], dtype=float32)
    """
    if dtype == 'float32':
        return np.asarray(values, dtype=np.float32)
    halves = [np.frombuffer(value if isinstance(value, bytes) else value[0], dtype=np.int16)
              for value in values]
    return torch.from_numpy(np.stack(halves)).view(getattr(torch, dtype)).float().numpy()

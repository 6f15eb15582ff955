"""Vectors that are kept beside an approximate index, to score its candidates exactly."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..registry import unknown_name

DTYPES = {'float16': torch.float16, 'float32': torch.float32}
_HALF_LARGEST = 65504.0
_BLOCK = 2 ** 18  # numbers that are gathered at once: they stay in the cache


class KeptVectors:
    """Prepared vectors ``(N, D)`` in half or single precision.

    Args:
        similarity: ``cosine_similarity`` (the vectors have length 1 or 0), ``inner_product`` or
            ``euclidean``.
        dtype: ``float16`` or ``float32``.
        rows: the vectors, where there are some already.

    Raises:
        ValueError: the dtype is another one.
    """

    def __init__(self, similarity: str, dtype: str, rows: Tensor | None = None) -> None:
        if dtype not in DTYPES:
            raise ValueError(unknown_name('dtype of the kept vectors', dtype, DTYPES))
        self.similarity, self.dtype = similarity, dtype
        self._buffer = torch.zeros((0, 0), dtype=DTYPES[dtype]) if rows is None else rows
        self._count = len(self._buffer)

    @property
    def rows(self) -> Tensor:
        """The vectors ``(N, D)``, in the dtype that they are kept in."""
        return self._buffer[:self._count]

    def check(self, vectors: Tensor) -> None:
        """Refuse vectors that half precision cannot hold. Raises ValueError."""
        if self.dtype == 'float16':
            check_half(vectors, "which rescore_dtype='float16'")

    def add(self, vectors: Tensor) -> None:
        """Append vectors ``(n, D)`` float32."""
        need = self._count + len(vectors)
        if len(self._buffer) < need:
            room = max(need, 3 * self._count // 2, 1024)
            larger = torch.zeros((room, vectors.shape[1]), dtype=self._buffer.dtype)
            if self._count:
                larger[:self._count] = self.rows
            self._buffer = larger
        self._buffer[self._count:need] = vectors
        self._count = need

    def keep(self, rows: np.ndarray) -> None:
        """Leave only the rows of these numbers, in this order."""
        self._buffer = self.rows[torch.from_numpy(rows)]
        self._count = len(self._buffer)

    def floats(self, rows: np.ndarray | slice) -> Tensor:
        """Some of the vectors in float32, cosine's scaled to length 1 again."""
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        vectors = self.rows[chosen].float()
        if self.similarity == 'cosine_similarity' and self.dtype == 'float16':
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors

    def scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The similarities ``(Q, C)`` float32 of queries ``(Q, D)`` to their rows ``(Q, C)``;
        ``-inf`` where the row is -1.
        """
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        height = max(1, _BLOCK // max(1, rows.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), height):
            block = rows[start:start + height]
            query = torch.from_numpy(queries[start:start + height])[:, None]
            vectors = self.floats(np.maximum(block, 0))
            if self.similarity == 'euclidean':
                found = -(vectors - query).square_().sum(dim=2).sqrt_()
            else:
                found = (vectors * query).sum(dim=2)
            scores[start:start + height] = np.where(block >= 0, found.numpy(), -np.inf)
        return scores


def check_half(vectors: Tensor, who: str) -> None:
    """Refuse numbers that float16 cannot hold. Raises ValueError."""
    if len(vectors) and float(vectors.abs().max()) > _HALF_LARGEST:
        raise ValueError(f'The vectors hold numbers above 65504, {who} cannot keep: use float32, '
                         'or divide them by a constant.')

"""Embeddings as they are stored: float32, float16, or int8 with a scale for each row."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..registry import unknown_name

VECTOR_DTYPES = ('float32', 'float16', 'int8')
CHUNK_ROWS = 16384
_LEVELS = 127
_LARGEST_SCALE = np.float32(np.finfo(np.float32).max / _LEVELS) * np.float32(1 - 1e-6)
# how far from 1 the length of a row may be that was normalised before it was stored
_LENGTH_ERROR = {'float32': 1e-4, 'float16': 2e-3, 'int8': 2e-2}

Stored = tuple[np.ndarray, np.ndarray | None]


class Vectors(ABC):
    """N vectors of width D, stored in one way.

    Attributes:
        dtype: ``'float32'``, ``'float16'`` or ``'int8'``.
        shape: ``(N, D)``.

    Example:
        >>> vectors = ArrayVectors(*encode(np.float32([[1, 0.5], [0, 0]]), 'int8'))
        >>> vectors.stored(0, 2)[0].tolist(), vectors.decoded(0, 1).round(2).tolist()
        ([[127, 64], [0, 0]], [[1.0, 0.5]])
    """

    dtype: str
    shape: tuple[int, int]
    _normalised: bool | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def stored(self, start: int, stop: int) -> Stored:
        """Rows as they are stored, ``(n, D)``, and for int8 their scales ``(n,)`` float32."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> ArrayVectors:
        """A copy of the rows with these numbers, stored in the same way."""

    def decoded(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows as float32 ``(n, D)``, of float32 a view where possible."""
        stop = len(self) if stop is None else min(stop, len(self))
        if self.dtype == 'float32':
            return self.stored(start, stop)[0]
        out = np.empty((stop - start, self.shape[1]), dtype=np.float32)
        for begin in range(start, stop, CHUNK_ROWS):
            end = min(begin + CHUNK_ROWS, stop)
            decode_into(out[begin - start:end - start], self.stored(begin, end))
        return out

    def chunks(self, dtype: str) -> Iterator[Stored]:
        """All rows in turn, some thousands at a time, as that dtype stores them.

        Raises:
            ValueError: a value is too large for float16.
        """
        for start in range(0, len(self), CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, len(self))
            if dtype == self.dtype:
                yield self.stored(start, stop)
            else:
                yield encode(self.decoded(start, stop), dtype, start)

    @property
    def normalised(self) -> bool:
        """True where every row has length 1, up to the rounding of the dtype."""
        if self._normalised is None:
            error = _LENGTH_ERROR[self.dtype]
            self._normalised = all(
                bool((np.abs(_lengths(self.decoded(start, start + CHUNK_ROWS)) - 1) <= error).all())
                for start in range(0, len(self), CHUNK_ROWS))
        return self._normalised


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum('nd,nd->n', rows, rows, dtype=np.float64))


class ArrayVectors(Vectors):
    """Vectors in one array, in memory or in a mapped file.

    Args:
        data: ``(N, D)``, an array or a :class:`~retrieval.mapped_file.BlockArray`.
        scales: ``(N,)`` float32, for int8.
        normalised: whether the rows have length 1, where that is known.
    """

    def __init__(self, data: Any, scales: Any = None, normalised: bool | None = None) -> None:
        self.data, self.scales, self._normalised = data, scales, normalised
        self.dtype = check_dtype(data.dtype)
        self.shape = tuple(data.shape)

    def stored(self, start: int, stop: int) -> Stored:
        return self.data[start:stop], None if self.scales is None else self.scales[start:stop]

    def take(self, rows: np.ndarray) -> ArrayVectors:
        known = self._normalised or None  # some rows of a mixture may all be of length 1
        return ArrayVectors(self.data.take(rows, axis=0),
                            None if self.scales is None else self.scales.take(rows, axis=0), known)


class JoinedVectors(Vectors):
    """Vectors of several sources after one another, of each all or some rows; copied when used.

    Args:
        parts: vectors of one width, and the rows of them that count, or None for all.
        dtype: how they are handed out; by default that of all parts, or float32 where they differ.
    """

    def __init__(self, parts: Sequence[tuple[Vectors, np.ndarray | None]],
                 dtype: str | None = None) -> None:
        kinds = {vectors.dtype for vectors, _ in parts}
        self.parts = list(parts)
        self.dtype = dtype or (kinds.pop() if len(kinds) == 1 else 'float32')
        counts = [len(vectors) if rows is None else len(rows) for vectors, rows in parts]
        self._edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.shape = (int(self._edges[-1]), parts[0][0].shape[1])
        known = [vectors._normalised for vectors, _ in parts]
        self._normalised = True if all(known) else None

    def stored(self, start: int, stop: int) -> Stored:
        out = np.empty((max(stop - start, 0), self.shape[1]), dtype=self.dtype)
        scales = np.empty(len(out), dtype=np.float32) if self.dtype == 'int8' else None
        for begin, end, source, rows in self._ranges(start, stop):
            place = slice(begin - start, end - start)
            found, scale = _rows_of(source, rows, self.dtype)
            out[place] = found
            if scales is not None:
                scales[place] = scale
        return out, scales

    def take(self, rows: np.ndarray) -> ArrayVectors:
        rows = np.asarray(rows, dtype=np.int64)
        part_of = np.searchsorted(self._edges, rows, side='right') - 1
        out = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        scales = np.empty(len(rows), dtype=np.float32) if self.dtype == 'int8' else None
        for part in np.unique(part_of).tolist():
            mine = np.flatnonzero(part_of == part)
            source, kept = self.parts[part]
            local = rows[mine] - self._edges[part]
            found, scale = _rows_of(source, local if kept is None else kept[local], self.dtype)
            out[mine] = found
            if scales is not None:
                scales[mine] = scale
        return ArrayVectors(out, scales, self._normalised or None)

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[int, int, Vectors, Any]]:
        """The rows of each part between two rows: where they go, and a slice or numbers."""
        for part, (source, kept) in enumerate(self.parts):
            begin = max(start, int(self._edges[part]))
            end = min(stop, int(self._edges[part + 1]))
            if begin < end:
                local = slice(begin - int(self._edges[part]), end - int(self._edges[part]))
                yield begin, end, source, local if kept is None else kept[local]


def _rows_of(source: Vectors, rows: Any, dtype: str) -> Stored:
    if isinstance(rows, slice):
        if source.dtype == dtype:
            return source.stored(rows.start, rows.stop)
        return encode(source.decoded(rows.start, rows.stop), dtype)
    taken = source.take(rows)
    return taken.stored(0, len(taken)) if source.dtype == dtype else encode(taken.decoded(), dtype)


def encode(rows: np.ndarray, dtype: str, first: int = 0) -> Stored:
    """Finite float32 rows ``(n, D)`` as a dtype stores them.

    int8 is symmetric, with one scale a row: ``scale = max |x| / 127``, ``q = round(x / scale)``,
    so that a value is off by at most half a scale.

    Args:
        rows: the rows.
        dtype: ``'float32'``, ``'float16'`` or ``'int8'``.
        first: the number of the first row, for errors.

    Raises:
        ValueError: a value is too large for float16.
    """
    if dtype == 'float32':
        return np.asarray(rows, dtype=np.float32), None
    largest = np.abs(rows).max(axis=1)
    if dtype == 'float16':
        too_large = np.flatnonzero(largest >= 65520)  # from here on float16 rounds to infinity
        if len(too_large):
            raise ValueError(f'Row {first + int(too_large[0])} of the gallery holds the value '
                             f'{largest[too_large[0]]:.6g}, and float16 ends at 65504: save it '
                             "with dtype='float32' or 'int8', or normalise the embeddings.")
        return rows.astype(np.float16), None
    scales = np.minimum(largest / np.float32(_LEVELS), _LARGEST_SCALE)
    # a subnormal scale has too few digits to be divided by
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisors = np.where(scales > 0, scales, np.float32(1))
    levels = np.rint(rows / divisors[:, None]).clip(-_LEVELS, _LEVELS)
    levels[scales == 0] = 0
    return levels.astype(np.int8), scales


def decode_into(out: np.ndarray, stored: Stored) -> None:
    """Write stored rows into float32 ``(n, D)``."""
    data, scales = stored
    if scales is None:
        out[:] = data
    else:
        np.multiply(data, scales[:, None], out=out, dtype=np.float32)


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


def check_dtype(dtype: Any) -> str:
    """``dtype`` as ``'float32'``, ``'float16'`` or ``'int8'``. Raises ValueError for another."""
    name = str(dtype).removeprefix('torch.')
    if name not in VECTOR_DTYPES:
        raise ValueError(unknown_name('dtype of a gallery', name, VECTOR_DTYPES))
    return name

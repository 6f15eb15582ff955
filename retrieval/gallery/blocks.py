"""Arrays in a mapped file whose blocks are compared with their checksums when first touched."""
from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 16


class DamagedError(ValueError):
    """A file whose bytes are not those that were written."""


def digest(*parts: Any) -> bytes:
    """The first 16 bytes of the SHA-256 of bytes-like parts in turn.

    SHA-256 rather than a faster-looking hash, since processors compute it in hardware.
    """
    running = hashlib.sha256()
    for part in parts:
        running.update(part)
    return running.digest()[:DIGEST_BYTES]


def block_count(num_bytes: int, block_bytes: int = BLOCK_BYTES) -> int:
    """How many blocks so many bytes are."""
    return -(-num_bytes // block_bytes)


class BlockDigester:
    """The digests of the blocks of a stream that comes in pieces of any size."""

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        self._digests: list[bytes] = []
        self._running = hashlib.sha256()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """Take the next piece, as bytes."""
        while len(data):
            piece = data[:self.block_bytes - self._filled]
            self._running.update(piece)
            self._filled += len(piece)
            data = data[len(piece):]
            if self._filled == self.block_bytes:
                self._end_block()

    def _end_block(self) -> None:
        self._digests.append(self._running.digest()[:DIGEST_BYTES])
        self._running, self._filled = hashlib.sha256(), 0

    def finish(self) -> bytes:
        """The digests of all blocks, one after another."""
        if self._filled:
            self._end_block()
        return b''.join(self._digests)


class BlockArray:
    """An array in a file, of which only touched blocks are read, and checked once.

    It is sliced like a NumPy array along its first axis (``array[3:8]``, always a view of the
    mapped bytes); :meth:`take` copies rows.

    Args:
        file: the bytes of the whole file, ``(B,)`` uint8.
        path: the file's name, for errors.
        name: the tensor's name, for errors.
        dtype: of the elements.
        shape: of the array.
        begin: where its bytes begin in the file.
        digests: those of its blocks, ``(n, 16)`` uint8.
        block_bytes: the size of a block, a multiple of the size of an element.
        finite: whether NaN and infinity are refused.
    """

    def __init__(self, file: np.ndarray, path: str, name: str, dtype: Any,
                 shape: tuple[int, ...], begin: int, digests: np.ndarray,
                 block_bytes: int = BLOCK_BYTES, finite: bool = False) -> None:
        self.path, self.name, self.begin, self.finite = path, name, begin, finite
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        self._bytes = file[begin:begin + self._row_bytes * self.shape[0]]
        self._array = self._bytes.view(self.dtype).reshape(self.shape)
        self._digests, self._block_bytes = digests, block_bytes
        self._good = np.zeros(len(digests), dtype=bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Raises DamagedError where a touched block is not what was written."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError('a block array is sliced without a step')
        self._check(start * self._row_bytes, stop * self._row_bytes)
        return self._array[start:stop]

    def take(self, rows: np.ndarray, axis: int = 0) -> np.ndarray:
        """A copy of the rows with these numbers; only their blocks are read."""
        rows = np.asarray(rows)
        if len(rows) and self._row_bytes and not self._good.all():
            first = rows * self._row_bytes // self._block_bytes
            last = ((rows + 1) * self._row_bytes - 1) // self._block_bytes
            steps = int((last - first).max()) + 1
            touched = np.unique(np.concatenate([np.minimum(first + i, last)
                                                for i in range(steps)]))
            for block in touched[~self._good[touched]].tolist():
                self._check_block(block)
        return self._array.take(rows, axis=axis)

    def verify(self) -> None:
        """Check every block, also those that were checked before."""
        self._good[:] = False
        self._check(0, len(self._bytes))

    def _check(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        first, stop = begin // self._block_bytes, block_count(end, self._block_bytes)
        if self._good[first:stop].all():
            return
        for block in range(first, stop):
            if not self._good[block]:
                self._check_block(block)

    def _check_block(self, block: int) -> None:
        start = block * self._block_bytes
        data = self._bytes[start:start + self._block_bytes]
        if digest(data) != self._digests[block].tobytes():
            raise DamagedError(
                f'{self.path!r} is damaged: bytes {self.begin + start} to '
                f'{self.begin + start + len(data) - 1} of the file (in its tensor {self.name!r}) '
                'do not fit their checksum. Restore the file, or dump the prototype again.')
        if self.finite:
            self._check_finite(data.view(self.dtype), start)
        self._good[block] = True

    def _check_finite(self, values: np.ndarray, start: int) -> None:
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = (start + int(bad[0]) * self.dtype.itemsize) // self._row_bytes
            raise DamagedError(
                f'{self.path!r} holds NaN or infinity in its tensor {self.name!r}, the first in '
                f'row {row} (bytes {self.begin + start} to '
                f'{self.begin + start + values.nbytes - 1}). Encode the gallery again.')

    def pieces(self) -> Iterator[np.ndarray]:
        """The array in slices of about a block each."""
        rows = max(1, self._block_bytes // max(1, self._row_bytes))
        for start in range(0, len(self), rows):
            yield self[start:start + rows]

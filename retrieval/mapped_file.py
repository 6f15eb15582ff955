"""Files that are mapped, of which each block is checked against its digest when it is first read.

A digest is the first 16 bytes of the SHA-256 of a block of 1 MiB.
"""
from __future__ import annotations

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .foreign_files import refuse_special

BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 16
_MANY = 16  # blocks that are worth several threads


class DamagedError(ValueError):
    """A file whose bytes are not those that were written."""


def map_file(path: str | os.PathLike[str]) -> np.ndarray:
    """The bytes of a file, ``(B,)`` uint8, read when they are touched.

    What is written into them stays in memory and never reaches the file. No file descriptor stays
    open, so that the number of mapped files has no low limit.
    """
    import torch

    refuse_special(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return np.zeros(0, dtype=np.uint8)
        same = f'/proc/self/fd/{descriptor}'  # the opened file, whatever its name means by now
        name = same if Path(same).exists() else os.fspath(path)
        storage = torch.UntypedStorage.from_file(name, shared=False, nbytes=size)
    finally:
        os.close(descriptor)
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()  # type: ignore[arg-type]


class WatchedFile:
    """A file that is mapped, and whether it still has the bytes that it had.

    Touching what is gone of a mapped file that was cut short ends the process (SIGBUS), so it is to
    be checked before. A file that is replaced or deleted, as this package does it, stays as it was
    for whoever has it open.

    Args:
        path: the file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b'abc'), file.flush()
        ...     watched = WatchedFile(file.name)
        ...     print(watched.check())
        ...     _ = file.truncate(2)
        ...     try:
        ...         watched.check()
        ...     except DamagedError as error:
        ...         print(str(error).partition('was ')[2].partition('.')[0])
        0
        cut off after 2 of 3 bytes while it was open
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(path)  # what a link leads to later is another file
        now = os.stat(self.path)
        self._identity, self._size = (now.st_dev, now.st_ino), now.st_size
        self._time, self._changes = now.st_mtime_ns, 0

    def check(self) -> int:
        """How often the file was seen to have been written to since it was opened.

        Raises:
            DamagedError: it is shorter than when it was opened.
        """
        try:
            now = os.stat(self.path)
        except OSError:  # it is deleted, and so still there for whoever has it open
            return self._changes
        if (now.st_dev, now.st_ino) == self._identity:
            if now.st_size < self._size:
                raise DamagedError(
                    f'{self.path!r} was cut off after {now.st_size} of {self._size} bytes while it '
                    'was open. Restore the file and open it again; replace an open file by '
                    'renaming a new one to its name, or open it with copy=True.')
            if now.st_mtime_ns != self._time:
                self._changes, self._time = self._changes + 1, now.st_mtime_ns
        return self._changes


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
        again: how the file is made anew, for errors.
        watched: the file, where it is mapped: looked at before the bytes are touched.
    """

    def __init__(self, file: np.ndarray, path: str, name: str, dtype: Any,
                 shape: tuple[int, ...], begin: int, digests: np.ndarray,
                 block_bytes: int = BLOCK_BYTES, finite: bool = False, again: str = '',
                 watched: WatchedFile | None = None) -> None:
        self.path, self.name, self.begin, self.finite = path, name, begin, finite
        self._again, self._watched, self._changes = again, watched, 0
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
        self._look()
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

    def _look(self) -> None:
        """Raise DamagedError where the file is cut short; where it was written to since, no block
        counts as checked any more.
        """
        changes = 0 if self._watched is None else self._watched.check()
        if changes != self._changes:
            self._good = np.zeros_like(self._good)
            self._changes = changes

    def _check(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        self._look()
        first, stop = begin // self._block_bytes, block_count(end, self._block_bytes)
        if self._good[first:stop].all():
            return
        left = (first + np.flatnonzero(~self._good[first:stop])).tolist()
        if len(left) < _MANY:
            for block in left:
                self._check_block(block)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
            for _ in pool.map(self._check_block, left):
                pass

    def _check_block(self, block: int) -> None:
        start = block * self._block_bytes
        data = self._bytes[start:start + self._block_bytes]
        if digest(data) != self._digests[block].tobytes():
            raise DamagedError(
                f'{self.path!r} is damaged: bytes {self.begin + start} to '
                f'{self.begin + start + len(data) - 1} of the file (in its tensor {self.name!r}) '
                f'do not fit their checksum. Restore the file. {self._again}')
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
                f'{self.begin + start + values.nbytes - 1}). {self._again}')


def digest(*parts: Any) -> bytes:
    """The first 16 bytes of the SHA-256 of bytes-like parts in turn.

    SHA-256 rather than a faster-looking hash, since processors compute it in hardware.
    """
    running = hashlib.sha256()
    for part in parts:
        running.update(part)
    return running.digest()[:DIGEST_BYTES]


class BlockDigester:
    """The digests of the blocks of a stream that comes in pieces of any size.

    Example:
        >>> digester = BlockDigester(4)
        >>> for piece in (b'abc', b'def'):
        ...     digester.update(memoryview(piece))
        >>> digester.finish() == digest(b'abcd') + digest(b'ef')
        True
    """

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


def block_count(num_bytes: int, block_bytes: int) -> int:
    """How many blocks so many bytes take.

    Example:
        >>> block_count(10, 4)
        3
    """
    return -(-num_bytes // block_bytes)

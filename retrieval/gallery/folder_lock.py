"""One writer at a time in a folder, across processes."""
from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = 'lock'
_PAUSE_SECONDS = 0.02


@contextmanager
def folder_lock(folder: str | os.PathLike, timeout: float) -> Iterator[None]:
    """Hold the folder's writer lock inside.

    The lock belongs to the open file, so that it ends with its process however that ends: a dead
    writer leaves none behind.

    Args:
        folder: a folder.
        timeout: for how many seconds to wait for another writer.

    Raises:
        TimeoutError: an ``OSError``; another writer holds it all the time.
    """
    descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, folder, timeout)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: str | os.PathLike, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            return
        if time.monotonic() >= end:
            writer = os.pread(descriptor, 20, 0).decode(errors='replace') or 'unknown'
            raise TimeoutError(errno.ETIMEDOUT, f'Another process (number {writer}) is writing to '
                               f'{str(folder)!r}; waited {timeout:g} s. Nothing was changed: try '
                               'again, or with a longer timeout.')
        time.sleep(_PAUSE_SECONDS)

"""Files that are written whole or not at all, and a lock for the one writer of a folder."""
from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

LOCK_NAME = 'lock'
_PAUSE_SECONDS = 0.02
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: str | os.PathLike[str], write: Callable[[str], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, sync, and rename: a reader sees the
    old file or the new one, never half of one. Missing folders are made.

    The folder is synced too, so that on return the new file outlives a loss of power.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there before stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(f'{folder}/x', lambda name: Path(name).write_text('abc'))
        ...     os.listdir(folder)
        ['x']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.', delete=False) as handle:
        temporary = handle.name
    try:
        write(temporary)
        with open(temporary, 'rb') as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # a temporary file is private, the result need not be
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OSError(error.errno, f'{str(path)!r} was not written, since there is no room for '
                          f'it ({os.strerror(error.errno)}). What was there before is unchanged: '
                          'make room and try again.') from error
        raise
    sync_folder(path.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file of these bytes atomically; see :func:`write_atomically`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes(f'{folder}/new/x', b'abc')
        ...     Path(f'{folder}/new/x').read_bytes()
        b'abc'
    """
    def write(temporary: str) -> None:
        with open(temporary, 'wb', buffering=0) as handle:
            write_all(handle, data)

    write_atomically(path, write)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 atomically; see :func:`write_atomically`."""
    write_bytes(path, text.encode())


def write_all(handle: Any, data: Any) -> None:
    """Write all bytes of ``data`` to an unbuffered file, whose ``write`` may take only some."""
    view = memoryview(data).cast('B')
    while len(view):
        view = view[handle.write(view):]


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


@contextmanager
def folder_lock(folder: str | os.PathLike[str], timeout: float) -> Iterator[None]:
    """Hold the folder's writer lock inside.

    The lock belongs to the open file, so that it ends with its process however that ends: a dead
    writer leaves none behind.

    Args:
        folder: a folder.
        timeout: for how many seconds to wait for another writer.

    Raises:
        TimeoutError: an ``OSError``; another writer holds it all the time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, folder_lock(folder, timeout=1):
        ...     os.listdir(folder)
        ['lock']
    """
    descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, folder, timeout)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: str | os.PathLike[str], timeout: float) -> None:
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

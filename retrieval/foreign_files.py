"""Files that somebody else made: only regular ones are read, none that would fill the memory."""
from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

_KINDS = {stat.S_IFIFO: 'a named pipe', stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device',
          stat.S_IFSOCK: 'a socket'}


class SpecialFileError(OSError, ValueError):
    """A path leads to a pipe, a device or a socket, where a file is wanted.

    Example:
        >>> refuse_special('/dev/zero')
        Traceback (most recent call last):
        retrieval.foreign_files.SpecialFileError: '/dev/zero' is a device: only files are read.
    """


def special_kind(mode: int) -> str | None:
    """``'a named pipe'``, ``'a device'`` or ``'a socket'`` for such a ``st_mode``, else None.

    Example:
        >>> special_kind(os.stat('/dev/null').st_mode)
        'a device'
    """
    return _KINDS.get(stat.S_IFMT(mode))


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Refuse a path that leads to a pipe, a device or a socket, which might never end.

    A path where nothing is passes: who reads it says so better.

    Raises:
        SpecialFileError: an ``OSError`` and ``ValueError``.

    Example:
        >>> refuse_special('no/such/file')
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # the latter for a name with a zero byte
        return
    _check(path, mode)


def _check(path: str | os.PathLike[str], mode: int) -> None:
    kind = special_kind(mode)
    if kind:
        target = os.path.realpath(path)
        leads = f' (it leads to {target!r})' if target != os.path.abspath(path) else ''
        raise SpecialFileError(f'{os.fspath(path)!r} is {kind}{leads}: only files are read.')


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading bytes, without waiting for the other end of a pipe.

    Raises:
        SpecialFileError: an ``OSError`` and ``ValueError``; it is a pipe, a device or a socket.
        OSError: it cannot be opened.

    Example:
        >>> with open_regular(os.__file__) as file:
        ...     file.readable()
        True
    """
    refuse_special(path)  # opening some devices does something by itself
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        _check(path, mode)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        return os.fdopen(descriptor, 'rb')
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; see :func:`open_regular`.

    Example:
        >>> read_regular('/dev/zero')
        Traceback (most recent call last):
        retrieval.foreign_files.SpecialFileError: '/dev/zero' is a device: only files are read.
    """
    with open_regular(path) as file:
        return file.read()

"""Files that somebody else made: only regular ones are read, none that would fill the memory."""
from __future__ import annotations

import ast
import errno
import faulthandler
import json
import math
import os
import resource
import stat
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np

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


# Sizes -------------------------------------------------------------------------------------------

_NUMPY = b'\x93NUMPY'
_LONGEST_HEADER = 10_000  # as NumPy


def refuse_oversized(path: str | os.PathLike[str]) -> None:
    """Refuse an array or archive (``.npy``, ``.npz``, a file of ``torch.save``) by its header:
    an array of more bytes than there are, or contents that the free memory does not hold.

    Other files pass. The bytes decide what a file is.

    Raises:
        ValueError: it claims more; the message says how much.
        OSError: it cannot be opened.

    Example:
        >>> refuse_oversized(__file__)
    """
    with open_regular(path) as file:
        size, start = os.fstat(file.fileno()).st_size, file.read(len(_NUMPY))
        file.seek(0)
        try:
            if start == _NUMPY:
                _check_array(path, file, size)
                _check_memory(path, size)
            elif start.startswith(b'PK'):
                with ZipFile(file) as archive:
                    _check_memory(path, sum(part.file_size for part in archive.infolist()))
                    for part in archive.infolist():
                        if part.filename.endswith('.npy'):
                            with archive.open(part) as member:
                                _check_array(path, member, part.file_size)
        except (BadZipFile, SyntaxError, UnicodeDecodeError, NotImplementedError, OSError,
                EOFError, zlib.error):
            return  # who reads it says what is wrong


def _check_array(path: str | os.PathLike[str], file: IO[bytes], size: int) -> None:
    """Compare the header of a ``.npy`` file with its size (numpy.lib.format, versions 1 to 3)."""
    start = file.read(8)
    length = 2 if start[6:7] == b'\1' else 4
    header = file.read(min(int.from_bytes(file.read(length), 'little'), _LONGEST_HEADER))
    if not start.startswith(_NUMPY):
        return
    try:
        described = ast.literal_eval(header.decode('latin-1' if length == 2 else 'utf-8').strip())
        dtype = np.lib.format.descr_to_dtype(described['descr'])
        shape = tuple(int(edge) for edge in described['shape'])
    except (ValueError, TypeError, KeyError, MemoryError, RecursionError):
        return  # NumPy says what is wrong with it
    claimed = math.prod(shape) * dtype.itemsize
    held = size - len(start) - length - len(header)
    if claimed > held and not dtype.hasobject:
        raise ValueError(f'{os.fspath(path)!r} claims to hold an array of shape {shape} and dtype '
                         f'{dtype}, {claimed:,} bytes, and holds {held:,}: it is damaged. Write it '
                         'again.')


def _check_memory(path: str | os.PathLike[str], wanted: int) -> None:
    free = available_memory()
    if wanted > free:
        raise ValueError(f'{os.fspath(path)!r} would take {wanted:,} bytes of memory, and '
                         f'{free:,} are free. Write it in parts, or as a gallery, which is mapped.')


def available_memory() -> int:
    """How many bytes this process can still take: what the machine, its control group and its own
    limit leave.

    Example:
        >>> available_memory() > 0
        True
    """
    bounds = [2 ** 63]
    with suppress(OSError, ValueError, IndexError):
        meminfo = Path('/proc/meminfo').read_text()
        bounds.append(1024 * int(meminfo.partition('MemAvailable:')[2].split()[0]))
    for limit, used in (('memory.max', 'memory.current'),
                        ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes')):
        with suppress(OSError, ValueError):  # 'max' where there is no limit
            root = Path('/sys/fs/cgroup')
            bounds.append(int((root / limit).read_text()) - int((root / used).read_text()))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError, ValueError, IndexError):
        if soft != resource.RLIM_INFINITY:
            pages = int(Path('/proc/self/statm').read_text().split()[0])
            bounds.append(soft - pages * resource.getpagesize())
    return max(0, min(bounds))


# What a damaged archive leads its reader to.
DAMAGED_ARCHIVE = (BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error)
_FOLDERS: dict[tuple[Any, ...], Any] = {}  # of the archives that were unpacked


def unpacked(path: str | os.PathLike[str], names: Collection[str]) -> Path:
    """A folder with some files of a ``.zip``, and no others. It lives as long as the process.

    Args:
        path: the archive.
        names: of the files, as they stand in it; those that are not there are left out.

    Raises:
        ValueError: it is damaged, or there is no room for them.

    Example:
        >>> import zipfile
        >>> with zipfile.ZipFile('two.zip', 'w') as archive:
        ...     archive.writestr('a', 'x'), archive.writestr('b', 'y')
        (None, None)
        >>> os.listdir(unpacked('two.zip', ('a',)))
        ['a']
    """
    import shutil
    import tempfile

    state = os.stat(path)
    key = (os.path.realpath(path), state.st_mtime_ns, state.st_size, tuple(names))
    if key in _FOLDERS:
        return Path(_FOLDERS[key].name)
    folder = tempfile.TemporaryDirectory(prefix='retrieval-')
    with ZipFile(path) as archive:
        parts = [part for part in archive.infolist() if part.filename in names]
        wanted, free = sum(part.file_size for part in parts), shutil.disk_usage(folder.name).free
        if wanted > free:
            raise ValueError(f'{str(path)!r} unpacks to {wanted:,} bytes, and {free:,} are free in '
                             f'{folder.name!r}: set TMPDIR to a larger disk.')
        try:
            for part in parts:
                archive.extract(part, folder.name)
        except DAMAGED_ARCHIVE as error:
            raise ValueError(f'{str(path)!r} is damaged: {error}.') from error
    _FOLDERS[key] = folder
    return Path(folder.name)


def read_apart(read: Callable[[], Any]) -> Any:
    """What a reader returns, called in a fork of this process: some readers crash on a damaged
    file, and the process with them.

    Args:
        read: returns what JSON has, or arrays, which become lists.

    Raises:
        ValueError: the reader raised an error, which the message names, or crashed.

    Example:
        >>> read_apart(lambda: {'rows': [1, 2]})
        {'rows': [1, 2]}
    """
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            try:
                said = json.dumps([read(), None], default=_as_list)
            except Exception as error:
                said = json.dumps([None, f'{type(error).__name__}: {error}'])
            with open(into, 'w') as pipe:
                pipe.write(said)
        finally:
            os._exit(0)
    os.close(into)
    with open(out) as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not text or code:
        raise ValueError('its reader crashes on it')
    found, refused = json.loads(text)
    if refused is not None:
        raise ValueError(refused)
    return found


def _as_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)

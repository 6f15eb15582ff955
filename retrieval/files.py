"""Files that are written whole or not at all, a lock for the one writer of a folder, and what a
file seems to be.
"""
from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
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
    """Write a text file in UTF-8 atomically; see :func:`write_atomically`.

    File names that are no UTF-8 are written with the bytes that they have.
    """
    write_bytes(path, text.encode('utf-8', 'surrogateescape'))


def write_json(path: str | os.PathLike[str], content: Any, indent: int = 1) -> None:
    """Write plain data as a JSON file in UTF-8 atomically; see :func:`write_atomically`.

    A byte of a file name that is no UTF-8 is escaped, as ``\\udce9``: the file is sound JSON, and
    Python reads the same name from it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(f'{folder}/x.json', {'Köln': os.fsdecode(b'caf\\xe9')}, indent=0)
        ...     Path(f'{folder}/x.json').read_text('utf-8').split('\\n')[1]
        '"Köln": "caf\\\\udce9"'
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False) + '\n'
    write_bytes(path, text.encode('utf-8', 'backslashreplace'))


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
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write into, which appears as ``path`` when all of it is there.

    Raises:
        FileExistsError: something stands at ``path``, but for an empty folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with new_folder(f'{parent}/new') as folder:
        ...         (folder / 'a').touch()
        ...     os.listdir(f'{parent}/new')
        ['a']
    """
    out = Path(path)
    if out.is_symlink() or out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = 'folder and not empty' if out.is_dir() else 'file'
        raise FileExistsError(f'{str(out)!r} is a {what}: what is written goes into a new or empty '
                              'folder. Name another, or remove it first.')
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    try:
        yield partial
        partial.chmod(0o755)  # a temporary folder is private, the result need not be
        if out.is_dir():
            out.rmdir()  # empty, and not every system renames onto a folder
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
    descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW,
                         0o666)
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


# how files begin that are given by mistake where another kind is wanted
_BEGINNINGS = (
    (b'\x93NUMPY', 'an array of NumPy (.npy)'),
    (b'PAR1', 'a table (Parquet)'),
    (b'ARROW1', 'a table (Arrow)'),
    (b'\x89HDF\r\n\x1a\n', 'an HDF5 file'),
    (b'MATLAB ', 'a MATLAB file'),
    (b'SQLite format 3\0', 'a database of SQLite'),
    (b'GGUF', 'a language model (GGUF)'),
    (b'\x89PNG\r\n\x1a\n', 'a picture (PNG)'),
    (b'\xff\xd8\xff', 'a picture (JPEG)'),
    (b'GIF8', 'a picture (GIF)'),
    (b'II*\0', 'a picture (TIFF)'), (b'MM\0*', 'a picture (TIFF)'),
    (b'BM', 'a picture (BMP)'),
    (b'\0\0\0\x0cjP  ', 'a picture (JPEG 2000)'), (b'\xff\x4f\xff\x51', 'a picture (JPEG 2000)'),
    (b'8BPS', 'a picture (Photoshop)'),
    (b'%!PS', 'a program for printers (PostScript)'),
    (b'%PDF', 'a document (PDF)'),
    (b'\x1f\x8b', 'an archive (gzip)'), (b'BZh', 'an archive (bzip2)'),
    (b'\xfd7zXZ\0', 'an archive (xz)'), (b'\x28\xb5\x2f\xfd', 'an archive (Zstandard)'),
    (b'7z\xbc\xaf\x27\x1c', 'an archive (7z)'), (b'Rar!', 'an archive (RAR)'),
    (b'\x7fELF', 'a program (ELF)'), (b'MZ', 'a program (Windows)'),
    (b'version https://git-lfs', 'a pointer of Git LFS: the file itself was not fetched'),
    (b'\xff\xfe', 'a text file in UTF-16'), (b'\xfe\xff', 'a text file in UTF-16'),
)


def kind_of_file(path: str | os.PathLike[str]) -> str:
    """What a file seems to be, judged by how it begins, for messages: ``'a picture (PNG)'``.

    Only regular files are opened, and of these a few kilobytes.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile('w', suffix='.pth') as file:
        ...     _ = file.write('path,label\\na.png,0\\n')
        ...     file.flush()
        ...     kind_of_file(file.name)
        "a table (CSV) with the columns 'path', 'label'"
    """
    path = Path(path)
    if path.is_dir():
        return 'a folder'
    if not path.is_file():
        return 'a special file' if path.exists() else 'missing'
    with open(path, 'rb') as file:
        head = file.read(4096)
    if not head:
        return 'an empty file'
    if head[:4] == b'PK\3\4':
        return _kind_of_zip(path)
    if head[:4] == b'RIFF' and head[8:12] == b'WEBP':
        return 'a picture (WebP)'
    if head[4:8] == b'ftyp':
        return 'a picture (AVIF or HEIC)' if head[8:12] in (
            b'avif', b'avis', b'heic', b'heix', b'mif1', b'msf1') else 'a film (MP4)'
    if head[257:262] == b'ustar':
        return 'an archive (tar)'
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 100_000_000:
        return 'tensors (safetensors)'
    if head[:1] == b'\x80' and head[1:2] in b'\2\3\4\5':
        return 'a pickle of Python'
    if re.match(rb'I[xHwv][A-Za-z0-9]{2}', head) and b'\0' in head[:64]:
        return 'an index of faiss'
    kind = next((kind for begin, kind in _BEGINNINGS if head.startswith(begin)), None)
    return kind or _kind_of_text(head)


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return 'an archive (ZIP) that is damaged or cut short'
    if any(name.endswith('/data.pkl') for name in names):
        return 'a file of torch.save'
    if names and all(name.endswith('.npy') for name in names):
        return f'arrays of NumPy (.npz), {_listed([name[:-4] for name in names])}'
    if any(name.startswith('xl/') for name in names):
        return 'a table of Excel'
    return 'an archive (ZIP)'


def _kind_of_text(head: bytes) -> str:
    text = head.decode('utf-8-sig', 'replace')
    if re.search('[\0-\x08\x0e-\x1a\x1c-\x1f]', text):
        return f'unknown: it begins with the bytes {head[:8].hex(" ")}'
    if text[:-3].count('\ufffd') > len(text) // 20:
        return 'a text file that is not in UTF-8'
    first = text.strip()[:40].lower()
    if first.startswith(('<!doctype html', '<html')):
        return 'a web page (HTML), as servers answer in the place of a download'
    if first.startswith('<'):
        return 'a text file of markup (XML)'
    if first.startswith(('{', '[')):
        return 'a text file (JSON)'
    line = text.strip().split('\n')[0].strip()
    for separator in '\t,;':
        if line.count(separator) and '\n' in text:
            columns = [name.strip(' "\'') for name in line.split(separator)]
            return f'a table (CSV) with the columns {_listed(columns)}'
    return f'a text file that begins with {line[:30]!r}'


def _listed(names: list[str]) -> str:
    return ', '.join(map(repr, names[:5])) + ', …' * (len(names) > 5)

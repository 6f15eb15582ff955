"""The encoded images of a folder: where they are kept, by what it is known that an image is as it
was, and reading them without torch.
"""
from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .foreign_files import open_regular
from .tensor_file import GALLERY_FILE, Container

COMPARE = ('stat', 'content')
STATE = 'file_state'  # the column that says which content of a file was encoded
NO_FILE = 'unreadable'  # the state of one that is not there
_ROOT = '<folder>'
_MOST_BYTES = 2 ** 30  # of a file that is read as a whole


def cache_beside(folder: str | os.PathLike[str], name: str = 'default') -> Path:
    """Where the encoded images of a folder are kept.

    In the hidden folder ``.retrieval`` in it, or, where that cannot be written to, in the user's
    cache (``$XDG_CACHE_HOME``, else ``~/.cache``) under a digest of the folder's path.

    Args:
        folder: of images.
        name: of the model; each has a file of its own.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache_beside(folder, 'mine').relative_to(Path(folder).resolve()).as_posix()
        '.retrieval/mine.safetensors'
    """
    root = Path(folder).resolve()
    beside = root / '.retrieval'
    if os.access(beside if beside.is_dir() else root, os.W_OK | os.X_OK):
        return beside / f'{name}.safetensors'
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    digest = hashlib.sha256(str(root).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    return Path(home) / 'retrieval' / f'{root.name}-{digest}-{name}.safetensors'


def file_state(path: str | None, compare: str = 'stat') -> str:
    """A text that stands for the content of a file; empty where there is none, as of an array,
    whose identity is its content already.
    """
    if path is None:
        return ''
    try:
        if compare == 'content':
            digest = hashlib.sha256()
            with open_regular(path) as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
            return f'sha256 {digest.hexdigest()}'
        status = os.stat(path)
        return f'{status.st_size} bytes at {status.st_mtime_ns}'
    except OSError:
        return NO_FILE


def relative_id(name: str, root: str | None) -> str:
    """An id as it is kept: below the folder ``root`` without it, any other as it is.

    Example:
        >>> relative_id('/pictures/a.png', '/pictures'), relative_id('/b.png', '/pictures')
        ('<folder>/a.png', '/b.png')
    """
    if root is None or not name.startswith(os.path.join(root, '')):
        return name
    return os.path.join(_ROOT, name[len(os.path.join(root, '')):])


class EncodedFolder:
    """The kept rows of a folder, as NumPy's arrays, for a search without torch.

    Use :meth:`open`.

    Attributes:
        embeddings: ``(N, D)`` float32.
        ids: the path of every row.
        similarity: the name of that which they are meant for, or None.
    """

    def __init__(self, opened: Container, root: str) -> None:
        self.embeddings: np.ndarray = opened.arrays['embeddings'][:]
        inside = os.path.join(_ROOT, '')
        self.ids = [os.path.join(root, name[len(inside):]) if name.startswith(inside) else name
                    for name in opened.strings('ids')]
        self.similarity: str | None = opened.manifest['similarity']
        self._labels = opened.arrays['labels'][:] if 'labels' in opened else None
        self._names = list(opened.strings('label_names')) if 'label_names' in opened else None

    @classmethod
    def open(cls, cache: str | os.PathLike[str], root: str, images: Sequence[str],
             fingerprint: Mapping[str, Any], settings: str) -> EncodedFolder | None:
        """The rows in a file, where they are those of the folder's images as they are now.

        Args:
            cache: the file.
            root: the folder's absolute path.
            images: its images, by absolute paths.
            fingerprint: of the model and pipeline that must have made the rows, as a dict.
            settings: the hash of the encoder's settings.

        Returns:
            The rows; None where the file is missing, damaged, of another model or too large to be
            read as a whole, or where an image is new, was changed, is gone or could not be read.
        """
        try:
            if os.path.getsize(cache) > _MOST_BYTES:
                return None
            opened = Container(cache, GALLERY_FILE, copy=True)
            manifest = opened.manifest
            columns = manifest['columns']
            if (manifest['fingerprint'] != dict(fingerprint) or manifest['dtype'] != 'float32'
                    or manifest['source'].get('encoder') != settings or manifest['skipped']
                    or STATE not in columns):
                return None
            states = opened.strings(f'metadata.{columns.index(STATE)}')
            found = dict(zip(opened.strings('ids'), states, strict=True))
            if found != {relative_id(image, root): file_state(image) for image in images}:
                return None
            return cls(opened, root)
        except (OSError, ValueError, KeyError):
            return None

    def __len__(self) -> int:
        return len(self.ids)

    def label_name(self, row: int) -> str | None:
        """The name of a row's class, its number where there are no names, None without labels."""
        if self._labels is None:
            return None
        label = int(self._labels[row])
        return str(label) if self._names is None else self._names[label]

    def describe(self, row: int) -> dict[str, Any]:
        """A folder's rows have no metadata."""
        return {}

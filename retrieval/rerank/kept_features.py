"""Local features of pictures in a file, so that they are found once."""
from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..foreign_files import refuse_special
from ..registration import FEATURES, SMALL, LocalFeatures

# The number changes with what is found in a picture, or how it is packed.
_TABLE = 'features_1'
_MADE = f'CREATE TABLE {_TABLE} (name BLOB PRIMARY KEY, state TEXT, digest BLOB, packed BLOB)'
_MOST_BYTES = 20 + FEATURES * (8 + 128) + SMALL * SMALL  # of one picture


class KeptFeatures:
    """The local features of picture files, in a SQLite file.

    They are found again by the file's path from here, so that a folder may be moved with it, and by
    its state (:func:`~retrieval.encoded_folder.file_state`), so that a changed picture has none.
    What cannot be read or written is not there; a file that is damaged or not of this kind is
    removed, and begun again.

    Args:
        path: of the file; it need not exist.
        most: of how many pictures features are kept, the latest.

    Example:
        >>> import tempfile
        >>> from retrieval.registration import local_features
        >>> found = local_features(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = KeptFeatures(f'{folder}/kept.sqlite')
        ...     kept.write({'a.png': ('9 bytes', found)})
        ...     again = kept.read({'a.png': '9 bytes', 'b.png': '9 bytes'})
        >>> list(again), bool((again['a.png'].descriptors == found.descriptors).all())
        (['a.png'], True)
    """

    def __init__(self, path: str | os.PathLike[str], most: int = 10_000) -> None:
        self.path, self.most = Path(path), most

    def read(self, states: Mapping[str, str]) -> dict[str, LocalFeatures]:
        """The features of those files, by path, whose state is as it was."""
        names = {self._name(path): path for path in states}

        def select(file: sqlite3.Connection) -> list[tuple[bytes, str, bytes, bytes]]:
            return [row for name in names for row in file.execute(
                f'SELECT * FROM {_TABLE} WHERE name = ?', (name,))]
        found = {}
        for name, state, digest, packed in (self._done(select) or []) if self.path.exists() else ():
            path = names[name]
            if state == states[path] and isinstance(packed, bytes) and \
                    digest == _digest(name, state, packed):
                features = _unpacked(packed)
                if features is not None:
                    found[path] = features
        return found

    def write(self, found: Mapping[str, tuple[str, LocalFeatures]]) -> None:
        """Keep features by path, each with the state of its file."""
        rows = [(self._name(path), state, _packed(features))
                for path, (state, features) in found.items()]

        def insert(file: sqlite3.Connection) -> None:
            with file:
                file.executemany(
                    f'INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?)',
                    [(name, state, _digest(name, state, packed), packed)
                     for name, state, packed in rows])
                file.execute(f'DELETE FROM {_TABLE} WHERE rowid <= '
                             f'(SELECT max(rowid) FROM {_TABLE}) - ?', (self.most,))
        if rows:
            self._done(insert)

    def _done(self, action: Callable[[sqlite3.Connection], Any]) -> Any:
        """The result of an action on the file, None where it cannot be opened."""
        try:
            refuse_special(self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path)) as file:
                file.execute('PRAGMA trusted_schema = OFF')
                file.execute('PRAGMA synchronous = OFF')  # what is lost is found again
                held = [made for made, in file.execute('SELECT sql FROM sqlite_master') if made]
                if not held:
                    file.execute(_MADE)
                elif held != [_MADE]:
                    raise sqlite3.DatabaseError('the tables of something else')
                return action(file)
        except (OSError, sqlite3.OperationalError):  # read-only, full, or another writes for long
            return None
        except sqlite3.DatabaseError:
            with suppress(OSError):
                self.path.unlink()
            return None

    def _name(self, path: str) -> bytes:
        return os.fsencode(os.path.relpath(path, self.path.parent))


def _digest(name: bytes, state: str, packed: bytes) -> bytes:
    return hashlib.blake2b(b'\n'.join((name, state.encode(), packed)), digest_size=16).digest()


def _packed(features: LocalFeatures) -> bytes:
    sizes = len(features.points), *features.size, *features.small.shape
    return zlib.compress(np.array(sizes, '<i4').tobytes() + b''.join(
        part.tobytes() for part in (features.points.astype('<f4'), features.descriptors,
                                    features.small)), 1)


def _unpacked(packed: bytes) -> LocalFeatures | None:
    """Features from bytes that anybody may have written, None where they are none."""
    try:
        data = zlib.decompressobj().decompress(packed, _MOST_BYTES)
    except (zlib.error, TypeError):
        return None
    if len(data) < 20:
        return None
    count, width, height, rows, columns = np.frombuffer(data, '<i4', 5).tolist()
    if min(count, width - 1, height - 1, rows - 1, columns - 1) < 0 or \
            len(data) != 20 + count * (8 + 128) + rows * columns:
        return None
    points = np.frombuffer(data, '<f4', 2 * count, 20).reshape(count, 2)
    if not np.isfinite(points).all():
        return None
    descriptors = np.frombuffer(data, np.uint8, 128 * count, 20 + 8 * count).reshape(count, 128)
    small = np.frombuffer(data, np.uint8, offset=20 + 136 * count).reshape(rows, columns)
    return LocalFeatures(points, descriptors, (width, height), small)

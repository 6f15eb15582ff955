"""The file that holds the embedded dataset: which characters form a class, and their pictures.

One safetensors file, about 150 MB, made in a few seconds by whoever opens it first and mapped into
memory afterwards. Its name holds the version of its format and a hash of the fonts and of what
draws them, so that another version makes a file of its own.
"""
from __future__ import annotations

import json
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from ...files import write_atomically
from ...mapped_file import WatchedFile

if TYPE_CHECKING:
    from .rendering import Glyph

FORMAT = 'retrieval-glyphs'
FORMAT_VERSION = 1
SIZE = 64
MIN_TYPEFACES = 8
COLUMNS = ('labels', 'code_points', 'fonts')


class DamagedCacheError(ValueError):
    """The cache cannot be read, or its pictures are not those that were written."""


class MappedImages:
    """The pictures of a cache, mapped into memory when first needed.

    Pickling and copying carry the file's name alone, so a loader worker maps the file itself.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._map: np.ndarray | None = None
        self._watched: WatchedFile | None = None

    @property
    def array(self) -> np.ndarray:
        """All pictures, ``(N, 64, 64)`` uint8, read-only.

        Raises:
            DamagedError: a ``ValueError``; the file was cut short while it is open.
        """
        if self._watched is None or self._map is None:
            self._watched = WatchedFile(self.path)
            with open(self.path, 'rb') as file:
                length = int.from_bytes(file.read(8), 'little')  # as safetensors defines its header
                header = json.loads(file.read(length))
            entry = header['images']
            self._map = np.memmap(self.path, np.uint8, 'r', shape=tuple(entry['shape']),
                                  offset=8 + length + entry['data_offsets'][0])
        self._watched.check()
        return self._map

    def __getitem__(self, rows: Any) -> np.ndarray:
        """A copy of one picture ``(64, 64)``, or of several ``(n, 64, 64)``."""
        return np.array(self.array[rows])

    def __len__(self) -> int:
        return len(self.array)

    def __getstate__(self) -> dict[str, Any]:
        return {'path': self.path, '_map': None, '_watched': None}


@dataclass(frozen=True)
class GlyphTable:
    """The content of a cache, one row a picture, by class, typeface and character.

    Args:
        images: the pictures.
        labels: the class of each, ``(N,)`` int64, a position in ``classes``.
        code_points: its character, ``(N,)`` int64; the lowest, where a typeface draws several
            alike.
        fonts: its typeface, ``(N,)`` int64, a position in ``typefaces``.
        classes: the characters of each class, as one string.
        typefaces: ``stem``, ``name`` and ``family`` of each.
    """

    images: MappedImages
    labels: np.ndarray
    code_points: np.ndarray
    fonts: np.ndarray
    classes: list[str]
    typefaces: list[dict[str, str]]


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/retrieval/glyphs``, by default ``~/.cache/retrieval/glyphs``."""
    caches = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(caches, 'retrieval', 'glyphs')


@lru_cache(maxsize=1)
def fonts_key() -> str:
    """A hash of the fonts and of the release of matplotlib that draws them, in hexadecimal."""
    import matplotlib

    from .rendering import font_files
    digest = blake2b(matplotlib.__version__.encode(), digest_size=6)
    for stem, path in font_files().items():
        digest.update(stem.encode() + path.read_bytes())
    return digest.hexdigest()


def cache_path(folder: str | Path | None = None) -> Path:
    """The cache's file in a folder."""
    name = f'glyphs-v{FORMAT_VERSION}-{fonts_key()}.safetensors'
    return Path(folder or default_folder(), name)


def open_glyphs(folder: str | Path | None = None) -> GlyphTable:
    """Open the cache; make it where it is missing, and anew where it is damaged.

    Processes that make it at the same time draw the same file, and each puts its own in place in
    one step.

    Raises:
        FileNotFoundError: matplotlib's fonts are missing.
        OSError: the folder cannot be written.
    """
    path = cache_path(folder)
    if path.is_file():
        status = path.stat()
        try:
            return _read(str(path), status.st_mtime_ns, status.st_size)
        except DamagedCacheError as error:
            warnings.warn(f'{error} It is made anew.')
    try:
        build_cache(path)
    except (OSError, SafetensorError) as error:
        raise OSError(f'The glyphs, 150 MB, cannot be stored in {str(path.parent)!r}: {error}. '
                      'Name another folder: data_root=….') from error
    status = path.stat()
    return _read(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _read(path: str, modified: int, size: int) -> GlyphTable:
    """The table, its pictures compared with their checksum once for each state of the file."""
    try:
        with safe_open(path, 'np') as file:
            header = file.metadata() or {}
            columns = {name: file.get_tensor(name) for name in COLUMNS}
        images = MappedImages(path)
        sound = _checksum(header['contents'], images.array, columns) == header['crc32']
        contents = json.loads(header['contents'])
        labels, code_points, fonts = (columns[name].astype(np.int64) for name in COLUMNS)
        table = GlyphTable(images, labels, code_points, fonts, contents['classes'],
                           contents['typefaces'])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedCacheError(f'The cache of glyphs {path!r} is damaged ({error}).') from error
    if not sound:
        raise DamagedCacheError(f'The cache of glyphs {path!r} is damaged: its checksum is wrong.')
    return table


def _checksum(contents: str, images: np.ndarray, columns: dict[str, np.ndarray]) -> str:
    checksum = zlib.crc32(images.data, zlib.crc32(contents.encode()))
    for name in COLUMNS:
        checksum = zlib.crc32(columns[name].data, checksum)
    return str(checksum)


# Making it ---------------------------------------------------------------------------------------


def build_cache(path: Path) -> None:
    """Read the typefaces, group the characters, draw them, and write the cache."""
    from .rendering import Canvas, font_files, read_glyphs, typefaces

    faces = typefaces()
    glyphs = [glyph for stem in _progress(font_files(), 'Reading typefaces')
              for glyph in read_glyphs(stem)]
    glyphs, group = group_characters(glyphs)
    classes = sorted(set(group.values()))
    place = {name: label for label, name in enumerate(classes)}
    number = {face.stem: row for row, face in enumerate(faces)}
    glyphs.sort(key=lambda glyph: (place[group[glyph.character]], number[glyph.typeface],
                                   glyph.character))
    canvas = Canvas(SIZE)
    images = np.empty((len(glyphs), SIZE, SIZE), np.uint8)
    for row, glyph in enumerate(_progress(glyphs, 'Drawing glyphs')):
        images[row] = canvas.draw(glyph)
    columns = {'labels': np.array([place[group[glyph.character]] for glyph in glyphs], np.int32),
               'code_points': np.array([ord(glyph.character) for glyph in glyphs], np.int32),
               'fonts': np.array([number[glyph.typeface] for glyph in glyphs], np.int32)}
    contents = json.dumps({'classes': classes, 'typefaces': [asdict(face) for face in faces]})
    header = {'format': FORMAT, 'version': str(FORMAT_VERSION), 'contents': contents,
              'crc32': _checksum(contents, images, columns)}
    write_atomically(path, lambda temporary: save_file(
        {'images': images, **columns}, temporary, metadata=header))


def _progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    return tqdm(items, what, disable=None, leave=False)  # None: shown in a terminal alone


def group_characters(glyphs: Sequence[Glyph]) -> tuple[list[Glyph], dict[str, str]]:
    """Find the classes: characters that stand in enough typefaces, merged where two look alike.

    Two characters form one class where a typeface that has both draws them with the same outline
    (see ``Glyph.shape_key``), or where a third joins them. Of the glyphs that a typeface draws the
    same, that of the lowest code point is kept: one picture, not several copies.

    Returns:
        The glyphs that are kept, and the class of each character, a string of its characters in
        order.
    """
    spread = Counter(glyph.character for glyph in glyphs)  # a typeface has a character once
    wanted = sorted((glyph for glyph in glyphs if spread[glyph.character] >= MIN_TYPEFACES),
                    key=lambda glyph: glyph.character)
    lowest = {glyph.character: glyph.character for glyph in wanted}

    def root(character: str) -> str:
        while lowest[character] != character:
            lowest[character] = character = lowest[lowest[character]]
        return character

    first: dict[tuple[str, bytes], Glyph] = {}
    for glyph in wanted:
        same = first.setdefault((glyph.typeface, glyph.shape_key()), glyph)
        low, high = sorted((root(same.character), root(glyph.character)))
        lowest[high] = low
    members: dict[str, list[str]] = {}
    for character in lowest:
        members.setdefault(root(character), []).append(character)
    group = {character: ''.join(sorted(members[root(character)])) for character in lowest}
    return list(first.values()), group

"""What picture files say of themselves: size, date and camera, kept between runs."""
from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..image_files import open_image

_MAKE, _MODEL, _DATE, _EXIF, _ORIENTATION = 0x010F, 0x0110, 0x0132, 0x8769, 0x0112
_TAKEN = 0x9003
_ON_ITS_SIDE = (5, 6, 7, 8)  # orientations (Exif 2.32, section 4.6.4)


class Facts(NamedTuple):
    """Of one picture file.

    Args:
        width, height: in pixels, upright.
        bytes: of the file.
        date: when it was taken, ``2024-05-31 17:20:00``, or None.
        camera: maker and model, or None.
    """

    width: int
    height: int
    bytes: int
    date: str | None
    camera: str | None


def read_facts(path: str) -> Facts:
    """Read what a picture file says of itself, without decoding the picture.

    Raises:
        UnreadableImageError: it cannot be opened.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> path = f'{tempfile.mkdtemp()}/red.png'
        >>> Image.new('RGB', (3, 2), 'red').save(path)
        >>> read_facts(path)[:2]
        (3, 2)
    """
    with open_image(path) as (image, data):
        width, height = image.size
        date = camera = None
        try:
            exif = image.getexif()
            if exif.get(_ORIENTATION) in _ON_ITS_SIDE:
                width, height = height, width
            camera = _camera(exif.get(_MAKE), exif.get(_MODEL))
            date = _date(exif.get_ifd(_EXIF).get(_TAKEN)) or _date(exif.get(_DATE))
        except Exception:  # damaged EXIF data beside a sound picture
            pass
        return Facts(width, height, os.path.getsize(path) if os.path.exists(path) else len(data),
                     date, camera)


def _camera(make: Any, model: Any) -> str | None:
    make, model = (str(part or '').strip('\0 ') for part in (make, model))
    if make and model.lower().startswith(make.lower()):
        make = ''
    return f'{make} {model}'.strip()[:80] or None


def _date(text: Any) -> str | None:
    found = re.fullmatch(r'(\d{4})[:-](\d\d)[:-](\d\d)([ T]\d\d:\d\d(:\d\d)?)?.*',
                         str(text or '').strip('\0 '))
    if not found or found[1] == '0000':
        return None
    return f'{found[1]}-{found[2]}-{found[3]}{(found[4] or "").replace("T", " ")}'


class PictureFacts:
    """The facts of files by the id of their row, read once and kept in a file.

    Args:
        path: where they are kept.
        path_of: from an id to its file, or None.

    Attributes:
        version: rises when there are more.
    """

    def __init__(self, path: Path, path_of: Callable[[str], str | None]) -> None:
        self.path_of, self.version = path_of, 0
        self._lock = threading.Lock()
        self._kept = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._kept.execute('pragma journal_mode=wal')
        self._kept.execute('pragma synchronous=off')  # what is lost is read again
        self._kept.execute('create table if not exists facts (id text primary key, state text, '
                           'width int, height int, bytes int, date text, camera text)')
        self._known: dict[str, tuple[str, Facts]] = {
            name: (state, Facts(*facts)) for name, state, *facts in
            self._kept.execute('select * from facts')}

    @property
    def any(self) -> bool:
        """True where a fact of any file is known."""
        return bool(self._known)

    def known(self, name: str) -> Facts | None:
        """The facts of an id, where they have been read."""
        found = self._known.get(_text(name))
        return found[1] if found else None

    def of(self, name: str) -> Facts | None:
        """The facts of an id, read now where they are missing or the file changed; None where
        there is no file or it cannot be read.
        """
        path = self.path_of(name)
        if path is None:
            return None
        try:
            status = os.stat(path)
            state = f'{status.st_size} {status.st_mtime_ns}'
            key = _text(name)
            found = self._known.get(key)
            if found is None or found[0] != state:
                found = (state, read_facts(path))
                with self._lock:
                    self._known[key] = found
                    self._kept.execute('insert or replace into facts values (?,?,?,?,?,?,?)',
                                       (key, state, *found[1]))
            return found[1]
        except (OSError, ValueError):
            return None

    def read(self, names: Iterable[str], stop: threading.Event) -> None:
        """Read the facts of many, until told to stop."""
        before = len(self._known)
        for name in names:
            if stop.is_set():
                return
            self.of(name)
        if len(self._known) != before or not self.version:
            self.version += 1

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._kept.close()


def _text(name: str) -> str:
    """A name as SQLite takes it; names of files may be no UTF-8."""
    if name.isascii():
        return name
    return name.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')

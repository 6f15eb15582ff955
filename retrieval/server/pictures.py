"""The pictures of rows, their thumbnails, and what was uploaded."""
from __future__ import annotations

import hashlib
import io
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..files import write_bytes
from ..image_files import UnreadableImageError, open_image
from ..image_io import as_image_array, read_image
from ..picture_facts import read_facts

DECODED_AT_ONCE = max(2, os.cpu_count() or 1)  # a large picture takes hundreds of megabytes
SIZES = (128, 256, 512, 1024)  # the heights of thumbnails
_SHOWN = {'JPEG': 'image/jpeg', 'PNG': 'image/png', 'WEBP': 'image/webp', 'GIF': 'image/gif',
          'AVIF': 'image/avif'}  # what every browser shows


class UnknownUploadError(LookupError):
    """There is no such upload, or not any more."""


class NoPictureError(LookupError):
    """A row has no picture here."""


class Pictures:
    """Finds the picture of an id, and makes thumbnails once.

    Args:
        folder: where thumbnails and pictures that were added are kept.
        datasets: of a config, whose ids may be no paths.
        only_in: ids are files of this folder alone; None where a gallery names its files.

    Example:
        >>> import tempfile
        >>> Pictures(Path(tempfile.mkdtemp()), []).path_of('absent.png') is None
        True
    """

    def __init__(self, folder: Path, datasets: Sequence[Any], only_in: str | None = None) -> None:
        self.folder, self.only_in = folder, only_in
        self.datasets = [one for one in datasets
                         if hasattr(one, 'get_data_info') and hasattr(one, 'sample_ids')]
        self._rows: list[dict[str, int]] | None = None
        self._any_added = (folder / 'added').is_dir()

    def path_of(self, name: str) -> str | None:
        """The file of an id, or None."""
        return self._found(name)[0]

    def _found(self, name: str) -> tuple[str | None, Any, Sequence[float] | None]:
        """The file or else the array of an id, and the box to cut out."""
        if self._any_added:
            added = self.folder / 'added' / _digest(name)
            if added.is_file():
                return str(added), None, None
        if self._rows is None:
            self._rows = [{one: row for row, one in enumerate(dataset.sample_ids)}
                          for dataset in self.datasets]
        for dataset, rows in zip(self.datasets, self._rows, strict=True):
            if name in rows:
                info = dataset.get_data_info(rows[name])
                return info.get('img_path'), info.get('img'), info.get('box')
        path, _, box = name.rpartition('#')
        for candidate, edges in ((name, ''), (path, box)):
            # an id without a folder names a row, and no file of wherever the server was started
            if os.sep in candidate and os.path.isfile(candidate) and (
                    self.only_in is None or candidate.startswith(self.only_in)):
                cut_out = [float(edge) for edge in edges.split(',')] if edges else None
                return candidate, None, cut_out
        return None, None, None

    def read(self, name: str, min_edge: int | None = None) -> np.ndarray:
        """The picture of an id, upright, ``(H, W, 3)`` uint8 in RGB, cut to its box.

        Raises:
            NoPictureError: it has none here.
            UnreadableImageError: it cannot be read.
        """
        path, array, box = self._found(name)
        if array is not None:
            picture = as_image_array(array)
            if picture.ndim == 2 or picture.shape[2] == 1:  # grey
                picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
        elif path is not None:
            picture = read_image(path, min_edge=None if box else min_edge)
        else:
            raise NoPictureError(f'The picture of {os.path.basename(name)!r} is not on this '
                                 'machine.')
        if box is not None:
            left, top, right, bottom = (max(0, round(edge)) for edge in box)
            picture = picture[top:bottom, left:right]
        return picture

    def file_or_part(self, name: str) -> str | np.ndarray:
        """The file of an id, or the picture where it is none or a part of one.

        Raises:
            NoPictureError, UnreadableImageError: as :meth:`read`.
        """
        path, _, box = self._found(name)
        return path if path is not None and box is None else self.read(name)

    def keep(self, name: str, data: bytes) -> None:
        """Keep the picture of an id that was added."""
        write_bytes(self.folder / 'added' / _digest(name), data)
        self._any_added = True

    def forget(self, name: str) -> None:
        """Delete the picture of an id that was added; others stay."""
        (self.folder / 'added' / _digest(name)).unlink(missing_ok=True)

    def original(self, name: str) -> tuple[bytes, str]:
        """The picture of an id as a browser shows it, and its media type.

        A file in a format of browsers is sent as it is, any other, and a part of one, as JPEG.

        Raises:
            NoPictureError, UnreadableImageError: as :meth:`read`.
        """
        path, _, box = self._found(name)
        if path is not None and box is None:
            with open_image(path) as (image, _), suppress(OSError):
                if image.format in _SHOWN:
                    return Path(path).read_bytes(), _SHOWN[image.format]
        return as_jpeg(self.read(name), 92), 'image/jpeg'

    def tag(self, name: str, size: int) -> str:
        """What changes with the picture of an id and its size."""
        path = self.path_of(name)
        state = ''
        if path is not None:
            with suppress(OSError):
                status = os.stat(path)
                state = f'{status.st_size} {status.st_mtime_ns}'
        return _digest(f'{name}\n{state}\n{size}')[:32]

    def thumbnail(self, name: str, size: int) -> bytes:
        """A JPEG of the picture, at most ``size`` high and three times as wide, without its
        metadata; made once.

        Raises:
            NoPictureError, UnreadableImageError: as :meth:`read`.
        """
        tag = self.tag(name, size)
        kept = self.folder / 'thumbnails' / tag[:2] / f'{tag}.jpg'
        with suppress(OSError):
            return kept.read_bytes()
        data = as_jpeg(self.read(name, min_edge=size), 82, (3 * size, size))
        with suppress(OSError):  # a full disk keeps no thumbnails
            kept.parent.mkdir(parents=True, exist_ok=True)
            temporary = kept.with_suffix(f'.{os.getpid()}-{threading.get_ident()}')
            temporary.write_bytes(data)
            temporary.replace(kept)
        return data


def as_jpeg(picture: np.ndarray, quality: int, within: tuple[int, int] | None = None) -> bytes:
    """A picture ``(H, W, 3)`` uint8 as JPEG, shrunk to fit."""
    image = Image.fromarray(picture)
    if within is not None:
        image.thumbnail(within, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, 'JPEG', quality=quality)
    return out.getvalue()


def fitting_size(size: int) -> int:
    """The least of :data:`SIZES` that is not below ``size``, else the largest.

    Example:
        >>> fitting_size(200), fitting_size(9999)
        (256, 1024)
    """
    return next((one for one in SIZES if one >= size), SIZES[-1])


class Uploads:
    """Pictures that were sent, under the SHA-256 of their bytes; the oldest make room for new ones.

    Args:
        folder: where they are kept.
        most_bytes: of all together.
        max_pixels: of one.
        seconds: how long one is kept.

    Example:
        >>> import tempfile
        >>> Uploads(Path(tempfile.mkdtemp())).path('0' * 64)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        retrieval.server.pictures.UnknownUploadError: There is no upload '00000000...
    """

    def __init__(self, folder: Path, most_bytes: int = 2 ** 29, max_pixels: int = 100_000_000,
                 seconds: float = 7 * 86400) -> None:
        self.folder, self.most_bytes, self.max_pixels = folder, most_bytes, max_pixels
        self.seconds = seconds
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for path in folder.iterdir():
            with suppress(OSError):
                found.append((path.stat().st_mtime, path.name, path.stat().st_size))
        self._sizes = OrderedDict((name, size) for _, name, size in sorted(found))

    def add(self, data: bytes) -> tuple[str, int, int]:
        """Keep a picture; returns its name, width and height.

        Raises:
            UnreadableImageError: it is none, damaged, or too large.
        """
        if not data:
            raise UnreadableImageError('The body is empty: send the bytes of one picture.')
        name = hashlib.sha256(data).hexdigest()
        path = self.folder / name
        with self._decoding, open_image('the upload', self.max_pixels, data) as (image, _):
            image.draft(None, (64, 64))
            image.load()  # a picture that is cut off is refused here
        if not path.exists():
            write_bytes(path, data)
        with self._lock:
            self._sizes[name] = len(data)
            self._sizes.move_to_end(name)
            now = time.time()
            os.utime(path, (now, now))
            self._make_room(now)
        facts = read_facts(str(path))
        return name, facts.width, facts.height

    def _make_room(self, now: float) -> None:
        while len(self._sizes) > 1:
            oldest = next(iter(self._sizes))
            with suppress(OSError):
                expired = (self.folder / oldest).stat().st_mtime < now - self.seconds
                if sum(self._sizes.values()) <= self.most_bytes and not expired:
                    return
            (self.folder / oldest).unlink(missing_ok=True)
            del self._sizes[oldest]

    def path(self, name: str) -> Path:
        """The file of an upload.

        Raises:
            UnknownUploadError: there is none of that name.
        """
        path = self.folder / name
        if len(name) != 64 or not name.isalnum() or not path.is_file():
            raise UnknownUploadError(f'There is no upload {name[:64]!r}: uploads are kept for some '
                                     'time only, so send the picture again to /v1/uploads.')
        return path

    def read(self, name: str) -> np.ndarray:
        """The picture of an upload, ``(H, W, 3)`` uint8 in RGB. Raises UnknownUploadError."""
        return read_image(self.path(name), max_pixels=self.max_pixels)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()

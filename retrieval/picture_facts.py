"""What picture files say of themselves: size, date and camera."""
from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from .image_files import open_image

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

"""Pictures on a canvas: reading them, by the identity of a sample too, and fitting them."""
from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ..files import write_atomically
from ..image_files import open_image

BACKGROUND = (255, 255, 255)
LETTERBOX = (240, 240, 240)
INK = (40, 40, 40)
PALE_INK = (120, 120, 120)
LINE = (190, 190, 190)
_EDGE = 512  # of a picture that is kept for a sheet


def save_picture(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture in the format of the name's ending.

    Raises:
        ValueError: no format has that ending.
    """
    ending = Path(path).suffix.lower()
    formats = Image.registered_extensions()
    if ending not in formats:
        raise ValueError(f'No image format ends in {ending!r}: {str(path)!r} must end in .png, '
                         '.jpg or .webp.')
    write_atomically(Path(path), lambda name: picture.save(name, format=formats[ending]))


def as_picture(image: Any, least: int | None = None) -> Image.Image:
    """An array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8 in RGB, a path or a Pillow image.

    Args:
        image: one of these.
        least: a JPEG file may come out smaller, as long as its edges are not shorter than this.

    Raises:
        TypeError: it is none of these, or an array of another dtype.
        ValueError: the array has another shape.
        UnreadableImageError: the file is missing or cannot be read (an ``OSError``).
    """
    if isinstance(image, (str, os.PathLike)):
        with open_image(image) as (opened, _):
            if least is not None:
                opened.draft(None, (least, least))
            return _as_rgb(ImageOps.exif_transpose(opened))
    if isinstance(image, Image.Image):
        return _as_rgb(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f'A picture is a path, a Pillow image or an array of uint8, got {given}.')
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.size == 0 or image.ndim != 2 and image.shape[2:] != (3,):
        raise ValueError(f'A picture has the shape (H, W), (H, W, 1) or (H, W, 3), '
                         f'got {image.shape}.')
    return Image.fromarray(image).convert('RGB')


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I;16'):  # Pillow would cut 16 bits off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        paper = Image.new('RGBA', image.size, (*BACKGROUND, 255))
        paper.alpha_composite(image.convert('RGBA'))
        image = paper
    return image.convert('RGB')


def no_picture(size: int) -> Image.Image:
    """The stand-in for a picture that cannot be shown: a crossed-out square."""
    square = Image.new('RGB', (size, size), LETTERBOX)
    pen = ImageDraw.Draw(square)
    pen.line([(0, 0), (size, size)], fill=LINE, width=1)
    pen.line([(0, size), (size, 0)], fill=LINE, width=1)
    return square


def letterbox(image: Any, size: int) -> Image.Image:
    """The whole picture in a square of ``size`` pixels, with margins where its shape differs.

    None and a file that cannot be read become a crossed-out square.
    """
    try:
        if image is None:
            return no_picture(size)
        picture = as_picture(image)
    except OSError:  # a drawing is no reason to stop: the search has happened already
        return no_picture(size)
    scale = size / max(picture.size)
    width, height = (max(1, round(edge * scale)) for edge in picture.size)
    square = Image.new('RGB', (size, size), LETTERBOX)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


class Pictures:
    """Finds the pictures of samples by their identity, as they are before the pipeline.

    Args:
        datasets: where to look, in order; those without ``sample_ids`` and ``get_data_info``, and
            None, are passed over. Their identities are read when the first picture is asked for.
    """

    def __init__(self, datasets: Sequence[Any]) -> None:
        self.datasets = [dataset for dataset in datasets
                         if hasattr(dataset, 'get_data_info') and _has_ids(dataset)]
        self._rows: list[dict[str, int]] | None = None

    def of(self, sample_id: str) -> Image.Image | None:
        """The picture, cut to its box and shrunk to what a sheet can show, or None where there is
        none or it cannot be read.

        An identity that no dataset knows may be the path of a file, with a box behind it.
        """
        if self._rows is None:
            self._rows = [{name: row for row, name in enumerate(dataset.sample_ids)}
                          for dataset in self.datasets]
        for dataset, rows in zip(self.datasets, self._rows, strict=True):
            if sample_id in rows:
                info = dataset.get_data_info(rows[sample_id])
                image = info.get('img')
                return opened_picture(info.get('img_path') if image is None else image,
                                      info.get('box'))
        if os.path.isfile(sample_id):
            return opened_picture(sample_id)
        path, _, box = sample_id.rpartition('#')
        return opened_picture(path, list(map(float, box.split(',')))) if (
            re.fullmatch(r'(-?[\d.]+,){3}-?[\d.]+', box) and os.path.isfile(path)) else None


def _has_ids(dataset: Any) -> bool:
    return hasattr(type(dataset), 'sample_ids') or 'sample_ids' in vars(dataset)


def opened_picture(image: Any, box: Sequence[float] | None = None) -> Image.Image | None:
    """A picture as :class:`Pictures` gives it, or None where it cannot be read.

    Args:
        image: what :func:`as_picture` takes.
        box: left, top, right and bottom of the part that is meant, in pixels.

    Example:
        >>> opened_picture(np.zeros((9, 9), np.uint8), (2, 0, 6, 9)).size
        (4, 9)
        >>> opened_picture('no/such.png') is None
        True
    """
    try:
        picture = as_picture(image, None if box is not None else 2 * _EDGE)
    except (OSError, TypeError, ValueError):
        return None
    if box is not None:
        left, top, right, bottom = (round(edge) for edge in box)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, picture.width), min(bottom, picture.height)
        if left < right and top < bottom:
            picture = picture.crop((left, top, right, bottom))
    picture.thumbnail((_EDGE, _EDGE))
    return picture

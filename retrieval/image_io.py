"""Reading image files: one result whatever decodes, one error for what cannot be read."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .checks import unknown_name, whole_number
from .image_files import open_image

COLORS = ('rgb', 'bgr', 'gray')
DECODERS = ('opencv', 'pillow')

_BAND = 2 ** 24  # pixels
_END_OF_IMAGE = b'\xff\xd9'  # the marker EOI (ITU-T T.81, table B.1)

# How each value of the EXIF tag "Orientation" is undone (Exif 2.32, section 4.6.4).
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
                Image.Transpose.ROTATE_90)


def read_image(path: str | Path, color: str = 'rgb', background: int = 255,
               decoder: str = 'opencv', min_edge: int | None = None,
               max_pixels: int | None = None) -> np.ndarray:
    """Decode an image file.

    Pillow opens the file. A whole, upright JPEG file of grey or YCbCr colours is then decoded by
    OpenCV, in two thirds of Pillow's time and to the same pixels, since both carry libjpeg-turbo;
    everything else is decoded by Pillow, which reports truncated files, where OpenCV may fill them
    with grey. The picture is turned upright by its EXIF orientation; 16-bit channels keep their
    high byte; palettes and CMYK become RGB; transparent pixels show ``background``; of an animation
    the first frame counts.

    Args:
        path: the file.
        color: ``'rgb'``, ``'bgr'`` or ``'gray'`` (ITU-R 601 luma).
        background: the grey value, 0 to 255, behind transparent pixels.
        decoder: ``'opencv'`` as above, or ``'pillow'`` for every file.
        min_edge: if given, a JPEG file may come out at a half, a quarter or an eighth of its width
            and height (rounded up), as long as no edge gets shorter than this many pixels. It is
            decoded so, which takes a fraction of the time; the pixels are not quite those of
            resizing afterwards.
        max_pixels: the most pixels that a picture may have; by default what the environment
            variable ``RETRIEVAL_MAX_PIXELS`` says, else 178,956,970.

    Returns:
        ``(H, W, 3)`` uint8, or ``(H, W, 1)`` uint8 for ``'gray'``.

    Raises:
        MissingImageError: there is no such file (a ``FileNotFoundError``).
        UnreadableImageError: the file is truncated, no image, too large, a pipe or a device, or
            holds 32-bit values, whose range is not known (an ``OSError`` and ``ValueError``).
        ValueError: an unknown ``color`` or ``decoder``, or a ``min_edge`` or ``max_pixels`` below
            1.

    Example:
        >>> import tempfile
        >>> path = f'{tempfile.mkdtemp()}/red.png'
        >>> Image.new('RGB', (3, 2), 'red').save(path)
        >>> read_image(path).shape, read_image(path)[0, 0].tolist()
        ((2, 3, 3), [255, 0, 0])
    """
    check_reading(color, decoder, min_edge, max_pixels)
    return decode_file(path, color, background, decoder, min_edge, max_pixels)[0]


def check_reading(color: str, decoder: str, min_edge: int | None,
                  max_pixels: int | None) -> None:
    """Raises ValueError for what :func:`read_image` cannot do."""
    if color not in COLORS:
        raise ValueError(unknown_name('color', color, COLORS))
    if decoder not in DECODERS:
        raise ValueError(unknown_name('decoder', decoder, DECODERS))
    if min_edge is not None:
        whole_number('min_edge', min_edge)
    if max_pixels is not None:
        whole_number('max_pixels', max_pixels)


def decode_file(path: str | Path, color: str, background: int, decoder: str,
                min_edge: int | None,
                max_pixels: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """The result of :func:`read_image`, and the height and width of the whole picture."""
    with open_image(path, max_pixels) as (image, data):
        size = image.size
        if min_edge is not None:
            image.draft(None, (min_edge, min_edge))  # does something for JPEG alone
        if decoder == 'opencv' and image.size == size:
            decoded = _decode_with_opencv(data, image, color)
            if decoded is not None:
                return decoded, decoded.shape[:2]
        image.load()
        turn = _turn(image)
        whole = size if turn in _ON_ITS_SIDE else size[::-1]
        upright = image if turn is None else image.transpose(turn)
        return _in_bands(upright, color, background, image.format), whole


def _decode_with_opencv(data: bytes, image: Image.Image, color: str) -> np.ndarray | None:
    """A whole JPEG file as OpenCV decodes it, or None where Pillow has to.

    Pillow has read the segments up to the scan. From there on the end marker cannot occur by
    chance, since coded data never holds 0xFF before another byte than 0 or a restart marker: a file
    that ends in it was not cut off.
    """
    plain = image.format == 'JPEG' and image.mode in ('L', 'RGB') and data.endswith(_END_OF_IMAGE)
    if not plain or _turn(image) is not None:
        return None
    import cv2

    if color == 'bgr':
        flag = cv2.IMREAD_COLOR
    elif color == 'gray' and image.mode == 'L':
        flag = cv2.IMREAD_GRAYSCALE
    else:
        flag = getattr(cv2, 'IMREAD_COLOR_RGB', cv2.IMREAD_COLOR)  # since OpenCV 4.11
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8),
                               flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if decoded is None or decoded.shape[:2] != image.size[::-1]:
        return None
    if flag == cv2.IMREAD_COLOR and color != 'bgr':
        decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return convert_color(decoded, 'gray') if color == 'gray' else decoded


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that makes the picture upright, or None where it is."""
    try:
        return _UPRIGHT.get(int(image.getexif().get(_ORIENTATION_TAG, 1)))
    except Exception:  # damaged EXIF data beside a sound picture
        return None


def _in_bands(image: Image.Image, color: str, background: int, kind: str | None) -> np.ndarray:
    """A large picture is converted band by band: whole copies would take four times its memory."""
    width, height = image.size
    rows = max(1, _BAND // width)
    if rows >= height:
        return _to_array(image, color, background, kind)
    out = np.empty((height, width, 1 if color == 'gray' else 3), np.uint8)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        out[top:top + rows] = _to_array(band, color, background, kind)
    return out


def _to_array(image: Image.Image, color: str, background: int,
              kind: str | None = None) -> np.ndarray:
    mode = image.mode
    if mode.startswith('I;16') or (mode == 'I' and kind == 'PNG'):
        high_byte = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(high_byte)
    elif mode in ('I', 'F'):
        raise ValueError('it holds 32-bit values, whose range is not known; save it with 8 or 16 '
                         'bits per channel')
    elif mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
        layers = image.convert('RGBA')
        image = Image.new('RGBA', layers.size, (background,) * 3 + (255,))
        image.alpha_composite(layers)
    mode = 'L' if color == 'gray' else 'RGB'
    return convert_color(np.asarray(image if image.mode == mode else image.convert(mode)), color)


def convert_color(image: np.ndarray, color: str) -> np.ndarray:
    """An RGB or grey array ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8 in the wanted colour.

    Returns:
        ``(H, W, 3)`` uint8, or ``(H, W, 1)`` uint8 for ``'gray'``; contiguous and writable.
    """
    if image.ndim == 2:
        image = image[..., None]
    if color == 'gray':
        if image.shape[2] == 3:
            image = np.asarray(Image.fromarray(image).convert('L'))[..., None]
    elif image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    elif color == 'bgr':
        image = image[..., ::-1]
    return np.require(image, requirements=['C', 'W'])


def as_image_array(image: Any, name: str = 'image') -> np.ndarray:
    """An image held in memory as an RGB or grey array ``(H, W)`` or ``(H, W, C)`` uint8.

    Args:
        image: a Pillow image (converted as a file would be), or an array.
        name: how an error calls it.

    Raises:
        TypeError: it is no image and no array, or an array of another dtype than uint8.
        ValueError: it has another shape, or no pixels.
    """
    if isinstance(image, Image.Image):
        return _to_array(image, 'gray' if image.mode in ('1', 'L', 'I;16') else 'rgb', 255,
                         image.format)
    if not isinstance(image, np.ndarray):
        raise TypeError(f'The {name} must be an array or a Pillow image, '
                        f'got {type(image).__name__}.')
    if image.dtype != np.uint8:
        raise TypeError(f'The {name} must hold uint8 values from 0 to 255, got {image.dtype}: '
                        'scale it and write `image.astype(numpy.uint8)`.')
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in
                                                       (1, 3)):
        raise ValueError(f'The {name} must have the shape (H, W), (H, W, 1) or (H, W, 3) and at '
                         f'least one pixel, got {image.shape}.')
    return image

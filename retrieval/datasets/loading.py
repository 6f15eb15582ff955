"""The first steps of a pipeline: the picture, and the part of it that counts."""
from __future__ import annotations

from math import ceil, floor, inf

from mmcv.transforms import BaseTransform
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile

from ..registry import TRANSFORMS
from .image_io import (
    UnreadableImageError,
    as_image_array,
    check_reading,
    convert_color,
    decode_file,
)


def _named(results: dict) -> str:
    return repr(results.get('img_path') or results.get('sample_id') or results.get('sample_idx'))


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``img_path``, or take the ``img`` that is there, as ``(H, W, C)`` uint8.

    Files are decoded as :func:`read_image` says, which also says how orientation, 16 bits,
    palettes, CMYK and transparency come out. The default colour order is RGB, the order in which
    pretrained weights state their mean and standard deviation; give the data preprocessor no
    ``to_rgb`` then. A ``box`` is cut out, counted in pixels of the upright picture.

    Sets ``img``, ``ori_shape`` (of the whole picture) and ``img_shape``, both ``(H, W)``.

    Args:
        color: ``'rgb'``, ``'bgr'`` or ``'gray'``. A picture that is already there counts as RGB.
        background: the grey value, 0 to 255, behind transparent pixels.
        crop_box: whether to cut out the ``box``; False leaves it to :class:`CropBox`.
        decoder: ``'opencv'`` or ``'pillow'``; the pixels are the same.
        min_edge: if given, JPEG files may come out at a half, a quarter or an eighth of their size,
            as long as no edge gets shorter than this; see :func:`read_image`. Write the length that
            a following ``ResizeEdge`` makes of the short edge. A picture with a ``box`` is read
            in full.
    """

    def __init__(self, color: str = 'rgb', background: int = 255, crop_box: bool = True,
                 decoder: str = 'opencv', min_edge: int | None = None) -> None:
        check_reading(color, decoder, min_edge)
        self.color = color
        self.background = background
        self.crop_box = crop_box
        self.decoder = decoder
        self.min_edge = min_edge

    def transform(self, results: dict) -> dict:
        """Raises UnreadableImageError (MissingImageError) naming the file; ValueError for a box."""
        boxed = results.get('box') is not None
        if results.get('img') is not None:
            given = as_image_array(results['img'], f'image {_named(results)}')
            image = convert_color(given, self.color)
            whole = image.shape[:2]
        elif results.get('img_path'):
            image, whole = decode_file(results['img_path'], self.color, self.background,
                                       self.decoder, None if boxed else self.min_edge)
        else:
            raise ValueError(f'LoadImage needs an `img_path` or an `img`, got the keys '
                             f'{sorted(results)}.')
        results['img'] = image
        results['ori_shape'] = whole
        results['img_shape'] = image.shape[:2]
        if self.crop_box and boxed:
            return CropBox().transform(results)
        return results

    def __repr__(self) -> str:
        return (f'LoadImage(color={self.color!r}, background={self.background}, '
                f'crop_box={self.crop_box}, decoder={self.decoder!r}, min_edge={self.min_edge})')


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's loader, with an error that names the file where it has an ``assert``.

    It reads BGR: give the data preprocessor ``to_rgb=True``, or Normalize. It does not cut out a
    ``box``: put :class:`CropBox` right after it. Whether a truncated file is noticed depends on the
    OpenCV that is installed; :class:`LoadImage` always notices.

    Args:
        kwargs: ``to_float32``, ``color_type``, ``imdecode_backend``, ``ignore_empty``,
            ``backend_args``, as MMCV documents them.
    """

    def transform(self, results: dict) -> dict | None:
        """Raises UnreadableImageError where nothing could be decoded, FileNotFoundError."""
        try:
            return super().transform(results)
        except AssertionError as error:
            raise UnreadableImageError(f'Cannot read the image {_named(results)}: {error}. Replace '
                                       'or remove it.') from error


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Cut the ``box`` ``(x_1, y_1, x_2, y_2)`` out of ``img``; without a box nothing happens.

    Pixels that the box touches belong to it, those outside the picture do not. Needed only for a
    margin, or after another loader than :class:`LoadImage`, which cuts by itself.

    Args:
        margin: what to add on every side, as a share of the box's width and height.
    """

    def __init__(self, margin: float = 0.) -> None:
        if margin < 0:
            raise ValueError(f'margin must be at least 0, got {margin}.')
        self.margin = margin

    def transform(self, results: dict) -> dict:
        """Raises ValueError for a box that is empty, outside the picture, or already cut out."""
        box = results.get('box')
        if box is None:
            return results
        if results.get('box_is_cropped'):
            raise ValueError('The box is cut out already: write LoadImage(crop_box=False) before '
                             'CropBox, or leave CropBox out.')
        height, width = results['img'].shape[:2]
        if results.get('ori_shape', (height, width)) != (height, width):
            raise ValueError(f'The box counts pixels of the whole picture {results["ori_shape"]} '
                             f'(height, width), which is {(height, width)} by now: put CropBox '
                             'right after the loader.')
        x_1, y_1, x_2, y_2 = (float(edge) for edge in box)
        if not (-inf < x_1 < x_2 < inf and -inf < y_1 < y_2 < inf):
            raise ValueError(f'The box {tuple(box)} (x_1, y_1, x_2, y_2) of image '
                             f'{_named(results)} is empty: x_1 < x_2 and y_1 < y_2 are wanted.')
        pad_x, pad_y = self.margin * (x_2 - x_1), self.margin * (y_2 - y_1)
        left, right = max(floor(x_1 - pad_x), 0), min(ceil(x_2 + pad_x), width)
        top, bottom = max(floor(y_1 - pad_y), 0), min(ceil(y_2 + pad_y), height)
        if left >= right or top >= bottom:
            raise ValueError(f'The box {tuple(box)} (x_1, y_1, x_2, y_2) of image '
                             f'{_named(results)} is outside the picture of {width} x {height} '
                             'pixels.')
        results['img'] = results['img'][top:bottom, left:right]
        results['img_shape'] = results['img'].shape[:2]
        results['box_is_cropped'] = True
        return results

    def __repr__(self) -> str:
        return f'CropBox(margin={self.margin})'

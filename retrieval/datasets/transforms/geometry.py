"""Geometry of images: sizes, cuts, small random distortions, and several views of a picture.

What these transforms draw comes from numpy's global generator, which the dataset seeds for each
item. MMCV's transforms (``Resize``, ``CenterCrop``, ``Pad``, ``RandomFlip``, ``RandomGrayscale``,
``RandomApply``, ``RandomChoice``, …) stand beside them under their own names.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch.nn import functional

from ...checks import real_number, whole_number
from ...registry import TRANSFORMS, unknown_name
from ..base import build_pipeline

LONGEST = 32  # how many times as long as the given edge the other one may be
INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA, 'lanczos': cv2.INTER_LANCZOS4,
}
ANTIALIASED = {'auto': 'bilinear', 'auto-bicubic': 'bicubic'}
BORDERS = {
    'constant': cv2.BORDER_CONSTANT, 'replicate': cv2.BORDER_REPLICATE,
    'reflect': cv2.BORDER_REFLECT_101,
}


def _check_interpolation(interpolation: str, *more: str) -> str:
    if interpolation not in (*INTERPOLATIONS, *more):
        raise ValueError(unknown_name('interpolation', interpolation, (*INTERPOLATIONS, *more)))
    return interpolation


def _width_and_height(size: int | Sequence[int], name: str) -> tuple[int, int]:
    width, height = (size, size) if isinstance(size, int) else size
    return whole_number(name, width), whole_number(name, height)


def _like(image: np.ndarray, original: np.ndarray) -> np.ndarray:
    """``image`` with the channel axis of ``original``: OpenCV drops an axis of length 1."""
    return image[..., None] if image.ndim < original.ndim else image


def resize(image: np.ndarray, width: int, height: int, interpolation: str = 'auto') -> np.ndarray:
    """Resize an image ``(H, W)`` or ``(H, W, C)`` uint8 or float.

    ``'auto'`` interpolates bilinearly with a filter as wide as the scale, which averages when the
    picture shrinks, as Pillow and torchvision do: their pixels differ by one grey value at most.
    ``'auto-bicubic'`` does so by cubic splines, as the pipelines of most pretrained models.
    The others are OpenCV's, whose bilinear and bicubic skip pixels when the picture shrinks.

    Example:
        >>> resize(np.zeros((20, 30, 3), np.uint8), width=3, height=2).shape
        (2, 3, 3)
    """
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image
    if interpolation in ANTIALIASED:
        return _resize_antialiased(image, width, height, ANTIALIASED[interpolation])
    resized = cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[interpolation])
    return _like(resized, image)


def _resize_antialiased(image: np.ndarray, width: int, height: int, mode: str) -> np.ndarray:
    """By torch, whose uint8 kernel takes a quarter of the time of OpenCV's area filter."""
    array = np.require(image, requirements=['W'])
    if min(array.strides) < 0:  # torch has no negative strides
        array = np.ascontiguousarray(array)
    channels = array[..., None] if array.ndim == 2 else array
    batch = torch.from_numpy(channels)[None].permute(0, 3, 1, 2)  # "channels last": no copies
    resized = functional.interpolate(batch, (height, width), mode=mode, antialias=True)
    out = resized.permute(0, 2, 3, 1)[0].contiguous().numpy()
    return out[..., 0] if array.ndim == 2 else out


# The dataset seeds numpy's global generator for each item, so draws have to come from there.
def _uniform(low: float, high: float) -> float:
    return float(np.random.uniform(low, high))  # noqa: NPY002


def _below(limit: int) -> int:
    return int(np.random.randint(limit))  # noqa: NPY002


def _put(results: dict[str, Any], image: np.ndarray) -> dict[str, Any]:
    results['img'] = image
    results['img_shape'] = image.shape[:2]
    return results


def middle(image: np.ndarray, axis: int, longest: int) -> np.ndarray:
    """The middle of an image whose edge along ``axis`` is longer than that, a view of it.

    Example:
        >>> middle(np.zeros((2, 9)), axis=1, longest=5).shape
        (2, 5)
    """
    start = max(0, (image.shape[axis] - longest) // 2)
    return image[(slice(None),) * axis + (slice(start, start + longest),)]


@TRANSFORMS.register_module()
class ResizeEdge(BaseTransform):
    """Resize so that one edge has a given length; the aspect ratio stays.

    Of a picture whose other edge is more than 32 times as long, the middle of that shape is taken:
    a strip of 8000 x 2 pixels would become one of a million, of which a crop leaves the middle.

    Args:
        scale: the length of the edge in pixels.
        edge: ``'short'``, ``'long'``, ``'width'`` or ``'height'``.
        interpolation: ``'auto'`` or ``'auto-bicubic'`` (see :func:`resize`), ``'nearest'``,
            ``'bilinear'``, ``'bicubic'``, ``'area'`` or ``'lanczos'``.

    Example:
        >>> ResizeEdge(10)({'img': np.zeros((20, 30, 3), np.uint8)})['img_shape']
        (10, 15)
    """

    EDGES = ('short', 'long', 'width', 'height')

    def __init__(self, scale: int, edge: str = 'short', interpolation: str = 'auto') -> None:
        if edge not in self.EDGES:
            raise ValueError(unknown_name('edge of ResizeEdge', edge, self.EDGES))
        self.scale = whole_number('scale', scale)
        self.edge = edge
        self.interpolation = _check_interpolation(interpolation, *ANTIALIASED)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` and ``img_shape``."""
        image = results['img']
        height, width = image.shape[:2]
        length = {'short': min(height, width), 'long': max(height, width),
                  'width': width, 'height': height}[self.edge]
        image = middle(middle(image, 0, LONGEST * length), 1, LONGEST * length)
        height, width = image.shape[:2]
        new_width = max(1, round(width * self.scale / length))
        new_height = max(1, round(height * self.scale / length))
        return _put(results, resize(image, new_width, new_height, self.interpolation))

    def __repr__(self) -> str:
        return (f'ResizeEdge(scale={self.scale}, edge={self.edge!r}, '
                f'interpolation={self.interpolation!r})')


@TRANSFORMS.register_module()
class LimitLongEdge(BaseTransform):
    """Shrink a picture whose longer edge is above ``limit``; the aspect ratio stays.

    What is left of a picture after its box was cut out is shrunk by the factor of the whole
    picture, ``ori_shape``, so that a query and the pictures of the gallery show an object at one
    scale. This is how the programs around revisited Oxford and Paris resize (Radenović et al.,
    Fine-tuning CNN Image Retrieval with No Human Annotation, 2018); :class:`ResizeEdge` would
    enlarge the queries.

    Args:
        limit: the longest edge of the whole picture, in pixels.
        interpolation: as in :class:`ResizeEdge`.

    Example:
        >>> LimitLongEdge(15)({'img': np.zeros((20, 30, 3), np.uint8)})['img_shape']
        (10, 15)
    """

    def __init__(self, limit: int, interpolation: str = 'auto') -> None:
        self.limit = whole_number('limit', limit)
        self.interpolation = _check_interpolation(interpolation, *ANTIALIASED)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` and ``img_shape``."""
        height, width = results['img'].shape[:2]
        cut = results.get('box_is_cropped')
        longest = max(results['ori_shape'] if cut else (height, width))
        if longest > self.limit:
            factor = self.limit / longest
            _put(results, resize(results['img'], max(1, round(width * factor)),
                                 max(1, round(height * factor)), self.interpolation))
        return results

    def __repr__(self) -> str:
        return f'LimitLongEdge(limit={self.limit}, interpolation={self.interpolation!r})'


@TRANSFORMS.register_module()
class RandomCrop(BaseTransform):
    """Cut out a part of a fixed size at a random place.

    Args:
        crop_size: pixels, or (width, height). A smaller picture is padded to it, evenly.
        padding: pixels added on every side first.
        pad_val: the grey value of what is added.

    Example:
        >>> RandomCrop(8)({'img': np.zeros((20, 30, 3), np.uint8)})['img_shape']
        (8, 8)
    """

    def __init__(self, crop_size: int | Sequence[int], padding: int = 0, pad_val: int = 0) -> None:
        self.crop_size = _width_and_height(crop_size, 'crop_size')
        self.padding = whole_number('padding', padding, least=0)
        self.pad_val = pad_val

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` and ``img_shape``."""
        image = results['img']
        width, height = self.crop_size
        pad_y = max(self.padding, -(-(height - image.shape[0]) // 2))
        pad_x = max(self.padding, -(-(width - image.shape[1]) // 2))
        # a place in the padded picture, which is not made: a strip would become a large one
        top = _below(image.shape[0] + 2 * pad_y - height + 1) - pad_y
        left = _below(image.shape[1] + 2 * pad_x - width + 1) - pad_x
        part = image[max(top, 0):max(top + height, 0), max(left, 0):max(left + width, 0)]
        if part.shape[:2] != (height, width):
            above, before = (min(max(-top, 0), height), min(max(-left, 0), width))
            padded = np.full((height, width, *image.shape[2:]), self.pad_val, image.dtype)
            padded[above:above + part.shape[0], before:before + part.shape[1]] = part
            part = padded
        return _put(results, part)

    def __repr__(self) -> str:
        return (f'RandomCrop(crop_size={self.crop_size}, padding={self.padding}, '
                f'pad_val={self.pad_val})')


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Cut out a part of random area and aspect ratio and resize it (Szegedy et al., 2015).

    Args:
        scale: the size of the result in pixels, or (width, height).
        crop_ratio_range: least and greatest share of the picture's area.
        aspect_ratio_range: least and greatest width over height, drawn on a logarithmic scale.
        max_attempts: after so many parts that do not fit, the largest centred one is taken.
        interpolation: as in :class:`ResizeEdge`.

    Example:
        >>> RandomResizedCrop((8, 4))({'img': np.zeros((20, 30, 3), np.uint8)})['img_shape']
        (4, 8)
    """

    def __init__(self, scale: int | Sequence[int],
                 crop_ratio_range: tuple[float, float] = (0.08, 1.0),
                 aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
                 max_attempts: int = 10, interpolation: str = 'auto') -> None:
        for name, (low, high) in (('crop_ratio_range', crop_ratio_range),
                                  ('aspect_ratio_range', aspect_ratio_range)):
            if not 0 < low <= high:
                raise ValueError(f'{name} must be (least, greatest), both above 0, got '
                                 f'{(low, high)}.')
        self.scale = _width_and_height(scale, 'scale')
        self.crop_ratio_range = (crop_ratio_range[0], crop_ratio_range[1])
        self.aspect_ratio_range = (aspect_ratio_range[0], aspect_ratio_range[1])
        self.max_attempts = max_attempts
        self.interpolation = _check_interpolation(interpolation, *ANTIALIASED)

    def _part(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The part as (top, left, height, width)."""
        low, high = np.log(self.aspect_ratio_range)
        for _ in range(self.max_attempts):
            area = height * width * _uniform(*self.crop_ratio_range)
            ratio = np.exp(_uniform(low, high))
            part_width, part_height = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < part_width <= width and 0 < part_height <= height:
                top = _below(height - part_height + 1)
                left = _below(width - part_width + 1)
                return top, left, part_height, part_width
        ratio = min(max(width / height, self.aspect_ratio_range[0]), self.aspect_ratio_range[1])
        part_width = max(1, min(width, round(height * ratio)))
        part_height = max(1, min(height, round(width / ratio)))
        return (height - part_height) // 2, (width - part_width) // 2, part_height, part_width

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` and ``img_shape``."""
        top, left, height, width = self._part(*results['img'].shape[:2])
        part = results['img'][top:top + height, left:left + width]
        return _put(results, resize(part, *self.scale, self.interpolation))

    def __repr__(self) -> str:
        return (f'RandomResizedCrop(scale={self.scale}, crop_ratio_range={self.crop_ratio_range}, '
                f'aspect_ratio_range={self.aspect_ratio_range}, '
                f'interpolation={self.interpolation!r})')


@TRANSFORMS.register_module()
class RandomAffine(BaseTransform):
    """Turn, shear, scale and shift a picture a little, in one pass. The size stays.

    Every amount is drawn evenly. Meant for small pictures, where it takes some ten microseconds.

    Args:
        degrees: the greatest rotation to either side.
        translate: the greatest shift to either side, as a share of width and height.
        scale: least and greatest factor.
        shear: the greatest shear to either side, in degrees, along x and along y.
        prob: how often anything is done at all.
        fill: the grey value of what comes in from outside, for the border ``'constant'``.
        border: ``'constant'``, ``'replicate'`` or ``'reflect'``.
        interpolation: ``'bilinear'``, ``'nearest'`` or ``'bicubic'``.

    Example:
        >>> RandomAffine(degrees=5)({'img': np.zeros((20, 30, 3), np.uint8)})['img_shape']
        (20, 30)
    """

    def __init__(self, degrees: float = 0., translate: float = 0.,
                 scale: tuple[float, float] = (1., 1.), shear: float = 0., prob: float = 1.,
                 fill: int = 0, border: str = 'constant', interpolation: str = 'bilinear') -> None:
        if border not in BORDERS:
            raise ValueError(unknown_name('border of RandomAffine', border, BORDERS))
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f'scale must be (least, greatest), both above 0, got {scale!r}.')
        self.degrees = real_number('degrees', degrees, least=0)
        self.translate = real_number('translate', translate, least=0)
        self.scale = tuple(scale)
        self.shear = real_number('shear', shear, least=0)
        self.prob = real_number('prob', prob, least=0, most=1)
        self.fill = fill
        self.border = border
        self.interpolation = _check_interpolation(interpolation)

    def _matrix(self, height: int, width: int, draws: np.ndarray) -> np.ndarray:
        """The map of pixels, ``(2, 3)``; ``draws (6,)`` lie evenly in [-1, 1)."""
        angle = np.deg2rad(self.degrees * draws[0])
        low, high = self.scale
        factor = low + (high - low) * (draws[1] + 1) / 2
        shear_x, shear_y = np.tan(np.deg2rad(self.shear * draws[2:4]))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = factor * rotation @ np.array([[1, shear_x], [shear_y, 1 + shear_x * shear_y]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        shift = self.translate * draws[4:6] * np.array([width, height])
        return np.column_stack([linear, centre + shift - linear @ centre])

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img``."""
        draws = np.random.random_sample(7)  # noqa: NPY002  (as above)
        if draws[6] >= self.prob:
            return results
        image = results['img']
        height, width = image.shape[:2]
        warped = cv2.warpAffine(
            image, self._matrix(height, width, 2 * draws[:6] - 1), (width, height),
            flags=INTERPOLATIONS[self.interpolation], borderMode=BORDERS[self.border],
            borderValue=(self.fill,) * 4)
        return _put(results, _like(warped, image))

    def __repr__(self) -> str:
        return (f'RandomAffine(degrees={self.degrees}, translate={self.translate}, '
                f'scale={self.scale}, shear={self.shear}, prob={self.prob}, fill={self.fill}, '
                f'border={self.border!r}, interpolation={self.interpolation!r})')


@TRANSFORMS.register_module()
class MultiView(BaseTransform):
    """Make several views of one picture; ``img`` becomes their list.

    Args:
        transforms: a pipeline for all views, or a list of pipelines.
        num_views: how many views of the one pipeline, or a number for each pipeline.

    Example:
        >>> twice = MultiView([dict(type='RandomCrop', crop_size=8)], num_views=2)
        >>> [view.shape for view in twice({'img': np.zeros((20, 30, 3), np.uint8)})['img']]
        [(8, 8, 3), (8, 8, 3)]
    """

    def __init__(self, transforms: Sequence[Any], num_views: int | Sequence[int] = 2) -> None:
        several = bool(transforms) and all(isinstance(part, (list, tuple)) for part in transforms)
        pipelines = list(transforms) if several else [transforms]
        counts = [num_views] * len(pipelines) if isinstance(num_views, int) else list(num_views)
        if len(counts) != len(pipelines) or min(counts, default=0) < 1:
            raise ValueError(f'num_views must be a number of at least 1, or one for each of the '
                             f'{len(pipelines)} pipelines, got {num_views!r}.')
        self.views = [build_pipeline(part)
                      for part, count in zip(pipelines, counts, strict=True) for _ in range(count)]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` by the list of views."""
        views = [view({**results, 'img': results['img'].copy()}) for view in self.views]
        results['img'] = [view['img'] for view in views]
        return results

    def __repr__(self) -> str:
        return f'MultiView({self.views})'

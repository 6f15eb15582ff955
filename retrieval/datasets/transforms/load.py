"""The two ends of a pipeline: a picture (or cached features) comes in, tensors go out."""
from __future__ import annotations

import os
from collections.abc import Sequence
from math import ceil, floor, inf
from typing import Any

import numpy as np
import torch
from mmcv import imfrombytes
from mmcv.transforms import BaseTransform
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine import fileio
from torch import Tensor

from ...checks import real_number
from ...gallery import Gallery
from ...image_files import UnreadableImageError, open_image
from ...image_io import as_image_array, check_reading, convert_color, decode_file
from ...registry import TRANSFORMS
from ...structures import RetrievalDataSample, sample_id_of

META_KEYS = ('sample_idx', 'sample_id', 'img_path', 'box', 'ori_shape', 'img_shape')


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
        max_pixels: the most pixels that a picture may have, see :func:`read_image`.

    Example:
        >>> LoadImage(color='gray')({'img': np.zeros((20, 30, 3), np.uint8)})['img'].shape
        (20, 30, 1)
    """

    def __init__(self, color: str = 'rgb', background: int = 255, crop_box: bool = True,
                 decoder: str = 'opencv', min_edge: int | None = None,
                 max_pixels: int | None = None) -> None:
        check_reading(color, decoder, min_edge, max_pixels)
        self.color = color
        self.background = background
        self.crop_box = crop_box
        self.decoder = decoder
        self.min_edge = min_edge
        self.max_pixels = max_pixels

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises UnreadableImageError (MissingImageError) naming the file; ValueError for a box."""
        boxed = results.get('box') is not None
        if results.get('img') is not None:
            given = as_image_array(results['img'], f'image {_named(results)}')
            image = convert_color(given, self.color)
            whole = image.shape[:2]
        elif results.get('img_path'):
            image, whole = decode_file(results['img_path'], self.color, self.background,
                                       self.decoder, None if boxed else self.min_edge,
                                       self.max_pixels)
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
        limit = '' if self.max_pixels is None else f', max_pixels={self.max_pixels}'
        return (f'LoadImage(color={self.color!r}, background={self.background}, '
                f'crop_box={self.crop_box}, decoder={self.decoder!r}, min_edge={self.min_edge}'
                f'{limit})')


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """MMCV's loader, with an error that names the file where it has an ``assert``.

    It reads BGR: give the data preprocessor ``to_rgb=True``, or Normalize. It does not cut out a
    ``box``: put :class:`CropBox` right after it. Whether a truncated file is noticed depends on the
    OpenCV that is installed; :class:`LoadImage` always notices. It opens the same files as
    :class:`LoadImage`, and stands in a pipeline for MMCV's own, however that is named there.

    Args:
        kwargs: ``to_float32``, ``color_type``, ``imdecode_backend``, ``ignore_empty``,
            ``backend_args``, as MMCV documents them.

    Example:
        >>> LoadImageFromFile(color_type='grayscale').color_type
        'grayscale'
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Raises UnreadableImageError (MissingImageError) where nothing could be decoded."""
        path = results['img_path']
        try:
            backend = fileio.get_file_backend(
                path, backend_args=self.backend_args or self.file_client_args)
            local = isinstance(backend, fileio.LocalBackend)
            with open_image(path, data=None if local else backend.get(path)) as (_, data):
                image = imfrombytes(data, flag=self.color_type, backend=self.imdecode_backend)
                if image is None:
                    raise ValueError(f'{self.imdecode_backend} cannot decode it')
        except Exception:
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Cut the ``box`` ``(x_1, y_1, x_2, y_2)`` out of ``img``; without a box nothing happens.

    Pixels that the box touches belong to it, those outside the picture do not. Needed only for a
    margin, or after another loader than :class:`LoadImage`, which cuts by itself.

    Args:
        margin: what to add on every side, as a share of the box's width and height.

    Example:
        >>> CropBox()({'img': np.zeros((20, 30, 3), np.uint8), 'box': (5, 2, 15, 8)})['img_shape']
        (6, 10)
    """

    def __init__(self, margin: float = 0.) -> None:
        self.margin = real_number('margin', margin, least=0)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
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


@TRANSFORMS.register_module()
class LoadCachedFeatures(BaseTransform):
    """Take an image's features out of a gallery file, by its ``sample_id``.

    With it in the place of the other transforms, ``[LoadCachedFeatures, PackInputs]``, a dataset
    keeps its labels, splits, ground truth and samplers, and gives features instead of images.

    Sets ``img``, a tensor ``(D, 1, 1)`` float32, and ``img_shape``, ``(1, 1)``. The file is mapped
    when the first item is asked for, in each loader worker by itself.

    Args:
        file: the gallery file.

    Example:
        >>> LoadCachedFeatures('absent.safetensors')
        LoadCachedFeatures(file='absent.safetensors')
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = os.fspath(file)
        self._gallery: Gallery | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), '_gallery': None}

    @property
    def gallery(self) -> Gallery:
        """The open file. Raises FileNotFoundError, or ValueError where it is no gallery."""
        if self._gallery is None:
            self._gallery = Gallery.load(self.file)
        return self._gallery

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises UnreadableImageError for an image that could not be read when the features were
        extracted; ValueError for one that is not in the file.
        """
        name = str(sample_id_of(results))
        row = self.gallery.rows.get(name)
        if row is None and name in self.gallery.skipped:
            raise UnreadableImageError(self.gallery.skipped[name])
        if row is None:
            raise ValueError(f'{self.file!r} has no features of {name!r}: extract them again.')
        results['img'] = self.gallery.embeddings[row].clone()[:, None, None]
        results['ori_shape'] = results['img_shape'] = (1, 1)
        return results

    def __repr__(self) -> str:
        return f'LoadCachedFeatures(file={self.file!r})'


@TRANSFORMS.register_module()
class PackInputs(BaseTransform):
    """Make ``dict(inputs, data_samples)`` of what the pipeline gathered.

    ``inputs`` is a contiguous tensor ``(C, H, W)`` of the image's dtype, mostly uint8, or a list of
    such tensors where the pipeline made several views. ``data_samples`` is a
    ``RetrievalDataSample`` with ``gt_label``, ``gt_indices`` and ``gt_score`` as far as they are
    there; its metainfo holds ``meta_keys`` and the dataset's own metadata columns.

    Args:
        input_key: where the image is.
        meta_keys: what goes into the metainfo when it is there.

    Example:
        >>> item = PackInputs()({'img': np.zeros((20, 30, 3), np.uint8), 'gt_label': 3})
        >>> item['inputs'].shape, item['data_samples'].gt_label
        (torch.Size([3, 20, 30]), tensor([3]))
    """

    def __init__(self, input_key: str = 'img', meta_keys: Sequence[str] = META_KEYS) -> None:
        self.input_key = input_key
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError where there is no image to pack."""
        image = results.get(self.input_key)
        if image is None:
            raise ValueError(f'PackInputs finds no image under {self.input_key!r}; there are '
                             f'{sorted(results)}. Put LoadImage before it.')
        inputs: Tensor | list[Tensor]
        if isinstance(image, (list, tuple)):
            inputs = [to_channels_first(view) for view in image]
        else:
            inputs = to_channels_first(image)
        return {'inputs': inputs, 'data_samples': self._data_sample(results)}

    def _data_sample(self, results: dict[str, Any]) -> RetrievalDataSample:
        sample = RetrievalDataSample()
        for key in (*self.meta_keys, *results.get('metadata_keys', ())):
            if results.get(key) is not None:  # set_metainfo would deep-copy every value
                sample.set_field(results[key], key, field_type='metainfo')
        if results.get('gt_label') is not None:
            sample.set_gt_label(results['gt_label'])
        if results.get('gt_indices') is not None:
            sample.set_gt_indices(results['gt_indices'])
        if results.get('gt_score') is not None:
            sample.set_gt_score(results['gt_score'])
        return sample

    def __repr__(self) -> str:
        return f'PackInputs(input_key={self.input_key!r}, meta_keys={self.meta_keys})'


def to_channels_first(image: np.ndarray | Tensor) -> Tensor:
    """An image ``(H, W)`` or ``(H, W, C)`` as a contiguous tensor ``(C, H, W)`` of the same dtype.

    A tensor is taken to be ``(C, H, W)`` already.
    """
    if isinstance(image, Tensor):
        return image.contiguous()
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3:
        raise ValueError(f'An image must have the shape (H, W) or (H, W, C), got {image.shape}.')
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _named(results: dict[str, Any]) -> str:
    return repr(results.get('img_path') or results.get('sample_id') or results.get('sample_idx'))

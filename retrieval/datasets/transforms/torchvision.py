"""Transforms of torchvision (``torchvision.transforms.v2``) by name, ``torchvision/RandAugment``.

torchvision is imported when the first of them is built, since its import takes longer than torch's.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from ...registry import TRANSFORMS, unknown_name
from .geometry import LONGEST, middle

PREFIX = 'torchvision/'
NAMES = (
    'AugMix', 'AutoAugment', 'CenterCrop', 'ColorJitter', 'ElasticTransform', 'GaussianBlur',
    'GaussianNoise', 'Grayscale', 'JPEG', 'Normalize', 'Pad', 'RandAugment',
    'RandomAdjustSharpness', 'RandomAffine', 'RandomAutocontrast', 'RandomChannelPermutation',
    'RandomCrop', 'RandomEqualize', 'RandomErasing', 'RandomGrayscale', 'RandomHorizontalFlip',
    'RandomInvert', 'RandomPerspective', 'RandomPhotometricDistort', 'RandomPosterize',
    'RandomResize', 'RandomResizedCrop', 'RandomRotation', 'RandomShortestSize', 'RandomSolarize',
    'RandomVerticalFlip', 'RandomZoomOut', 'Resize', 'ScaleJitter', 'ToDtype',
    'TrivialAugmentWide', 'Compose', 'RandomApply', 'RandomChoice', 'RandomOrder')

_BY_SHORT_EDGE = ('Resize', 'RandomResize', 'RandomShortestSize')


def _build(name: str, arguments: dict[str, Any]) -> Any:
    """An instance of torchvision's class ``name``; names in the arguments become objects."""
    v2 = import_module('torchvision.transforms.v2')
    if not hasattr(v2, name):
        version = import_module('torchvision').__version__
        raise ValueError(f'The installed torchvision {version} has no transform {name!r}.')
    if isinstance(arguments.get('interpolation'), str):
        arguments['interpolation'] = _member(v2.InterpolationMode, arguments['interpolation'],
                                             'interpolation')
    if name == 'ToDtype' and isinstance(arguments.get('dtype'), str):
        arguments['dtype'] = getattr(torch, arguments['dtype'])
    if name == 'AutoAugment' and isinstance(arguments.get('policy'), str):
        arguments['policy'] = _member(v2.AutoAugmentPolicy, arguments['policy'], 'policy')
    if 'transforms' in arguments:
        arguments['transforms'] = [_nested(part) for part in arguments['transforms']]
    return getattr(v2, name)(**arguments)


def _member(enum: Any, given: str, kind: str) -> Any:
    values = [member.value for member in enum]
    if given not in values:
        raise ValueError(unknown_name(kind, given, values))
    return enum(given)


def _nested(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    arguments = dict(part)
    name = str(arguments.pop('type')).removeprefix(PREFIX)
    if name not in NAMES:
        raise ValueError(unknown_name('torchvision transform', name, NAMES))
    return _build(name, arguments)


class _Original:
    """torchvision's class of the same name, imported when it is asked for."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        return getattr(import_module('torchvision.transforms.v2'), owner.name, owner)


class TorchvisionTransform(BaseTransform):
    """One of torchvision's transforms, on ``img`` ``(H, W)`` or ``(H, W, C)`` uint8 or float.

    The image comes out as an array again, of the shape ``(H, W, C)`` and the dtype that the
    transform returned. Colours are taken to be RGB.

    Args:
        arguments: those of torchvision's class. ``interpolation`` may be a name such as
            ``'bicubic'``, ``transforms`` a list of dicts with a ``type``.
    """

    name = ''
    cls = _Original()

    def __init__(self, **arguments: Any) -> None:
        try:
            self.apply = _build(self.name, arguments)
        except TypeError as error:
            raise TypeError(f'{PREFIX}{self.name}: {error}') from error

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img`` and ``img_shape``."""
        image = results['img']
        if self.name in _BY_SHORT_EDGE and len(getattr(self.apply, 'size', ())) < 2:
            longest = LONGEST * min(image.shape[:2])  # as of ResizeEdge
            image = middle(middle(image, 0, longest), 1, longest)
        if not isinstance(image, Tensor):
            array = np.require(image, requirements=['C', 'W'])  # torch has no negative strides
            array = array[..., None] if array.ndim == 2 else array
            image = torch.from_numpy(array.transpose(2, 0, 1))
        out = self.apply(image)
        results['img'] = np.ascontiguousarray(out.permute(1, 2, 0).numpy())
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{PREFIX}{self.apply!r}'


for _name in NAMES:
    TRANSFORMS.register_module(
        name=PREFIX + _name,
        module=type(_name, (TorchvisionTransform,), {'name': _name, '__module__': __name__}))


@TRANSFORMS.register_module()
class ColorJitter(TorchvisionTransform):
    """Change brightness, contrast, saturation and hue at random, as torchvision does.

    Args:
        arguments: ``brightness``, ``contrast``, ``saturation``, ``hue``, each a number (the
        greatest
            change) or a pair (least and greatest factor).

    Example:
        >>> ColorJitter(brightness=0.5)({'img': np.zeros((2, 3, 3), np.uint8)})['img'].shape
        (2, 3, 3)
    """

    name = 'ColorJitter'

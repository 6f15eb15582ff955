"""The prototypes of an inferencer: which are encoded already, and the dataset of the others."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ..datasets import ImageFolder, ImageList
from ..gallery import Gallery, is_gallery
from ..image_files import find_images
from ..index import Index
from ..registry import DATASETS

KINDS = ('a folder, a list of images, a dataset or its config, a dataloader or its config, a '
         'gallery (an object or a file), a saved tensor, a tensor (N, D) or an index')


def is_pipeline(value: Any) -> bool:
    """True for a pipeline, False for a list of images."""
    return isinstance(value, (list, tuple)) and bool(value) and all(
        isinstance(step, Mapping) and 'type' in step for step in value)


def is_image_list(value: Any) -> bool:
    """True for one image, and for a list of paths and images."""
    if isinstance(value, (Image.Image, np.ndarray)):
        return isinstance(value, Image.Image) or value.dtype == np.uint8
    return isinstance(value, (list, tuple)) and all(
        isinstance(image, (str, os.PathLike, Image.Image, np.ndarray)) for image in value)


def holds_vectors(prototype: Any) -> bool:
    """True for a prototype that is encoded already.

    Raises:
        FileNotFoundError: it is a path where nothing is.
    """
    if isinstance(prototype, (Gallery, Tensor, Index)):
        return True
    if isinstance(prototype, (str, os.PathLike)):
        if not os.path.exists(prototype):
            raise FileNotFoundError(f'There is no folder or gallery {os.fspath(prototype)!r}.')
        return is_gallery(prototype) or not os.path.isdir(prototype)
    return isinstance(prototype, np.ndarray) and prototype.dtype.kind == 'f'


def as_dataset(prototype: Any, pipeline: Sequence[dict[str, Any]], on_unreadable: str) -> Any:
    """The dataset whose images become the gallery.

    A folder whose images all lie in sub-folders has these for classes; one with loose images has
    none.

    Raises:
        TypeError: it is no kind of prototype.
        ValueError, FileNotFoundError: it holds no image, or a path is missing.
    """
    options: dict[str, Any] = dict(pipeline=list(pipeline), on_unreadable=on_unreadable)
    if isinstance(prototype, (str, os.PathLike)):
        return _folder(os.fspath(prototype), options)
    if is_image_list(prototype):
        return ImageList(prototype, **options)
    if isinstance(prototype, DataLoader):
        return prototype.dataset
    if isinstance(prototype, Mapping):
        config = dict(prototype.get('dataset', prototype))
        if 'type' not in config:
            raise ValueError('A prototype given as a dict is the config of a dataset with a type, '
                             'or of a dataloader with a dataset; got the keys '
                             f'{", ".join(map(str, prototype))}.')
        config.setdefault('pipeline', list(pipeline))
        return DATASETS.build(config)
    if hasattr(prototype, '__getitem__') and hasattr(prototype, '__len__') and not isinstance(
            prototype, (list, tuple, np.ndarray)):
        return prototype
    raise TypeError(f'The prototype must be {KINDS}; got {_described(prototype)}.')


def _folder(path: str, options: dict[str, Any]) -> Any:
    path = os.path.normpath(path)
    images = find_images(path)
    loose = any(os.path.dirname(image) == path for image in images)
    return ImageList(path, **options) if loose or not images else ImageFolder(path, **options)


def _described(prototype: Any) -> str:
    if isinstance(prototype, (list, tuple)):
        strange = next(one for one in prototype
                       if not isinstance(one, (str, os.PathLike, Image.Image, np.ndarray)))
        return f'a list with a {type(strange).__name__} in it'
    return type(prototype).__name__

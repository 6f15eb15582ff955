"""Features that were extracted before, in the place of images."""
from __future__ import annotations

import os
from typing import Any

from mmcv.transforms import BaseTransform

from ..gallery import Gallery
from ..registry import TRANSFORMS
from ..structures import sample_id_of
from .image_io import UnreadableImageError


@TRANSFORMS.register_module()
class LoadCachedFeatures(BaseTransform):
    """Take an image's features out of a gallery file, by its ``sample_id``.

    With it in the place of the other transforms, ``[LoadCachedFeatures, PackInputs]``, a dataset
    keeps its labels, splits, ground truth and samplers, and gives features instead of images.

    Sets ``img``, a tensor ``(D, 1, 1)`` float32, and ``img_shape``, ``(1, 1)``. The file is mapped
    when the first item is asked for, in each loader worker by itself.

    Args:
        file: the gallery file.
    """

    def __init__(self, file: str | os.PathLike) -> None:
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

    def transform(self, results: dict) -> dict:
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

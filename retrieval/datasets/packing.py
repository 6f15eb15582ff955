"""The last step of a pipeline: tensors and a data sample."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from ..registry import TRANSFORMS
from ..structures import RetrievalDataSample

META_KEYS = ('sample_idx', 'sample_id', 'img_path', 'box', 'ori_shape', 'img_shape')


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
    """

    def __init__(self, input_key: str = 'img', meta_keys: Sequence[str] = META_KEYS) -> None:
        self.input_key = input_key
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict[str, Any]:
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

    def _data_sample(self, results: dict) -> RetrievalDataSample:
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

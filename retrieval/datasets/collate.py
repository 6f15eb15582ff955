"""From the items of a dataset to a batch."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import pseudo_collate
from torch import Tensor
from torch.utils.data import default_collate

from ..registry import FUNCTIONS


@FUNCTIONS.register_module()
def image_collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Images of one shape as one tensor, everything else as MMEngine's ``pseudo_collate`` has it.

    The engine's own leaves a tensor an image, and each travels alone from a loader's worker to the
    training process, which takes several milliseconds of that process for each batch.

    Args:
        items: ``dict(inputs, data_samples)``, where ``inputs`` is an image ``(C, H, W)`` or a list
            of views.

    Returns:
        ``inputs`` ``(B, C, H, W)`` of the images' dtype, or a list ``[image, …]`` where their
        shapes differ, and a list of either where there are views; ``data_samples`` a list.

    Example:
        >>> import torch
        >>> items = [{'inputs': torch.zeros(3, 2, 2), 'data_samples': row} for row in range(4)]
        >>> image_collate(items)['inputs'].shape
        torch.Size([4, 3, 2, 2])
    """
    batch = pseudo_collate(items)
    inputs = batch['inputs']
    views = bool(inputs) and isinstance(inputs[0], (list, tuple))
    batch['inputs'] = [_stacked(view) for view in inputs] if views else _stacked(inputs)
    return batch


def _stacked(images: Sequence[Any]) -> Any:
    kinds = {(image.shape, image.dtype) if isinstance(image, Tensor) else None for image in images}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None or len(kind[0]) != 3:  # unequal sizes, or images that could not be read
        return images
    return default_collate(list(images))  # in a worker: straight into shared memory

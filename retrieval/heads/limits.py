"""What a loss can take: how many classes, and how wide an embedding."""
from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

# Where the library keeps a loss's class weights, and the axis of them along the embedding.
_CLASS_WEIGHTS = {'W': 0, 'fc': 0, 'proxies': 1}


class Limits(NamedTuple):
    """What a loss can take; None where it takes any.

    Args:
        num_classes: labels are below this.
        embedding_size: the width of the embeddings.
        batch_size: the most embeddings in a batch.
    """

    num_classes: int | None
    embedding_size: int | None
    batch_size: int | None


def limits_of(loss: nn.Module) -> Limits:
    """What a loss and the losses inside it can take, read off their settings and weights."""
    parts = [_own_limits(part) for part in loss.modules()]
    columns = ([value for value in column if value] for column in zip(*parts, strict=True))
    return Limits(*(min(column, default=None) for column in columns))


def _own_limits(loss: nn.Module) -> Limits:
    num_classes = _positive(loss, 'num_classes')
    width = _positive(loss, 'embedding_size') or _positive(loss, 'descriptors_dim')
    if any(base.__module__.startswith('pytorch_metric_learning.') for base in type(loss).__mro__):
        for name, axis in _CLASS_WEIGHTS.items():
            weights = getattr(loss, name, None)
            if isinstance(weights, Tensor) and weights.ndim == 2:
                width = weights.shape[axis]
                num_classes = num_classes or weights.shape[1 - axis]
        thresholds = getattr(loss, 'beta', None)  # of the margin loss: one a class, or one
        if isinstance(thresholds, Tensor) and len(thresholds) > 1:
            num_classes = len(thresholds)
    return Limits(num_classes, width, _positive(loss, 'memory_size'))


def _positive(loss: nn.Module, name: str) -> int | None:
    """A setting as a number; the library leaves 0 where it only records the name of one."""
    value = getattr(loss, name, None)
    return value if isinstance(value, int) and value > 0 else None

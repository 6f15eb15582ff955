"""What a loss can take: how many classes, and how wide an embedding."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .targets import check_classes

# Where the library keeps a loss's class weights, and the axis of them along the embedding.
_CLASS_WEIGHTS = {'W': 0, 'fc': 0, 'proxies': 1}


class Limits(NamedTuple):
    """What a loss can take; None where it takes any.

    Args:
        num_classes: labels are below this.
        embedding_size: the width of the embeddings.
        batch_size: the most embeddings in a batch.
        least: the fewest embeddings in a batch.
    """

    num_classes: int | None
    embedding_size: int | None
    batch_size: int | None
    least: int | None = None


def limits_of(loss: nn.Module) -> Limits:
    """What a loss and the losses inside it can take, read off their settings and weights."""
    parts = [_own_limits(part) for part in loss.modules()]
    classes, widths, most, least = (
        [value for value in column if value] for column in zip(*parts, strict=True))
    return Limits(min(classes, default=None), min(widths, default=None),
                  min(most, default=None), max(least, default=None))


def _own_limits(loss: nn.Module) -> Limits:
    num_classes = _positive(loss, 'num_classes')
    width = _positive(loss, 'embedding_size') or _positive(loss, 'descriptors_dim')
    if type(loss).__name__ == 'ManifoldLoss':  # its proxies belong to no class
        return Limits(None, _positive(loss, 'l'), None, _positive(loss, 'K'))
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


def common_width(limits: Mapping[str, Limits]) -> int | None:
    """The width of embeddings that all losses can take, by name; None where any.

    Raises:
        ValueError: they want different ones.
    """
    wanted = {name: one.embedding_size for name, one in limits.items() if one.embedding_size}
    if len(set(wanted.values())) > 1:
        raise ValueError('The losses want embeddings of different widths, and share one batch: '
                         + ', '.join(f'{name} {width}' for name, width in wanted.items()) + '.')
    return next(iter(wanted.values()), None)


def check_sample_limits(name: str, limits: Limits, embeddings: Tensor, labels: Tensor,
                        data_samples: Sequence[BaseDataElement]) -> None:
    """Refuse embeddings or classes that a loss has no weights for.

    Args:
        name: the loss's name in the head.
        limits: what it can take.
        embeddings: ``(V · B, D)``.
        labels: ``(V · B,)`` int64.
        data_samples: the B samples.

    Raises:
        ValueError: another width, or a class outside ``num_classes``; its sample is named.
    """
    if limits.embedding_size not in (None, embeddings.shape[1]):
        raise ValueError(f'The loss {name!r} was built with embedding_size='
                         f'{limits.embedding_size}, and the encoder gives embeddings of width '
                         f'{embeddings.shape[1]}: write that into the loss, or project to it.')
    if limits.num_classes is not None:
        check_classes(labels, limits.num_classes, data_samples, f'the loss {name!r}')


def check_count(name: str, limits: Limits, count: int) -> None:
    """Refuse a batch of too many or too few embeddings, of all views and processes.

    Raises:
        ValueError: it does not fit into the loss's memory, or has fewer than the loss has proxies.
    """
    if limits.batch_size is not None and count > limits.batch_size:
        raise ValueError(f'The batch has {count} embeddings, and the memory of the loss {name!r} '
                         f'only memory_size={limits.batch_size}: make it larger.')
    if limits.least is not None and count < limits.least:
        raise ValueError(f'The batch has {count} embeddings, and the loss {name!r} wants one for '
                         f'each of its {limits.least} proxies: lower K, or take larger batches.')


def _positive(loss: nn.Module, name: str) -> int | None:
    """A setting as a number; the library leaves 0 where it only records the name of one."""
    value = getattr(loss, name, None)
    return value if isinstance(value, int) and value > 0 else None

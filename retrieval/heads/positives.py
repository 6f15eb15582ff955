"""Losses that compare samples of one class, and batches that hold none."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .extra import refuses


def needs_positives(loss: nn.Module) -> bool:
    """Whether a loss compares samples of one class with each other.

    A loss may say so itself, by an attribute of this name. Those of the library do where they have
    neither weights for the classes nor a memory, which may hold the other samples; ``InstanceLoss``
    takes each sample as a class of its own.
    """
    said = getattr(loss, 'needs_positives', None)
    if said is not None:
        return bool(said)
    if type(loss).__name__ == 'MultipleLosses':
        parts = loss.losses
        return any(map(needs_positives, parts.values() if isinstance(parts, nn.ModuleDict)
                       else parts))  # type: ignore[arg-type]
    of_library = any(base.__module__.startswith('pytorch_metric_learning.')
                     and base.__name__ == 'BaseMetricLossFunction' for base in type(loss).__mro__)
    weights = any(weight.ndim == 2 for weight in loss.parameters(recurse=False))
    return (of_library and not weights and not refuses(loss, 'labels')
            and type(loss).__name__ != 'InstanceLoss')


def refuse_without_positives(name: str, labels: Tensor, indices: Any = None) -> None:
    """Refuse a batch of which a loss of positive pairs would learn nothing.

    Args:
        name: the loss's name in the head.
        labels: the classes of the whole batch, of all views and processes, ``(B,)`` int64.
        indices: what a miner chose; one that pairs without classes is content with any.

    Raises:
        ValueError: no class has two samples, and no positive was chosen either.
    """
    classes = torch.unique(labels)
    chosen = isinstance(indices, (tuple, list)) and len(indices[0]) > 0
    if len(classes) < len(labels) or chosen:
        return
    shown = ', '.join(map(str, classes[:10].tolist())) + (', …' if len(classes) > 10 else '')
    raise ValueError(
        f'The loss {name!r} compares samples of one class, and of the {len(classes)} classes of '
        f'the batch ({shown}) none has two: draw the batches with dict(type='
        "'MPerClassSampler', m=4, batch_size=…), and leave an incomplete last batch out with "
        'drop_last=True in the dataloader.')

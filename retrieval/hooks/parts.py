"""Parts of the model that a hook works on, and when it does."""
from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn

from ..registry import unknown_name


def model_of(runner: Any) -> nn.Module:
    """The model, without what wraps it on several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def part_of(model: nn.Module, name: str) -> nn.Module:
    """A submodule by its dotted name, such as ``image_encoder.backbone``.

    Raises:
        ValueError: there is none; the message lists the nearest names.
    """
    parts = dict(model.named_modules())
    parts.pop('')
    if name not in parts:
        raise ValueError(unknown_name(f'part of {type(model).__name__}', name, parts))
    return parts[name]


def check_epochs(runner: Any, what: str) -> None:
    """Refuse to count epochs where the loop counts iterations only.

    Raises:
        ValueError: the training loop is iteration-based.
    """
    from mmengine.runner import IterBasedTrainLoop  # late: it takes seconds

    if isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(f'{what} counts epochs, and the loop of this run '
                         f'({type(runner.train_loop).__name__}) counts iterations only: give '
                         'iterations instead.')

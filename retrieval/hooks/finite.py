"""Training ends where its loss is no number any more, and keeps nothing that is none."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook

from ..checks import whole_number
from ..distributed import unwrapped
from ..registry import HOOKS

SCALED_STEPS = 20
_AVERAGED = re.compile(r'^(\d+\.)?(module\.)?')  # of names in an average of the weights


@HOOKS.register_module()
class StopOnNonFiniteHook(Hook):
    """Ends a run whose loss is NaN or infinite, and writes no checkpoint that holds such a number.

    Every term that the model returns is looked at, also one that is not added to the loss. Weights,
    their averages, memories, the optimiser's state and gradients that wait for a step are looked at
    before a checkpoint is written, and at the end of each epoch. Buffers that were infinite when
    training began, as some masks of attention are, are left alone.

    Args:
        steps: after so many such steps in a row the run ends. None: after the first; where a
            gradient scaler passes over steps that overflow, after 20.

    Raises:
        FloatingPointError: a term or a weight is not finite; the message names the terms and the
            last checkpoint that was written before.
    """

    priority = 'LOW'  # the average of the weights is made before, checkpoints after

    def __init__(self, steps: int | None = None) -> None:
        self.steps = None if steps is None else whole_number('steps', steps)
        self._in_a_row = 0
        self._infinite_before: set[str] = set()

    def before_train(self, runner: Any) -> None:
        """Note what is infinite already."""
        self._in_a_row = 0
        self._infinite_before = set(not_finite(unwrapped(runner.model).state_dict()))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Look at the terms of the loss, and at the weights where a checkpoint is due."""
        terms = list(not_finite(outputs)) if isinstance(outputs, Mapping) else []
        self._in_a_row = self._in_a_row + 1 if terms else 0
        scaled = hasattr(runner.optim_wrapper, 'loss_scaler')
        if self._in_a_row >= (self.steps or (SCALED_STEPS if scaled else 1)):
            values = ', '.join(f'{name} = {outputs[name].mean().item():g}' for name in terms)
            again = f' for {self._in_a_row} steps' if self._in_a_row > 1 else ''
            raise FloatingPointError(
                f'The loss is not finite{again}: {values} at iteration {runner.iter + 1}. '
                f'{_last_good(runner)} Lower the learning rate or clip the gradients '
                '(optim_wrapper.clip_grad=dict(max_norm=1)), or look for a term that divides by '
                'zero.')
        if any(_is_due(hook, runner) for hook in runner.hooks):
            self._check_run(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Look at the weights, and what belongs to them."""
        self._check_run(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Refuse what is not finite, whoever writes it."""
        self._check(runner, checkpoint)

    def _check_run(self, runner: Any) -> None:
        """Look before the checkpoint hook begins: it deletes an old checkpoint first."""
        averages = [hook.ema_model.module.state_dict() for hook in runner.hooks
                    if hasattr(hook, 'ema_model')]
        self._check(runner, dict(state_dict=unwrapped(runner.model).state_dict(),
                                 ema_state_dict=averages,
                                 optimizer=runner.optim_wrapper.state_dict()))

    def _check(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        wrong = [name for part in ('state_dict', 'ema_state_dict', 'optimizer', 'gradients')
                 for name in not_finite(checkpoint.get(part))
                 if _AVERAGED.sub('', name) not in self._infinite_before]
        if wrong:
            more = f' and {len(wrong) - 1} more' if len(wrong) > 1 else ''
            raise FloatingPointError(
                f'{_AVERAGED.sub("", wrong[0])!r}{more} of what is trained are not finite, and are '
                f'not saved. {_last_good(runner)} Lower the learning rate or clip the '
                'gradients (optim_wrapper.clip_grad=dict(max_norm=1)).')


def not_finite(values: Any, name: str = '') -> Iterator[str]:
    """The names of the tensors, among nested ones, that hold NaN or infinity.

    Example:
        >>> list(not_finite(dict(a=torch.ones(2), b=[torch.tensor(float('nan'))])))
        ['b.0']
    """
    if isinstance(values, torch.Tensor):
        if (values.is_floating_point() or values.is_complex()) and not torch.isfinite(values).all():
            yield name
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from not_finite(value, f'{name}.{key}' if name else str(key))
    elif isinstance(values, (list, tuple)):
        for number, value in enumerate(values):
            yield from not_finite(value, f'{name}.{number}' if name else str(number))


def _is_due(hook: Any, runner: Any) -> bool:
    """Whether a checkpoint is written after this iteration."""
    return isinstance(hook, CheckpointHook) and not hook.by_epoch and (
        hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_iter(runner)))


def last_written(runner: Any) -> str | None:
    """The last checkpoint that a run wrote, or began from; None where there is none."""
    known = runner.message_hub.runtime_info
    return next((path for path in (known.get('last_ckpt'), runner._load_from)
                 if path and os.path.isfile(path)), None)


def _last_good(runner: Any) -> str:
    path = last_written(runner)
    return ('No checkpoint had been written.' if path is None else
            f'The last good checkpoint is {path!r}.')

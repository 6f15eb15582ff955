"""The hook that changes the weight of a loss in the course of a run."""
from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import MutableMapping, Sequence
from typing import Any

from mmengine.hooks import Hook

from ..registry import HOOKS, unknown_name
from .parts import check_epochs, model_of, part_of

SCHEDULES = ('linear', 'cosine', 'step')


@HOOKS.register_module()
class LossWeightScheduleHook(Hook):
    """Sets the weight of a loss from the epoch or the iteration.

    ``linear`` and ``cosine`` go from the first of ``weights`` to the last while the count goes from
    ``begin`` to ``end``; ``step`` takes the next of them at each milestone. The weight is a
    function of the count alone, so a resumed run has the same; it is logged as ``weight_<loss>``,
    and takes the place of the config's ``loss_weight``.

    Args:
        weights: the weights, not negative; two, or for ``step`` one more than the milestones.
        loss: the name of a term of a ``MetricHead``; None for its only one, or for a head with an
            attribute ``loss_weight``.
        schedule: ``'linear'``, ``'cosine'`` or ``'step'``.
        begin: until this epoch or iteration the weight is the first.
        end: from this one on it is the last.
        milestones: the epochs or iterations at which ``step`` goes on, rising.
        by_epoch: whether epochs are counted, or iterations. An epoch has one weight.
        head: the dotted name of the head in the model.

    Raises:
        ValueError: an unknown schedule, head or loss (the nearest are named), numbers that do not
            belong to the schedule, or epochs in an iteration-based loop.
        TypeError: a head without weights.
    """

    def __init__(self, weights: Sequence[float], loss: str | None = None,
                 schedule: str = 'linear', begin: int = 0, end: int | None = None,
                 milestones: Sequence[int] | None = None, by_epoch: bool = True,
                 head: str = 'head') -> None:
        if schedule not in SCHEDULES:
            raise ValueError(unknown_name('schedule', schedule, SCHEDULES))
        self.weights = [float(weight) for weight in weights]
        if not all(weight >= 0 and math.isfinite(weight) for weight in self.weights):
            raise ValueError(f'weights must be finite and not negative, got {list(weights)!r}.')
        if schedule == 'step':
            self._check_step(milestones, begin, end)
        elif milestones is not None or end is None or not 0 <= begin < end or len(weights) != 2:
            raise ValueError(f'The schedule {schedule!r} takes two weights and 0 <= begin < end, '
                             f'and no milestones; got weights={self.weights}, begin={begin}, '
                             f'end={end}, milestones={milestones}.')
        self.loss = loss
        self.schedule = schedule
        self.begin, self.end = begin, end
        self.milestones = list(milestones or ())
        self.by_epoch = by_epoch
        self.head = head

    def _check_step(self, milestones: Sequence[int] | None, begin: int, end: int | None) -> None:
        marks = list(milestones or ())
        if begin or end is not None or not marks or marks != sorted(set(marks)) or marks[0] < 0:
            raise ValueError("The schedule 'step' takes milestones, rising and not negative, and "
                             f'neither begin nor end; got milestones={milestones}, begin={begin}, '
                             f'end={end}.')
        if len(self.weights) != len(marks) + 1:
            raise ValueError(f'{len(marks)} milestones want {len(marks) + 1} weights, got '
                             f'{len(self.weights)}.')

    def weight_at(self, count: int) -> float:
        """The weight at an epoch or iteration, counted from 0."""
        if self.schedule == 'step':
            return self.weights[bisect_right(self.milestones, count)]
        assert self.end is not None
        first, last = self.weights
        share = min(max((count - self.begin) / (self.end - self.begin), 0.0), 1.0)
        if self.schedule == 'cosine':
            share = (1 - math.cos(math.pi * share)) / 2
        return first * (1 - share) + last * share

    def before_train(self, runner: Any) -> None:
        """Find the loss."""
        if self.by_epoch:
            check_epochs(runner, f'{type(self).__name__}(by_epoch=True)')
        self._set(part_of(model_of(runner), self.head), self._now(runner))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the weight, and log it."""
        weight = self._now(runner)
        name = self._set(part_of(model_of(runner), self.head), weight)
        runner.message_hub.update_scalar(f'train/weight_{name}', weight)

    def _now(self, runner: Any) -> float:
        return self.weight_at(runner.epoch if self.by_epoch else runner.iter)

    def _set(self, head: Any, weight: float) -> str:
        """Set the weight in the head; its name in the log."""
        table = getattr(head, 'weights', None)
        if isinstance(table, MutableMapping):
            name = next(iter(table)) if self.loss is None and len(table) == 1 else self.loss
            if name not in table:
                raise ValueError(unknown_name(f'loss of {self.head}', name, table))
            table[name] = weight
            return str(name)
        if not isinstance(getattr(head, 'loss_weight', None), (int, float)):
            raise TypeError(f'{self.head} is a {type(head).__name__}, which has neither weights by '
                            'name nor a loss_weight to set.')
        if self.loss is not None:
            raise ValueError(f'{self.head} is a {type(head).__name__} with one loss, which has no '
                             f'name: leave loss={self.loss!r} out.')
        head.loss_weight = weight
        return self.head

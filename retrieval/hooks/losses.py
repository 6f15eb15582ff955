"""Hooks of losses: a changing weight, margins by class, and a check of the head beforehand."""
from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook

from ..datasets import labels_of
from ..distributed import all_gather_list, unwrapped, world_size
from ..registry import HOOKS, unknown_name
from .freeze import check_epochs, part_of

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
        self._set(part_of(unwrapped(runner.model), self.head), self._now(runner))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set the weight, and log it."""
        weight = self._now(runner)
        name = self._set(part_of(unwrapped(runner.model), self.head), weight)
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


@HOOKS.register_module()
class AdaptiveMarginHook(Hook):
    """Sets the margins of losses from how many samples each class of the training set has.

    It works on every loss of the model that has ``set_class_counts``, such as
    :class:`~retrieval.losses.AdaptiveSubCenterArcFaceLoss`, whose arguments say how counts become
    margins. Samples that a dataset wrapper repeats count as often as it does. On several processes
    the first one's counts are taken, so that margins are alike. A resumed run counts again, and so
    comes to the same margins while its dataset is the same; the checkpoint holds them for runs
    without this hook.

    Raises:
        ValueError: no loss has margins to set, the training set has no labels, or a label lies
            beyond the loss's classes.
    """

    def before_train(self, runner: Any) -> None:
        """Count, and set the margins."""
        losses = {name: part for name, part in unwrapped(runner.model).named_modules()
                  if callable(getattr(part, 'set_class_counts', None))}
        if not losses:
            raise ValueError('AdaptiveMarginHook found no loss with margins by class: take it out '
                             'of custom_hooks, or set '
                             "loss=dict(type='AdaptiveSubCenterArcFaceLoss', …).")
        labels = labels_of(runner.train_loop.dataloader.dataset)
        if labels is None:
            raise ValueError('AdaptiveMarginHook counts the classes of the training set, which has '
                             'no labels: give the loss class_counts instead.')
        for name, loss in losses.items():
            counts = np.bincount(labels, minlength=loss.num_classes)
            if len(counts) > loss.num_classes:
                raise ValueError(f'The training set has labels up to {len(counts) - 1}, and the '
                                 f'loss {name!r} num_classes={loss.num_classes}.')
            loss.set_class_counts(all_gather_list([counts.tolist()])[0])
            runner.logger.info(f'{name}: margins from {loss.margins.min():.2f} to '
                               f'{loss.margins.max():.2f} degrees over {loss.num_classes} classes')


@HOOKS.register_module()
class CheckHeadHook(Hook):
    """Compares the head with the training set and its dataloader before the first epoch.

    It asks the head for ``num_classes`` and ``batch_size``, and does nothing where there are none;
    nor where the dataset does not know its labels.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Look at the classes of all training images, and at the size of the batches.

        Raises:
            ValueError: a class outside the head's ``num_classes``, or a batch that its memory
                cannot hold.
        """
        model = unwrapped(runner.model)
        head = getattr(model, 'head', None)
        loader = runner.train_loop.dataloader
        num_classes = getattr(head, 'num_classes', None)
        if isinstance(num_classes, int):
            check_dataset(loader.dataset, num_classes, type(head).__name__)
        most = getattr(head, 'batch_size', None)
        size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
        if isinstance(most, int) and isinstance(size, int):
            everyone = size * (world_size() if getattr(head, 'gather', False) else 1)
            if everyone > most:
                raise ValueError(
                    f'The processes together train on batches of {everyone}, and the memory of the '
                    f'loss has only memory_size={most}: make it larger, or the batches smaller.')


def check_dataset(dataset: Any, num_classes: int, head: str) -> None:
    """Refuse a training set with classes that a head has no weights for.

    Raises:
        ValueError: a label is outside ``[0, num_classes)``; the first image is named.
    """
    labels = labels_of(dataset)
    if labels is None or not len(labels):
        return
    wrong = (labels < 0) | (labels >= num_classes)
    if not wrong.any():
        return
    counts = Counter(labels[wrong].tolist())
    shown = ', '.join(map(str, sorted(counts)[:10])) + (', …' if len(counts) > 10 else '')
    hint = ('number the classes from 0' if min(counts) < 0 else
            f'write num_classes={int(labels.max()) + 1} into the loss')
    raise ValueError(
        f'The losses of {head} have num_classes={num_classes}, so classes go from 0 to '
        f'{num_classes - 1}, and {int(wrong.sum())} of the {len(labels)} training images have '
        f'others ({shown}), the first is row {int(wrong.argmax())}: {hint}, or choose the '
        'training images by class.')

"""Schedules as shares of a run, what does not fit a run, and the schedules of a resumed one."""
from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

from mmengine.optim.scheduler.param_scheduler import (
    ConstantParamScheduler,
    CosineAnnealingParamScheduler,
    LinearParamScheduler,
    OneCycleParamScheduler,
    PolyParamScheduler,
    _ParamScheduler,
)
from mmengine.runner import IterBasedTrainLoop

from ..checks import real_number, whole_number
from ..registry import PARAM_SCHEDULERS

_STEPS = ('milestones', 'periods', 'step_size', 'total_steps')  # whole numbers of steps
_POSITION = ('optimizer', 'last_step', '_global_step', '_last_value', 'iterations', 'verbose')


@PARAM_SCHEDULERS.register_module(name='ShareOfRun')
def share_of_run(optimizer: Any, schedule: str, end: float = math.inf, by_epoch: bool = True,
                 begin: float = 0.0, stop: float = 1.0, ticks: int | None = None,
                 **settings: Any) -> _ParamScheduler:
    """One of the engine's schedules, whose steps are given as shares of the run.

    So it ends with the run, whatever number of epochs or iterations, size of batches or number of
    processes that has. A config says ``by_epoch=False`` beside it, by which the engine counts
    iterations and gives it the run's number of them as ``end``.

    Args:
        optimizer: the engine's.
        schedule: the type of the schedule, such as ``'CosineAnnealingLR'``.
        end: iterations of the run, by the engine.
        by_epoch: False.
        begin: the share of the run after which it begins.
        stop: the share after which it stops. One that does not reach two steps is left out.
        ticks: the rate changes so often in a run, at equal distances; None: at every iteration.
        settings: those of the schedule; ``T_max``, ``total_steps``, ``step_size``, ``milestones``
            and ``periods`` are shares too.

    Raises:
        ValueError: a share that is none, or ``by_epoch`` and ``end`` are not those of a run.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> steps = share_of_run(optimizer, 'MultiStepLR', end=8, by_epoch=False,
        ...                      milestones=[0.5, 0.75], gamma=0.1)
        >>> sorted(steps.milestones)
        [4, 6]
    """
    if by_epoch or not 0 < end < math.inf:
        raise ValueError('ShareOfRun counts the iterations of the run: write by_epoch=False beside '
                         'it, and no end (its share is called stop).')
    for name, share in (('begin', begin), ('stop', stop)):
        real_number(name, share, 0, 1)
    total = int(end) if ticks is None else whole_number('ticks', ticks)
    first, last = (int(share * total + 1e-6) for share in (begin, stop))
    kind = PARAM_SCHEDULERS.get(schedule)
    if stop < 1 and last - first < 2:  # the engine's would stay at their first step for ever
        return PARAM_SCHEDULERS.get('ConstantLR')(optimizer, factor=1.0, end=1, by_epoch=False)
    for name in _STEPS:
        if name in settings:
            settings[name] = _steps(name, settings[name], total)
    if issubclass(kind, CosineAnnealingParamScheduler):
        settings['T_max'] = settings.get('T_max', stop - begin) * total
    if ticks is not None:
        kind = _ticking(kind, total, int(end))
    return kind(optimizer, begin=min(first, total - 1), end=max(last, 1), by_epoch=False,
                **settings)


def _steps(name: str, share: Any, total: int) -> Any:
    """A share, or a list of them, as whole numbers of steps."""
    if isinstance(share, (list, tuple)):
        return [_steps(name, one, total) for one in share]
    return max(round(real_number(name, share, 0, 1) * total), 1)


def _ticking(kind: type, ticks: int, total: int) -> type:
    """A schedule that takes a number of steps over a run, at equal distances."""
    class Ticking(kind):
        iterations = -1

        def step(self) -> None:
            self.iterations, self.run = self.iterations + 1, (ticks, total)
            while self._global_step < self.iterations * ticks // total:
                super().step()

    Ticking.__name__ = Ticking.__qualname__ = kind.__name__
    return Ticking


def schedules_of(runner: Any) -> list[_ParamScheduler]:
    """All built schedules of a run, of however many optimisers."""
    found = runner.param_schedulers or []
    parts = found.values() if isinstance(found, dict) else [found]
    return [schedule for part in parts for schedule in part
            if isinstance(schedule, _ParamScheduler)]


def misfits(runner: Any) -> Iterator[str]:
    """What does not fit in the schedules of a run, a sentence each."""
    loop, schedules = runner.train_loop, schedules_of(runner)
    for schedule in schedules:
        by_epoch = schedule.by_epoch
        name = f'{type(schedule).__name__} of {schedule.param_name}'
        unit, length = ('epoch', loop.max_epochs) if by_epoch else ('iteration', loop.max_iters)
        if by_epoch and isinstance(loop, IterBasedTrainLoop):
            yield (f'{name} counts epochs, and the run iterations only, so that it never takes a '
                   'step: write by_epoch=False.')
            continue
        reach, final = _reach(schedule), min(schedule.end, length)
        if schedule.begin >= length:
            yield f'{name} begins at {unit} {schedule.begin}, and the run ends at {length}.'
        elif reach > length * (1 + 1e-6):
            yield f'{name} reaches its end at {unit} {reach:g}, and the run ends at {length}.'
        elif isinstance(schedule, LinearParamScheduler) and schedule.total_iters < 1:
            yield (f'{name} has one step, at which it stays: the rate is {schedule.start_factor:g} '
                   'of what is set from there on.')
        elif isinstance(schedule, CosineAnnealingParamScheduler) and reach <= final - 1:
            yield f'{name} is at its lowest at {unit} {reach:g} of {length}, and rises again.'
        elif (isinstance(schedule, (CosineAnnealingParamScheduler, PolyParamScheduler,
                                    OneCycleParamScheduler)) and reach <= length - 1
                and not any(other.begin >= schedule.end for other in schedules)):
            yield (f'{name} has reached its end at {unit} {reach:g}, and the run goes on to '
                   f'{length}.')


def _reach(schedule: Any) -> float:
    """The step from which on a schedule changes nothing, or after which it begins again."""
    begin = float(schedule.begin)
    if isinstance(schedule, CosineAnnealingParamScheduler):
        return begin + schedule.T_max
    if isinstance(schedule, OneCycleParamScheduler):
        return begin + schedule.total_steps
    if isinstance(schedule, (LinearParamScheduler, PolyParamScheduler, ConstantParamScheduler)):
        return float(schedule.end)
    for name in ('milestones', 'cumulative_periods'):
        if getattr(schedule, name, None):
            return begin + max(getattr(schedule, name))
    return begin


def go_on_as_configured(runner: Any) -> bool:
    """Bring the schedules of a resumed run to where they would be had it been this one throughout.

    The engine gives them the state in the checkpoint, and with it the lengths of the run that wrote
    it. Where those are this run's, or where a schedule follows the results of the validation,
    nothing is done.

    Returns:
        Whether the schedules were changed.
    """
    config, loaded = runner.cfg.get('param_scheduler'), schedules_of(runner)
    if not config or not loaded or any(hasattr(one, 'need_val_args') for one in loaded):
        return False
    wrapper = runner.optim_wrapper
    wrappers = list(wrapper.values()) if hasattr(wrapper, 'values') else [wrapper]
    groups = [group for one in wrappers for group in one.param_groups]
    rates = [dict(group) for group in groups]
    for group in groups:
        group.update({name.removeprefix('initial_'): value for name, value in group.items()
                      if name.startswith('initial_')})
    before, runner.param_schedulers = runner.param_schedulers, runner.build_param_scheduler(config)
    fresh = schedules_of(runner)
    if list(map(_settings, fresh)) == list(map(_settings, loaded)):
        runner.param_schedulers = before
        for group, rate in zip(groups, rates, strict=True):
            group.update({name: value for name, value in rate.items() if name != 'params'})
        return False
    loop, batches = runner.train_loop, len(runner.train_dataloader)
    counts_epochs = not isinstance(loop, IterBasedTrainLoop)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that no optimiser has taken these steps
        for iteration in range(1, loop.iter + 1):
            for schedule in fresh:
                if not schedule.by_epoch or (counts_epochs and iteration % batches == 0):
                    schedule.step()
    return True


def _settings(schedule: _ParamScheduler) -> tuple[str, dict[str, Any]]:
    """All of a schedule but how far it has come."""
    return type(schedule).__name__, {name: value for name, value in vars(schedule).items()
                                     if name not in _POSITION}

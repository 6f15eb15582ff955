"""Schedules as shares of a run, against the engine's own at the length they were written for."""
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from retrieval.hooks.schedules import misfits, share_of_run
from retrieval.registry import PARAM_SCHEDULERS

BASES = Path(__file__).parents[2] / 'configs' / '_base_' / 'schedules'
BATCHES = 7
# the published recipes, in epochs
WRITTEN = {
    'adam_100e': [], 'adam_45e': [],
    'adam_step_40e': [dict(type='MultiStepLR', milestones=[30], gamma=0.1)],
    'adam_step_50e': [dict(type='MultiStepLR', milestones=[19, 39], gamma=0.1)],
    'adam_warmup_120e': [dict(type='LinearLR', start_factor=0.01, begin=0, end=10),
                         dict(type='MultiStepLR', milestones=[40, 70], gamma=0.1)],
    'adamw_cosine_20e': [
        dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', T_max=19, begin=1, end=20, eta_min=1e-6,
             convert_to_iter_based=True)],
    'adamw_cosine_2e': [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=0.3, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', T_max=1.7, begin=0.3, end=2, eta_min_ratio=1e-3,
             convert_to_iter_based=True)],
    'adamw_onecycle_4e': [
        dict(type='OneCycleLR', eta_max=3e-3, total_steps=4, pct_start=0.15, div_factor=10,
             final_div_factor=1000, convert_to_iter_based=True)],
    'adamw_step_60e': [dict(type='StepLR', step_size=10, gamma=0.5)],
    'sgd_step_31e': [dict(type='MultiStepLR', milestones=[16], gamma=0.1)]}


def build(schedules, epochs, batches=BATCHES, rate=1.0):
    """An optimiser and its schedules, built as the engine builds them for such a run."""
    wrapper = OptimWrapper(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate))
    ends = {True: epochs, False: epochs * batches}
    return wrapper, [PARAM_SCHEDULERS.build(
        {'end': ends[one.get('by_epoch', True)], **one},
        default_args=dict(optimizer=wrapper, epoch_length=batches)) for one in schedules]


def curve(schedules, epochs, batches=BATCHES, rate=1.0):
    """The rate of every iteration, and the one after."""
    wrapper, built = build(schedules, epochs, batches, rate)
    rates = [wrapper.param_groups[0]['lr']]
    for iteration in range(1, epochs * batches + 1):
        wrapper.optimizer.step()
        for schedule in built:
            if not schedule.by_epoch or iteration % batches == 0:
                schedule.step()
        rates.append(wrapper.param_groups[0]['lr'])
    return rates


def base(name):
    config = Config.fromfile(BASES / f'{name}.py')
    return config.param_scheduler, config.optim_wrapper.optimizer.lr, config.train_cfg.max_epochs


def test_every_base_is_here():
    assert sorted(WRITTEN) == sorted(path.stem for path in BASES.glob('*.py'))


@pytest.mark.parametrize('name', WRITTEN)
def test_a_base_at_its_own_length_is_as_published(name):
    schedules, rate, epochs = base(name)
    for batches in (BATCHES, 20):
        ours, theirs = (curve(each, epochs, batches, rate) for each in (schedules, WRITTEN[name]))
        assert ours[:-1] == pytest.approx(theirs[:-1], rel=1e-9)


@pytest.mark.parametrize('epochs, batches', [(5, BATCHES), (1, 40), (200, 3), (1, 3), (1, 1)])
@pytest.mark.parametrize('name', WRITTEN)
def test_a_base_at_any_length_ends_where_it_should(name, epochs, batches):
    schedules, rate, written_for = base(name)
    rates = curve(schedules, epochs, batches, rate)[:-1]
    usual = curve(WRITTEN[name], written_for, 20, rate)[:-1]
    assert min(rates) > 0 and max(rates) <= rate * (1 + 1e-9)
    if len(rates) >= 30:  # so that each part has its steps
        assert max(rates) == pytest.approx(max(usual), rel=0.01)
        assert rates[-1] <= max(usual[-1] * 1.01, rate * 0.01)
        for share in (0.45, 0.9):
            assert rates[int(share * len(rates))] == pytest.approx(
                usual[int(share * len(usual))], abs=0.06 * rate)


def test_the_documented_five_epochs_reach_the_final_rate():
    """The kind of fault: the cosine of 20 epochs cut at 5 ends at 0.84 of the peak."""
    schedules, rate, _ = base('adamw_cosine_20e')
    assert curve(WRITTEN['adamw_cosine_20e'], 5, rate=rate)[-2] / rate > 0.8
    assert curve(schedules, 5, rate=rate)[-2] / rate < 0.01


@pytest.mark.parametrize('given, says', [
    (dict(end=8), 'write by_epoch=False'), (dict(by_epoch=False), 'write by_epoch=False'),
    (dict(end=8, by_epoch=False, stop=3), 'stop must be at least 0 and at most 1'),
    (dict(end=8, by_epoch=False, milestones=[4]), 'milestones must be'),
    (dict(end=8, by_epoch=False, ticks=0), 'ticks must be')])
def test_what_is_no_share_is_refused(given, says):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(ValueError, match=re.escape(says)):
        share_of_run(optimizer, 'MultiStepLR', **{'milestones': [0.5], **given})


def run_of(schedules, epochs=5, kind=EpochBasedTrainLoop):
    loop = object.__new__(kind)
    loop._max_epochs, loop._max_iters = (epochs, epochs * BATCHES)
    return SimpleNamespace(train_loop=loop, param_schedulers=build(schedules, epochs)[1])


COSINE = dict(type='CosineAnnealingLR', T_max=20, end=20)


@pytest.mark.parametrize('schedule, epochs, says', [
    (COSINE, 5, 'CosineAnnealingLR of lr reaches its end at epoch 20, and the run ends at 5'),
    (dict(COSINE, convert_to_iter_based=True), 5, 'its end at iteration 140, and the run ends'),
    (COSINE, 50, 'reached its end at epoch 20, and the run goes on to 50'),
    (dict(type='CosineAnnealingLR', T_max=20), 50, 'lowest at epoch 20 of 50, and rises again'),
    (dict(type='MultiStepLR', milestones=[2, 9]), 5, 'MultiStepLR of lr reaches its'),
    (dict(type='LinearLR', end=500, by_epoch=False), 5, 'at iteration 500, and the run ends at 35'),
    (dict(type='LinearLR', end=1), 5, 'has one step, at which it stays: the rate is 0.33'),
    (dict(type='OneCycleLR', eta_max=1, total_steps=9), 5, 'OneCycleLR of lr reaches its end'),
    (dict(type='PolyLR', begin=7, end=9), 5, 'PolyLR of lr begins at epoch 7, and the run ends at'),
])
def test_what_does_not_fit_its_run_is_said(schedule, epochs, says):
    assert says in ' '.join(misfits(run_of([schedule], epochs)))


def test_what_fits_is_not_spoken_of():
    for name in WRITTEN:
        schedules, _, epochs = base(name)
        for length in (5, epochs):
            assert list(misfits(run_of(schedules, length))) == [], name
        assert list(misfits(run_of(WRITTEN[name], epochs))) == [], name


def test_epochs_in_a_loop_by_iterations():
    run = run_of([COSINE], 30, IterBasedTrainLoop)
    assert 'never takes a step' in ' '.join(misfits(run))

"""A run that is resumed with other batches, processes, images or lengths trains on all of them."""
import contextlib

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from retrieval.registry import HOOKS

from .running import BUILT, config


@HOOKS.register_module(force=True)
class Witness(Hook):
    """Notes of every iteration the epoch, the images and the rate."""

    seen: list = []
    said: list = []

    def before_train(self, runner):
        runner.logger.warning = Witness.said.append

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        names = [sample.sample_id for sample in data_batch['data_samples']]
        Witness.seen.append((runner.epoch, runner.iter, names,
                             runner.optim_wrapper.param_groups[0]['lr']))


def train(work_dir, change=None, **options):
    """Train; what was seen in every iteration, and what was said."""
    Witness.seen, Witness.said = [], []
    settings = config(work_dir, hooks=options.pop('hooks', []), **options)
    settings['custom_hooks'].insert(0, dict(type='Witness', priority=5))
    settings['train_dataloader']['dataset']['count'] = 24
    if change is not None:
        change(settings)
    BUILT.append(Runner.from_cfg(Config(settings)))
    with contextlib.suppress(KeyboardInterrupt):
        BUILT[-1].train()
    return Witness.seen, ' '.join(Witness.said)


def by_iterations(settings):
    settings['train_cfg'] = dict(type='ResumableIterTrainLoop', max_iters=18)
    settings['param_scheduler'] = []


def loader(**changes):
    def change(settings):
        settings['train_dataloader'].update(changes)
    return change


def images(count):
    def change(settings):
        settings['train_dataloader']['dataset']['count'] = count
    return change


def accumulate(settings):
    settings['optim_wrapper']['accumulative_counts'] = 2


CLASSES = dict(batch_sampler=dict(type='MPerClassBatchSampler', m=2))
CHANGES = {'larger batches': (loader(batch_size=12), 2, 'batch_size 4 -> 12'),
           'smaller batches': (loader(batch_size=2), 12, 'batch_size 4 -> 2'),
           'fewer images': (images(10), 3, 'images 24 -> 10'),
           'more images': (images(31), 8, 'images 24 -> 31'),
           'another sampler': (loader(**CLASSES), 6, 'samplers'),
           'accumulation': (accumulate, 6, 'accumulative_counts 1 -> 2')}


@pytest.mark.parametrize('name', CHANGES)
@pytest.mark.parametrize('stop', [6, 9])
def test_every_epoch_that_is_left_is_whole(name, stop, tmp_path):
    """The run of three epochs of six batches has done one epoch, or one and a half."""
    change, batches, says = CHANGES[name]
    train(tmp_path, by_epoch=False, hooks=[dict(type='StopAt', iteration=stop)])
    seen, said = train(tmp_path, change, by_epoch=False, resume=True)
    assert [(epoch, at) for epoch, at, *_ in seen] == [
        (at // batches, at) for at in range(batches, 3 * batches)]
    assert says in said and ('epoch 2 begins anew' in said) == (stop == 9)
    if 'sampler' not in name:
        for epoch in (1, 2):
            drawn = [one for number, _, names, _ in seen if number == epoch for one in names]
            assert len(set(drawn)) == {'fewer images': 10, 'more images': 31}.get(name, 24)
            assert len(set(drawn)) == len(drawn)


def test_what_is_the_same_goes_on_without_a_word(tmp_path):
    whole, _ = train(tmp_path / 'whole', by_epoch=False)
    train(tmp_path / 'cut', by_epoch=False, hooks=[dict(type='StopAt', iteration=9)])
    seen, said = train(tmp_path / 'cut', by_epoch=False, resume=True)
    assert seen == whole[9:] and said == ''


@pytest.mark.parametrize('processes', [(1, 2), (2, 1), (3, 1)])
def test_another_number_of_processes(processes, tmp_path, monkeypatch):
    """A process of a run of so many takes its share of each epoch, from the epoch's beginning."""
    def of(count):
        monkeypatch.setattr('retrieval.hooks.reproducible.world_size', lambda: count)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, count))
    of(processes[0])
    train(tmp_path, by_epoch=False, epochs=1)
    of(processes[1])
    seen, said = train(tmp_path, by_epoch=False, resume=True)
    batches = 24 // 4 // processes[1]
    assert [at for _, at, *_ in seen] == list(range(batches, 3 * batches))
    assert f'processes {processes[0]} -> {processes[1]}' in said


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'retrieval.InfiniteSampler',
                                     'mmengine.InfiniteSampler'])
def test_a_loop_by_iterations(sampler, tmp_path):
    """After nine batches of four a run goes on with batches of two."""
    def change(settings, size=4):
        by_iterations(settings)
        settings['train_dataloader'].update(batch_size=size, sampler=dict(
            type=sampler, shuffle=True))
    whole, _ = train(tmp_path / 'whole', change, by_epoch=False)
    train(tmp_path / 'cut', change, by_epoch=False, interval=9,
          hooks=[dict(type='StopAt', iteration=9)])
    seen, said = train(tmp_path / 'cut', lambda settings: change(settings, 2), by_epoch=False,
                       resume=True)
    assert [at for _, at, *_ in seen] == list(range(9, 18))
    drawn = [one for *_, names, _ in seen for one in names]
    order = [one for *_, names, _ in whole for one in names]
    if sampler == 'DefaultSampler':  # the second pass begins anew
        assert drawn == order[24:42] and 'the present pass over the images begins anew' in said
    else:
        assert drawn == order[36:54] and said == ''


def test_fewer_images_in_an_endless_stream(tmp_path):
    def change(settings):
        by_iterations(settings)
        settings['train_dataloader']['sampler'] = dict(type='retrieval.InfiniteSampler')
    train(tmp_path, change, by_epoch=False, interval=9,
          hooks=[dict(type='StopAt', iteration=9)])
    seen, said = train(tmp_path, lambda settings: (change(settings), images(20)(settings)),
                       by_epoch=False, resume=True)
    drawn = [one for *_, names, _ in seen for one in names]
    assert len(set(drawn[:20])) == 20 and 'begins anew' in said


COSINE = [dict(type='ShareOfRun', by_epoch=False, schedule='LinearLR', stop=0.25,
               start_factor=0.1),
          dict(type='ShareOfRun', by_epoch=False, schedule='CosineAnnealingLR', begin=0.25)]
PLAIN = [dict(type='CosineAnnealingLR', convert_to_iter_based=True),
         dict(type='StepLR', step_size=2)]


@pytest.mark.parametrize('schedules', [COSINE, PLAIN])
@pytest.mark.parametrize('change, batches', [(loader(batch_size=12), 2), (None, 6)])
def test_rates_are_those_of_the_longer_run(schedules, change, batches, tmp_path):
    """Resumed after two of what were to be three epochs, with other batches, to be four."""
    def scheduled(settings, with_change=True):
        settings['param_scheduler'] = schedules
        if change is not None and with_change:
            change(settings)
    whole, _ = train(tmp_path / 'whole', scheduled, epochs=4)
    train(tmp_path / 'cut', lambda settings: scheduled(settings, False), epochs=3,
          hooks=[dict(type='StopAt', iteration=12)])
    seen, said = train(tmp_path / 'cut', scheduled, epochs=4, resume=True)
    assert 'The schedules are others' in said
    assert [at for _, at, *_ in seen] == list(range(2 * batches, 4 * batches))
    torch.testing.assert_close([rate for *_, rate in seen],
                               [rate for *_, rate in whole[2 * batches:]], rtol=1e-9, atol=0)


def test_a_run_that_is_done_says_so(tmp_path):
    train(tmp_path, epochs=1)
    seen, said = train(tmp_path, epochs=1, resume=True)
    assert seen == [] and 'nothing is left to train' in said

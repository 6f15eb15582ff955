"""The batches that a model really gets in a run are those that the samplers promise."""
from itertools import product

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner

from retrieval.datasets import (
    HierarchicalSampler,
    InfiniteSampler,
    MPerClassSampler,
    RepeatDataset,
)
from retrieval.hooks import seed_everything
from retrieval.registry import MODELS
from retrieval.retrievers import ImageToImageRetriever

from .running import BUILT, ToyPictures, config

SUPER = [min(i % 3, 1) for i in range(23)]  # class 0 alone, classes 1 and 2 together


@MODELS.register_module(force=True)
class RecordingRetriever(ImageToImageRetriever):
    """Keeps the rows of every batch that it is trained on, and a weighted sum of each picture."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows, self.sums = [], []

    def loss(self, inputs, data_samples):
        self.rows.append([sample.sample_idx for sample in data_samples])
        weights = torch.arange(1, inputs[0].numel() + 1).double().sqrt()
        self.sums.append((inputs.flatten(1).double() * weights).sum(1).tolist())
        return super().loss(inputs, data_samples)


ARGUMENTS = {'MPerClass': dict(m=2), 'Hierarchical': dict(m=2, super_class=SUPER)}
KINDS = [*ARGUMENTS, *(f'{name} batches' for name in ARGUMENTS)]
EPOCHS = ('EpochBasedTrainLoop', 'ResumableTrainLoop')
ITERATIONS = ('IterBasedTrainLoop', 'ResumableIterTrainLoop')


def loader_parts(kind):
    """The dataloader's config as far as it chooses the images."""
    name, *batches = kind.split()
    if not batches:
        return dict(sampler=dict(type=f'{name}Sampler', batch_size=4, **ARGUMENTS[name]))
    return dict(sampler=dict(type='DefaultSampler', shuffle=True),
                batch_sampler=dict(type=f'{name}BatchSampler', **ARGUMENTS[name]))


def build(work_dir, parts, loop, length, seed=7, hook=True, workers=0, **kwargs):
    settings = config(work_dir, workers=workers, by_epoch=loop in EPOCHS, **kwargs)
    settings['model']['type'] = 'RecordingRetriever'
    settings['train_dataloader'].update(parts)
    settings['train_cfg'] = dict(type=loop, **{
        'max_epochs' if loop in EPOCHS else 'max_iters': length})
    settings['randomness'] = dict(seed=seed)
    settings['param_scheduler'] = []
    if not hook:
        settings['custom_hooks'] = [hook for hook in settings['custom_hooks']
                                    if hook['type'] != 'ReproducibleTrainingHook']
    BUILT.append(Runner.from_cfg(Config(settings)))
    return BUILT[-1]


def promised(kind, seed, epochs):
    """The batches of every epoch by the sampler alone."""
    name = kind.split()[0]
    sampler = {'MPerClass': MPerClassSampler, 'Hierarchical': HierarchicalSampler}[name](
        ToyPictures(), batch_size=4, seed=seed, **ARGUMENTS[name])
    out = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        rows = [int(row) for row in sampler]
        out.append([rows[start:start + 4] for start in range(0, len(rows), 4)])
    assert len(out) < 2 or out[0] != out[1]
    return out


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    """The engine waits two seconds between passes."""
    from mmengine.runner import loops
    monkeypatch.setattr(loops.time, 'sleep', lambda seconds: None)


def cases():
    """Every kind of sampler in every loop; those beyond one of each are slow together."""
    for number, (kind, loop, hook) in enumerate(product(KINDS, [*EPOCHS, *ITERATIONS],
                                                        [True, False])):
        marks = () if number in (0, 11, 21, 31, 4) else pytest.mark.slow
        yield pytest.param(kind, loop, hook, marks=marks)


@pytest.mark.parametrize('kind, loop, hook', cases())
def test_two_epochs(tmp_path, kind, loop, hook):
    """With the hook of this package, and with the engine's alone."""
    first, second = promised(kind, 7, 2)
    length = 2 if loop in EPOCHS else len(first + second)
    runner = build(tmp_path, loader_parts(kind), loop, length, hook=hook)
    runner.train()
    assert runner.model.rows == first + second


@pytest.mark.slow
@pytest.mark.parametrize('loop', [*EPOCHS, *ITERATIONS])
@pytest.mark.parametrize('kind', ['MPerClass', 'Hierarchical batches'])
def test_with_workers_and_stacked_images(tmp_path, kind, loop):
    """The same rows and the same augmentations, of which no two of one image are alike."""
    whole = sum(promised(kind, 7, 2), [])
    length = 2 if loop in EPOCHS else len(whole)
    alone = build(tmp_path / '0', loader_parts(kind), loop, length)
    alone.train()
    parts = dict(loader_parts(kind), collate_fn=dict(type='retrieval.image_collate'))
    shared = build(tmp_path / '2', parts, loop, length, workers=2)
    shared.train()
    assert alone.model.rows == shared.model.rows == whole
    assert alone.model.sums == shared.model.sums
    drawn = [total for batch in alone.model.sums for total in batch]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('loop, stop, kind', [
    ('ResumableTrainLoop', 8, 'MPerClass'), ('ResumableTrainLoop', 8, 'Hierarchical batches'),
    ('EpochBasedTrainLoop', 9, 'MPerClass batches'), ('IterBasedTrainLoop', 8, 'MPerClass batches'),
    ('IterBasedTrainLoop', 3, 'Hierarchical'), ('ResumableIterTrainLoop', 8, 'Hierarchical'),
    ('ResumableIterTrainLoop', 3, 'MPerClass batches')])
def test_resumed(tmp_path, loop, stop, kind, workers):
    """The seed comes from the checkpoint, and no run is told it; the batches go on."""
    length = 3 if loop in EPOCHS else 16
    options = dict(loop=loop, length=length, seed=None, workers=workers, interval=1)
    parts = loader_parts(kind)
    cut = build(tmp_path, parts, hooks=[dict(type='StopAt', iteration=stop)], **options)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    seed_everything(99)
    resumed = build(tmp_path, parts, resume=True, **options)
    resumed.train()
    assert resumed.seed == cut.seed
    epochs = promised(kind, cut.seed, 3)
    whole = sum(epochs, [])
    if loop not in EPOCHS:
        whole = whole[:16]
    done = stop if loop != 'EpochBasedTrainLoop' else stop // len(epochs[0]) * len(epochs[0])
    if loop == 'ResumableTrainLoop':  # checkpoints once an epoch
        done = stop // len(epochs[0]) * len(epochs[0])
    assert cut.model.rows == whole[:stop] and resumed.model.rows == whole[done:]
    overlap = stop - done
    assert cut.model.sums[done:] == resumed.model.sums[:overlap]


@pytest.mark.parametrize('loop', ITERATIONS)
@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_endless_stream_resumed(tmp_path, loop, workers):
    parts = dict(sampler=dict(type='InfiniteSampler'))
    options = dict(loop=loop, length=14, seed=None, workers=workers, interval=1)
    cut = build(tmp_path, parts, hooks=[dict(type='StopAt', iteration=9)], **options)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = build(tmp_path, parts, resume=True, **options)
    resumed.train()
    stream = iter(InfiniteSampler(ToyPictures(), seed=cut.seed))
    whole = [[int(next(stream)) for _ in range(4)] for _ in range(14)]
    assert cut.model.rows == whole[:9] and resumed.model.rows == whole[9:]
    sums = [total for batch in cut.model.sums + resumed.model.sums for total in batch]
    assert len(set(sums)) == len(sums)


def test_the_endless_stream_is_entered_without_reading_what_was_used(tmp_path, monkeypatch):
    read = []
    original = ToyPictures.get_data_info
    monkeypatch.setattr(ToyPictures, 'get_data_info',
                        lambda self, row: read.append(row) or original(self, row))
    parts = dict(sampler=dict(type='InfiniteSampler'))
    build(tmp_path, parts, 'ResumableIterTrainLoop', 9, interval=1).train()
    read.clear()
    build(tmp_path, parts, 'ResumableIterTrainLoop', 12, interval=1, resume=True).train()
    assert len(read) == 3 * 4


def test_the_engines_endless_sampler_resumed(tmp_path):
    parts = dict(sampler=dict(type='mmengine.InfiniteSampler'))
    options = dict(loop='ResumableIterTrainLoop', seed=5, interval=1)
    whole = build(tmp_path / 'whole', parts, length=9, **options)
    whole.train()
    build(tmp_path / 'cut', parts, length=7, **options).train()
    resumed = build(tmp_path / 'cut', parts, length=9, resume=True, **options)
    resumed.train()
    assert resumed.model.rows == whole.model.rows[7:]


def test_by_iterations_a_plain_sampler_augments_anew_too(tmp_path):
    parts = dict(sampler=dict(type='DefaultSampler', shuffle=True))
    runner = build(tmp_path, parts, 'ResumableIterTrainLoop', 12)
    runner.train()
    sampler, whole = DefaultSampler(ToyPictures(), shuffle=True, seed=7), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        rows = list(sampler)
        whole += [rows[start:start + 4] for start in range(0, len(rows), 4)]
    assert runner.model.rows == whole
    sums = [total for batch in runner.model.sums for total in batch]
    assert len(set(sums)) == len(sums)


def test_validation_between_iterations(tmp_path):
    runner = build(tmp_path, loader_parts('MPerClass'), 'ResumableIterTrainLoop', 5, val=True)
    runner.train_loop.val_interval = 2
    runner.train_loop.dynamic_intervals = [2]
    runner.train()
    assert runner.model.rows == promised('MPerClass', 7, 1)[0][:5]
    assert runner.iter == 5


def test_wrapped_and_sliced_datasets(tmp_path):
    parts = dict(sampler=dict(type='MPerClassSampler', m=2, batch_size=4), num_batch_per_epoch=3)
    runner = build(tmp_path / 'a', parts, 'ResumableTrainLoop', 1)
    runner.train()
    assert len(runner.model.rows) == 3 and max(map(max, runner.model.rows)) < 12
    parts = dict(sampler=dict(type='MPerClassSampler', m=2, batch_size=4), dataset=dict(
        type='RepeatDataset', times=2, dataset=dict(type='ToyPictures', pipeline=[
            dict(type='ToyNoise'), dict(type='PackInputs')])))
    runner = build(tmp_path / 'b', parts, 'ResumableTrainLoop', 1)
    runner.train()
    sampler = MPerClassSampler(RepeatDataset(ToyPictures(), 2), m=2, batch_size=4, seed=7)
    assert sum(runner.model.rows, []) == [row % 23 for row in sampler]
    sums = sum(runner.model.sums, [])
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize('kind', ['MPerClass', 'Hierarchical'])
def test_a_sampler_told_another_batch_size_is_refused(tmp_path, kind):
    parts = dict(loader_parts(kind), batch_size=6)
    runner = build(tmp_path, parts, 'ResumableTrainLoop', 1)
    with pytest.raises(ValueError, match=f'{kind}Sampler composes batches of 4, the dataloader has '
                                         f'batch_size=6.*{kind}BatchSampler'):
        runner.train()


def test_a_batch_sampler_is_told(tmp_path):
    runner = build(tmp_path, dict(loader_parts('MPerClass batches'), batch_size=6),
                   'ResumableTrainLoop', 1)
    runner.train()
    assert {len(rows) for rows in runner.model.rows} == {6}

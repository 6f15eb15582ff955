from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, Subset

from retrieval.datasets import (
    ImageList,
    InfiniteSampler,
    MPerClassBatchSampler,
    MPerClassSampler,
    samplers,
    seed_datasets,
)

from .toys import Draw, Toy, drawn_by_loader


class Labelled:
    def __init__(self, labels):
        self.labels = np.asarray(labels)

    def __len__(self):
        return len(self.labels)


UNEVEN = Labelled(np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 34]))
"""100 images of 12 classes, three of which have fewer than m = 4."""


def on_process(monkeypatch, number, of):
    monkeypatch.setattr(samplers, 'rank', lambda: number)
    monkeypatch.setattr(samplers, 'world_size', lambda: of)


def batches_of(dataset, world=1, epoch=0, monkeypatch=None, m=4, batch_size=12, seed=5):
    """The batches of every process, ``[process][iteration]``."""
    out = []
    for number in range(world):
        if monkeypatch:
            on_process(monkeypatch, number, world)
        sampler = MPerClassSampler(dataset, m=m, batch_size=batch_size, seed=seed)
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert len(indices) == len(sampler)
        out.append([indices[start:start + batch_size]
                    for start in range(0, len(indices), batch_size)])
    return out


@pytest.mark.parametrize('world', [1, 2, 3])
def test_composition_of_every_batch(world, monkeypatch):
    sizes = Counter(UNEVEN.labels.tolist())
    processes = batches_of(UNEVEN, world, monkeypatch=monkeypatch)
    for together in zip(*processes, strict=True):
        everything = [index for batch in together for index in batch]
        classes = Counter(UNEVEN.labels[everything].tolist())
        assert set(classes.values()) == {4} and len(classes) == 3 * world
        for batch in together:
            assert len(batch) == 12
            assert set(Counter(UNEVEN.labels[batch].tolist()).values()) == {4}
        for index, count in Counter(everything).items():
            size = sizes[int(UNEVEN.labels[index])]
            assert count == 1 if size >= 4 else count in (4 // size, -(-4 // size))


@pytest.mark.parametrize('world', [1, 3])
def test_an_epoch_sees_every_class_evenly(world, monkeypatch):
    seen = Counter(int(UNEVEN.labels[index])
                   for process in batches_of(UNEVEN, world, monkeypatch=monkeypatch)
                   for batch in process for index in batch)
    assert len(seen) == 12 and max(seen.values()) - min(seen.values()) <= 4
    assert 100 <= sum(seen.values()) <= 100 + 12 * world


def test_images_of_a_class_come_in_turn():
    dataset = Labelled(np.repeat(np.arange(3), 10))
    for epoch in range(3):
        batches = batches_of(dataset, epoch=epoch)[0]
        assert len(batches) == 3
        first = [index for batch in batches[:2] for index in batch]
        assert len(set(first)) == 24  # none comes again before the others of its class
        counts = Counter(first + batches[2])
        assert len(counts) == 30 and Counter(counts.values()) == {1: 24, 2: 6}


def test_depends_on_seed_and_epoch_alone():
    first = batches_of(UNEVEN)
    np.random.default_rng(0)
    torch.rand(3)
    assert batches_of(UNEVEN) == first
    assert batches_of(UNEVEN, epoch=1) != first and batches_of(UNEVEN, seed=6) != first
    sampler = MPerClassSampler(UNEVEN, 4, 12, seed=5)
    assert list(sampler) == list(sampler)


def test_lengths():
    def count(size, classes, **kwargs):
        return len(MPerClassSampler(Labelled(np.arange(size) % classes), **kwargs))
    assert count(100, 5, m=4, batch_size=20) == 100
    assert count(101, 5, m=4, batch_size=20) == 120
    assert count(101, 5, m=4, batch_size=20, round_up=False) == 100
    assert count(50, 50, m=4, batch_size=8) == 25 * 8  # every class comes up
    assert count(5, 5, m=1, batch_size=5, round_up=False) == 5


def test_many_classes_are_quick():
    import time
    dataset = Labelled(np.arange(60_000) // 5)
    start = time.perf_counter()
    assert len(list(MPerClassSampler(dataset, m=4, batch_size=64, seed=0))) == 60_032
    assert time.perf_counter() - start < 10


def test_repeated_draws_are_told_apart():
    toy = Toy(count=6, pipeline=[Draw()], indices=[0, 1, 2])  # one image a class
    toy.set_seed(3)
    sampler = MPerClassSampler(toy, m=4, batch_size=12, seed=0)
    assert len({toy[index]['drawn'] for index in sampler}) == len(sampler)


@pytest.mark.parametrize('arguments, message', [
    ({'m': 5, 'batch_size': 12}, r'batch of 12 cannot hold m=5.*dataloader.*for example 10'),
    ({'m': 0, 'batch_size': 12}, 'm=0'),
    ({'m': 4, 'batch_size': 0}, 'batch of 0'),
    ({'m': 1, 'batch_size': 16}, 'need 16 classes, the dataset has 12'),
])
def test_impossible_compositions(arguments, message):
    with pytest.raises(ValueError, match=message):
        MPerClassSampler(UNEVEN, **arguments)


def test_several_processes_need_more_classes(monkeypatch):
    on_process(monkeypatch, 1, 5)
    with pytest.raises(ValueError, match='5 batches of 12 with m=4 need 15 classes'):
        MPerClassSampler(UNEVEN, 4, 12)


def test_labels_are_needed_and_found_in_wrappers():
    with pytest.raises(ValueError, match='needs labels, but ImageList has none'):
        MPerClassSampler(ImageList([np.zeros((2, 2), np.uint8)]), 1, 1)
    toy = Toy(count=12)
    inside = Subset(toy, range(3, 12))
    labels = [(3 + index) % 3 for index in MPerClassSampler(inside, 2, 6, seed=0)]
    assert set(Counter(labels[:6]).values()) == {2}


def test_batch_sampler_is_the_same_and_knows_the_batch_size():
    sampler = DefaultSampler(UNEVEN, shuffle=True, seed=5)
    batches = MPerClassBatchSampler(sampler, batch_size=12, m=4)
    assert list(batches) == batches_of(UNEVEN)[0] and len(batches) == len(list(batches))
    sampler.set_epoch(3)
    assert list(batches) == batches_of(UNEVEN, epoch=3)[0]
    with pytest.raises(TypeError, match='knows its dataset'):
        MPerClassBatchSampler(BatchSampler(range(3), 1, False), 12, 4)


@pytest.mark.parametrize('config', [
    {'sampler': {'type': 'retrieval.MPerClassSampler', 'm': 2, 'batch_size': 6}},
    {'sampler': {'type': 'DefaultSampler', 'shuffle': True},
     'batch_sampler': {'type': 'retrieval.MPerClassBatchSampler', 'm': 2}}])
def test_in_the_engines_dataloader(config):
    """Composition, seed and epoch arrive as MMEngine builds and tells them."""
    from mmengine.hooks import DistSamplerSeedHook

    loader = Runner.build_dataloader({'dataset': Toy(count=18, pipeline=[{'type': 'PackInputs'}]),
                                      'batch_size': 6, 'num_workers': 0, **config}, seed=4)
    runner = type('R', (), {'train_loop': type('L', (), {'dataloader': loader}), 'epoch': 0})
    epochs = []
    for runner.epoch in (0, 1, 0):
        DistSamplerSeedHook().before_train_epoch(runner)
        epochs.append([[sample.sample_idx for sample in batch['data_samples']]
                       for batch in loader])
    assert epochs[0] == epochs[2] != epochs[1] and len(epochs[0]) == len(loader) == 3
    for batch in epochs[0]:
        assert Counter(index % 3 for index in batch) == {0: 2, 1: 2, 2: 2}


# InfiniteSampler -------------------------------------------------------------------------------

def test_passes_are_permutations_with_their_number():
    stream = list(islice(InfiniteSampler(Labelled(range(7)), seed=1), 21))
    passes = [stream[start:start + 7] for start in (0, 7, 14)]
    assert [sorted(one) for one in passes] == [list(range(7))] * 3
    assert passes[0] != passes[1] != passes[2]
    assert [index.epoch for index in stream] == [0] * 7 + [1] * 7 + [2] * 7
    plain = islice(InfiniteSampler(Labelled(range(4)), shuffle=False), 10)
    assert list(plain) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize('world', [2, 3])
def test_processes_share_one_stream(world, monkeypatch):
    whole = list(islice(InfiniteSampler(Labelled(range(7)), seed=1), 30))
    for number in range(world):
        on_process(monkeypatch, number, world)
        sampler = InfiniteSampler(Labelled(range(7)), seed=1)
        assert list(islice(sampler, 10)) == whole[number::world][:10]
        sampler.start = 4
        assert list(islice(sampler, 5)) == whole[number::world][4:9]


def test_every_pass_draws_anew_with_any_number_of_workers():
    toy = Toy(count=5, pipeline=[Draw()])
    seed_datasets(toy, 3)

    class TwoPasses(InfiniteSampler):
        def __iter__(self):
            return islice(super().__iter__(), 10)

    alone = drawn_by_loader(toy, 0, sampler=TwoPasses(toy, seed=2))[0]
    assert len(set(alone)) == 10
    assert drawn_by_loader(toy, 2, sampler=TwoPasses(toy, seed=2))[0] == alone


def test_nothing_to_sample():
    with pytest.raises(ValueError, match='empty'):
        InfiniteSampler(Labelled([]))
    assert len(InfiniteSampler(Labelled([1, 2]))) == 2

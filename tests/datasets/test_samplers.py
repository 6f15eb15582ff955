from collections import Counter, defaultdict
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.dataset import InfiniteSampler as EngineInfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, Subset

from retrieval.datasets import (
    ConcatDataset,
    HierarchicalBatchSampler,
    HierarchicalSampler,
    ImageList,
    InfiniteSampler,
    MPerClassBatchSampler,
    MPerClassSampler,
    RepeatDataset,
    metadata_of,
    samplers,
    seed_datasets,
)
from retrieval.registry import DATA_SAMPLERS

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


class HierarchicalLabelled:
    """Classes in super-classes: ``sizes`` says how many images each class of each has."""

    def __init__(self, sizes):
        pairs = [(name, count) for name, counts in sizes.items() for count in counts]
        self.labels = np.repeat(np.arange(len(pairs)) * 7, [count for _, count in pairs])
        self.metadata = {'category': [name for name, count in pairs for _ in range(count)]}
        self.super_of = {7 * i: name for i, (name, _) in enumerate(pairs)}

    def __len__(self):
        return len(self.labels)


EVEN = HierarchicalLabelled({name: [6] * 8 for name in 'abcdef'})
WITH_TINY = HierarchicalLabelled({'large': [5] * 60, 'middle': [1, 2, 3, 4] * 4,
                                  'small': [9] * 4, 'tiny': [30, 1]})
LOPSIDED = HierarchicalLabelled({'large': [5] * 60, 'other': [4] * 9, 'small': [2] * 5})


def hierarchical_batches_of(dataset, monkeypatch, world=1, epoch=0, seed=5, m=3, batch_size=12,
                            parts=2, super_class='category', **kwargs):
    """The batches of every process, ``[process][iteration]``."""
    out = []
    for number in range(world):
        on_process(monkeypatch, number, world)
        sampler = HierarchicalSampler(dataset, super_class, m, batch_size, parts, seed, **kwargs)
        sampler.set_epoch(epoch)
        indices = list(sampler)
        assert len(indices) == len(sampler) and len(indices) % batch_size == 0
        out.append([indices[start:start + batch_size]
                    for start in range(0, len(indices), batch_size)])
    return out


CASES = [(EVEN, 1, 2), (EVEN, 3, 2), (EVEN, 2, 4), (WITH_TINY, 1, 2), (WITH_TINY, 2, 2),
         (WITH_TINY, 3, 2), (WITH_TINY, 1, 4), (LOPSIDED, 1, 1), (LOPSIDED, 3, 1), (EVEN, 4, 1)]


@pytest.mark.parametrize('epoch', [0, 1])
@pytest.mark.parametrize('dataset, world, parts', CASES)
def test_hierarchical_composition_of_every_batch(dataset, world, parts, epoch, monkeypatch):
    share = 4 // parts  # classes of a super-class in a batch
    sizes = Counter(dataset.labels.tolist())
    processes = hierarchical_batches_of(dataset, monkeypatch, world, epoch, parts=parts)
    for together in zip(*processes, strict=True):
        for batch in together:
            classes = Counter(dataset.labels[batch].tolist())
            assert set(classes.values()) == {3} and len(classes) == 4
            supers = Counter(dataset.super_of[label] for label in classes)
            assert len(supers) == parts and set(supers.values()) == {share}
        everything = [index for batch in together for index in batch]
        assert len(set(dataset.labels[everything].tolist())) == 4 * world  # disjoint in classes
        for index, count in Counter(everything).items():
            size = sizes[int(dataset.labels[index])]
            assert count == 1 if size >= 3 else count in (3 // size, -(-3 // size))


@pytest.mark.parametrize('dataset, world, parts', CASES)
def test_an_epoch_sees_every_class_and_super_classes_evenly(dataset, world, parts, monkeypatch):
    processes = hierarchical_batches_of(dataset, monkeypatch, world, parts=parts)
    drawn = [int(dataset.labels[index]) for process in processes for batch in process
             for index in batch]
    seen = Counter(drawn)
    assert set(seen) == set(dataset.labels.tolist())
    of_super = defaultdict(list)
    for label, count in seen.items():
        of_super[dataset.super_of[label]].append(count // 3)
    for counts in of_super.values():  # classes of one super-class come in turn
        assert max(counts) - min(counts) <= 1
    draws = {name: sum(counts) / (4 // parts) for name, counts in of_super.items()}
    if dataset is EVEN:
        assert max(draws.values()) - min(draws.values()) <= 1
    else:  # more often only as its classes need it, less often only where no batch has room
        iterations = len(processes[0])
        sizes = {name: len(counts) for name, counts in of_super.items()}
        need = {name: -(-size // (4 // parts)) for name, size in sizes.items()}
        room = {name: iterations * min(world, size // (4 // parts)) for name, size in sizes.items()}
        free = [draws[name] for name in draws if need[name] < draws[name] < room[name]]
        assert max(free, default=0) - min(free, default=0) <= 1
        for name in draws:
            if free and draws[name] == need[name] < room[name]:
                assert draws[name] >= max(free) - 1
            assert need[name] <= draws[name] <= room[name]


def test_super_classes_meet_each_other(monkeypatch):
    """Every pair of the fifteen comes up within a few epochs, none far more than others."""
    pairs = Counter()
    for epoch in range(20):
        for batch in hierarchical_batches_of(EVEN, monkeypatch, epoch=epoch)[0]:
            pairs[frozenset(EVEN.super_of[int(EVEN.labels[index])] for index in batch)] += 1
    assert len(pairs) == 15 and max(pairs.values()) < 3 * min(pairs.values())


def test_hierarchical_lengths(monkeypatch):
    on_process(monkeypatch, 0, 1)

    def batches(dataset, parts=2, **kwargs):
        return len(HierarchicalSampler(dataset, 'category', 3, 12, parts, seed=0, **kwargs)) // 12
    assert batches(EVEN) == 288 // 12
    extra = HierarchicalLabelled({name: [6, 7] + [6] * 6 for name in 'abcdef'})  # 294 images
    assert batches(extra) == 25 and batches(extra, round_up=False) == 24
    many = HierarchicalLabelled({'a': [1] * 40, 'b': [1] * 10})  # 40 classes, two a batch
    assert batches(many) == 20 and batches(many, parts=1) == 13
    one_dominates = HierarchicalLabelled({'a': [1] * 100, 'b': [1] * 2, 'c': [1] * 2})
    assert batches(one_dominates) == 50  # once a batch, with each of the others half of the time


def test_hierarchical_depends_on_seed_and_epoch_alone(monkeypatch):
    first = hierarchical_batches_of(WITH_TINY, monkeypatch)
    np.random.default_rng(0)
    assert hierarchical_batches_of(WITH_TINY, monkeypatch) == first
    others = [hierarchical_batches_of(WITH_TINY, monkeypatch, epoch=1),
              hierarchical_batches_of(WITH_TINY, monkeypatch, seed=6)]
    assert first not in others and others[0] != others[1]
    assert [len(p) for p in others[0]] == [len(p) for p in first]


def test_hierarchical_batch_sampler_is_the_same_and_knows_the_batch_size(monkeypatch):
    first, second = (hierarchical_batches_of(EVEN, monkeypatch, epoch=epoch)[0] for epoch in (0, 3))
    sampler = DefaultSampler(EVEN, shuffle=True, seed=5)
    batches = DATA_SAMPLERS.build(
        {'type': 'HierarchicalBatchSampler', 'sampler': sampler, 'batch_size': 12, 'm': 3,
         'super_class': 'category'})
    assert list(batches) == first and len(batches) == len(first)
    sampler.set_epoch(3)
    assert list(batches) == second
    for wrong in (BatchSampler(range(3), 1, False), EngineInfiniteSampler(EVEN)):
        with pytest.raises(TypeError, match='knows its dataset and epoch'):
            HierarchicalBatchSampler(wrong, 12, 'category', 3)


# Where the super-classes come from --------------------------------------------------------------

class Cameras(Toy):
    """24 pictures of six classes, in two super-classes."""

    metadata_keys = ('kind', 'shelf')

    def load_data_list(self):
        return [{**entry, 'gt_label': row % 6, 'kind': 'even' if row % 2 == 0 else 'odd',
                 'shelf': None if row == 3 else row % 2}
                for row, entry in enumerate(super().load_data_list())]


@pytest.mark.parametrize('wrap', [
    lambda toy: toy,
    lambda toy: Subset(toy, list(range(23, -1, -1))),
    lambda toy: RepeatDataset(toy, 2),
    lambda toy: ConcatDataset([toy, Cameras(count=6)]),
    lambda toy: Subset(ConcatDataset([toy, toy]), range(5, 40))])
def test_a_metadata_column_through_wrappers(wrap):
    dataset = wrap(Cameras(count=24))
    items = [dataset[row] for row in range(len(dataset))]
    assert metadata_of(dataset, 'kind').tolist() == [item['kind'] for item in items]
    indices = list(HierarchicalSampler(dataset, 'kind', 2, 8, seed=0))
    for start in range(0, len(indices), 8):
        drawn = [items[index] for index in indices[start:start + 8]]
        assert Counter(item['kind'] for item in drawn) == {'even': 4, 'odd': 4}
        assert set(Counter(item['gt_label'] for item in drawn).values()) == {2}


@pytest.mark.parametrize('given', [np.array, list, lambda numbers: [str(n) for n in numbers]])
def test_an_array(given):
    toy = Cameras(count=24)
    by_array = HierarchicalSampler(toy, given([row % 2 for row in range(24)]), 2, 8, seed=0)
    assert list(by_array) == list(HierarchicalSampler(toy, 'kind', 2, 8, seed=0))


@pytest.mark.parametrize('super_class, message', [
    ('knd', "Unknown metadata column of Cameras 'knd'. Did you mean 'kind'"),
    ('shelf', '1 of 24 items have no super-class, the first is row 3'),
    ([1, 2], r'one value for each of the 24 items, got the shape \(2,\)'),
    ([[1]] * 24, r'shape \(24, 1\)'),
    ([row % 4 for row in range(24)], r'The class of image 0 stands in 2 super-classes, 0 and 2'),
    ([float('nan')] * 24, '24 of 24 items have no super-class')])
def test_super_classes_that_cannot_be_used(super_class, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalSampler(Cameras(count=24), super_class, 2, 8)


def test_no_metadata_and_no_labels():
    class Bare(Toy):
        metadata_keys = ()

    with pytest.raises(ValueError, match="Bare has no metadata, so no column 'kind'"):
        HierarchicalSampler(Bare(), 'kind', 1, 2)
    with pytest.raises(ValueError, match='needs labels, but list has none'):
        HierarchicalSampler([1, 2], 'kind', 1, 2)


@pytest.mark.parametrize('arguments, message', [
    (dict(m=3, batch_size=10), 'batch of 10 cannot hold.*multiple of both, for example 12'),
    (dict(m=3, batch_size=12, parts=0), 'super_classes_per_batch=0'),
    (dict(m=0, batch_size=12), 'm=0'),
    (dict(m=1, batch_size=16), "needs 8 classes of each, but 'small' has 4 .2 of 4"),
    (dict(m=1, batch_size=10, parts=5), 'cannot be made of 4 super-classes')])
def test_hierarchical_impossible_compositions(arguments, message, monkeypatch):
    with pytest.raises(ValueError, match=message):
        hierarchical_batches_of(WITH_TINY, monkeypatch, **arguments)


def test_hierarchical_several_processes_need_more_classes(monkeypatch):
    two = HierarchicalLabelled({'a': [3] * 4, 'b': [3] * 4, 'c': [3] * 4})
    assert len(hierarchical_batches_of(two, monkeypatch, world=3)) == 3
    with pytest.raises(ValueError, match='4 batches of 12 with m=3 need 16 classes'):
        hierarchical_batches_of(two, monkeypatch, world=4)
    lopsided = HierarchicalLabelled({'a': [3] * 9, 'b': [3] * 3})
    with pytest.raises(ValueError, match='2 batches of 2 super-classes with 2 classes each'):
        hierarchical_batches_of(lopsided, monkeypatch, world=2)


def test_a_large_hierarchy_is_quick():
    import time
    dataset = HierarchicalLabelled({str(number): [5] * 60 for number in range(200)})
    start = time.perf_counter()
    assert len(list(HierarchicalSampler(dataset, 'category', 4, 64, seed=0))) == 60_032
    assert time.perf_counter() - start < 20


def whole_class_batches(world=1, rank=0, monkeypatch=None, groups=None, **options):
    from retrieval.datasets import samplers
    if monkeypatch is not None:
        monkeypatch.setattr(samplers, 'world_size', lambda: world)
        monkeypatch.setattr(samplers, 'rank', lambda: rank)
    labels = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6] * 2)
    return labels, samplers.WholeClassBatches(
        labels, 14, None if groups is None else labels // groups, **options)


def test_whole_classes_come_whole_and_all_of_them_in_turn():
    labels, batches = whole_class_batches()
    seen = []
    for epoch in range(4):
        drawn = [list(map(int, batch)) for batch in batches.batches(3, epoch)]
        assert len(drawn) == batches.count == 3  # 42 images, 14 at once
        assert drawn == [list(map(int, batch)) for batch in batches.batches(3, epoch)]
        for batch in drawn:
            assert 7 <= len(batch) <= 14 and len(set(batch)) == len(batch)
            for label in set(labels[batch]):
                assert set(np.flatnonzero(labels == label)) <= set(batch)
        seen.append(tuple(map(tuple, drawn)))
    assert len(set(seen)) == 4
    assert set(labels[list(sum(sum(seen, ()), ()))]) == set(range(12))


def test_whole_classes_of_few_super_classes():
    labels, batches = whole_class_batches(groups=3, parts=2)
    for batch in batches.batches(0, 0):
        held = labels[list(map(int, batch))]
        assert len(set(held // 3)) == 2
        assert all((held // 3 == one).sum() <= 7 for one in set(held // 3))
        assert all((held == one).sum() == (labels == one).sum() for one in set(held))


def test_whole_classes_of_several_processes_differ(monkeypatch):
    each = [list(whole_class_batches(2, rank, monkeypatch)[1].batches(5, 1)) for rank in (0, 1)]
    labels = whole_class_batches()[0]
    assert len(each[0]) == len(each[1]) == 2
    for first, second in zip(*each, strict=True):
        assert first and second
        assert not set(labels[list(map(int, first))]) & set(labels[list(map(int, second))])


def test_whole_classes_that_cannot_be():
    from mmengine.dataset import DefaultSampler

    from retrieval.datasets import samplers
    labels = np.repeat([0, 1], [3, 9])
    images = type('Images', (), {'labels': labels, '__len__': lambda self: 12})()
    with pytest.raises(ValueError, match='class 1 has 9 images, more than the 8 that a batch'):
        samplers.WholeClassBatches(labels, 8)
    with pytest.raises(ValueError, match='too few'):
        samplers.WholeClassBatches(labels, 16)
    with pytest.raises(ValueError, match='use the batch sampler'):
        samplers.MPerClassSampler(images, 'all', 12)
    with pytest.raises(ValueError, match="whole number or 'all', got 'al'"):
        samplers.MPerClassBatchSampler(DefaultSampler(images), 12, 'al')
    batch, = samplers.MPerClassBatchSampler(DefaultSampler(images, seed=0), 12, 'all')
    assert sorted(map(int, batch)) == list(range(12))

"""Two processes over gloo: their batches, as the engine's dataloader hands them out."""
import json
from collections import Counter

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from ..processes import leave_group
from .toys import Toy


class Shelves(Toy):
    """Twelve classes in three super-classes; some classes are small."""

    metadata_keys = ('shelf',)

    def load_data_list(self):
        entries = super().load_data_list()
        return [{**entry, 'gt_label': label, 'shelf': f'shelf {label % 3}'}
                for row, entry in enumerate(entries)
                for label in [row % 12 if row % 5 else row % 2]]


CONFIGS = {
    'm per class': dict(sampler=dict(type='retrieval.MPerClassSampler', m=2, batch_size=8)),
    'm per class, batches': dict(
        sampler=dict(type='DefaultSampler', shuffle=True),
        batch_sampler=dict(type='retrieval.MPerClassBatchSampler', m=2)),
    'hierarchical': dict(sampler=dict(
        type='retrieval.HierarchicalSampler', m=2, batch_size=8, super_class='shelf')),
    'hierarchical, batches': dict(
        sampler=dict(type='DefaultSampler', shuffle=True),
        batch_sampler=dict(type='retrieval.HierarchicalBatchSampler', m=2, super_class='shelf')),
    'endless': dict(sampler=dict(type='retrieval.InfiniteSampler')),
}


def process(number, world, folder):
    from mmengine.hooks import DistSamplerSeedHook
    from mmengine.runner import Runner

    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=number,
                            world_size=world)
    found = {}
    for name, config in CONFIGS.items():
        dataset = Shelves(count=61, pipeline=[dict(type='PackInputs')])
        # without a seed: the processes have to agree on one
        loader = Runner.build_dataloader(dict(batch_size=8, num_workers=0, dataset=dataset,
                                              **config))
        runner = type('R', (), {'train_loop': type('L', (), {'dataloader': loader}), 'epoch': 0})
        epochs = []
        for runner.epoch in (0, 1):
            DistSamplerSeedHook().before_train_epoch(runner)
            batches = []
            for batch in loader:
                batches.append([sample.sample_idx for sample in batch['data_samples']])
                if len(batches) == 8:
                    break
            epochs.append(batches)
        found[name] = dict(epochs=epochs, length=len(loader))
    with open(f'{folder}/{number}.json', 'w') as file:
        json.dump(found, file)
    leave_group()


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What each of two processes drew."""
    folder = tmp_path_factory.mktemp('gloo')
    mp.spawn(process, args=(2, str(folder)), nprocs=2)
    return [json.loads((folder / f'{number}.json').read_text()) for number in range(2)]


@pytest.mark.parametrize('name', [name for name in CONFIGS if name != 'endless'])
def test_composition_over_two_processes(found, name):
    dataset = Shelves(count=61)
    labels, shelves = dataset.labels.tolist(), dataset.metadata['shelf']
    first, second = (one[name] for one in found)
    assert first['length'] == second['length'] == len(first['epochs'][0])
    for mine, theirs in zip(first['epochs'], second['epochs'], strict=True):
        seen = set()
        for one, other in zip(mine, theirs, strict=True):
            for batch in (one, other):
                classes = Counter(labels[row] for row in batch)
                assert set(classes.values()) == {2} and len(classes) == 4
                if 'hierarchical' in name:
                    of_shelf = Counter(shelves[row] for row in batch)
                    assert list(of_shelf.values()) == [4, 4]
            drawn = [labels[row] for row in one + other]
            assert len(set(drawn)) == 8  # disjoint in classes: each process has four
            seen |= set(drawn)
        assert seen == set(labels)
    assert first['epochs'][0] != first['epochs'][1]


def test_two_processes_share_an_endless_stream(found):
    mine, theirs = (sum(one['endless']['epochs'][0], []) for one in found)
    stream = [row for pair in zip(mine, theirs, strict=True) for row in pair]
    assert sorted(stream[:61]) == list(range(61)) and sorted(stream[61:122]) == list(range(61))

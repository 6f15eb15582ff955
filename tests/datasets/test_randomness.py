# ruff: noqa: NPY002  (the global generator is what is tested)
import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from torch.utils.data import Subset

from retrieval.datasets import DrawIndex, seed_datasets
from retrieval.datasets.randomness import SamplingState, seeded

from .toys import Draw, Toy


def global_states():
    kind, keys, *rest = np.random.get_state()
    return kind, keys.tolist(), rest, random.getstate(), torch.get_rng_state().tolist()


def test_global_states_come_back_exactly():
    np.random.standard_normal()  # leaves a cached second number behind
    before = global_states()
    with seeded((1, 2, 3, 4)):
        np.random.standard_normal(5)
        random.random()
        torch.rand(3)
    assert global_states() == before
    with pytest.raises(RuntimeError), seeded((1, 2, 3, 4)):
        raise RuntimeError
    assert global_states() == before


def test_every_part_of_the_key_counts():
    drawn = set()
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (2**40, 0, 0, 0)]
    for key in keys:
        with seeded(key):
            drawn |= {np.random.random_sample(), random.random(), torch.rand(1).item()}
    assert len(drawn) == 3 * len(keys)


def test_draw_index_is_an_index_that_travels():
    index = DrawIndex(7, epoch=3, draw=2)
    for twin in (pickle.loads(pickle.dumps(index)), copy.copy(index)):
        assert (twin, twin.epoch, twin.draw) == (7, 3, 2)
    assert list(range(10))[index] == 7 and 'epoch=3' in repr(index)


def test_draw_index_overrides_the_epoch():
    dataset = Toy(pipeline=[Draw()])
    dataset.set_seed(1)
    dataset.set_epoch(2)
    own = dataset[5]['drawn']
    assert dataset[DrawIndex(5)]['drawn'] == own
    assert dataset[DrawIndex(5, draw=1)]['drawn'] != own
    other = dataset[DrawIndex(5, epoch=4)]['drawn']
    dataset.set_epoch(4)
    assert dataset[5]['drawn'] == other != own


def test_bad_seeds_and_epochs():
    state = SamplingState()
    with pytest.raises(ValueError, match='seed must be'):
        state.seed = -1
    with pytest.raises(ValueError, match='epoch must be'):
        state.epoch = -1
    assert state.seed is None and state.epoch == 0
    state.seed = 2**62 + 1
    assert state.seed == 2**62 + 1


@pytest.mark.parametrize('wrap', [
    lambda toy: toy,
    lambda toy: RepeatDataset(toy, 2),
    lambda toy: Subset(toy, [1, 2]),
    lambda toy: ClassBalancedDataset(toy, 0.5),
    lambda toy: Subset(ConcatDataset([toy]), [0, 1])])
def test_seeding_reaches_through_wrappers(wrap):
    toy = Toy(pipeline=[Draw()])
    wrapped = wrap(toy)
    assert seed_datasets(wrapped, 4, epoch=6) == 1
    assert toy._sampling.seed == 4 and toy._sampling.epoch == 6
    seed_datasets(wrapped, None)
    assert toy._sampling.seed is None


def test_parts_of_a_concatenation_draw_differently():
    parts = [Toy(pipeline=[Draw()]), Toy(pipeline=[Draw()])]
    assert seed_datasets(ConcatDataset(parts), 4) == 2
    assert parts[0][0]['drawn'] != parts[1][0]['drawn']


def test_the_engines_sliced_dataset_and_foreign_ones():
    from mmengine.runner.runner import _SlicedDataset
    toy = Toy()
    assert seed_datasets(_SlicedDataset(toy, 5), 3) == 1 and toy._sampling.seed == 3
    assert seed_datasets(torch.utils.data.TensorDataset(torch.zeros(3)), 3) == 0

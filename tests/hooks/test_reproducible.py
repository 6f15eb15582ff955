import random

import numpy as np
import pytest
import torch

from retrieval.hooks import seed_everything

from .running import build


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


@pytest.mark.parametrize('workers, by_epoch, interval, killed_at', [
    (0, True, 1, 9), (0, False, 4, 14), (2, False, 5, 16)])
def test_a_killed_and_resumed_run_ends_with_the_same_weights(tmp_path, workers, by_epoch,
                                                              interval, killed_at):
    options = dict(workers=workers, by_epoch=by_epoch, interval=interval)
    whole = build(tmp_path / 'whole', **options)
    whole.train()
    assert whole.iter == 18
    killed = build(tmp_path / 'cut', hooks=[dict(type='StopAt', iteration=killed_at)], **options)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    seed_everything(99)  # whatever state the new process happens to be in
    resumed = build(tmp_path / 'cut', resume=True, **options)
    resumed.train()
    assert resumed.iter == 18
    wanted, found = weights(whole), weights(resumed)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_it_is_the_seed_that_decides(tmp_path):
    one = build(tmp_path / 'one', epochs=1)
    other = build(tmp_path / 'other', epochs=1)
    other.model.load_state_dict(one.model.state_dict())
    other._seed = 8
    one.train()
    other.train()
    name = 'image_encoder.layers.1.weight'
    assert not torch.equal(weights(one)[name], weights(other)[name])


def test_every_generator_is_seeded_and_neighbours_differ():
    def draw(*entropy):
        seed_everything(*entropy)
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002
    assert draw(1, 2) == draw(1, 2)
    columns = list(zip(*(draw(seed, 0, i) for seed in range(3) for i in range(5)), strict=True))
    assert all(len(set(column)) == 15 for column in columns)

"""Whole runs against runs that are killed and resumed."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from retrieval.hooks import seed_everything

from .running import BUILT, config


def build(work_dir, change=None, **options):
    """A toy run; ``change`` edits its settings."""
    settings = config(work_dir, **options)
    if change is not None:
        change(settings)
    BUILT.append(Runner.from_cfg(Config(settings)))
    return BUILT[-1]


def assert_resumes_exactly(tmp_path, killed_at, hooks=(), **options):
    """A run of 12 iterations in two epochs is killed and resumed; returns both runners."""
    rarely, often = (dict(by_epoch=False, interval=n, epochs=2, **options) for n in (99, 4))
    whole = build(tmp_path / 'whole', hooks=hooks, **rarely)
    whole.train()
    killed = build(tmp_path / 'cut', hooks=[*hooks, dict(type='StopAt', iteration=killed_at)],
                   **often)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    seed_everything(99)
    resumed = build(tmp_path / 'cut', hooks=hooks, resume=True, **rarely)
    resumed.train()
    assert whole.iter == resumed.iter == 12
    wanted, found = whole.model.state_dict(), resumed.model.state_dict()
    assert wanted.keys() == found.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    return whole, resumed

"""A training process that is killed, and the one that goes on from what it left."""
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

import retrieval.registry  # noqa: F401  (lets the checkpoints load)

from ..hooks.running import differences, essence


def start(config, work_dir, workers, *more, epochs=15):
    command = [sys.executable, '-m', 'retrieval', 'train', str(config), '--work-dir',
               str(work_dir), '--no-validate', *more, '--cfg-options',
               f'train_cfg.max_epochs={epochs}', 'default_hooks.checkpoint.max_keep_ckpts=2',
               f'train_dataloader.num_workers={workers}']
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    return subprocess.Popen(command, env=environment, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """A run that nothing interrupts, beside those that are killed, and where it goes."""
    root = tmp_path_factory.mktemp('whole')
    process = start(config, root, 0)
    yield process, root
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_killed_and_resumed_training_ends_with_the_same_weights(config, whole, tmp_path, workers):
    killed = start(config, tmp_path, workers)
    deadline = time.monotonic() + 120
    while not (tmp_path / 'last_checkpoint').exists():
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, 'it was done before it was killed'
    assert not (tmp_path / 'epoch_15.pth').exists()
    assert start(config, tmp_path, workers, '--resume').wait(120) == 0
    assert whole[0].wait(120) == 0
    wanted, found = (torch.load(root / 'epoch_15.pth', weights_only=True)['state_dict']
                     for root in (whole[1], tmp_path))
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


MEMORIES = """
_base_ = [{config!r}]
model = dict({model})
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
default_hooks = dict(checkpoint=dict(by_epoch=False))
"""


@pytest.mark.slow
@pytest.mark.parametrize('model', [
    """type='MomentumRetriever', queue_size=20, momentum=0.9, head=dict(
        _delete_=True, type='MetricHead', loss=dict(type='PML.ContrastiveLoss'))""",
    """head=dict(_delete_=True, type='MetricHead', loss=dict(
        type='retrieval.CrossBatchMemory', loss=dict(type='ContrastiveLoss'), embedding_size=8,
        memory_size=20, warmup_iters=3))"""])
def test_queue_memory_and_average_go_on_after_kills_between_iterations(model, config, tmp_path):
    path = tmp_path / 'memories.py'
    path.write_text(MEMORIES.format(config=str(config), model=model))
    whole = start(path, tmp_path / 'whole', 0, epochs=30)
    resume: list[str] = []
    for _ in range(3):
        killed = start(path, tmp_path / 'killed', 0, *resume, epochs=30)
        resume = ['--resume']
        seen = (tmp_path / 'killed' / 'last_checkpoint')
        before = seen.read_text() if seen.exists() else None
        deadline = time.monotonic() + 120
        while not seen.exists() or seen.read_text() == before:
            assert time.monotonic() < deadline and killed.poll() is None
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.5))
        os.killpg(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL, 'it was done before it was killed'
    assert start(path, tmp_path / 'killed', 0, *resume, epochs=30).wait(120) == 0
    assert whole.wait(120) == 0
    wanted, found = (essence(torch.load(tmp_path / name / 'iter_60.pth', weights_only=True))
                     for name in ('whole', 'killed'))
    assert 'ema_state_dict' in wanted and differences(wanted, found) == []

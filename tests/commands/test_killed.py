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

OPTIONS = ['train_cfg.max_epochs=30', 'default_hooks.checkpoint.max_keep_ckpts=2']


def start(config, work_dir, workers, *more):
    command = [sys.executable, '-m', 'retrieval.commands.train', str(config), '--work-dir',
               str(work_dir), '--no-validate', *more, '--cfg-options', *OPTIONS,
               f'train_dataloader.num_workers={workers}']
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    return subprocess.Popen(command, env=environment, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize('workers', [0, 2])
def test_killed_and_resumed_training_ends_with_the_same_weights(config, tmp_path, workers):
    whole = start(config, tmp_path / 'whole', workers)
    killed = start(config, tmp_path / 'killed', workers)
    deadline = time.monotonic() + 120
    while not (tmp_path / 'killed' / 'last_checkpoint').exists():
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, 'it was done before it was killed'
    assert not (tmp_path / 'killed' / 'epoch_30.pth').exists()
    assert start(config, tmp_path / 'killed', workers, '--resume').wait(120) == 0
    assert whole.wait(120) == 0
    wanted, found = (torch.load(tmp_path / name / 'epoch_30.pth', weights_only=True)['state_dict']
                     for name in ('whole', 'killed'))
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)

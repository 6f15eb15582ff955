"""One process and two: the same results, rows and order."""
import json
import os
import subprocess
import sys

import pytest
import torch

from retrieval.gallery import Gallery

from .conftest import run

# an odd number of images, so that the sampler pads the share of one process
ODD = ['--cfg-options', 'test_dataloader.dataset.indices=19', 'model.prototype.dataset.indices=19']


def on_two(command, *arguments):
    environment = dict(os.environ, OMP_NUM_THREADS='1', RETRIEVAL_TRACEBACK='1')
    environment.pop('PYTHONPATH', None)
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone',
         '-m', 'retrieval', command, *map(str, arguments), '--launcher', 'pytorch'],
        capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_results_agree_in_every_digit(config, checkpoint, tmp_path):
    one, two = tmp_path / 'one.json', tmp_path / 'two.json'
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--out', one, *ODD)
    assert status == 0, err
    on_two('test', config, checkpoint, '--work-dir', tmp_path, '--out', two, *ODD)
    first, second = (json.loads(path.read_text()) for path in (one, two))
    assert first['embedding/num_queries'] == 19
    assert {name: f'{value:.4f}' for name, value in first.items()} == {
        name: f'{value:.4f}' for name, value in second.items()}


@pytest.mark.slow
def test_galleries_agree(config, checkpoint, tmp_path):
    one, two = tmp_path / 'one.safetensors', tmp_path / 'two.safetensors'
    status, _, err = run('dump_prototype', config, checkpoint, one, *ODD[:1], ODD[2])
    assert status == 0, err
    on_two('dump_prototype', config, checkpoint, two, *ODD[:1], ODD[2])
    first, second = Gallery.load(one), Gallery.load(two)
    assert len(first) == 19 and list(first.ids) == list(second.ids)
    torch.testing.assert_close(first.embeddings, second.embeddings, atol=1e-6, rtol=0)
    assert torch.equal(first.labels, second.labels)
    assert first.fingerprint == second.fingerprint


@pytest.mark.slow
def test_training_runs_on_two_processes(config, tmp_path):
    on_two('train', config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1',
           'train_dataloader.batch_size=4')
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in state['state_dict'].values())
    assert not any(name.startswith('module.') for name in state['state_dict'])


@pytest.mark.slow
@pytest.mark.parametrize('first', [1, 2])
def test_training_is_resumed_on_another_number_of_processes(first, config, tmp_path):
    """A run that is cut in its first epoch: with other processes each epoch is whole."""
    options = ['--work-dir', tmp_path, '--cfg-options', 'train_dataloader.batch_size=2',
               'default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=3']

    def train(processes, *arguments):
        if processes == 2:
            on_two('train', config, *arguments)
        else:
            assert run('train', config, *arguments)[0] == 0
    train(first, *options, 'train_cfg.max_epochs=1')
    for path in [*tmp_path.glob('iter_*.pth'), tmp_path / 'last_checkpoint']:
        if path.name != 'iter_3.pth':
            path.unlink(missing_ok=True)
    train(3 - first, *options, 'train_cfg.max_epochs=2', '--resume')
    batches = {1: 10, 2: 5}[3 - first]  # of two pictures out of twenty, on each process
    last = max(tmp_path.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]))
    assert last.stem == f'iter_{2 * batches}'
    said = ' '.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert f'processes {first} -> {3 - first}' in said and 'epoch 1 begins anew' in said


def test_a_launcher_without_its_environment_is_explained(config, checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--launcher',
                         'pytorch')
    if torch.cuda.is_available():
        pytest.skip('the engine answers where there is a GPU')
    assert status == 2 and 'torchrun' in err


def test_a_process_ends_after_what_is_registered_for_its_end(tmp_path):
    code = '''
import atexit, sys, torch.distributed
from retrieval.commands.command_line import reports_errors
@reports_errors
def command(argv=None):
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0,
                                         world_size=1)
    atexit.register(lambda: print('registered in it'))
class Destroyed:
    def __del__(self): print('destroyed')
kept = Destroyed()
atexit.register(lambda: print('registered before'))
command(*([None] if sys.argv[1] == 'as a command' else [[]]))
print('back', torch.distributed.is_initialized())
'''
    outputs = {}
    for way in ('as a command', 'from Python'):
        done = subprocess.run([sys.executable, '-c', code, way], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs[way] = done.stdout.split('\n')[:-1]
    assert outputs['as a command'] == ['back False', 'registered in it', 'registered before']
    assert outputs['from Python'] == [*outputs['as a command'], 'destroyed']

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.logging.history_buffer import HistoryBuffer

import retrieval.registry  # noqa: F401


def test_a_checkpoint_with_histories_loads_with_weights_only(tmp_path):
    hub = MessageHub.get_instance('compat')
    hub.update_scalar('loss', 1.0)
    hub.update_scalar('loss', torch.tensor(2.0))
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(message_hub=hub.state_dict()), path)
    loaded = torch.load(path, weights_only=True)
    other = MessageHub.get_instance('compat again')
    other.load_state_dict(loaded['message_hub'])
    assert other.get_scalar('loss').mean() == 1.5
    assert other.get_scalar('loss').current() == 2.0


def test_optimisers_that_are_slow_to_import_wait_until_they_are_built():
    code = """
import sys
import retrieval.registry
import mmengine.model
from mmengine.optim import build_optim_wrapper
import torch
slow = {'transformers', 'torch.distributed.optim'}
assert not slow & set(sys.modules), slow & set(sys.modules)
model = torch.nn.Linear(2, 2)
wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(
    type='Adafactor', lr=1e-3, relative_step=False)))
assert type(wrapper.optimizer).__module__.startswith('transformers')
torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0,
                                     world_size=1)
wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(
    type='ZeroRedundancyOptimizer', optimizer_type='SGD', lr=0.1)))
assert isinstance(wrapper.optimizer, sys.modules['torch.distributed.optim'].ZeroRedundancyOptimizer)
torch.distributed.destroy_process_group()
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_a_checkpoint_with_a_one_cycle_schedule_loads_with_weights_only(tmp_path, strategy):
    def schedule():
        from mmengine.optim.scheduler import OneCycleLR
        weight = torch.nn.Parameter(torch.zeros(1))
        return OneCycleLR(torch.optim.SGD([weight], lr=1.), eta_max=1., total_steps=9,
                          anneal_strategy=strategy, verbose=False)

    def rest(scheduler, steps):
        values = []
        for _ in range(steps):
            scheduler.optimizer.step()
            scheduler.step()
            values.append(scheduler.optimizer.param_groups[0]['lr'])
        return values

    whole = rest(schedule(), 8)
    first = schedule()
    assert rest(first, 3) == whole[:3]
    path = tmp_path / 'checkpoint.pth'
    torch.save([first.state_dict()], path)
    second = schedule()
    second.load_state_dict(torch.load(path, weights_only=True)[0])
    assert rest(second, 5) == whole[3:]


class _Escape:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


class _EscapeOfTheSchedule:
    def __reduce__(self):
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
        return getattr, (OneCycleParamScheduler, '__subclasses__')


class _Runs:
    def __reduce__(self):
        return eval, ('1 + 1',)


@pytest.mark.parametrize('payload', [_Escape(), _EscapeOfTheSchedule(), _Runs()])
def test_the_allow_list_lets_nothing_else_through(tmp_path, payload):
    path = tmp_path / 'bad.pth'
    torch.save(dict(state_dict=payload), path)
    with pytest.raises(Exception, match=r'(does not|Weights only|not loaded|Unsupported)'):
        torch.load(path, weights_only=True)


def test_log_files_stay_open_when_milvus_is_imported(tmp_path):
    if importlib.util.find_spec('pymilvus') is None:
        pytest.skip('pymilvus is not installed')
    code = f'''
import logging
handler = logging.FileHandler({str(tmp_path / 'log')!r}, mode='w')
logging.getLogger('mine').addHandler(handler)
from retrieval.compat import load_pymilvus
assert load_pymilvus().MilvusClient
assert handler.stream is not None, 'the handler was closed'
logging.getLogger('mine').warning('still written')
'''
    subprocess.run([sys.executable, '-c', code], check=True)
    assert 'still written' in (tmp_path / 'log').read_text()


# Packages that stand for torchvision: each imports a part of its own first, as torchvision does.
# An extension that registers what is declared already ends the process from inside the linker; the
# first does so too, instead of raising.
REGISTERS_ITS_OWN = """
import os, torch
from . import part
try:
    library = torch.library.Library('torchvision', 'DEF')
    library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    library.impl('nms', lambda dets, scores, threshold: scores + threshold, 'CPU')
except RuntimeError:
    os.abort()
"""
LACKS_ITS_OWN = """
import torch
from . import part
print('imported')
torch.library.register_fake('torchvision::nms')(lambda dets, scores, threshold: scores)
"""
FAILS_OTHERWISE = """
from . import part
print('imported')
raise RuntimeError('operator torchvision::roi_align does not exist')
"""


# The mend that the Makefile's environment reads at Python's start is taken out again.
NO_MEND_AT_START = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != '_TorchvisionFinder']
"""


@pytest.mark.parametrize('program', [
    'import timm',
    pytest.param('import torchvision; import retrieval.registry; import timm',
                 marks=pytest.mark.slow),
    pytest.param('from torchvision.transforms import v2', marks=pytest.mark.slow),
    pytest.param(NO_MEND_AT_START + 'import retrieval.registry; import timm',
                 marks=pytest.mark.slow),
])
def test_this_environment_imports_torchvision_in_any_order(program):
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_mend_at_the_start_imports_nothing_heavy():
    program = 'import sys; print(*{"torch", "torchvision", "numpy", "retrieval"} & {*sys.modules})'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ('', '')


def with_torchvision(folder, code, program):
    """A fresh process that finds ``code`` as torchvision, mended by retrieval alone."""
    package = folder / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text(code)
    (package / 'part.py').write_text("print('part')\n")
    start = NO_MEND_AT_START + 'import retrieval.registry\n'
    path = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run([sys.executable, '-c', start + program], capture_output=True, text=True,
                          env=os.environ | {'PYTHONPATH': path})


def test_a_torchvision_that_registers_its_operators_is_left_alone(tmp_path):
    done = with_torchvision(tmp_path, REGISTERS_ITS_OWN, """
import torch, torchvision
print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.ones(1), 0.5).tolist())
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['part', '[1.5]']


def test_the_operators_are_declared_where_the_import_lacks_them(tmp_path):
    done = with_torchvision(tmp_path, LACKS_ITS_OWN, """
import torch
assert not hasattr(torch.ops.torchvision, 'nms')
from torchvision import part
import torchvision
assert torchvision.part is part is sys.modules['torchvision.part']
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.ones(1), 0.5)
except NotImplementedError as error:
    print(error)
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:4] == ['part', 'imported', 'part', 'imported']
    assert "Could not run 'torchvision::nms'" in done.stdout


def test_a_torchvision_that_fails_for_another_reason_fails_when_it_is_used(tmp_path):
    done = with_torchvision(tmp_path, FAILS_OTHERWISE, """
print('retrieval')
import torch
try:
    import torchvision
except RuntimeError as error:
    print(error)
assert 'torchvision' not in sys.modules and not hasattr(torch.ops.torchvision, 'nms')
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        'retrieval', 'part', 'imported', 'operator torchvision::roi_align does not exist']

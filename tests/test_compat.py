import importlib.util
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

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


class _Escape:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


class _Runs:
    def __reduce__(self):
        return eval, ('1 + 1',)


@pytest.mark.parametrize('payload', [_Escape(), _Runs()])
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

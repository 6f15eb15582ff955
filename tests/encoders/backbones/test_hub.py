import socket

import pytest
import timm
from huggingface_hub import constants

from retrieval.encoders import TimmBackbone
from retrieval.encoders.backbones import hub as hub_module
from retrieval.encoders.backbones.hub import hub


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError('no route')
    monkeypatch.setattr(socket, 'create_connection', refuse)
    monkeypatch.setattr(hub_module, 'getproxies', dict)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))


def test_the_hub_is_offline_only_where_it_is_not_reached(monkeypatch, no_network):
    before = constants.HF_HUB_OFFLINE
    with hub():
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE
    monkeypatch.setattr(hub_module, 'getproxies', lambda: {'https': 'http://proxy:3128'})
    with hub():
        assert before == constants.HF_HUB_OFFLINE


def test_without_a_network_timm_ends_at_once(no_network, monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: pytest.fail('it waits to try again'))
    assert timm.is_model('test_resnet')
    with pytest.raises(ConnectionError, match=r'could not be fetched.*checkpoint=.*weights\]'):
        TimmBackbone('test_resnet', pretrained=True)

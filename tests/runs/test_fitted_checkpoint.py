"""A checkpoint that a config beside it takes."""
import pytest
import torch
from mmengine.config import Config

from retrieval.retrievers import read_state_dict
from retrieval.runs.fitted_checkpoint import check_out, write_checkpoint


def test_the_checkpoint_and_the_config_beside_it(tmp_path, capsys):
    model, config = torch.nn.Linear(3, 2), Config(dict(model=dict(type='A')))
    write_checkpoint(model, config, tmp_path / 'out.pth')
    assert torch.equal(read_state_dict(tmp_path / 'out.pth')['weight'], model.weight)
    assert Config.fromfile(tmp_path / 'out.config.py').model.type == 'A'
    assert 'out.config.py its config' in capsys.readouterr().out


def test_the_name_of_a_checkpoint():
    check_out('a.pth')
    with pytest.raises(ValueError, match=r"got 'a\.pt'.*ends in \.pth"):
        check_out('a.pt')

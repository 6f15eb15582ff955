import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from retrieval.encoders import load_weights


def module():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def equal(left, right):
    return all(torch.equal(value, right.state_dict()[name])
               for name, value in left.state_dict().items())


@pytest.mark.parametrize('wrap', [
    lambda state: state,
    lambda state: {'state_dict': state, 'meta': {'epoch': 3}},
    lambda state: {'epoch': 3, 'model': {'state_dict': state}},
    lambda state: {f'module.{name}': value for name, value in state.items()},
    lambda state: {**{f'image_encoder.{name}': value for name, value in state.items()},
                   'head.0.weight': torch.zeros(9, 9)},
])
def test_wrapped_and_prefixed_weights_are_found(tmp_path, wrap):
    source, target = module(), module()
    nn.init.normal_(source[1].weight)
    torch.save(wrap(source.state_dict()), tmp_path / 'a.pth')
    assert load_weights(target, tmp_path / 'a.pth') == ([], [])
    assert equal(source, target)


def test_what_does_not_match_is_reported(tmp_path, caplog):
    state = module().state_dict()
    del state['0.bias']
    state.update({'2.weight': torch.zeros(1), 'fc.weight': torch.zeros(1)})
    save_file(state, tmp_path / 'a.safetensors')
    report = load_weights(module(), tmp_path / 'a.safetensors', ignore=['fc.'])
    assert report.missing == ['0.bias'] and report.unexpected == ['2.weight']


def test_other_weights_are_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(3)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='conv.weight.*another architecture'):
        load_weights(module(), tmp_path / 'a.pth')
    torch.save({**module().state_dict(), '0.weight': torch.zeros(5, 3)}, tmp_path / 'b.pth')
    with pytest.raises(ValueError, match=r'0.weight \(5, 3\) for \(4, 3\)'):
        load_weights(module(), tmp_path / 'b.pth')


class Payload:
    def __reduce__(self):
        return print, ('this must not run',)


@pytest.mark.parametrize('write, says', [
    (lambda path: path.write_text('no weights'), 'read safely'),
    (lambda path: path.write_bytes(b''), 'read safely'),
    (lambda path: torch.save({'a': Payload()}, path), 'read safely'),
    (lambda path: torch.save({'epoch': 3}, path), 'no named tensors'),
    (lambda path: torch.save([1, 2], path), 'no named tensors'),
])
def test_files_that_are_no_weights(tmp_path, write, says, capfd):
    path = tmp_path / 'a.pth'
    write(path)
    with pytest.raises(ValueError, match=says):
        load_weights(module(), path)
    assert 'must not run' not in capfd.readouterr().out


def test_a_file_that_is_no_safetensors_or_is_not_there(tmp_path):
    (tmp_path / 'a.safetensors').write_bytes(b'12345678901234567890')
    with pytest.raises(ValueError, match='no safetensors file'):
        load_weights(module(), tmp_path / 'a.safetensors')
    with pytest.raises(FileNotFoundError, match='b.pth'):
        load_weights(module(), tmp_path / 'b.pth')

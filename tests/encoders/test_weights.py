import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from retrieval.encoders import load_weights
from retrieval.encoders.weights import load_checkpoint


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
    assert load_weights(target, tmp_path / 'a.pth') == ([], [], [])
    assert equal(source, target)


def test_what_does_not_match_is_reported(tmp_path, caplog):
    state = module().state_dict()
    del state['0.bias']
    state.update({'2.weight': torch.zeros(1), 'fc.weight': torch.zeros(1)})
    save_file(state, tmp_path / 'a.safetensors')
    report = load_weights(module(), tmp_path / 'a.safetensors', ignore=['fc.'], strict=False)
    assert report.missing == ['0.bias'] and report.unexpected == ['2.weight']


def test_what_lies_in_the_file_is_chosen_and_renamed(tmp_path):
    source, target = module(), module()
    nn.init.normal_(source[1].weight)
    state = {f'teacher.layers_{name}': value for name, value in source.state_dict().items()}
    state.update({f'student.layers_{name}': value for name, value in module().state_dict().items()})
    save_file(state, tmp_path / 'a.safetensors')
    for mapping in ({'^layers_': ''}, [['^lay', 'x'], ('^xers_', '')]):
        report = load_weights(target, tmp_path / 'a.safetensors', prefix='teacher.',
                              key_mapping=mapping)
        assert report == ([], [], []) and equal(source, target)


@pytest.mark.parametrize('options, error, says', [
    (dict(prefix='nobody.'), ValueError, r"'nobody\.'.*begin with 0\., 1\."),
    (dict(key_mapping={'(': ''}), ValueError, 'no regular expression'),
    (dict(key_mapping={'^x': ''}), ValueError, r"'\^x', which is found in no name"),
    (dict(key_mapping={'^[01]': '2'}), ValueError, 'the same name'),
    (dict(key_mapping='^x'), TypeError, 'list of pairs'),
    (dict(key_mapping=[('a', 'b', 'c')]), TypeError, 'list of pairs'),
])
def test_names_that_cannot_be_translated(tmp_path, options, error, says):
    torch.save(module().state_dict(), tmp_path / 'a.pth')
    with pytest.raises(error, match=says):
        load_weights(module(), tmp_path / 'a.pth', **options)


def test_a_mapping_without_a_file():
    with pytest.raises(ValueError, match='checkpoint_prefix and key_mapping'):
        load_checkpoint(module(), None, 'a.', {'b': 'c'})


def test_what_fits_is_loaded_when_asked_for(tmp_path):
    state = {**module().state_dict(), '0.weight': torch.zeros(5, 3), '0.bias': torch.ones(4)}
    torch.save(state, tmp_path / 'a.pth')
    target = module()
    with pytest.raises(ValueError, match='checkpoint_strict=False'):
        load_weights(target, tmp_path / 'a.pth')
    assert not (target[0].bias == 1).any(), 'a refused file must leave the module as it was'
    assert load_weights(target, tmp_path / 'a.pth', strict=False).different == ['0.weight']
    assert (target[0].bias == 1).all()


def test_other_weights_are_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(3)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='conv.weight.*another architecture'):
        load_weights(module(), tmp_path / 'a.pth')
    torch.save({**module().state_dict(), '0.weight': torch.zeros(5, 3)}, tmp_path / 'b.pth')
    with pytest.raises(ValueError, match=r'0.weight \(5, 3\) for \(4, 3\)'):
        load_weights(module(), tmp_path / 'b.pth')

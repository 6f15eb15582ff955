import argparse
import sys
import types
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from retrieval.encoders import Checkpoint, load_weights, read_weights
from retrieval.encoders.weights import (
    compare,
    extra_blocks,
    find_prefix,
    likely_cause,
    refusal,
)


class Payload:
    def __reduce__(self):
        return print, ('this must not run',)


def truncated(path):
    torch.save({'a': torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-900])


def archive(path):
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('readme.txt', 'no weights')


@pytest.mark.parametrize('write, says', [
    (lambda path: path.write_text('no weights'), "it is a text, which begins with 'no weights'"),
    (lambda path: path.write_text('\n<!DOCTYPE html><html>log in</html>'), 'web page'),
    (lambda path: path.write_text('version https://git-lfs.github.com/spec/v1\n'), 'git lfs pull'),
    (lambda path: path.write_bytes(b''), 'it is empty'),
    (lambda path: path.write_bytes(bytes(range(128, 255))), 'damaged'),
    (lambda path: path.write_bytes(bytes(range(1, 255))), 'neither format'),
    (lambda path: torch.save({'a': Payload()}, path), 'could run code'),
    (truncated, 'damaged'),
    (archive, 'damaged, only a part, or something else'),
    (lambda path: torch.save({'epoch': 3}, path), 'no named tensors'),
    (lambda path: torch.save([1, 2], path), 'no named tensors'),
    (lambda path: save_file({}, path), 'no named tensors'),
])
def test_files_that_are_no_weights(tmp_path, write, says, capfd):
    path = tmp_path / 'a.pth'
    write(path)
    with pytest.raises(ValueError, match=says) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert 'must not run' not in capfd.readouterr().out


def test_a_safetensors_file_that_is_none_or_only_a_part(tmp_path):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(b'12345678901234567890')
    with pytest.raises(ValueError, match='no safetensors file'):
        read_weights(path)
    save_file({'a': torch.zeros(100)}, path)
    whole = path.read_bytes()
    for length in (9, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match='no safetensors file, or only a part'):
            read_weights(path)


def test_a_file_is_read_by_what_is_in_it_and_not_by_its_name(tmp_path):
    save_file({'a': torch.ones(2)}, tmp_path / 'a.bin')
    torch.save({'a': torch.ones(2)}, tmp_path / 'b.safetensors')
    torch.save({'a': torch.ones(2)}, tmp_path / 'c.pth', _use_new_zipfile_serialization=False)
    for name in ('a.bin', 'b.safetensors', 'c.pth'):
        assert torch.equal(read_weights(tmp_path / name)['a'], torch.ones(2))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='b.pth'):
        read_weights(tmp_path / 'b.pth')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        read_weights(tmp_path)


def model(blocks=2, width=4, classes=3):
    return nn.ModuleDict(dict(
        stem=nn.Linear(3, width),
        layers=nn.Sequential(*(nn.Linear(width, width) for _ in range(blocks))),
        head=nn.Linear(width, classes))).state_dict()


def renamed(state, beginning):
    return {beginning + name: value for name, value in state.items()}


@pytest.mark.parametrize('given, says', [
    (renamed(model(), 'module.'), "begin with 'module.'.*several processes"),
    (renamed(model(), 'ema_model.'), "begin with 'ema_model.'.*average"),
    (renamed(model(), 'image_encoder.backbone.'), 'whole retriever'),
    (model(classes=5), 'number of classes: 5 there and 3 here'),
    (model(width=6), 'another width'),
    (model(blocks=3), r'has blocks that the model has not \(layers.2\)'),
    (model(blocks=1), r'lacks blocks of the model \(layers.1\)'),
    ({'conv.weight': torch.zeros(1)}, 'another architecture'),
])
def test_the_likely_cause(given, says):
    own = model()
    message = refusal('a.pth', own, given, compare(own, given))
    assert 'a.pth' in message
    import re
    assert re.search(says, message.partition('Likely cause: ')[2]), message


def test_a_backbone_alone():
    own = renamed(model(), 'image_encoder.backbone.')
    cause = likely_cause(own, model(), compare(own, model()))
    assert "weights of 'image_encoder.backbone' alone" in cause


def test_everything_is_listed():
    own, given = model(), model(classes=5)
    del given['stem.bias']
    given['neck.weight'] = torch.zeros(1)
    mismatch = compare(own, given)
    assert mismatch == (['stem.bias'], ['neck.weight'], ['head.weight', 'head.bias'], 5)
    message = refusal('a.pth', own, given, mismatch)
    for words in ('5 of 8', 'Missing: stem.bias', 'Unexpected: neck.weight',
                  'head.weight (5, 4) for (3, 4)'):
        assert words in message


def test_beginnings_and_blocks():
    assert find_prefix(['a.b.w', 'a.b.c.w', 'w'], ['w', 'c.w']) == 'a.b.'
    assert find_prefix(['x'], ['y']) == ''
    assert extra_blocks(['l.2.w', 'l.2.b', 'fc.0.w', 'l.1.new.w'], ['l.0.w', 'l.1.w']) == ['l.2']


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
    lambda state: {'net': state, 'epoch': 3, 'optimizer': {'state': state}},
    lambda state: {'a': {'b': {f'module.{name}': value for name, value in state.items()}}},
    lambda state: {'args': argparse.Namespace(lr=0.1, path=Path('a')), 'model': state},
    lambda state: {**{f'image_encoder.{name}': value for name, value in state.items()},
                   **{f'momentum_encoder.{name}': value * 0 for name, value in state.items()}},
    lambda state: {'state_dict': state,  # MMEngine: what is evaluated, and what it averages
                   'ema_state_dict': {name: value * 0 for name, value in state.items()}},
    lambda state: {'large': {name: torch.zeros(9, 9) for name in state}, 'small': state},
])
def test_wrapped_and_prefixed_weights_are_found(tmp_path, wrap):
    source, target = module(), module()
    nn.init.normal_(source[1].weight)
    torch.save(wrap(source.state_dict()), tmp_path / 'a.pth')
    assert load_weights(target, tmp_path / 'a.pth')[:3] == ([], [], [])
    assert equal(source, target)


@pytest.mark.parametrize('first, second', [
    ('student', 'teacher'), ('state_dict', 'state_dict_ema'), ('model', 'model_ema'),
    ('encoder_q', 'encoder_k')])
@pytest.mark.parametrize('flat', [False, True])
def test_of_two_parts_that_fit_none_is_taken_silently(tmp_path, first, second, flat):
    sources = {first: module(), second: module()}
    nested = {name: source.state_dict() for name, source in sources.items()}
    torch.save({f'{part}.{name}': value for part, state in nested.items()
                for name, value in state.items()} if flat else nested, tmp_path / 'a.pth')
    target = module()
    with pytest.raises(ValueError, match='begin with .*: choose one.*prefix=') as caught:
        load_weights(target, tmp_path / 'a.pth')
    assert f'{first}.' in str(caught.value) and f'{second}.' in str(caught.value)
    for part, source in sources.items():
        for prefix in (f'{part}.', part):
            if prefix == 'state_dict' or prefix == 'model':
                continue  # begins the other's name, too
            nn.init.zeros_(target[0].weight)
            load_weights(target, dict(path=tmp_path / 'a.pth', prefix=prefix))
            assert equal(source, target)


def test_a_prefix_reaches_what_lies_deeper_in_the_part(tmp_path):
    source, target = module(), module()
    state = {f'module.backbone.{name}': value for name, value in source.state_dict().items()}
    torch.save({'teacher': state, 'student': {}}, tmp_path / 'a.pth')
    load_weights(target, dict(path=tmp_path / 'a.pth', prefix='teacher.'))
    assert equal(source, target)
    with pytest.raises(ValueError, match='0 of 7 weights fit'):
        load_weights(target, dict(path=tmp_path / 'a.pth', prefix=''))


def test_settings_of_packages_that_are_not_installed_lie_beside_the_weights(tmp_path, monkeypatch):
    name = 'pytorch_lightning.utilities.parsing'
    settings = type('AttributeDict', (dict,), {'__module__': name})
    for part in ('pytorch_lightning', 'pytorch_lightning.utilities', name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    sys.modules[name].AttributeDict = settings
    source, target = module(), module()
    torch.save({'hyper_parameters': settings(lr=0.1, deep=settings(a=1)),
                'state_dict': {f'net.{key}': value for key, value in source.state_dict().items()}},
               tmp_path / 'a.ckpt')
    monkeypatch.delitem(sys.modules, name)
    load_weights(target, tmp_path / 'a.ckpt')
    assert equal(source, target)


def test_the_keys_of_a_file_of_something_else_are_named(tmp_path):
    torch.save({'epoch': 3, 'history': []}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="it holds 'epoch', 'history'"):
        load_weights(module(), tmp_path / 'a.pth')
    torch.save({'one': {'x': torch.ones(1)}, 'two': {'y': torch.ones(1)}}, tmp_path / 'b.pth')
    with pytest.raises(ValueError, match=r'begin with one\., two\.'):
        load_weights(module(), tmp_path / 'b.pth')


def test_what_does_not_match_is_reported(tmp_path, caplog):
    state = module().state_dict()
    del state['0.bias']
    state.update({'2.weight': torch.zeros(1), 'fc.weight': torch.zeros(1)})
    save_file(state, tmp_path / 'a.safetensors')
    report = load_weights(
        module(), dict(path=tmp_path / 'a.safetensors', strict=False), ignore=['fc.'])
    assert report.missing == ['0.bias'] and report.unexpected == ['2.weight']


def test_what_lies_in_the_file_is_chosen_and_renamed(tmp_path):
    source, target = module(), module()
    nn.init.normal_(source[1].weight)
    state = {f'teacher.layers_{name}': value for name, value in source.state_dict().items()}
    state.update({f'student.layers_{name}': value for name, value in module().state_dict().items()})
    save_file(state, tmp_path / 'a.safetensors')
    for mapping in ({'^layers_': ''}, [['^lay', 'x'], ('^xers_', '')]):
        report = load_weights(target, Checkpoint(tmp_path / 'a.safetensors', 'teacher.', mapping))
        assert report[:3] == ([], [], []) and equal(source, target)


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
        load_weights(module(), dict(path=tmp_path / 'a.pth', **options))


@pytest.mark.parametrize('given, error, says', [
    (dict(prefix='a.'), ValueError, r"no path, it has only \['prefix'\]"),
    (dict(path='a.pth', prefx='a.'), ValueError, "key of checkpoint 'prefx'.*'prefix'"),
    (3, TypeError, 'must be a path, or dict.*got 3'),
])
def test_a_checkpoint_that_is_none(given, error, says):
    with pytest.raises(error, match=says):
        load_weights(module(), given)


def test_what_fits_is_loaded_when_asked_for(tmp_path):
    state = {**module().state_dict(), '0.weight': torch.zeros(5, 3), '0.bias': torch.ones(4)}
    torch.save(state, tmp_path / 'a.pth')
    target = module()
    with pytest.raises(ValueError, match='strict=False'):
        load_weights(target, tmp_path / 'a.pth')
    assert not (target[0].bias == 1).any(), 'a refused file must leave the module as it was'
    assert load_weights(
        target, dict(path=tmp_path / 'a.pth', strict=False)).different == ['0.weight']
    assert (target[0].bias == 1).all()


def test_other_weights_are_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(3)}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='conv.weight.*another architecture'):
        load_weights(module(), tmp_path / 'a.pth')
    torch.save({**module().state_dict(), '0.weight': torch.zeros(5, 3)}, tmp_path / 'b.pth')
    with pytest.raises(ValueError, match=r'0.weight \(5, 3\) for \(4, 3\)'):
        load_weights(module(), tmp_path / 'b.pth')


@pytest.mark.parametrize('content, seems', [
    (b'', 'is empty'), (b'\x89PNG\r\n\x1a\n' + bytes(60), r'a picture \(PNG\)'),
    (b'path,label\na.png,0\n', 'a text, which begins with .path,label'),
    (b'<html>login</html>', 'a web page'), (b'version https://git-lfs.github.com', 'Git LFS'),
    (b'\1\2\3\xff' * 20, 'unknown: it begins with the bytes 01 02 03 ff')])
@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_a_file_of_another_kind_is_named_as_what_it_seems_to_be(tmp_path, name, content, seems):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name}.*{seems}') as caught:
        read_weights(tmp_path / name)
    assert 'weights_only' not in str(caught.value)

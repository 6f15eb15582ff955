import zipfile

import pytest
import torch
from safetensors.torch import save_file

from retrieval.encoders import read_weights


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

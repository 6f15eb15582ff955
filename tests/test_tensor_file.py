"""The container: what comes back, what is checked when; and columns of strings."""
import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from retrieval.mapped_file import DamagedError
from retrieval.string_column import StringColumn
from retrieval.tensor_file import Container, ForeignFileError, Format, Pieces, write_container

from .processes import in_a_child

ARRAYS = {'a': np.arange(3, dtype=np.int8), 'b': np.arange(5, dtype=np.int64),
          'c': np.zeros((0, 4), dtype=np.float32), 'd': np.ones((2, 3), dtype=np.float16),
          'e': np.array([True, False]), 'f': np.arange(4, dtype=np.float64)}


KIND = Format('kind', 1, 'Write it again.')


def write(path, columns=ARRAYS, **manifest):
    return write_container(path, KIND, columns, manifest)


def test_arrays_and_manifest_come_back(tmp_path):
    checksum = write(tmp_path / 'f', note='ü')
    opened = Container(tmp_path / 'f', KIND)
    assert opened.manifest == dict(note='ü') and opened.checksum == checksum
    assert set(opened.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        found = opened.arrays[name][:]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert not array.size or found.ctypes.data % array.itemsize == 0, 'not aligned'
    others = load_file(tmp_path / 'f')
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(others[name], array)


def test_arrays_are_written_in_pieces(tmp_path):
    whole = np.random.default_rng(0).normal(size=(70_000, 8)).astype(np.float32)  # over 2 blocks
    pieces = Pieces('float32', whole.shape, lambda: np.array_split(whole, 13))
    write(tmp_path / 'f', dict(x=pieces))
    opened = Container(tmp_path / 'f', KIND)
    np.testing.assert_array_equal(opened.arrays['x'][:], whole)
    write(tmp_path / 'g', dict(x=whole))
    assert (tmp_path / 'f').read_bytes() == (tmp_path / 'g').read_bytes()


def test_pieces_that_do_not_make_the_shape(tmp_path):
    made = Pieces('float32', (3, 2), lambda: [np.zeros((2, 2), np.float32)])
    with pytest.raises(ValueError, match=r"'x' of shape \(3, 2\) has 16 bytes"):
        write(tmp_path / 'f', dict(x=made))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64, torch.bool])
def test_tensors_come_back_in_their_dtype(tmp_path, dtype):
    tensor = torch.randn(6, 5).to(dtype).T  # not contiguous
    empty = torch.zeros((0, 3), dtype=dtype)
    write(tmp_path / 'f', dict(x=tensor, e=empty, names=StringColumn.from_strings(STRINGS)))
    opened = Container(tmp_path / 'f', KIND)
    assert torch.equal(opened.tensor('x'), tensor) and opened.tensor('x').dtype == dtype
    assert opened.tensor('e').shape == (0, 3) and opened.tensor('e').dtype == dtype
    assert torch.equal(load_torch(tmp_path / 'f')['x'], tensor), 'as safetensors reads it'
    assert list(opened.strings('names')) == STRINGS == list(opened.column('names'))
    assert 'names' in opened and 'x' in opened and 'name' not in opened
    with pytest.raises(DamagedError, match="no tensor 'y'"):
        opened.tensor('y')


def test_dtypes_that_the_format_lacks(tmp_path):
    with pytest.raises(TypeError, match="'x' is of complex64"):
        write(tmp_path / 'f', dict(x=torch.zeros(2, dtype=torch.complex64)))
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_refused_where_the_format_says_so(tmp_path):
    strict = Format('kind', 1, 'Write it again.', finite=('b',))
    write_container(tmp_path / 'f', strict, dict(a=np.array([np.nan]), b=np.array([np.inf])), {})
    opened = Container(tmp_path / 'f', strict)
    assert np.isnan(opened.arrays['a'][:]).all()
    with pytest.raises(DamagedError, match="infinity in its tensor 'b'.*Write it again"):
        opened.verify()


def test_other_files(tmp_path):
    save_file(dict(x=np.zeros(3)), tmp_path / 'plain')
    write(tmp_path / 'f')
    for name, format, words in (
            ('plain', KIND, "holds 'something else', not 'kind'"),
            ('f', Format('other', 1, ''), "holds 'kind', not 'other'"),
            ('f', Format('kind', 2, 'Write it again.'),
             "version 1 of the format 'kind', and this release reads version 2. Write it again"),
            ('f', Format('kind', 0, 'Write it again.'), 'reads version 0. Install a newer')):
        with pytest.raises(ForeignFileError, match=words):
            Container(tmp_path / name, format)
    for name in ('none', ''):
        with pytest.raises(FileNotFoundError, match='There is no file'):
            Container(tmp_path / name, KIND)


STRINGS = ['', 'a', 'äöü', '日本', 'x' * 1000, 'a\x00', 'a\x00\x00', 'b']


def test_a_file_that_is_cut_short_while_open_is_an_error(tmp_path):
    path = tmp_path / 'f'
    write_container(path, KIND, dict(x=np.ones((50_000, 8)), ids=StringColumn.from_strings(
        map(str, range(50_000)))), {})
    mapped, copied = Container(path, KIND), Container(path, KIND, copy=True)
    checked = mapped.arrays['x']
    checked.verify()
    os.truncate(path, 4096)

    def check():
        for look in (lambda: mapped.tensor('x'), lambda: checked[3:4], mapped.verify,
                     lambda: checked.take(np.array([40_000])), lambda: mapped.strings('ids')[9],
                     lambda: list(mapped.strings('ids')), lambda: mapped.strings('ids').find(['7']),
                     mapped.check_size):
            with pytest.raises(DamagedError, match='cut off after 4096 of .* while it was open'):
                look()
        copied.verify()
        copied.check_size()
        assert copied.strings('ids')[49_999] == '49999' and float(copied.tensor('x').sum()) == 4e5

    in_a_child(check)


def test_a_file_that_is_written_to_while_open_is_checked_again(tmp_path):
    path = tmp_path / 'f'
    write_container(path, KIND, dict(x=np.arange(1000)), {})
    opened = Container(path, KIND)
    assert opened.tensor('x')[5] == 5
    with open(path, 'r+b') as file:
        file.seek(opened.arrays['x'].begin + 8 * 5)
        file.write(b'\7')
    stat = os.stat(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(DamagedError, match='do not fit'):
        opened.tensor('x')


def test_a_file_that_is_replaced_or_deleted_stays_as_it_was(tmp_path):
    write_container(tmp_path / 'f', KIND, dict(x=np.arange(1000)), {})
    os.symlink('f', tmp_path / 'link')
    opened = Container(tmp_path / 'link', KIND)
    write_container(tmp_path / 'f', KIND, dict(x=np.zeros(1)), {})
    assert opened.tensor('x')[999] == 999
    (tmp_path / 'f').unlink()
    assert opened.tensor('x')[998] == 998

"""The container: what comes back, what is checked when; and columns of strings."""
import hashlib
import os
import random

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from retrieval.tensor_file import (
    BlockArray,
    BlockDigester,
    Container,
    DamagedError,
    ForeignFileError,
    Format,
    Pieces,
    StringColumn,
    write_container,
)

from .processes import in_a_child


def plain_digests(data, size):
    return b''.join(hashlib.sha256(data[start:start + size]).digest()[:16]
                    for start in range(0, len(data), size))


@pytest.mark.parametrize('length', [0, 1, 63, 64, 65, 1000])
def test_digests_do_not_depend_on_the_pieces(length):
    rng = np.random.default_rng(length)
    data = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    digester, start = BlockDigester(64), 0
    while start < length:
        stop = start + int(rng.integers(1, 150))
        digester.update(memoryview(data[start:stop]))
        start = stop
    assert digester.finish() == plain_digests(data, 64)


def opened(array, front=12, block=64, **kwargs):
    """The array in a "file" behind some other bytes."""
    data = array.tobytes()
    file = np.frombuffer(bytearray(b'x' * front + data), dtype=np.uint8)
    digests = np.frombuffer(plain_digests(data, block), dtype=np.uint8).reshape(-1, 16)
    return file, BlockArray(file, 'f', 't', array.dtype, array.shape, front, digests, block,
                            **kwargs)


@pytest.mark.parametrize('dtype, shape', [('int8', (50, 7)), ('float32', (33, 5)),
                                          ('int64', (40,)), ('float32', (9, 100)),
                                          ('float32', (0, 5))])
def test_slices_and_rows_are_those_of_the_array(dtype, shape):
    rng = np.random.default_rng(0)
    array = rng.integers(-100, 100, shape).astype(dtype)
    for _ in range(30):
        _, blocks = opened(array, front=8)
        assert len(blocks) == len(array) and blocks.shape == shape
        start, stop = sorted(rng.integers(0, shape[0] + 1, 2).tolist())
        np.testing.assert_array_equal(blocks[start:stop], array[start:stop])
        rows = rng.integers(0, shape[0], 4) if shape[0] else np.zeros(0, dtype=int)
        np.testing.assert_array_equal(blocks.take(rows), array[rows])
        np.testing.assert_array_equal(blocks[:], array)


def test_exactly_the_touched_blocks_are_checked():
    """Each block in turn is damaged; a row fails just when it reaches into that block."""
    array = np.arange(60 * 5, dtype=np.float32).reshape(60, 5)  # rows of 20 bytes, blocks of 64
    for bad in range(-(-array.nbytes // 64)):
        for row in range(60):
            file, blocks = opened(array)
            file[12 + 64 * bad] ^= 1
            touches = row * 20 < 64 * (bad + 1) and (row + 1) * 20 > 64 * bad
            for read in (lambda blocks=blocks, row=row: blocks[row:row + 1],
                         lambda blocks=blocks, row=row: blocks.take(np.array([row]))):
                if touches:
                    with pytest.raises(DamagedError, match=f'bytes {12 + 64 * bad} to '):
                        read()
                else:
                    np.testing.assert_array_equal(read(), array[row:row + 1])


def test_rows_longer_than_several_blocks():
    array = np.arange(4 * 100, dtype=np.float32).reshape(4, 100)
    file, blocks = opened(array)
    file[12 + 400 + 200] ^= 1  # in the middle of row 1
    np.testing.assert_array_equal(blocks.take(np.array([3, 0])), array[[3, 0]])
    with pytest.raises(DamagedError):
        blocks.take(np.array([1]))


def test_a_checked_block_is_not_checked_again_but_by_verify():
    array = np.arange(64, dtype=np.int64)
    file, blocks = opened(array, front=8)
    np.testing.assert_array_equal(blocks[:], array)
    file[8] ^= 1
    assert blocks[:1][0] == 1
    with pytest.raises(DamagedError):
        blocks.verify()


def test_values_that_are_not_finite():
    array = np.zeros((10, 8), dtype=np.float32)
    array[6, 3] = np.inf
    _, blocks = opened(array, finite=True)
    assert blocks[:4].shape == (4, 8)
    with pytest.raises(DamagedError, match='NaN or infinity.*row 6'):
        blocks.take(np.array([6]))


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


def test_string_columns():
    column = StringColumn.from_strings(STRINGS)
    assert list(column) == STRINGS and column[-1] == STRINGS[-1] and column[1:3] == STRINGS[1:3]
    assert column[::-2] == STRINGS[::-2] and column[5:2] == []
    assert column == STRINGS and len(StringColumn.from_strings([])) == 0
    assert list(StringColumn.from_strings([])) == []
    with pytest.raises(IndexError):
        column[8]
    with pytest.raises(ValueError, match='damaged'):
        StringColumn(column.data, column.offsets.flip(0))


def test_many_rows_are_read_in_chunks(monkeypatch):
    monkeypatch.setattr('retrieval.tensor_file._CHUNK_ROWS', 7)
    strings = [f'{"é" if row > 30 else ""}{row}' for row in range(60)]
    column = StringColumn.from_strings(strings)
    assert list(column) == strings and column[3:50] == strings[3:50]
    rows = random.Random(0).sample(range(60), 40)
    assert list(column.take(np.array(rows))) == [strings[row] for row in rows]
    assert list(column.take(np.array([59, 0]))) == ['é59', '0']
    assert column.find(['11', 'no', 'é45', '', '0']).tolist() == [11, -1, 45, -1, 0]


def test_joined():
    parts = [STRINGS[:3], [], STRINGS[3:]]
    joined = StringColumn.joined([StringColumn.from_strings(part) for part in parts])
    assert list(joined) == STRINGS


def test_finding_agrees_with_a_dict():
    rng = random.Random(1)
    strings = list({''.join(rng.choices('ab\x00ü', k=rng.randrange(6))) for _ in range(900)})
    column = StringColumn.from_strings(strings)
    asked = [*rng.sample(strings, 50), 'zzz', *rng.sample(strings, 5)]
    row_of = {name: row for row, name in enumerate(strings)}
    assert column.find(asked).tolist() == [row_of.get(name, -1) for name in asked]
    assert column.find([]).tolist() == []
    assert StringColumn.from_strings([]).find(['a']).tolist() == [-1]


def test_repeated_strings_are_named():
    assert StringColumn.from_strings(STRINGS).first_repeated() is None
    assert StringColumn.from_strings([]).first_repeated() is None
    assert StringColumn.from_strings([*STRINGS, 'äöü', 'a']).first_repeated() == 'äöü'
    assert StringColumn.from_strings(['x', '', '']).first_repeated() == ''


def test_equal_hashes_are_no_equal_strings(monkeypatch):
    """Where all hashes collide, the strings themselves decide."""
    monkeypatch.setattr('retrieval.tensor_file._polynomials',
                        lambda data, edges: np.zeros(len(edges) - 1, dtype=np.uint64))
    column = StringColumn.from_strings(STRINGS)
    assert column.find(['b', 'nothing', '日本']).tolist() == [7, -1, 3]
    assert column.first_repeated() is None
    assert StringColumn.from_strings(['a', 'b', 'a']).first_repeated() == 'a'


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

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from retrieval.gallery.container import Container, Entry, ForeignFileError, write_container

ARRAYS = {'a': np.arange(3, dtype=np.int8), 'b': np.arange(5, dtype=np.int64),
          'c': np.zeros((0, 4), dtype=np.float32), 'd': np.ones((2, 3), dtype=np.float16),
          'e': np.array([True, False]), 'f': np.arange(4, dtype=np.float64)}


def write(path, arrays=ARRAYS, **manifest):
    return write_container(path, 'kind', 1, [Entry.of(*item) for item in arrays.items()], manifest)


def test_arrays_and_manifest_come_back(tmp_path):
    checksum = write(tmp_path / 'f', note='ü')
    opened = Container(tmp_path / 'f', 'kind')
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
    pieces = Entry('x', 'float32', whole.shape, lambda: np.array_split(whole, 13))
    write_container(tmp_path / 'f', 'kind', 1, [pieces], {})
    opened = Container(tmp_path / 'f', 'kind')
    np.testing.assert_array_equal(opened.arrays['x'][:], whole)
    write(tmp_path / 'g', dict(x=whole))
    assert (tmp_path / 'f').read_bytes() == (tmp_path / 'g').read_bytes()


def test_pieces_that_do_not_make_the_shape(tmp_path):
    entry = Entry('x', 'float32', (3, 2), lambda: [np.zeros((2, 2), np.float32)])
    with pytest.raises(ValueError, match=r"'x' of shape \(3, 2\) has 16 bytes"):
        write_container(tmp_path / 'f', 'kind', 1, [entry], {})
    assert not list(tmp_path.iterdir())


def test_other_files(tmp_path):
    save_file(dict(x=np.zeros(3)), tmp_path / 'plain')
    with pytest.raises(ForeignFileError, match='no checksums'):
        Container(tmp_path / 'plain', 'kind')
    write(tmp_path / 'f')
    with pytest.raises(ForeignFileError, match="'kind', not 'other'"):
        Container(tmp_path / 'f', 'other')
    with pytest.raises(FileNotFoundError):
        Container(tmp_path / 'none', 'kind')

import os
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval import foreign_files
from retrieval.datasets import CSVDataset
from retrieval.encoders import read_weights
from retrieval.foreign_files import (
    SpecialFileError,
    open_regular,
    read_apart,
    refuse_oversized,
    refuse_special,
)
from retrieval.gallery import Gallery, GalleryStore
from retrieval.gallery.column_file import read_column
from retrieval.inference import FaissKNN
from retrieval.mapped_file import map_file
from retrieval.retrievers.build import read_config
from retrieval.search import ImageRetrievalInferencer


@pytest.fixture(params=['a named pipe', 'a device', 'a socket'])
def special(request, tmp_path):
    """A path to something that no read of ever ends, or that nobody answers."""
    path = tmp_path / 'x.npy'
    if request.param == 'a named pipe':
        os.mkfifo(path)
    elif request.param == 'a device':
        path.symlink_to('/dev/zero')
    else:
        socket.socket(socket.AF_UNIX).bind(str(path))
    return str(path), request.param


def table_of(path):
    table = f'{path}.csv'
    with open(table, 'w') as file:
        file.write(f'path,label,split\n{path},a,train\n')
    return CSVDataset(table)


def store_with(path):
    """A store whose manifest was exchanged for the special file."""
    folder = f'{path}.gallery'
    GalleryStore.create(folder, Gallery(torch.eye(2), ['a', 'b']))
    os.remove(f'{folder}/manifest.json')
    os.rename(path, f'{folder}/manifest.json')
    return GalleryStore.open(folder)


@pytest.mark.parametrize('read', [
    refuse_special, open_regular, map_file, Gallery.load, read_column, read_weights, read_config,
    table_of, store_with, lambda path: FaissKNN().load(path),
    lambda path: ImageRetrievalInferencer(None, path)])
def test_special_files_are_refused(special, read):
    path, kind = special
    with pytest.raises(SpecialFileError, match=kind):
        read(path)


def test_files_and_what_is_missing_pass(tmp_path):
    refuse_special(tmp_path)
    refuse_special(tmp_path / 'absent')
    refuse_special('zero\0byte')
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / 'absent')
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


# Sizes -------------------------------------------------------------------------------------------

def claiming(shape, version=1):
    """A ``.npy`` file with the header of such an array of float32, and 64 bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + '\n'
    length = struct.pack('<H' if version == 1 else '<I', len(header))
    return b'\x93NUMPY' + bytes([version, 0]) + length + header.encode() + bytes(64)


def write_zip(path, members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize('read', [refuse_oversized, Gallery.load, read_column])
@pytest.mark.parametrize('version', [1, 2, 3])
@pytest.mark.parametrize('inside', [False, True])
def test_an_array_that_claims_more_than_there_is(tmp_path, read, version, inside):
    path = str(tmp_path / ('x.npz' if inside else 'x.npy'))
    if inside:
        write_zip(path, {'embeddings.npy': claiming((10 ** 9, 512), version)})
    else:
        with open(path, 'wb') as file:
            file.write(claiming((10 ** 9, 512), version))
    with pytest.raises(ValueError, match=r'x\.np[yz].*2,048,000,000,000 bytes, and holds 6'):
        read(path)


@pytest.mark.parametrize('name, read', [
    ('x.npz', Gallery.load), ('x.npz', read_column), ('x.pth', Gallery.load),
    ('x.pth', read_weights), ('x.pth', read_column)])
def test_an_archive_that_would_fill_the_memory(tmp_path, monkeypatch, name, read):
    path = str(tmp_path / name)
    if name.endswith('.npz'):
        np.savez_compressed(path, embeddings=np.zeros((10 ** 5, 20), np.float32))
    else:
        torch.save({'embeddings': torch.zeros(10 ** 5, 20)}, f'{path}.plain')
        with zipfile.ZipFile(f'{path}.plain') as plain:
            write_zip(path, {part: plain.read(part) for part in plain.namelist()})
    assert os.path.getsize(path) < 10 ** 5
    monkeypatch.setattr(foreign_files, 'available_memory', lambda: 10 ** 6)
    with pytest.raises(ValueError, match=r'8,\d{3},\d{3} bytes of memory, and 1,000,000 are free'):
        read(path)


def test_a_row_that_is_repeated_without_bytes_of_its_own(tmp_path):
    torch.save(torch.zeros(1, 512).expand(10 ** 10, 512), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth.*shape \(10000000000, 512\)'):
        Gallery.load(tmp_path / 'x.pth')


def test_sound_files_pass(tmp_path):
    np.save(tmp_path / 'a.npy', np.eye(3))
    np.save(tmp_path / 'b.npy', np.array(['x', 'yy']))
    np.savez_compressed(tmp_path / 'c.npz', embeddings=np.zeros((100, 8)), ids=np.arange(100))
    torch.save(torch.eye(3), tmp_path / 'd.pth')
    (tmp_path / 'e.txt').write_text('PK and no archive')
    (tmp_path / 'f.npy').write_bytes(b'\x93NUMPY\1\0\xff\xffno header')
    for path in tmp_path.iterdir():
        refuse_oversized(path)
    assert len(Gallery.load(tmp_path / 'c.npz')) == 100


def test_available_memory_heeds_the_own_limit():
    import resource
    before = foreign_files.available_memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 ** 24, hard))
    try:
        assert foreign_files.available_memory() <= 2 ** 24 < before
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_reader_that_crashes_takes_nobody_with_it():
    import ctypes
    assert read_apart(lambda: {'a': np.arange(3)}) == {'a': [0, 1, 2]}
    with pytest.raises(ValueError, match='KeyError: .absent'):
        read_apart(lambda: {}['absent'])
    with pytest.raises(ValueError, match='crashes'):
        read_apart(lambda: ctypes.string_at(0))

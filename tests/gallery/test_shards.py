"""The files of a store: which belong to it, and that no damage passes."""
from dataclasses import replace

import numpy as np
import pytest

from retrieval.gallery import Gallery, GalleryStore, shards
from retrieval.mapped_file import DamagedError
from retrieval.tensor_file import ForeignFileError

from .examples import contents, example


@pytest.fixture
def store(tmp_path):
    return GalleryStore.create(tmp_path / 'x.gallery', example(6, 'a'))


def test_foreign_files_in_the_folder_stay(store):
    (store.path / 'notes.txt').write_text('mine')
    (store.path / 'manifest.json.bak').write_text('mine')
    (store.path / 'shard-000099.safetensors').write_text('left by a writer that died')
    (store.path / '.manifest.json.x8d7').write_text('left by a writer that died')
    store.append(example(1, 'b'))
    assert {path.name for path in store.path.iterdir()} == {
        'lock', 'manifest.json', 'manifest.json.bak', 'notes.txt', 'shard-000000.safetensors',
        'shard-000001.safetensors'}


def test_a_reader_that_a_writer_overtakes_reads_anew(store, monkeypatch):
    real, states = shards.read_state, []

    def overtaken(folder):
        state = real(folder)
        if not states:
            states.append(state)
            monkeypatch.setattr(shards, 'read_state', real)
            store.append(example(2, 'b'))
            store.compact()
        return state
    monkeypatch.setattr(shards, 'read_state', overtaken)
    assert len(store.load()) == 8


def test_no_flipped_byte_of_a_store_passes(tmp_path):
    store = GalleryStore.create(tmp_path / 'x.gallery', example(2, 'a'))
    store.append(example(2, 'b'))
    store.remove(['a1'])
    expected = contents(store.load())
    for path in store.path.iterdir():
        if path.name == 'lock':
            continue
        data = path.read_bytes()
        for place in range(0, len(data), 1 if path.suffix != '.safetensors' else 17):
            for change in (0xFF, 1 << (place % 8)):
                changed = bytearray(data)
                changed[place] ^= change
                path.write_bytes(changed)
                with pytest.raises(ValueError, match=path.name):
                    store.load().verify()
        for length in range(0, len(data), max(1, len(data) // 50)):
            path.write_bytes(data[:length])
            with pytest.raises(ValueError, match=path.name):
                store.load().verify()
        path.unlink()
        with pytest.raises((DamagedError, FileNotFoundError), match=path.name):
            store.load()
        path.write_bytes(data)
    assert contents(store.load()) == expected


def test_a_shard_of_another_store_is_refused(tmp_path, store):
    other = GalleryStore.create(tmp_path / 'y.gallery', example(6, 'a', seed=4))
    name = 'shard-000000.safetensors'
    (store.path / name).write_bytes((other.path / name).read_bytes())
    with pytest.raises(DamagedError, match='another file'):
        store.load()


def test_a_store_of_another_version_is_explained(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shards, 'STORE', replace(shards.STORE, version=2))
        store = GalleryStore.create(tmp_path / 'x.gallery', example(1))
    with pytest.raises(ForeignFileError, match='version 2 .*reads version 1. Install a newer'):
        store.load()


@pytest.mark.parametrize('name', ['../a.safetensors', '/etc/passwd', 'x/shard-000000.safetensors'])
@pytest.mark.parametrize('part', ['shard', 'removed'])
def test_a_manifest_names_files_of_its_folder_only(tmp_path, name, part):
    store = GalleryStore.create(tmp_path / 's.gallery', Gallery(np.eye(3), 'abc'))
    store.remove(['b'])
    shard = shards.read_state(tmp_path / 's.gallery').shards[0]
    changed = replace(shard, file=name) if part == 'shard' else replace(
        shard, removed=replace(shard.removed, file=name))
    shards.write_state(tmp_path / 's.gallery', replace(store.state, shards=(changed,)))
    with pytest.raises(DamagedError, match='which no store writes'):
        GalleryStore.open(tmp_path / 's.gallery').load()


def test_a_folder_is_foreign_where_no_store_wrote_something(store, tmp_path):
    assert not shards.is_foreign(store.path)
    (store.path / 'lock').unlink(missing_ok=True)
    assert not shards.is_foreign(store.path)
    (store.path / 'notes.txt').write_text('mine')
    assert shards.is_foreign(store.path)
    (tmp_path / 'empty').mkdir()
    assert not shards.is_foreign(tmp_path / 'empty')

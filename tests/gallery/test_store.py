import pickle
import random

import pytest
import torch

from retrieval.gallery import Fingerprint, FingerprintError, Gallery, GalleryStore, UnknownIdError
from retrieval.tensor_file import DamagedError

from .examples import contents, example, rows_of


@pytest.fixture
def store(tmp_path):
    return GalleryStore.create(tmp_path / 'x.gallery', example(6, 'a'))


def files(store):
    return sorted(path.name for path in store.path.iterdir())


def test_a_store_is_a_gallery(store):
    assert contents(Gallery.load(store.path)) == contents(example(6, 'a'))
    assert len(store) == 6 and '6 rows, 1 shards' in repr(store)
    assert files(store) == ['lock', 'manifest.json', 'shard-000000.safetensors']


def test_rows_come_and_go(store):
    store.append(example(4, 'b', seed=1))
    store.remove(['a1', 'b0', 'a5'])
    store.update(example(6, 'a', seed=2).subset([3, 0]))
    loaded = store.load()
    assert list(loaded.ids) == ['a2', 'a4', 'b1', 'b2', 'b3', 'a3', 'a0']
    expected = {**rows_of(example(6, 'a')), **rows_of(example(4, 'b', seed=1)),
                **{name: row for name, row in rows_of(example(6, 'a', seed=2)).items()
                   if name in ('a0', 'a3')}}
    for gone in ('a1', 'b0', 'a5'):
        del expected[gone]
    assert rows_of(loaded) == expected
    assert len(store) == len(loaded) == 7 and loaded.rows['b1'] == 2
    loaded.verify()
    before = contents(loaded)
    store.compact()
    assert contents(store.load()) == before
    assert len(store.state.shards) == 1 and len(files(store)) == 3
    generation = store.state.generation
    store.compact()
    assert store.state.generation == generation, 'there was nothing to do'
    store.append(example(1, 'b', seed=3))  # an id that was removed may come again
    assert list(store.load().ids)[-1] == 'b0'


def test_random_changes_agree_with_a_dict(tmp_path):
    rng, expected = random.Random(0), {}
    store = GalleryStore.create(tmp_path / 'x.gallery', dtype='float16')
    with pytest.raises(ValueError, match='is empty'):
        store.load()
    for step in range(60):
        change = rng.choice(['append', 'append', 'remove', 'update', 'compact'])
        names = rng.sample(sorted(expected), min(len(expected), rng.randrange(1, 5)))
        if change == 'append' or not names:
            new = example(rng.randrange(1, 6), f'{step}-', seed=step)
            store.append(new)
        elif change == 'remove':
            store.remove(names)
            expected = {name: row for name, row in expected.items() if name not in names}
            new = None
        elif change == 'update':
            new = example(len(names), seed=step, ids=names)
            store.update(new)
        else:
            store.compact()
            new = None
        if new is not None:
            new.embeddings = new.embeddings.half().float()
            expected.update(rows_of(new))
        assert len(store) == len(expected)
        if expected:
            assert rows_of(store.load()) == expected
            assert store.load().dtype == 'float16'
    store.verify()


def test_labels_keep_their_names_over_shards(tmp_path):
    store = GalleryStore.create(tmp_path / 'x.gallery', example(
        2, 'a', labels=[0, 1], label_names=['cat', 'dog']))
    store.append(example(2, 'b', labels=[1, 0], label_names=['emu', 'cat']))
    store.append(example(2, 'c', labels=[0, 1], label_names=['ant', 'emu']))
    loaded = store.load()
    assert [loaded.label_name(row) for row in range(6)] == ['cat', 'dog', 'cat', 'emu', 'ant',
                                                            'emu']
    store.remove(['b0', 'b1', 'c0', 'c1'])
    assert [store.load().label_name(row) for row in range(2)] == ['cat', 'dog']


def test_many_small_shards_are_put_together(store, monkeypatch):
    monkeypatch.setattr('retrieval.gallery.store.MAX_SHARDS', 4)
    expected = rows_of(store.load())
    for step in range(20):
        new = example(1, f's{step}-', seed=step)
        store.append(new)
        expected.update(rows_of(new))
        assert len(store.state.shards) <= 4
    assert rows_of(store.load()) == expected
    assert list(store.load().ids) == [*(f'a{n}' for n in range(6)),
                                      *(f's{n}-0' for n in range(20))]


def test_export(store, tmp_path):
    store.append(example(3, 'b'))
    store.remove(['a0'])
    store.export(tmp_path / 'one.safetensors')
    assert contents(Gallery.load(tmp_path / 'one.safetensors')) == contents(store.load())
    store.export(tmp_path / 'small.safetensors', dtype='int8')
    assert Gallery.load(tmp_path / 'small.safetensors').dtype == 'int8'


@pytest.mark.parametrize('change, error, words', [
    (lambda s: s.append(example(2, 'a')), ValueError, "holds 'a0', 'a1' already"),
    (lambda s: s.append(Gallery(torch.ones(1, 4))), ValueError, 'has no ids'),
    (lambda s: s.append(Gallery(torch.ones(1, 9), ids=['x'])), ValueError, 'width 9'),
    (lambda s: s.append(example(1, 'x', fingerprint=Fingerprint('o'))), FingerprintError,
     'weights'),
    (lambda s: s.append(example(1, 'x', metadata={})), ValueError, 'columns'),
    (lambda s: s.append(example(1, 'x', labels=None, label_names=None)), ValueError, 'labels'),
    (lambda s: s.remove(['a0', 'x']), UnknownIdError, "'x'; nothing"),
    (lambda s: s.remove(['a0', 'a0']), ValueError, 'more than once'),
    (lambda s: s.update(example(7, 'a')), UnknownIdError, "'a6'"),
])
def test_a_refused_change_changes_nothing(store, change, error, words):
    before, names = contents(store.load()), files(store)
    with pytest.raises(error, match=words):
        change(store)
    assert contents(store.load()) == before and files(store) == names


def test_a_removed_row_cannot_be_removed_again(store):
    store.remove(['a2'])
    with pytest.raises(UnknownIdError):
        store.remove(['a2'])
    with pytest.raises(UnknownIdError):
        store.update(example(6, 'a').subset([2]))
    store.remove([f'a{n}' for n in (0, 1, 3, 4, 5)])
    assert len(store) == 0 and files(store) == ['lock', 'manifest.json']
    store.append(Gallery(torch.ones(1, 9), ids=['x']))  # empty, it takes any width
    assert store.load().dim == 9


def test_where_a_store_can_be_made(tmp_path, store):
    with pytest.raises(FileExistsError, match='store already'):
        GalleryStore.create(store.path)
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='not empty'):
        GalleryStore.create(tmp_path / 'full')
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileExistsError, match='is a file'):
        GalleryStore.create(tmp_path / 'file')
    with pytest.raises(ValueError, match='float16'):
        GalleryStore.create(tmp_path / 'new', dtype='float8')
    assert not (tmp_path / 'new').exists()
    with pytest.raises(FileNotFoundError, match='no gallery store'):
        GalleryStore.open(tmp_path / 'full')


def test_foreign_files_in_the_folder_stay(store):
    (store.path / 'notes.txt').write_text('mine')
    (store.path / 'manifest.json.bak').write_text('mine')
    (store.path / 'shard-000099.safetensors').write_text('left by a writer that died')
    (store.path / '.manifest.json.x8d7').write_text('left by a writer that died')
    store.append(example(1, 'b'))
    assert files(store) == ['lock', 'manifest.json', 'manifest.json.bak', 'notes.txt',
                            'shard-000000.safetensors', 'shard-000001.safetensors']


def test_a_loaded_gallery_stays_as_it_was(store):
    store.append(example(3, 'b'))
    loaded = store.load()
    store.update(example(6, 'a', seed=9))
    store.compact()
    expected = {**rows_of(example(6, 'a')), **rows_of(example(3, 'b'))}
    assert rows_of(loaded) == expected, 'its files are gone, and it reads them all the same'


def test_a_reader_that_a_writer_overtakes_reads_anew(store, monkeypatch):
    from retrieval.gallery import shards as module
    real, states = module.read_state, []

    def overtaken(folder):
        state = real(folder)
        if not states:
            states.append(state)
            monkeypatch.setattr(module, 'read_state', real)
            store.append(example(2, 'b'))
            store.compact()
        return state
    monkeypatch.setattr(module, 'read_state', overtaken)
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


def test_a_loaded_store_can_be_pickled(store):
    store.append(example(3, 'b'))
    loaded = store.load()
    assert contents(pickle.loads(pickle.dumps(loaded))) == contents(loaded)

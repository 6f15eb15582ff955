"""A store and its changes, against a dict."""
import os
import pickle
import random

import pytest
import torch

from retrieval.gallery import Fingerprint, FingerprintError, Gallery, GalleryStore, UnknownIdError
from retrieval.mapped_file import DamagedError

from ..processes import in_a_child
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


def test_a_loaded_gallery_stays_as_it_was(store):
    store.append(example(3, 'b'))
    loaded = store.load()
    store.update(example(6, 'a', seed=9))
    store.compact()
    expected = {**rows_of(example(6, 'a')), **rows_of(example(3, 'b'))}
    assert rows_of(loaded) == expected, 'its files are gone, and it reads them all the same'


def test_a_loaded_store_can_be_pickled(store):
    store.append(example(3, 'b'))
    loaded = store.load()
    assert contents(pickle.loads(pickle.dumps(loaded))) == contents(loaded)


def test_a_shard_is_a_gallery_that_says_what_made_it(store):
    store.append(example(2, 'b', source=dict(checkpoint='y.pth')))
    shard = Gallery.load(store.path / store.state.shards[1].file)
    assert shard.source['checkpoint'] == 'y.pth' and shard.skipped == {'bbad.png': 'truncated'}
    whole = store.load()
    assert whole.source['checkpoint'] == 'x.pth'
    assert set(whole.skipped) == {'abad.png', 'bbad.png'}


def test_a_shard_that_is_cut_short_while_the_store_is_open_is_an_error(tmp_path):
    store = GalleryStore.create(tmp_path / 's.gallery', example(2000))
    store.remove(store.load().ids[:3])
    opened, copied = store.load(), store.load(copy=True)
    wanted = contents(copied)
    os.truncate(next((tmp_path / 's.gallery').glob('shard-*')), 8192)

    def check():
        for look in (lambda: opened.embeddings, lambda: opened.ids[5], opened.verify):
            with pytest.raises(DamagedError, match='cut off after 8192'):
                look()
        assert contents(copied) == wanted

    in_a_child(check)


def test_the_first_row_is_updated_where_missing_ones_are_added(store):
    store.update(example(8, 'a', seed=2).subset([0, 7]), add_missing=True)
    assert rows_of(store.load()) == {**rows_of(example(6, 'a')), **rows_of(
        example(8, 'a', seed=2).subset([0, 7]))}

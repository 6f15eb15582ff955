"""What is kept of a folder of images: where, by what it is known to hold, and reading it."""
import os
import time

import numpy as np
import pytest

from retrieval.encoded_folder import (
    STATE,
    EncodedFolder,
    cache_beside,
    file_state,
    relative_id,
)
from retrieval.gallery import Fingerprint, Gallery

VECTORS = np.array([[1, 2], [3, 4]], np.float32)


@pytest.fixture
def folder(tmp_path):
    for name in ('0.png', '1.png'):
        (tmp_path / 'photos').mkdir(exist_ok=True)
        (tmp_path / 'photos' / name).write_text(name)
    return tmp_path / 'photos'


@pytest.fixture
def kept(folder):
    """What :meth:`EncodedFolder.open` takes, and writing the file with changes."""
    images = [str(path) for path in sorted(folder.iterdir())]
    cache = folder.parent / 'cache.safetensors'

    def write(**changes):
        parts = dict(ids=[relative_id(image, str(folder)) for image in images], labels=[1, 0],
                     label_names=['a', 'b'], metadata={STATE: list(map(file_state, images))},
                     similarity='euclidean', source=dict(encoder='settings')) | changes
        Gallery(VECTORS, **parts).save(cache)
    write()
    given = dict(cache=cache, root=str(folder), images=images,
                 fingerprint=Fingerprint().as_dict(), settings='settings')
    return given, write


def test_where_the_cache_of_a_folder_is(folder, tmp_path, monkeypatch):
    assert cache_beside(folder) == folder.resolve() / '.retrieval' / 'default.safetensors'
    assert cache_beside(folder, 'mine').name == 'mine.safetensors'
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    elsewhere = cache_beside(folder)
    assert elsewhere.parent == tmp_path / 'home' / 'retrieval' and 'photos' in elsewhere.name
    assert elsewhere != cache_beside(tmp_path)


def test_states_of_files(folder):
    path = str(folder / '0.png')
    before = file_state(path), file_state(path, 'content')
    time.sleep(0.01)
    os.utime(path)
    assert file_state(path) != before[0] and file_state(path, 'content') == before[1]
    assert file_state(None) == '' and file_state('/nowhere') == 'unreadable'


def test_ids_below_the_folder_alone_are_relative():
    assert relative_id('/a/b/c.png', '/a') == '<folder>/b/c.png'
    for name, root in (('/ab/c.png', '/a'), ('/c.png', '/a'), ('/a/c.png', None)):
        assert relative_id(name, root) == name


def test_rows_are_read_back(kept, folder):
    found = EncodedFolder.open(**kept[0])
    np.testing.assert_array_equal(found.embeddings, VECTORS)
    assert len(found) == 2 and found.ids == kept[0]['images']
    assert found.similarity == 'euclidean' and found.describe(0) == {}
    assert [found.label_name(row) for row in range(2)] == ['b', 'a']


def test_labels_without_names_and_no_labels(kept):
    given, write = kept
    write(label_names=None)
    assert EncodedFolder.open(**given).label_name(0) == '1'
    write(label_names=None, labels=None)
    assert EncodedFolder.open(**given).label_name(0) is None


@pytest.mark.parametrize('changes', [
    dict(settings='others'), dict(fingerprint=dict(Fingerprint().as_dict(), pooling='x')),
    dict(images=[]), dict(cache='/nowhere')])
def test_what_does_not_fit_is_not_read(changes, kept):
    assert EncodedFolder.open(**kept[0] | changes) is None


@pytest.mark.parametrize('changes', [
    dict(skipped={'x.png': 'is damaged'}), dict(metadata={}), dict(source={}),
    dict(metadata={STATE: ['', '']})])
def test_a_file_that_is_no_whole_folder_is_not_read(changes, kept):
    given, write = kept
    write(**changes)
    assert EncodedFolder.open(**given) is None


def test_a_changed_image_and_a_damaged_file_are_not_read(kept, folder):
    given, write = kept
    (folder / '0.png').write_text('another')
    assert EncodedFolder.open(**given) is None
    write()  # with the image as it is now
    assert EncodedFolder.open(**given) is not None
    given['cache'].write_bytes(given['cache'].read_bytes()[:-9])
    assert EncodedFolder.open(**given) is None


def test_a_file_that_is_too_large_to_read_at_once(kept, monkeypatch):
    monkeypatch.setattr('retrieval.encoded_folder._MOST_BYTES', 100)
    assert EncodedFolder.open(**kept[0]) is None

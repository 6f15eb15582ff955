import copy
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from retrieval.datasets.glyphs import cache as glyph_cache
from retrieval.datasets.glyphs.cache import (
    MappedImages,
    cache_path,
    default_folder,
    group_characters,
    open_glyphs,
)
from retrieval.datasets.glyphs.rendering import Glyph

from ...processes import in_a_child
from ..few_fonts import use_few_fonts


@pytest.fixture
def few_fonts(monkeypatch):
    use_few_fonts(monkeypatch)


def shape(number):
    """An outline that only ``shape`` of the same number gives."""
    return np.array([[0, 0], [100, 0], [100, 10 + number]], float), np.array([1, 2, 2], np.uint8)


def glyphs_of(table):
    """Glyphs from ``{typeface: {character: number of its shape}}``."""
    return [Glyph(character, typeface, *shape(number))
            for typeface, characters in table.items() for character, number in characters.items()]


def classes_by_search(table, minimum):
    """The classes, by walking from character to character, without the grouping under test."""
    count = {c: sum(c in faces for faces in table.values()) for f in table.values() for c in f}
    left = {c for c, times in count.items() if times >= minimum}
    found = set()
    while left:
        group, new = set(), [left.pop()]
        while new:
            one = new.pop()
            group.add(one)
            near = {c for faces in table.values() if one in faces
                    for c in left if faces.get(c) == faces[one]}
            left -= near
            new += near
        found.add(''.join(sorted(group)))
    return found


def test_merges_what_a_typeface_draws_alike(monkeypatch):
    monkeypatch.setattr(glyph_cache, 'MIN_TYPEFACES', 2)
    kept, group = group_characters(glyphs_of({
        'one': {'A': 1, 'Α': 1, 'B': 2, 'o': 5},
        'two': {'A': 1, 'Α': 7, 'А': 1, 'B': 2, 'r': 9},
        'three': {'А': 3, 'B': 1}}))  # one's A is three's B, which are two typefaces
    assert group == {'A': 'AΑА', 'Α': 'AΑА', 'А': 'AΑА', 'B': 'B'}
    assert sorted((glyph.typeface, glyph.character) for glyph in kept) == [
        ('one', 'A'), ('one', 'B'), ('three', 'B'), ('three', 'А'),
        ('two', 'A'), ('two', 'B'), ('two', 'Α')]


def test_groups_as_a_plain_search_does(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(glyph_cache, 'MIN_TYPEFACES', 3)
    table = {f'face{face}': {chr(200 + c): int(rng.integers(60))
                             for c in rng.permutation(40)[:25]} for face in range(5)}
    kept, group = group_characters(glyphs_of(table))
    assert set(group.values()) == classes_by_search(table, 3)
    assert 1 < max(map(len, group.values())) < 40  # neither all apart nor all in one
    shapes = [(glyph.typeface, glyph.shape_key()) for glyph in kept]
    assert len(set(shapes)) == len(shapes)


def test_is_made_once_and_mapped(few_fonts, tmp_path, monkeypatch):
    table = open_glyphs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [cache_path(tmp_path).name]
    saved = load_file(cache_path(tmp_path))
    assert np.array_equal(saved['images'], table.images.array)
    assert isinstance(table.images.array, np.memmap) and not table.images.array.flags.writeable
    assert table.images.array.max(axis=(1, 2)).min() > 100  # a dash is thinner than a pixel
    assert len(table.images) == len(table.labels) == len(table.code_points) == len(table.fonts)
    assert set(table.labels) == set(range(len(table.classes)))
    for label, code in zip(table.labels, table.code_points, strict=True):
        assert chr(code) in table.classes[label]
    monkeypatch.setattr(glyph_cache, 'build_cache', None)
    glyph_cache._read.cache_clear()
    assert open_glyphs(tmp_path).classes == table.classes


def test_another_version_or_font_is_another_file(few_fonts, tmp_path, monkeypatch):
    paths = {cache_path(tmp_path)}
    monkeypatch.setattr(glyph_cache, 'FORMAT_VERSION', 99)
    paths.add(cache_path(tmp_path))
    monkeypatch.setattr('matplotlib.__version__', '0.0')
    paths.add(cache_path(tmp_path))
    monkeypatch.setattr(glyph_cache, 'fonts_key', lambda: 'other')
    paths.add(cache_path(tmp_path))
    assert len(paths) == 4


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == 'truncated':
        data = data[:-1000]
    elif how == 'emptied':
        data = b''
    elif how == 'replaced':
        data = b'something else' * 1000
    else:
        data[{'picture': len(data) // 2, 'label': -200}[how]] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize('how', ['truncated', 'emptied', 'replaced', 'picture', 'label'])
def test_damage_is_seen_and_mended(few_fonts, tmp_path, how):
    before = np.array(open_glyphs(tmp_path).images.array)
    path = cache_path(tmp_path)
    damage(path, how)
    with pytest.warns(UserWarning, match='damaged.*made anew'):
        after = open_glyphs(tmp_path)
    assert np.array_equal(after.images.array, before)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        open_glyphs(tmp_path)


def test_nothing_is_left_of_a_failed_writing(few_fonts, tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        Path(path).write_bytes(b'half a file')
        raise OSError('disk full')
    monkeypatch.setattr(glyph_cache, 'save_file', fail)
    with pytest.raises(OSError, match='disk full.*data_root'):
        open_glyphs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(few_fonts, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    with pytest.raises(OSError, match='file/inside.*data_root'):
        open_glyphs(tmp_path / 'file' / 'inside')


def _open(folder, barrier, answers):
    barrier.wait()
    table = open_glyphs(folder)
    answers.put((len(table.images), int(table.images.array.sum())))


def test_two_processes_at_once(few_fonts, tmp_path):
    context = multiprocessing.get_context('fork')
    barrier, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_open, args=(tmp_path, barrier, answers))
                 for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(set(found)) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_copy_carries_the_name_alone(few_fonts, tmp_path):
    images = open_glyphs(tmp_path).images
    assert images.array.nbytes > 10**6
    for other in (pickle.loads(pickle.dumps(images)), copy.deepcopy(images)):
        assert isinstance(other, MappedImages) and other._map is None
        assert np.array_equal(other[3], images[3])
    assert len(pickle.dumps(images)) < 1000
    assert images[[1, 4]].shape == (2, 64, 64) and images[0].flags.writeable


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert default_folder() == tmp_path / 'retrieval' / 'glyphs'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert default_folder() == tmp_path / '.cache' / 'retrieval' / 'glyphs'


def test_a_file_that_is_cut_short_while_it_is_open_is_an_error(few_fonts, tmp_path):
    table = open_glyphs(tmp_path)
    assert table.images[0].shape == (64, 64)
    os.truncate(cache_path(tmp_path), 4096)

    def check():
        with pytest.raises(ValueError, match='cut off after 4096'):
            table.images[len(table.labels) - 1]

    in_a_child(check)

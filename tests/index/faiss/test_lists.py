"""Inverted lists in files of their own: entry by entry, and under an index."""
from __future__ import annotations

import gc
import os

import faiss
import numpy as np
import pytest

from retrieval.index import FaissIndex
from retrieval.index.faiss.lists import (
    check_lists,
    check_mapped,
    detached,
    drop_other_lists,
    entries,
    join_lists,
    map_lists,
    new_file,
    plain_lists,
    save_lists,
    sizes_of,
    write_lists,
)
from retrieval.mapped_file import DamagedError

from ..toys import WIDTH, blobs, filled, ids, same


@pytest.fixture
def ivf():
    """Sixty vectors in four lists."""
    index = faiss.index_factory(WIDTH, 'IVF4,Flat')
    index.train(blobs(60))
    index.add(blobs(60))
    return index


def emptied(index):
    copy = faiss.clone_index(index)
    copy.reset()
    return copy


def stay(slots):
    return slots


def test_entries_are_codes_and_slots(ivf):
    sizes = sizes_of([ivf])
    assert sizes.sum() == 60 and sizes.tolist() == [
        ivf.invlists.list_size(number) for number in range(4)]
    seen = []
    for number in range(4):
        codes, slots = entries(ivf, number)
        np.testing.assert_array_equal(codes.view(np.float32), blobs(60)[slots])
        seen += slots.tolist()
    assert sorted(seen) == list(range(60))
    codes, slots = entries(emptied(ivf), 0)
    assert codes.shape == (0, 4 * WIDTH) and len(slots) == 0
    assert sizes_of([ivf, ivf]).tolist() == (2 * sizes).tolist()


def test_blocks_for_fast_scanning_are_no_plain_lists(ivf):
    assert plain_lists(ivf)
    packed = faiss.index_factory(WIDTH, 'IVF4,PQ8x4fs')
    packed.train(blobs(300))
    assert not plain_lists(packed)


def test_inside_there_are_no_lists(ivf):
    with detached([ivf], False):
        assert ivf.ntotal == 60
    with pytest.raises(KeyError), detached([ivf], True):
        assert ivf.ntotal == 0 and sizes_of([ivf]).sum() == 0
        raise KeyError  # they come back all the same
    assert ivf.ntotal == 60 and sizes_of([ivf]).sum() == 60


def test_written_lists_are_searched_where_they_stand(ivf, tmp_path):
    path = save_lists(ivf, lambda slots: slots + 100, tmp_path / 'index')
    size = 60 * (4 * WIDTH + 8)
    assert path.stat().st_size == size and path.name.split('.')[1:] == [path.name.split('.')[1],
                                                                       'lists']
    check_lists(path, size, verify=True)
    mapped = emptied(ivf)
    map_lists(mapped, path, sizes_of([ivf]), writable=False)
    mapped.ntotal = 60
    wanted, found = (index.search(blobs(5, 3), 6) for index in (ivf, mapped))
    np.testing.assert_array_equal(found[1], wanted[1] + 100)
    np.testing.assert_array_equal(found[0], wanted[0])
    check_mapped(mapped)
    os.truncate(path, size - 1)
    with pytest.raises(DamagedError, match=f'cut off after {size - 1} of {size} bytes'):
        check_mapped(mapped)
    path.unlink()
    check_mapped(mapped)  # whoever has it open still has it
    check_mapped(ivf)  # in memory


def test_lists_of_several_are_joined_in_memory_and_in_a_file(ivf, tmp_path):
    target = emptied(ivf)
    sources = [(ivf, stay), (ivf, lambda slots: slots + 60)]
    join_lists(target, sources)
    assert target.ntotal == 120
    write_lists(sources, str(tmp_path / 'lists'))
    mapped = emptied(ivf)
    map_lists(mapped, tmp_path / 'lists', sizes_of([ivf, ivf]), writable=False)
    for number in range(4):
        for joined in (target, mapped):
            codes, slots = entries(joined, number)
            np.testing.assert_array_equal(codes.view(np.float32), blobs(60)[slots % 60])
            own = entries(ivf, number)[1]
            assert slots.tolist() == [*own, *(own + 60)]


def test_a_missing_and_a_damaged_file(ivf, tmp_path):
    path = save_lists(ivf, stay, tmp_path / 'index')
    with pytest.raises(FileNotFoundError, match='belong together'):
        check_lists(tmp_path / 'nowhere', 1, True)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    check_lists(path, len(data), verify=False)
    for size, verify in ((len(data), True), (len(data) + 1, False)):
        with pytest.raises(ValueError, match='damaged'):
            check_lists(path, size, verify)


def test_only_lists_of_the_same_index_are_dropped(tmp_path):
    digest = '0123456789abcdef' * 2
    kept = [f'index.{"f" * 32}.lists', f'other.{digest}.lists', 'index.mine.lists',
            f'index.{"x" * 32}.lists']
    for name in (*kept, f'index.{digest}.lists'):
        (tmp_path / name).touch()
    drop_other_lists(tmp_path / 'index', tmp_path / kept[0])
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_every_working_file_is_new(tmp_path):
    one, other = new_file(tmp_path / 'a' / 'b'), new_file(tmp_path / 'a' / 'b')
    assert one != other and one.stat().st_size == other.stat().st_size == 0


@pytest.mark.parametrize('factory', ['IVF8,Flat', 'IVF8,PQ4x4', 'PCA8,IVF8,SQ8', 'IVF8,RaBitQ'])
def test_lists_on_disk(factory, tmp_path):
    vectors = blobs(500)
    plain = FaissIndex(factory, search_parameters=dict(nprobe=8))
    index = FaissIndex(factory, search_parameters=dict(nprobe=8), on_disk=tmp_path / 'work')
    for one in (plain, index):
        for start in (0, 250):
            one.add(vectors[start:start + 250], ids(250, start))
        one.remove(ids(100, 50))
        one.add(vectors[60:70], ids(10, 60))
    assert same(plain, index) and len(os.listdir(tmp_path / 'work')) == 1
    index.save(tmp_path / 'index')
    lists = [name for name in os.listdir(tmp_path) if name.endswith('.lists')]
    assert len(lists) == 1 and len(os.listdir(tmp_path)) == 3
    mapped = FaissIndex.load(tmp_path / 'index')
    assert same(plain, mapped)
    for change in (lambda: mapped.add(blobs(1), ['x']), lambda: mapped.remove(['#0'])):
        with pytest.raises(ValueError, match='on_disk=FOLDER'):
            change()
    copy = FaissIndex.load(tmp_path / 'index', on_disk=tmp_path / 'work')
    for one in (plain, copy):
        one.add(vectors[50:60], ids(10, 50))
        one.remove(ids(20))
    assert same(plain, copy) and same(FaissIndex.load(tmp_path / 'index'), mapped)
    mapped.save(tmp_path / 'again')
    assert same(FaissIndex.load(tmp_path / 'again'), mapped)
    copy.save(tmp_path / 'index')  # the lists of the version before go
    assert len([n for n in os.listdir(tmp_path) if n.startswith('index.')]) == 1
    assert same(FaissIndex.load(tmp_path / 'index'), copy)
    del index, copy, one
    gc.collect()
    assert os.listdir(tmp_path / 'work') == [], 'the working files were left behind'


def test_damaged_lists(tmp_path):
    index = filled(on_disk=tmp_path / 'work')
    index.save(tmp_path / 'index')
    lists = next(tmp_path.glob('*.lists'))
    whole = lists.read_bytes()
    for at in (0, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        lists.write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged'):
            FaissIndex.load(tmp_path / 'index')
    lists.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match='damaged'):
        FaissIndex.load(tmp_path / 'index', verify=False)
    lists.unlink()
    with pytest.raises(FileNotFoundError, match='belong together'):
        FaissIndex.load(tmp_path / 'index')


def test_lists_in_memory_can_move_to_disk(tmp_path):
    index = filled()
    index.save(tmp_path / 'index')
    moved = FaissIndex.load(tmp_path / 'index', on_disk=tmp_path / 'work')
    assert same(index, moved) and len(os.listdir(tmp_path / 'work')) == 1

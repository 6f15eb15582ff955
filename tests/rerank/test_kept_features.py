"""Local features of pictures in a file."""
import os
import shutil
import sqlite3
import zlib
from contextlib import closing

import numpy as np
import pytest

from retrieval.registration import LocalFeatures, local_features
from retrieval.rerank.kept_features import KeptFeatures, _packed, _unpacked

from ..scenes import scene

FOUND = local_features(scene(0, 160, 120)[..., 0])
FIELDS = ('points', 'descriptors', 'small')


def statement(path, *given):
    with closing(sqlite3.connect(path)) as file, file:
        return file.execute(*given).fetchall()


def test_features_come_back_bit_by_bit_while_the_file_is_as_it_was(tmp_path):
    kept = KeptFeatures(tmp_path / 'deep' / 'kept.sqlite')
    empty = LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), (9, 5),
                          np.full((5, 9), 7, np.uint8))
    odd = os.fsdecode(b'caf\xe9.png')  # a name that is no UTF-8
    assert kept.read({'a.png': 'old'}) == {} and not kept.path.exists()
    kept.write({'a.png': ('old', FOUND), odd: ('old', empty)})
    again = KeptFeatures(kept.path).read({'a.png': 'old', odd: 'old', 'other.png': 'old'})
    assert set(again) == {'a.png', odd}
    for name, wanted in (('a.png', FOUND), (odd, empty)):
        assert again[name].size == wanted.size
        for field in FIELDS:
            one, other = getattr(again[name], field), getattr(wanted, field)
            assert one.dtype == other.dtype and np.array_equal(one, other)
    assert kept.read({'a.png': 'new'}) == {}
    kept.write({'a.png': ('new', empty)})
    assert kept.read({'a.png': 'old'}) == {} and list(kept.read({'a.png': 'new'})) == ['a.png']


def test_a_folder_that_is_moved_takes_them_along(tmp_path):
    KeptFeatures(tmp_path / 'one' / '.retrieval' / 'x').write(
        {str(tmp_path / 'one' / 'a.png'): ('s', FOUND)})
    shutil.move(tmp_path / 'one', tmp_path / 'two')
    moved = KeptFeatures(tmp_path / 'two' / '.retrieval' / 'x')
    assert len(moved.read({str(tmp_path / 'two' / 'a.png'): 's'})) == 1
    assert moved.read({str(tmp_path / 'one' / 'a.png'): 's'}) == {}


def test_the_latest_stay(tmp_path):
    kept = KeptFeatures(tmp_path / 'x', most=2)
    for name in 'abac':
        kept.write({name: ('s', FOUND)})
    assert sorted(kept.read(dict.fromkeys('abc', 's'))) == ['a', 'c']


@pytest.mark.parametrize('damage', ['text', 'cut', 'table', 'trigger'])
def test_a_file_that_is_none_of_these_is_begun_again(tmp_path, damage):
    kept = KeptFeatures(tmp_path / 'x')
    kept.write(dict.fromkeys('abc', ('s', FOUND)))
    if damage == 'text':
        kept.path.write_text('no database at all ' * 400)
    elif damage == 'cut':
        kept.path.write_bytes(kept.path.read_bytes()[:9000])
    else:
        statement(kept.path, 'create table more (x)' if damage == 'table' else 'create trigger t '
                  'after insert on features_1 begin delete from features_1; end')
    assert kept.read({'a': 's'}) == {}
    kept.write({'a': ('s', FOUND)})
    assert list(kept.read({'a': 's'})) == ['a']
    with closing(sqlite3.connect(kept.path)) as file:
        assert file.execute('select count(*) from sqlite_master where sql is not null'
                            ).fetchone() == (1,)


@pytest.mark.parametrize('change', [
    'packed = substr(packed, 1, 900)', "packed = 'text'", 'packed = zeroblob(500)',
    "name = x'63'", "state = 't'", 'state = null', 'digest = null'])
def test_a_damaged_row_is_not_read(tmp_path, change):
    kept, files = KeptFeatures(tmp_path / 'x'), {name: str(tmp_path / name) for name in 'abc'}
    kept.write({files[name]: ('s', FOUND) for name in 'ab'})
    statement(kept.path, f"update features_1 set {change} where name = x'61'")
    assert list(kept.read(dict.fromkeys(files.values(), 's'))) == [files['b']]
    assert kept.read({files['a']: 't'}) == {}


def test_sizes_that_do_not_hold_what_they_say_are_refused(tmp_path):
    data = zlib.decompress(_packed(FOUND))
    assert _unpacked(zlib.compress(data)).size == FOUND.size
    for place in range(5):
        for number in (-1, 0, 2 ** 31 - 1):
            sizes = np.frombuffer(data, '<i4', 5).copy()
            sizes[place] = number
            wrong = _unpacked(zlib.compress(sizes.tobytes() + data[20:]))
            assert wrong is None or place in (1, 2) and number > 0
    points = np.frombuffer(data, '<f4', 2, 20).copy()
    points[0] = np.nan
    assert _unpacked(zlib.compress(data[:20] + points.tobytes() + data[28:])) is None
    assert _unpacked(zlib.compress(bytes(10 ** 8))) is None and _unpacked(b'') is None


def test_where_nothing_can_be_kept_nothing_is(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'pipe', tmp_path / 'file' / 'x', tmp_path):
        kept = KeptFeatures(path)
        kept.write({'a': ('s', FOUND)})
        assert kept.read({'a': 's'}) == {}
    assert (tmp_path / 'pipe').is_fifo()

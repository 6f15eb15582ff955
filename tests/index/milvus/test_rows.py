"""Rows: their table, how they are sent and read, over what stands in for a server."""
import contextlib

import numpy as np
import pytest

from retrieval.gallery import Fingerprint, FingerprintError
from retrieval.index.milvus import rows as module
from retrieval.index.milvus.collection import Layout, as_columns
from retrieval.index.milvus.connection import MilvusError, MilvusUnavailable
from retrieval.index.milvus.rows import (
    MESSAGE_BYTES,
    RowTable,
    Store,
    allowed_rows,
    as_ids,
    batches,
    id_lists,
    read,
    read_metadata,
    read_rows,
    read_table,
    read_vectors,
    write,
)

from .memory import Memory

pytest.importorskip('pymilvus')

VECTORS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
WANTED = Layout(0, 'COSINE')


def names(count, start=0):
    return [f'picture {row}' for row in range(start, start + count)]


def columns(count, start=0):
    return as_columns(dict(label=range(start, start + count),
                           split=['a"', 'ö', 'c'] * (count // 3)), count, None)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def store(memory):
    made = Store(memory, 'shop', WANTED, False, batch_size=5)
    made.write(VECTORS, names(12), columns(12), new=True)
    return made


def replaced(store, *given):
    store.replace(*given, 'gallery', False, contextlib.nullcontext)


def held(memory, own):
    return {name: one['row'] for name, one in memory.rows[own].items()}


def test_ids_in_expressions():
    assert as_ids(['a"', 'ö']) == 'id in ["a\\"","ö"]' and as_ids(['a'], 'not in')[3:9] == 'not in'


def test_rows_are_sent_in_batches_and_read_back(store, memory):
    assert [len(args[1]) for method, args in memory.calls if method == 'insert'] == [5, 5, 2]
    assert store.rows().ids.names == names(12) and store.rows().serials == list(range(12))
    vectors, ids, found = read_rows(memory, store.own, store.layout)
    np.testing.assert_array_equal(vectors, VECTORS)
    assert ids == names(12) and found['label'] == list(range(12)) and found['split'][1] == 'ö'
    assert read_metadata(memory, store.own, ['label'], ['picture 7', 'picture 2']) == [
        dict(label=7), dict(label=2)]
    with pytest.raises(KeyError):
        read_metadata(memory, store.own, ['label'], ['nobody'])
    found = read_vectors(memory, store.own, ['picture 3', 'nobody'], store.layout)
    np.testing.assert_array_equal(found[0], VECTORS[3])
    assert np.isnan(found[1]).all()


def test_pages_go_over_gaps(store, memory, monkeypatch):
    monkeypatch.setattr(memory, 'embedded', False)
    monkeypatch.setattr(module, '_PAGE_ROWS', 3)
    store.remove([3, 4, 6, 7, 8, 9])
    assert read_table(memory, store.own).ids.names == [*names(3), *names(1, 5), *names(2, 10)]
    assert read_table(memory, store.own).serials == [0, 1, 2, 5, 10, 11]


def test_what_is_written_again_keeps_its_row(store, memory):
    store.write(VECTORS[::-1][:3], ['picture 5', 'new', 'picture 0'], columns(3, 90))
    assert store.rows().ids.names == [*names(12), 'new']
    assert held(memory, store.own)['picture 5'] == 5 and held(memory, store.own)['new'] == 12
    np.testing.assert_array_equal(memory.rows[store.own]['picture 5']['embedding'], VECTORS[11])
    store.write(VECTORS[:0], [], {})


def test_removed_rows(store, memory):
    store.remove([0, 11, 3])
    assert store.rows().ids.names == [name for row, name in enumerate(names(12))
                                      if row not in (0, 3, 11)]
    assert sorted(held(memory, store.own).values()) == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert store.is_current()


def test_rows_that_another_process_changed(store, memory):
    other = Store(memory, 'shop', WANTED, False, 5)
    assert not other.is_current(), 'nothing was read yet'
    other.rows()
    assert other.is_current()
    store.write(VECTORS[:1], ['new'], as_columns(dict(label=[1], split=['x']), 1, None))
    assert not other.is_current()
    other.forget_rows()
    assert other.rows().ids.names[-1] == 'new' and other.is_current()
    store.remove([12])
    store.write(VECTORS[:1], ['newer'], as_columns(dict(label=[1], split=['x']), 1, None))
    assert not other.is_current(), 'as many, and others'
    other.forget_rows()
    assert len(other.rows()) == 13 and other.is_current()
    store.remove([3])
    assert not other.is_current(), 'the same end, and fewer'


@pytest.mark.parametrize(('wanted', 'declared', 'says'), [
    (Layout(0, 'L2'), False, 'COSINE for `similarity`, and this index wants L2'),
    (Layout(0, 'COSINE', index_type='HNSW'), False, 'index_params'),
    (Layout(0, 'COSINE', dtype='float16'), False, 'dtype'),
    (Layout(0, 'COSINE', partition_key='split'), False, 'partition_key'),
    (Layout(0, 'COSINE', dict(label='int')), True, 'metadata')])
def test_a_collection_of_other_settings(wanted, declared, says, store, memory):
    with pytest.raises(ValueError, match=says):
        Store(memory, 'shop', wanted, declared, 5).rows()


def test_rows_of_another_model(memory):
    one, other = (Store(memory, 'shop', Layout(0, 'COSINE', fingerprint=Fingerprint(name, 'p')),
                        False, 5) for name in 'ab')
    one.write(VECTORS, names(12), columns(12))
    assert one.fingerprint == other.fingerprint == Fingerprint('a', 'p')
    with pytest.raises(FingerprintError, match='another model'):
        other.write(VECTORS[:3], ['x', 'y', 'z'], columns(3))


@pytest.mark.parametrize('kind', [MilvusError, MilvusUnavailable])
def test_a_change_in_part_says_how_far_it_came(kind, store, memory):
    sent = []

    def insert(own, rows):
        if sent:
            raise kind('lost')
        sent.extend(rows)
        memory.upsert(own, rows)
    memory.insert = insert
    with pytest.raises(kind, match='Of 10 rows the first 5 are in the collection.*lost') as caught:
        store.write(VECTORS[:10], names(10, 50), as_columns(
            dict(label=range(10), split=['x'] * 10), 10, None), new=True)
    assert (caught.value.written, caught.value.total) == (5, 10) and type(caught.value) is kind
    assert len(store.rows()) == 17, 'what is there is read again'
    memory.fails['delete'] = kind('lost')
    with pytest.raises(kind, match='the first 0 are removed'):
        store.remove([1, 2])


def test_a_replacement_leads_the_name_to_new_rows(memory):
    store = Store(memory, 'shop', WANTED, False, 5)
    replaced(store, VECTORS, names(12), columns(12))
    first = store.own
    replaced(store, VECTORS, names(12), columns(12))
    assert store.own == first, 'the same rows are not written again'
    replaced(store, VECTORS[:6], names(6), columns(6))
    assert store.own != first and memory.list_collections() == [store.own]
    assert store.rows().ids.names == names(6) and memory.aliases['shop'] == store.own


def test_a_replacement_that_fails_leaves_what_was_there(memory):
    store = Store(memory, 'shop', WANTED, False, 5)
    replaced(store, VECTORS, names(12), columns(12))
    first = store.own
    memory.fails['insert'] = MilvusError('full')
    with pytest.raises(MilvusError, match='full'):
        replaced(store, VECTORS[:6], names(6), columns(6))
    assert memory.aliases['shop'] == first and len(store.rows()) == 12


def test_added_rows_are_not_replaced_unasked(store, memory):
    with pytest.raises(ValueError, match='overwrite=True'):
        replaced(store, VECTORS[:6], names(6), columns(6))
    store.replace(VECTORS[:6], names(6), columns(6), 'gallery', True, contextlib.nullcontext)
    assert store.rows().ids.names == names(6)


def test_a_file_holds_rows_and_settings(store, memory, tmp_path):
    write(tmp_path / 'x', store, dict(similarity='cosine_similarity'))
    content, settings = read(tmp_path / 'x')
    np.testing.assert_array_equal(content.vectors, VECTORS)
    assert content.ids == names(12) and settings == dict(similarity='cosine_similarity')
    assert content.metadata == dict(label=list(range(12)), split=['a"', 'ö', 'c'] * 4)
    write(tmp_path / 'empty', Store(memory, 'nothing', WANTED, False, 5), {})
    assert read(tmp_path / 'empty')[0].ids == []
    with pytest.raises(FileNotFoundError):
        read(tmp_path / 'nowhere')
    (tmp_path / 'text').write_text('text')
    with pytest.raises(ValueError):
        read(tmp_path / 'text')


def test_batches_by_number_and_by_weight():
    vectors = np.zeros((10, 4), dtype=np.float32)
    parts = list(batches(vectors, names(10), range(10), {}, 4))
    assert [len(part) for part in parts] == [4, 4, 2] and parts[1][0]['row'] == 4
    heavy = {'text': ('str', ['x' * (MESSAGE_BYTES // 3)] * 10)}
    assert [len(part) for part in batches(vectors, names(10), range(10), heavy, 4)] == [2] * 5


def test_a_table_of_rows():
    table = RowTable([(7, 'b'), (3, 'a'), (9, 'c')])
    table.append(['d', 'a'], [table.next_serial, 99])
    assert table.ids.names == ['a', 'b', 'c', 'd'] and table.serials == [3, 7, 9, 10]
    table.drop([1, 3])
    assert table.ids.names == ['a', 'c'] and table.serials == [3, 9] and table.next_serial == 10
    assert RowTable().next_serial == 0 and RowTable().last == []
    assert RowTable([(1, 'x'), (2, 'b'), (2, 'a')]).last == ['a', 'b']


def test_lists_of_ids_by_number_and_by_weight():
    assert list(id_lists(names(5), 2)) == [
        names(2), names(4)[2:], names(5)[4:]]
    assert [len(part) for part in id_lists(['x' * 300_000] * 3)] == [1, 1, 1]


def test_expressions_for_a_mask():
    table = RowTable([(3, 'a'), (5, 'b')])
    assert allowed_rows([True, True], table) == ['']
    assert allowed_rows([True, False], table) == ['row not in [5]']
    twins = RowTable([(3, 'a'), (5, 'c'), (5, 'b"')])
    assert allowed_rows([True, False, True], twins) == [r'id not in ["b\""]']
    table = RowTable((row, str(row)) for row in range(20_000))
    parts = allowed_rows([row % 2 == 0 for row in range(20_000)], table)
    listed = [eval(part.removeprefix('row in ')) for part in parts]
    assert [row for part in listed for row in part] == list(range(0, 20_000, 2))
    assert all(len(part) <= 8_192 for part in listed)


def keeping(store, *given):
    store.replace(*given, 'gallery', False, contextlib.nullcontext, keep=True)


def led_to(memory):
    """The ids that the name leads to."""
    return list(memory.rows[memory.aliases['shop']])


def test_a_switch_is_undone_and_redone_without_a_row_being_written(memory):
    store = Store(memory, 'shop', WANTED, False, 5)
    assert store.kept() is None
    with pytest.raises(ValueError, match=r"'shop' at memory keeps no rows .* keep=True"):
        store.undo(contextlib.nullcontext)
    replaced(store, VECTORS, names(12), columns(12))
    store.wanted = Layout(0, 'COSINE', fingerprint=Fingerprint('new', 'p'))
    keeping(store, VECTORS[:6], names(6), columns(6))
    assert led_to(memory) == names(6) and store.kept() == (12, Fingerprint())
    memory.calls.clear()
    store.undo(contextlib.nullcontext)
    assert led_to(memory) == store.rows().ids.names == names(12)
    assert store.kept() == (6, Fingerprint('new', 'p'))
    store.undo(contextlib.nullcontext)
    assert led_to(memory) == store.rows().ids.names == names(6) and store.kept()[0] == 12
    assert not {'insert', 'upsert', 'drop_collection'} & {method for method, _ in memory.calls}
    store.drop_kept()
    assert store.kept() is None and memory.list_collections() == [store.own]
    assert set(memory.aliases.values()) == {store.own}


def test_rows_that_are_kept_are_led_to_as_they_are(memory):
    store = Store(memory, 'shop', WANTED, False, 5)
    replaced(store, VECTORS, names(12), columns(12))
    keeping(store, VECTORS[:6], names(6), columns(6))
    memory.calls.clear()
    keeping(store, VECTORS, names(12), columns(12))
    assert led_to(memory) == names(12) and store.kept()[0] == 6
    assert not {'insert', 'upsert', 'drop_collection'} & {method for method, _ in memory.calls}


@pytest.mark.parametrize('keep', [False, True])
def test_what_is_kept_goes_with_the_next_replacement(memory, keep):
    store = Store(memory, 'shop', WANTED, False, 5)
    replaced(store, VECTORS, names(12), columns(12))
    keeping(store, VECTORS[:6], names(6), columns(6))
    (keeping if keep else replaced)(store, VECTORS[:3], names(3), columns(3))
    assert led_to(memory) == names(3) and store.kept() == ((6, Fingerprint()) if keep else None)
    assert len(memory.rows) == 1 + keep


def test_rows_that_were_added_are_kept_and_never_dropped_unasked(store, memory):
    keeping(store, VECTORS[:6], names(6), columns(6))
    assert led_to(memory) == names(6) and store.kept()[0] == 12
    for change in replaced, keeping:
        with pytest.raises(ValueError, match='keeps rows that were added.*overwrite=True'):
            change(store, VECTORS[:3], names(3), columns(3))
    store.undo(contextlib.nullcontext)
    assert store.rows().ids.names == names(12)
    keeping(store, VECTORS[:3], names(3), columns(3))  # in the place of the six
    assert led_to(memory) == names(3) and store.kept()[0] == 12 and len(memory.rows) == 2


@pytest.mark.parametrize('change', ['replace', 'undo'])
def test_a_switch_that_is_killed_at_any_step_leaves_the_name_at_whole_rows(change):
    """Whatever was reached, the same call ends it, and what was kept or is to be kept is there."""
    class Killed(BaseException):
        pass

    steps = 0
    while True:
        memory = Memory()
        store = Store(memory, 'shop', WANTED, False, 5)
        replaced(store, VECTORS, names(12), columns(12))
        keeping(store, VECTORS[:9], names(9), columns(9))

        def switch(store=store):
            if change == 'undo':
                store.undo(contextlib.nullcontext)
            else:
                keeping(store, VECTORS[:3], names(3), columns(3))
        call, left = memory.call, steps

        def until(*args, call=call, **kwargs):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return call(*args, **kwargs)
        memory.call = until
        with contextlib.suppress(Killed):
            switch()
        ended, memory.call = left > 0, call
        wanted = [names(12), names(9)] if change == 'undo' else [names(3), names(9)]
        assert led_to(memory) in wanted
        other = Store(memory, 'shop', WANTED, False, 5)
        assert other.rows().ids.names == led_to(memory)
        if other.kept():
            assert other.kept()[0] in {12, 9} - {len(other.rows())}
        if change == 'undo':
            assert other.kept()[0] + len(other.rows()) == 21  # both are there
        switch(other)
        if change == 'replace':
            assert led_to(memory) == names(3) and len(memory.rows) == 2
            assert other.kept()[0] == 9
        if ended:
            break
        steps += 1
    assert steps > 5


def test_a_process_does_not_change_rows_that_the_name_no_longer_leads_to(memory):
    store = Store(memory, 'shop', WANTED, False, 5)
    replaced(store, VECTORS, names(12), columns(12))
    other = Store(memory, 'shop', WANTED, False, 5)
    other.rows()
    keeping(store, VECTORS[:6], names(6), columns(6))
    for change in (lambda: other.write(VECTORS[:3], ['x', 'y', 'z'], columns(3)),
                   lambda: other.remove([0])):
        with pytest.raises(MilvusError, match='led the name .* call `refresh`'):
            change()
    other.refresh()
    other.write(VECTORS[:3], ['x', 'y', 'z'], columns(3))
    assert led_to(memory) == [*names(6), 'x', 'y', 'z'] and store.kept()[0] == 12


def test_kept_rows_of_other_settings_are_not_led_to(memory):
    store = Store(memory, 'shop', WANTED, False, 5)
    replaced(store, VECTORS, names(12), columns(12))
    keeping(store, VECTORS[:6], names(6), columns(6))
    with pytest.raises(ValueError, match='COSINE for `similarity`'):
        Store(memory, 'shop', Layout(0, 'L2'), False, 5).undo(contextlib.nullcontext)
    assert led_to(memory) == names(6)

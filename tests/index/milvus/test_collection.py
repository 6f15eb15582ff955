"""Fields, limits and names of a collection: without a server, over what stands in for one."""
import numpy as np
import pytest
import torch

from retrieval.gallery import Fingerprint
from retrieval.index.milvus import collection as collections
from retrieval.index.milvus.collection import (
    Layout,
    as_columns,
    check_ids,
    check_partition_key,
    check_width,
    checked_index_params,
    checked_name,
    declared,
    digest,
    field_name,
    is_gallery,
)
from retrieval.index.milvus.connection import MilvusError, MilvusUnavailable

from .memory import Memory

pytest.importorskip('pymilvus')

LAYOUT = Layout(4, 'COSINE', dict(label='int', split='str'), 99, 'HNSW', dict(M=8), 'float32',
                'split', Fingerprint('w', 'p'))


@pytest.fixture
def memory():
    return Memory()


def test_kinds_are_names_or_types():
    assert declared(None) is None and declared({}) == {}
    assert declared({'a b': int, 'c': 'float', 'id': bool}) == {'a_b': 'int', 'c': 'float',
                                                               'id_': 'bool'}
    with pytest.raises(ValueError, match="'text'"):
        declared(dict(a='text'))
    with pytest.raises(TypeError, match='got list: write'):
        declared(['a'])


@pytest.mark.parametrize(('given', 'name'), [
    ('label', 'label'), ('a b-c', 'a_b_c'), ('1st', '_1st'), ('', '_'), ('id', 'id_'),
    ('embedding', 'embedding_'), ('größe', 'gr__e'), (7, '_7')])
def test_names_of_fields(given, name):
    assert field_name(given) == name


@pytest.mark.parametrize(('values', 'kind', 'kept'), [
    ([1, 2], 'int', [1, 2]), ([True, False], 'bool', [True, False]), ([1, 2.5], 'float', [1, 2.5]),
    (['a', 'ö'], 'str', ['a', 'ö']), (np.array([1, 2], np.uint8), 'int', [1, 2]),
    (torch.tensor([.5, 1]), 'float', [.5, 1]), (np.array(['a', 'b']), 'str', ['a', 'b']),
    (range(2), 'int', [0, 1])])
def test_kinds_of_columns(values, kind, kept):
    columns = as_columns({'a b': values}, 2, None)
    assert columns == {'a_b': (kind, kept)}
    assert [type(one).__name__ for one in columns['a_b'][1]] == [kind] * 2


def test_columns_in_the_order_that_is_declared():
    found = as_columns(dict(b=[1, 2], a=['x', 'y']), 2, dict(a='str', b='float'))
    assert list(found.items()) == [('a', ('str', ['x', 'y'])), ('b', ('float', [1.0, 2.0]))]
    assert as_columns(None, 3, None) == {}


@pytest.mark.parametrize(('metadata', 'kinds', 'error', 'says'), [
    (dict(a=[1]), None, ValueError, '1 values for 2 embeddings'),
    (dict(a=[1, 'x']), None, TypeError, "one kind .*'x' among"),
    (dict(a=[None, 1]), None, TypeError, 'got None'), (dict(a='xy'), None, TypeError, 'sequence'),
    (dict(a=[1, 2 ** 63]), None, ValueError, '64 bits'),
    (dict(a=[1., float('inf')]), None, ValueError, 'in row 1: Milvus takes finite'),
    (dict(a=['', 'x' * 65_536]), None, ValueError, '65,536 bytes in row 1'),
    (dict(a=['', '\udcff']), None, ValueError, 'no valid text'),
    ({'a b': [1, 2], 'a-b': [1, 2]}, None, ValueError, "both be the field 'a_b'"),
    (dict(a=[1, 2]), dict(b='int'), ValueError, "'a'"),
    (dict(a=[1, 2]), {}, ValueError, r'metadata=dict\(a="int"\)'),
    ({}, dict(b='int'), ValueError, "'b' is missing"),
    (dict(a=['1', '2']), dict(a='int'), ValueError, "holds int, got str .'1'.: convert it")])
def test_columns_that_milvus_does_not_take(metadata, kinds, error, says):
    with pytest.raises(error, match=says):
        as_columns(metadata, 2, kinds)


def test_names_settings_and_limits():
    assert checked_name('_a1') == '_a1'
    for name in ('1a', 'two words', 'x' * 201, '', None):
        with pytest.raises(ValueError, match='no name that Milvus takes'):
            checked_name(name)
    assert checked_index_params(None, True) == ('FLAT', {})
    assert checked_index_params(dict(index_type='DISKANN', params=dict(x=1)), False) == (
        'DISKANN', dict(x=1))
    for given, says in ((dict(metric_type='L2'), 'which `similarity` decides'),
                        (dict(M=3), "'M'"), (dict(index_type='HSNW'), "'HNSW'")):
        with pytest.raises(ValueError, match=says):
            checked_index_params(given, True)
    check_width(2)
    check_width(32_768)
    for width in (1, 32_769):
        with pytest.raises(ValueError, match='2 to 32,768'):
            check_width(width)
    check_ids(['é' * 5], 10)
    with pytest.raises(ValueError, match='12 bytes.*id_length=12'):
        check_ids(['a', 'é' * 6], 10)
    with pytest.raises(ValueError, match='UTF-8 only'):
        check_ids(['\udcff'], 10)


@pytest.mark.parametrize(('key', 'kinds'), [('a', {}), ('a', dict(a='float'))])
def test_partition_keys_that_are_none(key, kinds):
    check_partition_key(None, {})
    check_partition_key('a', dict(a='str'))
    with pytest.raises(ValueError, match='a'):
        check_partition_key(key, kinds)


def test_a_collection_is_what_was_wanted_of_it(memory):
    own = collections.create(memory, 'shop', 'rows', LAYOUT)
    found = collections.read_layout(memory, own)
    assert own.startswith('shop_rows_') and not is_gallery('shop', own)
    assert found == Layout(4, 'COSINE', dict(label='int', split='str'), 99, 'HNSW', {},
                           'float32', 'split', Fingerprint('w', 'p'))
    memory.made[own]['index'] = None
    with pytest.raises(ValueError, match='no index over its vectors'):
        collections.read_layout(memory, own)
    del memory.made[own]['fields'][1]
    with pytest.raises(ValueError, match='a MilvusIndex has'):
        collections.read_layout(memory, own)


def test_what_the_server_refuses_is_not_left_behind(memory):
    memory.fails['create_index'] = ValueError('no such type')
    memory.describe_index = lambda own, name: None
    memory.list_indexes = lambda own: []
    with pytest.raises(ValueError, match='no such type'):
        collections.create(memory, 'shop', 'rows', LAYOUT)
    assert memory.list_collections() == []


def test_a_name_leads_to_a_collection(memory):
    assert collections.find(memory, 'shop') is None
    own = collections.claim(memory, 'shop', LAYOUT)
    assert collections.find(memory, 'shop') == own
    with pytest.raises(MilvusError, match='Another process has made the collection .shop.'):
        collections.claim(memory, 'shop', LAYOUT)
    assert memory.list_collections() == [own], 'what was made in vain is dropped'
    other = collections.create(memory, 'shop', 'gallery', LAYOUT)
    assert is_gallery('shop', other)
    collections.point(memory, 'shop', other)
    assert collections.find(memory, 'shop') == other
    collections.point(memory, 'new', own)
    assert collections.find(memory, 'new') == own
    with pytest.raises(ValueError, match='no MilvusIndex made'):
        collections.find(memory, own)


def test_a_step_that_was_done_is_no_error(memory):
    """Its answer was lost, and its repetition is refused."""
    own = collections.create(memory, 'shop', 'rows', LAYOUT)
    memory.aliases['shop'] = own
    memory.has_collection = lambda name: len(memory.calls) > 4  # free at the first look
    memory.calls.clear()
    memory.fails['create_alias'] = MilvusError('it is there')
    collections._unless(lambda: collections.find(memory, 'shop') is None, memory, 'create_alias',
                        own, 'shop')
    memory.fails['create_alias'] = MilvusUnavailable('gone')
    with pytest.raises(MilvusUnavailable):
        collections._unless(lambda: True, memory, 'create_alias', own, 'shop')
    memory.fails['create_alias'] = MilvusError('it failed')
    with pytest.raises(MilvusError):
        collections._unless(lambda: False, memory, 'create_alias', own, 'shop')


def test_notes_on_what_a_collection_holds(memory):
    one, other = (collections.create(memory, 'shop', 'gallery', LAYOUT) for _ in range(2))
    collections.seal(memory, 'shop', one, 'd1')
    assert collections.is_sealed(memory, 'shop', one, 'd1')
    assert not collections.is_sealed(memory, 'shop', one, 'd2')
    collections.seal(memory, 'shop', other, 'd1')  # moved, as the rows are written anew
    assert collections.is_sealed(memory, 'shop', other, 'd1')
    assert not collections.is_sealed(memory, 'shop', one, 'd1')
    memory.aliases['shop_2'] = other
    with pytest.raises(MilvusError, match='has led the name'):
        collections.unseal(memory, 'shop', other)
    assert collections.is_sealed(memory, 'shop', other, 'd1')
    collections.point(memory, 'shop', other)
    collections.unseal(memory, 'shop', other)
    assert list(memory.aliases) == ['shop_2', 'shop']
    collections.seal(memory, 'shop', one, 'd3')
    collections.drop(memory, 'shop', one)
    assert memory.list_collections() == [other]


def test_what_a_killed_process_left(memory):
    led, left, copy = (collections.create(memory, 'shop', kind, LAYOUT, digest)
                       for kind, digest in (('gallery', 'd0'), ('gallery', 'd1'), ('copy', 'd1')))
    collections.create(memory, 'shop', 'rows', LAYOUT)
    collections.create(memory, 'shop_b', 'gallery', LAYOUT)
    collections.point(memory, 'shop', led)
    assert collections.abandoned(memory, 'shop') == [left, copy]
    assert collections.unfinished(memory, 'shop', 'gallery', 'd1') == left
    assert collections.unfinished(memory, 'shop', 'gallery', 'd0') is None
    memory.made[left]['index'] = None
    assert collections.unfinished(memory, 'shop', 'gallery', 'd1') is None


def test_a_digest_is_of_rows_and_settings():
    rows, columns = np.eye(2, dtype=np.float32), dict(label=('int', [1, 2]))
    one = digest(LAYOUT, rows, ['a', 'b'], columns)
    assert one == digest(LAYOUT, rows.copy(), ['a', 'b'], dict(columns)) and len(one) == 32
    others = [digest(Layout(4, 'L2'), rows, ['a', 'b'], columns),
              digest(LAYOUT, rows[::-1], ['a', 'b'], columns),
              digest(LAYOUT, rows, ['b', 'a'], columns), digest(LAYOUT, rows, ['a', 'b'], {})]
    assert len({one, *others}) == 5


def test_what_is_kept_is_told_from_what_was_abandoned(memory):
    one, other, added = (collections.create(memory, 'shop', kind, LAYOUT)
                         for kind in ('gallery', 'gallery', 'rows'))
    collections.point(memory, 'shop', other)
    stranger = collections.create(memory, 'shop_2', 'gallery', LAYOUT)
    collections.keep(memory, 'shop_2', stranger)
    assert collections.abandoned(memory, 'shop') == [one] and not collections.kept(memory, 'shop')
    for own in (one, other, added, one):
        collections.keep(memory, 'shop', own)
    assert collections.kept(memory, 'shop') == [one, added]  # not what the name leads to
    assert collections.abandoned(memory, 'shop') == []
    collections.drop(memory, 'shop', one)
    assert collections.kept(memory, 'shop') == [added]

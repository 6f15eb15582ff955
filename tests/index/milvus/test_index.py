"""What MilvusIndex does besides the contract of every index."""

import numpy as np
import pytest
import torch

from retrieval.gallery import Fingerprint, FingerprintError
from retrieval.index import ExactIndex, MilvusError, MilvusIndex

pytest.importorskip('milvus_lite')

WIDTH = 8


def names(count, start=0):
    return [f'picture {row}' for row in range(start, start + count)]


@pytest.fixture(scope='module')
def vectors():
    return np.random.default_rng(0).normal(size=(60, WIDTH)).astype(np.float32)


def exact(vectors, ids, similarity='cosine_similarity'):
    index = ExactIndex(similarity)
    index.add(vectors, ids)
    return index


def test_a_collection_is_opened_with_its_rows_in_their_order(new_milvus, vectors):
    index = new_milvus(collection='kept', batch_size=7)
    index.add(vectors[:40], names(40))
    index.remove(['picture 3', 'picture 39'])
    index.add(vectors[39:], names(21, 39))
    again = new_milvus(collection='kept')
    expected = [name for name in names(60) if name != 'picture 3']
    assert list(again.ids) == list(index.ids) == expected and again.width == WIDTH
    oracle = exact(vectors[np.arange(60) != 3], expected)
    for one in (index, again):
        found, wanted = one.search(vectors[:9], 12), oracle.search(vectors[:9], 12)
        assert torch.equal(found.indices, wanted.indices)
    again.add(vectors[3:4], ['picture 3'])
    assert again.ids[-1] == 'picture 3'
    index.refresh()
    assert list(index.ids) == list(again.ids)


def test_rows_of_another_writer_are_found(new_milvus, vectors):
    one = new_milvus(collection='shared', consistency='Strong')
    one.add(vectors[:10], names(10))
    other = new_milvus(collection='shared')
    other.add(vectors[10:20], names(10, 10))
    assert one.search(vectors[15:16], 1).ids == [['picture 15']]  # a row that it did not know
    assert len(one) == 20
    other.remove(names(5))
    assert not set(one.search(vectors[:1], 20).ids[0]) & set(names(5))


def test_two_writers_at_once(new_milvus, vectors):
    """Each begins with the rows that it knows of: they may give a serial number twice."""
    writers = [new_milvus(collection='both', consistency='Strong') for _ in range(2)]
    writers[0].add(vectors[:2], names(2), dict(label=[0, 1]))
    assert len(writers[1]) == 2
    for row in range(2, 60, 4):
        for writer, first in zip(writers, (row, row + 2), strict=True):
            part = list(range(first, min(first + 2, 60)))
            writer.upsert(vectors[part], [f'picture {one}' for one in part], dict(label=part))
    for writer in writers:
        writer.refresh()
        serials = list(writer.serials)
        assert sorted(writer.ids) == sorted(names(60)) and len(set(serials)) < 60
        rows = [int(name.split()[1]) for name in writer.ids]
        np.testing.assert_allclose(writer.reconstruct(range(60)), vectors[rows])
        assert [one['label'] for one in writer.metadata_of(writer.ids)] == rows
        assert writer.is_current()
        few = np.arange(60) % 7 == 3
        found = writer.search(vectors[:4], 60, filter=few)
        assert [sorted(one) for one in found.indices.tolist()] == [np.flatnonzero(few).tolist()] * 4
    writers[0].remove(names(30))
    writers[1].refresh()
    assert sorted(writers[1].ids) == sorted(names(30, 30))


def test_upsert_replaces_vectors_and_keeps_rows(new_milvus, vectors):
    index = new_milvus()
    index.add(vectors[:20], names(20), metadata={'price': range(20)})
    index.upsert(vectors[40:50], names(10, 15), metadata={'price': range(100, 110)})
    assert list(index.ids) == names(25)
    held = np.concatenate([vectors[:15], vectors[40:50]])
    assert index.search(vectors[40:44], 25).ids == exact(held, names(25)).search(
        vectors[40:44], 25).ids
    assert [one['price'] for one in index.metadata_of(names(2, 14))] == [14, 100]


METADATA = {
    'label': np.arange(60) % 7,
    'weight': torch.linspace(0, 1, 60),
    'sold': [row % 3 == 0 for row in range(60)],
    'the split': ['train' if row % 2 else 'tést "q"' for row in range(60)],
    'id': [f'sku-{row}' for row in range(60)],
}


@pytest.mark.parametrize(('expression', 'allowed'), [
    ('label == 3', lambda row: row % 7 == 3),
    ('label in [1, 5] and not sold=True', lambda row: row % 7 in (1, 5) and row % 3),
    ('weight > 0.5', lambda row: row / 59 > 0.5),
    ('sold == true or label == 2', lambda row: row % 3 == 0 or row % 7 == 2),
    ('the_split == "train"', lambda row: row % 2),
    ('"the split" = "tést \\"q\\"" and id_ != "sku-4"', lambda row: row % 2 == 0 and row != 4),
    ('label > 100', lambda row: False),
])
def test_a_filter_over_metadata(new_milvus, vectors, expression, allowed):
    index = new_milvus()
    index.add(vectors, names(60), metadata=METADATA)
    keep = np.array([bool(allowed(row)) for row in range(60)])
    wanted = exact(vectors, names(60)).search(vectors[:4], 60, filter=keep)
    found = index.search(vectors[:4], 60, filter=expression)
    assert torch.equal(found.indices, wanted.indices)
    assert index.range_search(vectors[:4], -1.0, filter=expression).ids == wanted.ids
    assert index.search(vectors[:2], 3, ['picture 0', None], expression).ids == exact(
        vectors, names(60)).search(vectors[:2], 3, ['picture 0', None], keep).ids


def test_metadata_is_kept_and_read(new_milvus, vectors):
    index = new_milvus(metadata=dict(label=int, weight='float', split=str))
    index.add(vectors[:2], ['a', 'b'], metadata=dict(split=['x', 'y'], label=[1, 2], weight=[1, 2]))
    index.add(vectors[2:3], ['c'], metadata=dict(split=['z'], label=[3], weight=[0.5]))
    assert index.metadata_of(['c', 'a']) == [dict(label=3, weight=0.5, split='z'),
                                             dict(label=1, weight=1.0, split='x')]
    with pytest.raises(KeyError, match="'nobody'"):
        index.metadata_of(['nobody'])


@pytest.mark.parametrize(('metadata', 'error', 'says'), [
    (None, ValueError, "'label' is missing"),
    (dict(label=[1], lable=[1]), ValueError, "'lable'. Did you mean 'label'"),
    (dict(label=[1, 2]), ValueError, '2 values for 1 embeddings'),
    (dict(label=['1']), ValueError, 'holds int, got str'),
    (dict(label=[1.5]), ValueError, 'holds int, got float'),
    (dict(label=[None]), TypeError, 'one kind'),
    (dict(label=3), TypeError, 'sequence of values'),
    (dict(label=[2 ** 63]), ValueError, '64 bits'),
])
def test_wrong_metadata(new_milvus, vectors, metadata, error, says):
    index = new_milvus()
    index.add(vectors[:3], names(3), metadata=dict(label=[1, 2, 3]))
    with pytest.raises(error, match=says):
        index.add(vectors[3:4], ['x'], metadata=metadata)
    assert len(index) == 3


@pytest.mark.parametrize(('metadata', 'error', 'says'), [
    (dict(a=[float('nan')]), ValueError, 'finite'),
    (dict(a=['x' * 70_000]), ValueError, '70,000 bytes'),
    (dict(a=['\udcff']), ValueError, 'UTF-8'),
    ({'a b': [1], 'a_b': [2]}, ValueError, 'rename one'),
    (dict(a=[1, 'x']), TypeError, 'one kind'),
])
def test_metadata_that_milvus_cannot_keep(new_milvus, vectors, metadata, error, says):
    index = new_milvus()
    with pytest.raises(error, match=says):
        count = len(next(iter(metadata.values())))
        index.add(vectors[:count], names(count), metadata=metadata)
    assert len(index) == 0


@pytest.mark.parametrize(('options', 'error', 'says'), [
    (dict(uri='localhost:19530'), ValueError, "'http://localhost:19530'"),
    (dict(uri=5), TypeError, 'a path or an address'),
    (dict(collection='two words'), ValueError, 'letters, digits'),
    (dict(similarity='cosine'), ValueError, "Did you mean 'cosine_similarity'"),
    (dict(similarity=lambda q, g: q @ g.T), ValueError, 'ExactIndex'),
    (dict(index_params=dict(metric_type='L2')), ValueError, 'similarity'),
    (dict(index_params=dict(index_type='HSNW')), ValueError, "Did you mean 'HNSW'"),
    (dict(index_params=dict(M=3)), ValueError, 'index_type, params'),
    (dict(metadata=dict(a='text')), ValueError, "'text'"),
    (dict(metadata=['a']), TypeError, 'metadata=dict'),
    (dict(id_length=70_000), ValueError, '65,535'),
    (dict(batch_size=0), ValueError, 'at least 1'),
    (dict(batch_size=1.5), TypeError, 'integer'),
    (dict(timeout=0), ValueError, 'above 0'),
    (dict(timeout=None), TypeError, 'timeout must be a number'),
])
def test_wrong_arguments(tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        MilvusIndex(**{'uri': str(tmp_path / 'a.db'), **options})
    assert not (tmp_path / 'a.db').exists()


def test_limits_of_milvus(new_milvus, vectors):
    index = new_milvus(id_length=10)
    with pytest.raises(ValueError, match='12 bytes.*id_length=12'):
        index.add(vectors[:2], ['a', 'é' * 6])
    with pytest.raises(ValueError, match='UTF-8'):
        index.add(vectors[:1], ['\udcff'])
    for width in (1, 32_769):
        with pytest.raises(ValueError, match='2 to 32,768'):
            index.add(np.ones((1, width), dtype=np.float32), ['a'])


@pytest.mark.parametrize(('options', 'says'), [
    (dict(similarity='euclidean'), 'COSINE for `similarity`, and this index wants L2'),
    (dict(index_params=dict(index_type='HNSW', params=dict(M=8, efConstruction=64))), 'HNSW'),
    (dict(metadata=dict(split='str')), 'for `metadata`'),
])
def test_a_collection_that_was_made_otherwise_is_refused(new_milvus, vectors, options, says):
    new_milvus(collection='made').upsert(vectors[:3], names(3), dict(label=[1, 2, 3]))
    other = new_milvus(collection='made', **options)
    for use in (lambda: len(other), lambda: other.search(vectors[:1], 1),
                lambda: other.add(vectors[:1], ['x'])):
        with pytest.raises(ValueError, match=says):
            use()


ONE, OTHER = Fingerprint('a', 'b', 'p'), Fingerprint('c', 'b')  # of two models


def test_rows_of_another_model_are_refused(new_milvus, vectors, tmp_path):
    """The collection keeps whose they are; what either side does not know does not count."""
    index = new_milvus(collection='of_one')
    index.fingerprint = ONE
    index.add(vectors[:3], names(3))
    other = new_milvus(collection='of_one')
    assert other.fingerprint == ONE
    other.upsert(vectors[3:4], names(1, 3))  # of nobody knows which
    other.fingerprint = Fingerprint('a', pooling='x')
    other.add(vectors[4:5], names(1, 4))
    other.fingerprint = OTHER
    for use in (other.add, other.upsert):
        with pytest.raises(FingerprintError, match="another model: the encoder's weights differ"):
            use(vectors[5:6], names(1, 5))
    assert other.fingerprint == ONE and list(new_milvus(collection='of_one').ids) == names(5)
    other.save(tmp_path / 'x.safetensors')
    copied = MilvusIndex.load(tmp_path / 'x.safetensors')
    assert copied.fingerprint == ONE
    copied.close()


def test_replace_takes_another_model(new_milvus, vectors):
    index = new_milvus(collection='replaced')
    for made_by in (ONE, OTHER):  # the same vectors
        index.fingerprint = made_by
        index.replace(vectors[:3], names(3))
        assert new_milvus(collection='replaced').fingerprint == made_by
    first = index._store.own
    index.replace(vectors[:3], names(3))
    assert index._store.own == first


@pytest.fixture
def keyed_milvus(new_milvus, milvus_uri):
    """As new_milvus, where the server takes partition keys; where not, that it says so."""
    if milvus_uri.endswith('.db'):
        return new_milvus
    with pytest.raises(ValueError, match='is v2.3.5.*use a server from 2.4 on'):
        new_milvus(partition_key='shop')
    pytest.skip('this server takes no partition keys')


def test_rows_are_kept_apart_by_a_column(keyed_milvus, vectors, tmp_path):
    new_milvus = keyed_milvus
    shops = [f'shop {row % 5}' for row in range(60)]
    options = dict(collection='shops', partition_key='the shop')
    index = new_milvus(**options)
    index.add(vectors[:40], names(40), {'the shop': shops[:40]})
    index.upsert(vectors[39:], names(21, 39), {'the shop': shops[39:]})
    shops[3] = 'shop 9'  # moves
    index.upsert(vectors[3:4], names(1, 3), {'the shop': ['shop 9']})
    index.remove(names(1, 7))
    left = [row for row in range(60) if row != 7]
    oracle, own = exact(vectors[left], [names(60)[row] for row in left]), index._store.own
    for one in (index, new_milvus(**options), new_milvus(collection='shops')):
        assert list(one.ids) == list(oracle.ids) == sorted(one.ids, key=lambda n: int(n[8:]))
        for chosen in (['shop 3'], ['shop 9'], ['shop 1', 'shop 4']):
            text = 'the_shop in ({})'.format(', '.join(f'"{one}"' for one in chosen))
            mask = [shops[row] in chosen for row in left]
            found = one.search(vectors[:5], 60, filter=text)
            assert torch.equal(found.indices, oracle.search(vectors[:5], 60, filter=mask).indices)
    described = index._store.connection.call('describe_collection', own)['fields']
    assert [one['name'] for one in described if one.get('is_partition_key')] == ['the_shop']
    index.save(tmp_path / 'x.safetensors')
    copied = MilvusIndex.load(tmp_path / 'x.safetensors')
    assert copied._store.layout.partition_key == 'the_shop' and len(copied) == 59
    copied.close()
    with pytest.raises(ValueError, match='the_shop for `partition_key`, and this index wants x'):
        len(new_milvus(collection='shops', partition_key='x'))


@pytest.mark.parametrize(('metadata', 'says'), [
    (None, 'and there is none'), (dict(shops=[1, 2, 3]), 'shops'),
    (dict(shop=[0.5, 1, 2]), 'metadata column of float')])
def test_a_partition_key_that_is_no_such_column(keyed_milvus, vectors, metadata, says):
    new_milvus = keyed_milvus
    index = new_milvus(partition_key='shop')
    for put in (index.add, index.replace):
        with pytest.raises(ValueError, match=says):
            put(vectors[:3], names(3), metadata)
    if metadata is not None:
        with pytest.raises(ValueError, match=says):
            new_milvus(partition_key='shop', metadata={name: type(values[0]) for name, values
                                                       in metadata.items()})


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'int8'])
def test_vectors_that_the_server_does_not_search(new_milvus, dtype):
    """Neither the embedded Milvus nor 2.3."""
    says = r'is .*\d\.\d.*a server from 2\.4 on' if 'float' in dtype else 'bfloat16, float16'
    with pytest.raises(ValueError, match=says):
        new_milvus(dtype=dtype)


def test_a_replacement_that_was_killed_goes_on(new_milvus, vectors, monkeypatch):
    """What it had written is not written again; of other rows nothing is left."""
    index, sent = new_milvus(collection='killed', batch_size=7), []
    call = index._store.connection.call

    def killed(method, *args, **kwargs):
        if method in ('insert', 'upsert'):
            if len(sent) == 35:
                raise KeyboardInterrupt
            sent.extend(one['id'] for one in args[1])
        return call(method, *args, **kwargs)

    index.replace(vectors[:9], names(9))
    sent.clear()
    monkeypatch.setattr(index._store.connection, 'call', killed)
    for rows in (vectors, vectors[::-1]):
        with pytest.raises(KeyboardInterrupt):
            index.replace(rows, names(60))
        assert list(new_milvus(collection='killed').ids) == names(9)
        sent, rest = [], sent
    with pytest.raises(KeyboardInterrupt):  # the other rows again
        index.replace(vectors, names(60))
    sent.clear()
    index.replace(vectors[:], names(60))
    monkeypatch.undo()
    assert sent == names(25, 35) and rest == names(35)
    assert list(index.ids) == names(60)
    np.testing.assert_array_equal(index.reconstruct(range(60)), vectors)
    held = call('list_collections')
    assert [one for one in held if one.startswith(index._store.name)] == [index._store.own]


def test_a_foreign_collection_is_left_alone(new_milvus, vectors):
    maker = new_milvus(collection='foreign')
    call = maker._store.connection.call
    foreign = maker._store.name
    call('create_collection', foreign, dimension=4)
    index = new_milvus(collection='foreign')
    for use in (lambda: len(index), lambda: index.add(vectors[:1], ['x']),
                lambda: index.replace(vectors[:1], ['x'])):
        with pytest.raises(ValueError, match="no MilvusIndex made"):
            use()
    call('create_alias', foreign, f'{foreign}_2')
    with pytest.raises(ValueError, match='MilvusIndex has'):
        len(new_milvus(collection='foreign_2'))
    assert call('has_collection', foreign)


def test_an_approximate_index(new_milvus):
    rows = np.random.default_rng(1).normal(size=(2000, 16)).astype(np.float32)
    index = new_milvus(index_params=dict(index_type='HNSW', params=dict(M=16, efConstruction=100)),
                       search_params=dict(ef=100))
    index.add(rows, names(2000))
    assert not index.capabilities.exact and new_milvus().capabilities.exact
    wanted = exact(rows, names(2000)).search(rows[:50] + 0.1, 10).indices
    found = index.search(rows[:50] + 0.1, 10).indices
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in
                      zip(wanted.tolist(), found.tolist(), strict=True)])
    assert shared > 0.9


def test_replace_switches_when_all_is_there(new_milvus, vectors):
    index = new_milvus(collection='gallery')
    index.replace(vectors[:30], names(30), metadata=dict(label=range(30)))
    first = index._store.own
    index.replace(vectors[:30], names(30), metadata=dict(label=range(30)))
    assert index._store.own == first  # the same rows are not written again
    reader = new_milvus(collection='gallery')
    assert reader.search(vectors[:1], 1).ids == [['picture 0']]
    index.replace(vectors[30:, :5], names(30, 30))  # another width, and no metadata
    assert index._store.own != first and index.width == 5 and list(index.ids) == names(30, 30)
    with pytest.raises(MilvusError, match='open the index again'):
        reader.search(vectors[:1], 1)  # never an answer of two galleries at once
    reader.refresh()
    assert reader.search(vectors[30:31, :5], 1).ids == [['picture 30']]
    collections = index._store.connection.call('list_collections')
    assert [one for one in collections if one.startswith(index._store.name)] == [index._store.own]


def test_rows_that_changed_are_written_again(new_milvus, vectors):
    index = new_milvus()
    for change in (lambda: index.add(vectors[30:31], ['new']), lambda: index.remove(['picture 3']),
                   lambda: index.upsert(vectors[30:31], ['picture 3'])):
        index.replace(vectors[:30], names(30))
        own = index._store.own
        change()
        index.replace(vectors[:30], names(30))
        assert index._store.own != own and list(index.ids) == names(30)
        assert index.search(vectors[3:4], 1).ids == [['picture 3']]


def test_added_rows_are_not_replaced_unasked(new_milvus, vectors):
    new_milvus(collection='products').add(vectors[:30], names(30))
    with pytest.raises(ValueError, match='overwrite=True'):
        new_milvus(collection='products').replace(vectors, names(60))
    assert len(new_milvus(collection='products')) == 30
    new_milvus(collection='products', overwrite=True).replace(vectors, names(60))
    assert len(new_milvus(collection='products')) == 60


def test_save_and_load_into_a_database(new_milvus, vectors, tmp_path):
    index = new_milvus(similarity='euclidean', batch_size=9)
    index.add(vectors, names(60), metadata=METADATA)
    index.remove(names(10))
    index.save(tmp_path / 'index')
    uri = str(tmp_path / 'new' / 'copy.db')
    loaded = MilvusIndex.load(tmp_path / 'index', uri, 'copied')
    loaded.close()
    again = MilvusIndex(uri, 'copied', similarity='euclidean')
    assert list(again.ids) == names(50, 10)
    assert again.metadata_of(names(9, 20)) == index.metadata_of(names(9, 20))
    found = again.search(vectors[:3], 50, filter='label == 2')
    assert found.ids == index.search(vectors[:3], 50, filter='label == 2').ids
    with pytest.raises(ValueError, match='holds 50 rows'):
        MilvusIndex.load(tmp_path / 'index', uri, 'copied')
    with pytest.raises(ValueError, match='overwrite=True'):
        again.replace(vectors, names(60))  # a copy is no gallery either
    again.close()


@pytest.mark.parametrize('index_params', [
    None, dict(index_type='HNSW', params=dict(M=8, efConstruction=64))])
def test_a_replacement_is_undone_while_others_search(new_milvus, vectors, index_params):
    """Who has the rows open goes on with them, whole, and finds the others after ``refresh``."""
    options = dict(collection='undone_hnsw' if index_params else 'undone', keep=True,
                   index_params=index_params)
    index, reader = new_milvus(**options), new_milvus(**options)
    assert index.kept() is None
    index.fingerprint = Fingerprint('old')
    index.replace(vectors[:40], names(40), metadata=dict(label=range(40)))
    assert reader.search(vectors[7:8], 1).ids == [['picture 7']] and reader.is_current()
    index.fingerprint = Fingerprint('new')
    index.replace(vectors[:50, ::-1].copy(), names(50))
    assert index.kept() == (40, Fingerprint('old')) and len(index) == 50
    assert reader.search(vectors[7:8], 1, filter='label=7').ids == [['picture 7']]
    assert not reader.is_current()
    with pytest.raises(MilvusError, match='call `refresh`'):
        reader.remove(['picture 7'])
    reader.refresh()
    assert reader.search(vectors[7:8, ::-1].copy(), 1).ids == [['picture 7']]
    assert len(reader) == 50
    index.undo()
    assert not reader.is_current() and index.fingerprint == Fingerprint('old')
    found, wanted = index.search(vectors[:9], 40), exact(vectors[:40], names(40)).search(
        vectors[:9], 40)
    assert found.ids == wanted.ids or index_params
    index.remove(['picture 0'])  # what is undone to can be changed
    assert index.kept() == (50, Fingerprint('new'))
    index.undo()
    assert len(index) == 50 and index.kept() == (39, Fingerprint('old'))
    index.drop_kept()
    assert index.kept() is None
    with pytest.raises(ValueError, match='keeps no rows from before'):
        index.undo()
    left, own = index._store.connection.call('list_collections'), index._store.own
    assert [one for one in left if one.startswith(f'{index._store.name}_gallery')] == [own]

"""What a FaissIndex does beyond the contract: every kind of factory, training, parameters."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.index import FaissIndex
from retrieval.index.faiss.factory import plain_factory
from retrieval.registry import INDEXES

from ..toys import WIDTH, blobs, exact_ids, ids, recall

# With the parameters that make each look at everything, and the recall that its codes then allow.
FACTORIES = {
    'Flat': ({}, 1.0), 'SQ8': ({}, 0.95), 'SQfp16': ({}, 0.99), 'SQ4': ({}, 0.6),
    'PQ8': ({}, 0.6), 'PQ8x4fs': ({}, 0.3), 'RaBitQ': ({}, 0.2), 'RQ4x6': ({}, 0.3),
    'IVF8,Flat': (dict(nprobe=8), 1.0), 'IVF8,SQ8': (dict(nprobe=8), 0.9),
    'IVF8,PQ8': (dict(nprobe=8), 0.6), 'IVF8,PQ8x4fs': (dict(nprobe=8), 0.3),
    'IVF8_HNSW8,Flat': (dict(nprobe=8, quantizer_efSearch=64), 1.0),
    'IVF8,RaBitQ,RFlat': (dict(nprobe=8, k_factor_rf=30), 0.95),
    'IVF8,PQ4,Refine(SQ8)': (dict(nprobe=8, k_factor_rf=30), 0.9),
    'IVF8,RQ4x6': (dict(nprobe=8), 0.3), 'PCA8,IVF8,Flat': (dict(nprobe=8), 0.2),
    'HNSW16': (dict(efSearch=200), 0.99), 'HNSW16,Flat': (dict(efSearch=200), 0.99),
    'HNSW16_SQ8': (dict(efSearch=200), 0.9), 'HNSW16_PQ8': (dict(efSearch=200), 0.5),
    'NSG16': (dict(search_L=200), 0.95), 'RR16,HNSW16': (dict(efSearch=200), 0.99),
    'IMI2x3,Flat': (dict(nprobe=64), 0.99), 'IDMap2,IVF8,Flat': (dict(nprobe=8), 1.0),
    'L2norm,Flat': ({}, 1.0),
}


@pytest.mark.parametrize('factory', FACTORIES)
def test_a_factory_through_its_life(factory, tmp_path):
    """Train, add, search, remove (most types hide, some take out), add again, compact, reload."""
    parameters, share = FACTORIES[factory]
    vectors, queries = blobs(900), blobs(30, seed=5)
    index = FaissIndex(factory, search_parameters=parameters)
    index.add(vectors[:600], ids(600))
    rows = dict(zip(ids(600), vectors, strict=False))

    def check(searched, least=share):
        assert list(searched.ids) == list(rows) and len(searched) == len(rows)
        found = searched.search(queries, 10)
        assert found.lengths.tolist() == [10] * 30
        assert recall(found.ids, exact_ids(rows, queries, 10)) >= least
        everything = searched.search(queries[:3], len(rows) + 50)
        assert all(sorted(row) == sorted(rows) for row in everything.ids)

    check(index)
    gone = [name for name in ids(600) if int(name[1:]) % 4 == 0]
    index.remove(gone)
    rows = {name: row for name, row in rows.items() if name not in gone}
    check(index)
    index.add(vectors[600:], ids(300, 600))
    rows.update(zip(ids(300, 600), vectors[600:], strict=True))
    index.add(vectors[:4], ids(4)[:1] + ['a', 'b', 'c'])
    rows.update(zip(['#0', 'a', 'b', 'c'], vectors[:4], strict=True))
    check(index)
    index.save(tmp_path / 'index')
    loaded = FaissIndex.load(tmp_path / 'index')
    assert loaded.factory == plain_factory(factory) and loaded.removed == index.removed
    check(loaded)
    before = index.search(queries, 10)
    after = loaded.search(queries, 10)
    assert before.ids == after.ids and torch.equal(before.scores, after.scores)
    if factory == 'IVF8,PQ8x4fs' and loaded.removed:  # with faiss 1.9, which would abort
        with pytest.raises(ValueError, match='rescore=True'):
            loaded.compact()
        return
    loaded.compact()
    assert loaded.removed == 0
    check(loaded, share * 0.9)
    loaded.remove(list(rows))
    assert len(loaded) == 0 and loaded.removed == 0
    if factory != 'NSG16':
        loaded.add(vectors[:5], list('vwxyz'))
        assert sorted(loaded.search(queries[:1], 9).ids[0]) == list('vwxyz')


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
@pytest.mark.parametrize('factory', ['Flat', 'IVF8,Flat', 'HNSW16', 'IVF8,RaBitQ,RFlat',
                                     'HNSW16_SQ8', 'HNSW16_PQ8'])
def test_scores_are_the_similarities(factory, similarity):
    if factory == 'HNSW16_PQ8' and similarity == 'inner_product':
        with pytest.raises(ValueError, match='another metric than inner_product'):
            FaissIndex(factory, similarity)
        return
    vectors = blobs(500)
    index = FaissIndex(factory, similarity, search_parameters=FACTORIES[factory][0])
    index.add(vectors, ids(500))
    found = index.search(vectors[:8], 5)
    a, b = vectors[:8].astype(np.float64), vectors.astype(np.float64)
    true = {'cosine_similarity': a @ b.T / np.linalg.norm(a, axis=1)[:, None]
            / np.linalg.norm(b, axis=1), 'inner_product': a @ b.T,
            'euclidean': -np.linalg.norm(a[:, None] - b, axis=2)}[similarity]
    coarse = {'HNSW16_SQ8': 0.1, 'HNSW16_PQ8': 1.2}.get(factory, 1e-4)
    for row, scores, rows in zip(true, found.scores, found.indices, strict=True):
        np.testing.assert_allclose(scores, row[rows], atol=coarse, rtol=1e-4)


def test_built_by_name_with_numbers_as_ids():
    index = INDEXES.build(dict(type='retrieval.FaissIndex', factory='HNSW8',
                               similarity='euclidean'))
    assert isinstance(index, FaissIndex) and index.similarity.name == 'euclidean'
    index.add(torch.eye(3), torch.arange(3))
    assert list(index.ids) == ['0', '1', '2'] and 1 in index and '7' not in index
    assert index.search(torch.eye(3), 1).ids == [['0'], ['1'], ['2']]


@pytest.mark.parametrize(('factory', 'exact', 'training'), [
    ('Flat', True, False), ('IDMap,Flat', True, False), ('HNSW32', False, False),
    ('IVF64,Flat', False, True), ('SQ8', False, True), ('PCA8,Flat', False, True),
    ('SQfp16', False, False), ('OPQ16,IVF256,PQ16', False, True), ('IVF1024,RaBitQ,RFlat', False,
                                                                   True)])
def test_capabilities_say_the_truth(factory, exact, training):
    can = FaissIndex(factory).capabilities
    assert (can.exact, can.training) == (exact, training)
    assert not can.expressions and not can.persistent


def test_search_parameters_decide_what_is_looked_at():
    vectors, queries = blobs(4000, width=8), blobs(50, 5, width=8)
    exact = exact_ids(dict(zip(ids(4000), vectors, strict=True)), queries, 10)
    index = FaissIndex('IVF64,Flat')
    index.add(vectors, ids(4000))
    shares = []
    for nprobe in (1, 4, 64):
        index.search_parameters = dict(nprobe=nprobe)
        shares.append(recall(index.search(queries, 10).ids, exact))
    assert shares == sorted(shares) and shares[0] < 0.9 and shares[2] > 0.999
    assert index.search_parameters == dict(nprobe=64)
    mask = np.arange(4000) % 2 == 0
    index.search_parameters = dict(nprobe=1)
    few = index.search(queries, 10, filter=mask)  # a selection keeps the parameters
    one = index.search(queries, 4000)
    kept = [[name for name in row if int(name[1:]) % 2 == 0][:10] for row in one.ids]
    assert 0.2 < recall(few.ids, kept) < 1 and (few.lengths == 10).all()


def test_tombstones_are_compacted_by_themselves_and_on_demand():
    index = FaissIndex('HNSW8', max_removed=0.5)
    index.add(blobs(100), ids(100))
    index.remove(ids(50))
    assert index.removed == 50
    index.remove(ids(1, 50))
    assert index.removed == 0 and len(index) == 49
    never = FaissIndex('HNSW8', max_removed=1)
    never.add(blobs(100), ids(100))
    never.remove(ids(99))
    assert never.removed == 99 and never.search(blobs(1), 5).ids == [['#99']]
    never.compact()
    assert never.removed == 0 and never.search(blobs(1), 5).ids == [['#99']]


def test_a_removal_stands_where_nothing_can_be_built_anew():
    index = FaissIndex('NSG16', max_removed=0.1)
    index.add(blobs(150), ids(150))
    index.remove(ids(90))
    assert index.removed == 90 and sorted(index.search(blobs(1), 99).ids[0]) == sorted(ids(60, 90))
    with pytest.raises(ValueError, match='at least 101 rows; there would be 60'):
        index.compact()
    assert len(index) == 60 and index.search(blobs(150)[95:96], 1).ids == [['#95']]


def test_earlier_results_keep_their_ids():
    index = FaissIndex()
    index.add(torch.eye(3), list('abc'))
    found = index.search(torch.eye(3), 1)
    index.remove(['a'])
    index.add(torch.eye(3)[:1], ['d'])
    assert found.ids == [['a'], ['b'], ['c']]


def test_bit_codes_are_scored_by_their_vectors():
    with pytest.raises(ValueError, match='rescore=True'):
        FaissIndex('LSH')
    index = FaissIndex('LSH', rescore=True, rescore_factor=40)
    vectors = blobs(500)
    index.add(vectors, ids(500))
    assert [row[0] for row in index.search(vectors[:9], 3).ids] == ids(9)


@pytest.mark.parametrize(('options', 'error', 'says'), [
    (dict(factory='Flatt'), ValueError, "cannot build the factory 'Flatt'.*could not parse"),
    (dict(factory='IVF16'), ValueError, "cannot build the factory 'IVF16'"),
    (dict(factory=''), ValueError, 'empty'), (dict(factory='IDMap'), ValueError, 'empty'),
    (dict(factory='IVF0,Flat'), ValueError, 'IVF0'), (dict(factory='HNSW0'), ValueError, 'HNSW0'),
    (dict(factory='IVF99999999999999999999,Flat'), ValueError, 'above'),
    (dict(factory=3), TypeError, 'string'),
    (dict(factory='IMI2x4,Flat', similarity='inner_product'), ValueError, 'inner prod'),
    (dict(similarity='cosin'), ValueError, 'cosine_similarity'),
    (dict(similarity=lambda q, g: q @ g.T), ValueError, 'ExactIndex takes any'),
    (dict(search_parameters=dict(nprobe=3)), ValueError, "the factory 'Flat' has none"),
    (dict(factory='IVF16,Flat', search_parameters=dict(nprob=3)), ValueError,
     "'nprob'.*Did you mean 'nprobe'.*max_codes, nprobe"),
    (dict(factory='HNSW8', search_parameters=dict(efSearch=0)), ValueError, 'at least 1'),
    (dict(factory='HNSW8', search_parameters=dict(efSearch=2.5)), ValueError, 'whole number'),
    (dict(factory='HNSW8', search_parameters=dict(efSearch='9')), TypeError, 'a number'),
    (dict(factory='HNSW8', search_parameters=[9]), TypeError, 'dict'),
    (dict(rescore_dtype='int8', rescore=True), ValueError, 'float16'),
    (dict(rescore_factor=0.5), ValueError, 'at least 1'),
    (dict(max_removed=-1), ValueError, 'at least 0'), (dict(train_size=0), ValueError, '1'),
    (dict(device='tpu'), ValueError, "'cuda'"),
    (dict(on_disk='x', factory='HNSW8'), ValueError, 'inverted lists'),
    (dict(on_disk='x', factory='IVF8,PQ8x4fs'), ValueError, 'inverted lists'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says) as caught:
        FaissIndex(**options)
    assert '/faiss/' not in str(caught.value) and '.cpp' not in str(caught.value)


def test_bad_vectors_and_widths():
    with pytest.raises(ValueError, match='for vectors of width 10.*'):
        FaissIndex('PQ8').add(blobs(300, width=10), range(300))
    index = FaissIndex('IVF8,Flat')
    for bad in (np.nan, np.inf):
        vectors = blobs(20)
        vectors[7, 3] = bad
        with pytest.raises(ValueError, match='row 7 holds NaN or infinity'):
            index.add(vectors, range(20))
    index.add(blobs(20), range(20))
    with pytest.raises(ValueError, match=f'9 columns, but {WIDTH}'):
        index.search(blobs(1, width=9), 1)
    with pytest.raises(ValueError, match='65504'):
        FaissIndex('Flat', 'inner_product', rescore=True).add(blobs(3) + 1e5, range(3))
    with pytest.raises(ValueError, match='divide'):
        FaissIndex('Flat', 'euclidean').add(blobs(3) + 1e20, range(3))
    with pytest.raises(ValueError, match="65504, which the factory 'SQfp16'"):
        FaissIndex('SQfp16', 'inner_product').add(blobs(3) + 1e5, range(3))

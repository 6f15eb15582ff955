"""What a FaissIndex does beyond the contract: every kind of factory, training, parameters."""
from __future__ import annotations

import types

import faiss
import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex
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


@pytest.mark.parametrize('queries', [1, 3, 64])
def test_flat_ties_at_the_cut_rank_by_row_however_many_queries(queries):
    """faiss scores larger batches in blocks, whose edges round otherwise."""
    base = np.random.default_rng(0).normal(size=(40, 33)).astype(np.float32)
    vectors = np.tile(base, (150, 1))  # every vector 150 times
    for similarity in ('cosine_similarity', 'inner_product', 'euclidean'):
        index = FaissIndex('Flat', similarity)
        index.add(vectors, range(6000))
        for k in (7, 200):
            found = index.search(base[:1].repeat(queries, 0), k)
            # all copies of the best vector, from the lower row on, then those of the second
            groups = found.indices[0] % 40
            best = [int(groups[0]), int(groups[-1])]
            wanted = [*range(best[0], 6000, 40), *range(best[1], 6000, 40)][:k]
            assert found.indices.tolist() == [wanted] * queries
            alone = index.search(base[:1], k)
            assert torch.equal(found.scores[-1], alone.scores[0])


def test_training_says_how_many_rows_it_needs():
    for factory, need in (('IVF100,Flat', 100), ('PQ8', 256), ('OPQ8,IVF16,PQ8x4', 256),
                          ('IVF300,PQ4', 300), ('IVF8,RQ2x6', 64), ('PCA12,Flat', 12)):
        vectors = blobs(need)
        index = FaissIndex(factory)
        with pytest.raises(ValueError, match=f'at least {need} rows .* got {need - 1}'):
            index.add(vectors[1:], range(need - 1))
        assert len(index) == 0 and not index.trained and index.width is None
        if 'OPQ' not in factory:
            index.add(vectors, range(need))
            assert len(index) == need and index.trained
    index = FaissIndex('IVF50,Flat', train_size=20)
    with pytest.raises(ValueError, match='at least 50 rows to train on, got 20'):
        index.train(blobs(400))


def test_opq_and_a_sample_by_seed():
    vectors, queries = blobs(1500), blobs(20, 3)
    rotated = FaissIndex('OPQ4_8,IVF8,PQ4x4', train_size=300, rescore=True, rescore_factor=20,
                         search_parameters=dict(nprobe=8))
    rotated.add(vectors, range(1500))
    exact = exact_ids(dict(zip(map(str, range(1500)), vectors, strict=True)), queries, 10)
    assert recall(rotated.search(queries, 10).ids, exact) > 0.95
    with pytest.raises(ValueError, match='holds 1500 rows'):
        rotated.train(vectors)
    codecs = []
    for seed in (0, 0, 1):
        index = FaissIndex('IVF8,PQ4x4', seed=seed, train_size=300)
        index.train(vectors)
        codecs.append(index.store.codec)
    assert codecs[0] == codecs[1] != codecs[2]


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


def test_few_lists_still_give_k_results():
    vectors = blobs(3000)
    index = FaissIndex('IVF64,Flat', search_parameters=dict(nprobe=1))
    index.add(vectors, ids(3000))
    assert index.search(vectors[:7], 2500).indices.shape == (7, 2500)
    sparse = index.search(vectors[:7], 5, filter=lambda name: name in ('#3', '#2999'))
    assert [sorted(row) for row in sparse.ids] == [['#2999', '#3']] * 7
    near = index.range_search(vectors[:1], 0.999).ids
    assert near == [['#0']]


def test_a_graph_whose_parts_are_out_of_reach():
    """Far more duplicates than links: the graph alone cannot reach every row."""
    index = FaissIndex('HNSW4', 'euclidean', search_parameters=dict(efSearch=4))
    index.add(np.repeat(blobs(3), 400, axis=0), range(1200))
    found = index.search(blobs(3), 1200)
    assert found.lengths.tolist() == [1200] * 3
    assert found.row(0)[0][:400].abs().max() == 0 and found.row(0)[0][400] < 0


def test_many_exclusions_are_fetched_over():
    vectors = blobs(2000)
    for factory in ('Flat', 'IVF8,Flat', 'HNSW16'):
        index = FaissIndex(factory, search_parameters=dict(nprobe=8) if 'IVF' in factory else {})
        index.add(vectors, ids(2000))
        first = index.search(vectors[:2], 1990).ids
        found = index.search(vectors[:2], 5, exclude=[first[0][:1500], None])
        assert found.lengths.tolist() == [5, 5] and not set(found.ids[0]) & set(first[0][:1500])
        if factory != 'HNSW16':
            assert found.ids == [first[0][1500:1505], first[1][:5]]


def test_rescoring_gives_exact_scores_and_better_order():
    vectors, queries = blobs(3000), blobs(40, 4)
    exact = ExactIndex()
    exact.add(vectors, ids(3000))
    wanted = exact.search(queries, 10)
    plain = FaissIndex('IVF8,PQ4', search_parameters=dict(nprobe=8))
    rescored = FaissIndex('IVF8,PQ4', search_parameters=dict(nprobe=8), rescore=True,
                          rescore_factor=20)
    for index in (plain, rescored):
        index.add(vectors, ids(3000))
    found = rescored.search(queries, 10)
    assert recall(found.ids, wanted.ids) > 0.97 > recall(plain.search(queries, 10).ids,
                                                         wanted.ids) + 0.2
    best = (found.indices == wanted.indices)
    torch.testing.assert_close(found.scores[best], wanted.scores[best], atol=1e-3, rtol=0)


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


def test_polysemous_codes_are_trained_for_where_they_are_asked_for():
    index = FaissIndex('PQ2x4')
    with pytest.raises(ValueError, match='when the index is made'):
        index.search_parameters = dict(ht=20)
    vectors = blobs(400)
    asked = FaissIndex('PQ2x4', search_parameters=dict(ht=8))
    asked.add(vectors, ids(400))
    assert asked.store.engine.core.do_polysemous_training
    assert asked.search(vectors[:2], 5).lengths.tolist() == [5, 5]


def test_a_gpu_needs_faiss_gpu():
    with pytest.raises(ValueError, match='faiss-gpu.*built without'):
        FaissIndex(device='cuda')


def test_a_gpu_answers_plain_searches(monkeypatch):
    """With a stand-in for the GPU: what is sent there, when it is copied anew, and what is not."""
    copies = []

    def to_gpu(resources, number, index):
        copy = faiss.clone_index(index)
        asked = types.SimpleNamespace(number=number, fetched=[])

        def search(queries, k):
            asked.fetched.append(k)
            return copy.search(queries, k)
        asked.search = search
        copies.append(asked)
        return asked

    monkeypatch.setattr(faiss, 'StandardGpuResources', lambda: None, raising=False)
    monkeypatch.setattr(faiss, 'get_num_gpus', lambda: 2, raising=False)
    monkeypatch.setattr(faiss, 'index_cpu_to_gpu', to_gpu, raising=False)
    with pytest.raises(ValueError, match='sees 2 GPUs'):
        FaissIndex(device='cuda:2')
    vectors = blobs(3000)
    index, plain = FaissIndex('IVF8,Flat', device='cuda:1'), FaissIndex('IVF8,Flat')
    for one in (index, plain):
        one.add(vectors, ids(3000))
    assert index.search(vectors[:5], 7).ids == plain.search(vectors[:5], 7).ids
    assert copies[0].number == 1 and copies[0].fetched == [7]
    mask = np.arange(3000) < 1000
    assert index.search(vectors[:5], 7, filter=mask).ids == plain.search(
        vectors[:5], 7, filter=mask).ids
    assert index.search(vectors[:5], 2500).ids == plain.search(vectors[:5], 2500).ids
    assert copies[0].fetched == [7], 'a selection, or more than 2048 results, went to the GPU'
    index.remove(['#0'])
    assert '#0' not in index.search(vectors[:1], 7).ids[0]
    assert len(copies) == 2


def test_beside_what_replaces_the_search_of_faiss():
    import faiss.contrib.torch_utils  # noqa: F401  (as pytorch-metric-learning does)
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    index = FaissIndex('IVF4,Flat', search_parameters=dict(nprobe=4))
    index.add(vectors, range(400))
    found = index.search(vectors[:5], 3, exclude=[str(row) for row in range(5)])
    exact = ExactIndex()
    exact.add(vectors, range(400))
    assert found.ids == exact.search(vectors[:5], 3, [str(row) for row in range(5)]).ids


def test_rabitq_of_an_older_faiss_is_one_clear_error(monkeypatch):
    from retrieval.index.faiss import factory

    monkeypatch.setattr(factory, 'load_faiss', lambda: types.SimpleNamespace(__version__='1.9.0'))
    with pytest.raises(ValueError, match="'IVF8,RaBitQ' wants faiss 1.11 or later, and 1.9.0 is"):
        factory.build('IVF8,RaBitQ', 8, 'euclidean')

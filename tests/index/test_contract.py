"""One contract for every index, against a plain loop over float64 scores.

An exact index must give the loop's results in its order. An approximate one, with generous
parameters, is held to a recall, and to everything else: how many results there are, of which
rows, in falling order, never one that was removed, excluded or filtered out.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex, Index

WIDTH = 6


def cosine(queries, rows):
    norm = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    return queries @ rows.T / norm


def inner_product(queries, rows):
    return queries @ rows.T


def euclidean(queries, rows):
    return -np.linalg.norm(queries[:, None] - rows[None], axis=2)


@dataclass
class Kind:
    """How an index is made, what its scores should be, and how well it must find.

    Args:
        make: an empty index that takes rows at once.
        oracle: ``(Q, D), (N, D) -> (Q, N)``.
        recall: None for exact results and order, else the share of them that must be found.
        scores: how far the scores may be off.
        fixtures: what ``make`` is given.
    """

    make: Callable[..., Index]
    oracle: Callable = cosine
    recall: float | None = None
    scores: float = 1e-6
    fixtures: tuple[str, ...] = ()


MILVUS = ('new_milvus',)
TRAINED: dict[str, FaissIndex] = {}


def faiss(factory, *, similarity='cosine_similarity', **options):
    """An empty FaissIndex, trained beforehand on other vectors, once."""
    key = f'{factory} {similarity} {options}'
    if key not in TRAINED:
        TRAINED[key] = FaissIndex(factory, similarity, **options)
        TRAINED[key].train(np.random.default_rng(9).normal(size=(3000, WIDTH)) + 0.3)
    return TRAINED[key].empty_copy()


KINDS = {
    'exact': Kind(lambda: ExactIndex()),
    'exact-inner-product': Kind(lambda: ExactIndex('inner_product'), inner_product),
    'exact-euclidean': Kind(lambda: ExactIndex('euclidean'), euclidean, scores=1e-3),
    'faiss-flat': Kind(lambda: FaissIndex()),
    'faiss-flat-inner-product': Kind(lambda: FaissIndex('Flat', 'inner_product'), inner_product),
    'faiss-flat-euclidean': Kind(lambda: FaissIndex('Flat', 'euclidean'), euclidean),
    'faiss-flat-rescored': Kind(lambda: FaissIndex(rescore=True, rescore_dtype='float32')),
    'faiss-sq8': Kind(lambda: faiss('SQ8'), cosine, 0.9, 0.02),
    'faiss-hnsw': Kind(lambda: FaissIndex('HNSW32', search_parameters=dict(efSearch=300)),
                       cosine, 0.99),
    'faiss-hnsw-euclidean': Kind(lambda: FaissIndex(
        'HNSW32', 'euclidean', search_parameters=dict(efSearch=300)), euclidean, 0.99, 1e-5),
    'faiss-ivf': Kind(lambda: faiss('IVF8,Flat', search_parameters=dict(nprobe=8)), cosine, 1.0),
    'faiss-ivf-euclidean': Kind(lambda: faiss(
        'IVF8,Flat', similarity='euclidean', search_parameters=dict(nprobe=8)), euclidean, 1.0,
        1e-4),
    'faiss-ivf-pq-rescored': Kind(lambda: faiss(
        'IVF4,PQ3', search_parameters=dict(nprobe=4), rescore=True, rescore_factor=10,
        rescore_dtype='float32'), cosine, 0.99),
    'faiss-rabitq-refined': Kind(lambda: faiss(
        'IVF4,RaBitQ,RFlat', search_parameters=dict(nprobe=4, k_factor_rf=20)), cosine, 0.99),
    'faiss-fast-scan': Kind(lambda: faiss(
        'IVF4,PQ6x4fs', similarity='inner_product', search_parameters=dict(nprobe=4),
        rescore=True, rescore_factor=20), inner_product, 0.95, 0.01),
    'milvus': Kind(lambda new: new(), fixtures=MILVUS),
    'milvus-inner-product': Kind(lambda new: new(similarity='inner_product'), inner_product,
                                 fixtures=MILVUS),
    'milvus-euclidean': Kind(lambda new: new(similarity='euclidean'), euclidean, scores=1e-3,
                             fixtures=MILVUS),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def index(kind, request):
    return kind.make(*map(request.getfixturevalue, kind.fixtures))


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(200, WIDTH)) + 0.3


def names(count, start=0):
    return [f'picture {row}' for row in range(start, start + count)]


def compare(kind, found, wanted):
    """Compare ids found, ``(Q, …)``, with the exact ones: all and in order, or a recall."""
    if kind.recall is None:
        assert found == wanted
        return
    assert [len(row) for row in found] == [len(row) for row in wanted]
    assert all(len(set(row)) == len(row) for row in found)
    hits = sum(len(set(row) & set(best)) for row, best in zip(found, wanted, strict=True))
    assert hits >= kind.recall * sum(map(len, wanted))


def expect(kind, index, held, queries, k, exclude=None):
    """Compare a search with a plain loop over what the index should hold: ``{id: vector}``."""
    ids = list(held)
    scores = kind.oracle(np.asarray(queries, dtype=np.float64),
                         np.stack([held[name] for name in ids]).astype(np.float64))
    found = index.search(queries, k, exclude=exclude)
    assert list(index.ids) == ids and len(index) == len(ids)
    gone = exclude or [[]] * len(scores)
    wanted = [[ids[i] for i in np.argsort(-row, kind='stable') if ids[i] not in gone[query]][:k]
              for query, row in enumerate(scores)]
    compare(kind, found.ids, wanted)
    for query, (row, got) in enumerate(zip(scores, found.ids, strict=True)):
        assert not set(got) & set(gone[query])
        values, indices = found.row(query)
        assert (values.diff() <= 0).all() and [ids[i] for i in indices.tolist()] == got
        np.testing.assert_allclose(values, [row[ids.index(name)] for name in got], rtol=1e-4,
                                   atol=kind.scores)


def test_add_remove_search(kind, index, vectors):
    assert isinstance(index, Index) and len(index) == 0
    queries = vectors[:5] + 0.01
    held = {}
    for start, stop in ((0, 3), (3, 90), (90, 200)):
        index.add(vectors[start:stop], names(stop - start, start))
        held.update(zip(names(stop - start, start), vectors[start:stop], strict=False))
        expect(kind, index, held, queries, 7)
    for gone in (names(1, 199), names(3, 0), names(100, 50)):
        index.remove(gone)
        held = {name: vector for name, vector in held.items() if name not in gone}
        expect(kind, index, held, queries, 7)
    index.add(vectors[60:70], names(10, 60))
    held.update(zip(names(10, 60), vectors[60:70], strict=False))
    expect(kind, index, held, queries, 7)
    assert 'picture 60' in index and 'picture 0' not in index


def test_exclude(kind, index, vectors):
    index.add(vectors, names(200))
    held = dict(zip(names(200), vectors, strict=False))
    expect(kind, index, held, vectors[:4], 5,
           exclude=[['picture 0'], [], ['picture 2', 'picture 7', 'nobody'], ['nobody']])
    found = index.search(vectors[:3], 200, exclude=['picture 0', None, 'nobody'])
    assert found.lengths.tolist() == [199, 200, 200]
    assert index.search(vectors[:1], 200, exclude=['picture 0']).indices.shape == (1, 199)


def test_filter(kind, index, vectors):
    index.add(vectors, names(200))
    mask = np.arange(200) % 3 == 0
    by_mask = index.search(vectors[:4], 10, filter=mask)
    by_name = index.search(vectors[:4], 10, filter=lambda name: int(name.split()[1]) % 3 == 0)
    scores = kind.oracle(vectors[:4], vectors)
    scores[:, ~mask] = -np.inf
    assert mask[by_mask.indices.numpy()].all()
    compare(kind, by_mask.indices.tolist(), np.argsort(-scores, axis=1)[:, :10].tolist())
    assert by_name.ids == by_mask.ids
    assert index.search(vectors[:2], 500, filter=torch.from_numpy(mask)).indices.shape == (2, 67)
    assert index.search(vectors[:2], 5, filter=lambda name: False).indices.shape == (2, 0)
    few = index.search(vectors[:2], 5, exclude=['picture 7', None],
                       filter=lambda name: name in ('picture 7', 'picture 150'))
    assert [sorted(row) for row in few.ids] == [['picture 150'], ['picture 150', 'picture 7']]


def test_range_search(kind, index, vectors):
    index.add(vectors, names(200))
    scores = kind.oracle(vectors[:4], vectors)
    threshold = float(np.quantile(scores, 0.9))
    found = index.range_search(vectors[:4], threshold, exclude=[None, 'picture 1', None, None])
    scores[1, 1] = -np.inf
    wanted = [[f'picture {i}' for i in np.argsort(-row) if row[i] >= threshold] for row in scores]
    if kind.recall is None:
        assert found.ids == wanted
    for query, (row, got) in enumerate(zip(scores, found.ids, strict=True)):
        values, indices = found.row(query)
        assert (values >= threshold).all() and (values.diff() <= 0).all()
        assert [f'picture {i}' for i in indices.tolist()] == got and len(set(got)) == len(got)
        true = row[indices.numpy()]
        assert (true >= threshold - kind.scores - 1e-4 * abs(threshold)).all()
        assert len(set(got) & set(wanted[query])) >= (kind.recall or 1) * len(wanted[query])
    everything = index.range_search(vectors[:4], -1e9, filter=np.arange(200) < 150)
    assert [len(row) for row in everything.ids] == [150] * 4
    assert index.range_search(vectors[:4], 1e9).ids == [[]] * 4


def test_k_above_the_size(index, vectors):
    index.add(vectors[:3], names(3))
    found = index.search(vectors[:2], 1000)
    assert found.indices.shape == (2, 3) and found.valid.all()


def test_duplicate_vectors_come_in_the_order_of_their_rows(kind, index):
    index.add(np.tile(np.arange(1.0, WIDTH + 1), (37, 1)), names(37))
    found = index.search(np.ones((1, WIDTH)), 5)
    assert found.ids == [names(5)] or kind.recall is not None
    assert found.indices[0].tolist() == sorted(set(found.indices[0].tolist()))
    assert found.lengths.tolist() == [5] and len(found.scores.unique()) == 1


def test_save_and_load(kind, index, vectors, tmp_path):
    ids = [f'Ünïcode/{row}\n' for row in range(200)]
    index.add(vectors, ids)
    index.remove(ids[10:20])
    index.save(tmp_path / 'index')
    assert os.listdir(tmp_path) == ['index']
    loaded = type(index).load(tmp_path / 'index')
    assert list(loaded.ids) == list(index.ids)
    before, after = index.search(vectors[:9], 20), loaded.search(vectors[:9], 20)
    assert torch.equal(before.indices, after.indices)
    # a server rounds as it likes
    torch.testing.assert_close(before.scores, after.scores, rtol=0,
                               atol=1e-6 if kind.fixtures else 0)
    loaded.add(vectors[10:20], ids[10:20])
    held = {name: vectors[int(name[8:])] for name in [*index.ids, *ids[10:20]]}
    expect(kind, loaded, held, vectors[:3], 8)


def test_save_and_load_empty(index, tmp_path):
    index.save(tmp_path / 'index')
    loaded = type(index).load(tmp_path / 'index')
    assert len(loaded) == 0
    loaded.add(np.ones((1, WIDTH)), ['a'])
    assert loaded.search(np.ones((1, WIDTH)), 1).ids == [['a']]


def test_empty(index, vectors):
    with pytest.raises(ValueError, match='empty'):
        index.search(vectors[:1], 1)
    index.add(vectors[:1], ['a'])
    index.remove(['a'])
    with pytest.raises(ValueError, match='empty'):
        index.range_search(vectors[:1], 0.0)
    index.add(vectors[:0], [])
    assert len(index) == 0


NAN = np.full((1, WIDTH), np.nan)


@pytest.mark.parametrize(('embeddings', 'ids', 'error', 'says'), [
    (np.ones((2, WIDTH)), ['x', 'x'], ValueError, "'x' is given more than once"),
    (np.ones((2, WIDTH)), ['x', 'picture 1'], ValueError, "Already in the index: 'picture 1'"),
    (np.ones((2, WIDTH)), ['x'], ValueError, '1 entries for 2 embeddings'),
    (np.ones((1, WIDTH)), 'x', TypeError, 'sequence of ids'),
    (np.ones((1, WIDTH)), None, TypeError, 'sequence of ids'),
    (np.ones((1, WIDTH + 1)), ['x'], ValueError, f'{WIDTH + 1} columns, but {WIDTH}'),
    (np.ones(WIDTH), ['x'], ValueError, 'two-dimensional'),
    (np.ones((1, WIDTH), dtype=int), ['x'], TypeError, 'floats'),
    (np.concatenate([np.ones((1, WIDTH)), NAN]), ['x', 'y'], ValueError, 'row 1 '),
])
def test_a_refused_add_changes_nothing(kind, index, vectors, embeddings, ids, error, says):
    index.add(vectors[:9], names(9))
    with pytest.raises(error, match=says):
        index.add(embeddings, ids)
    expect(kind, index, dict(zip(names(9), vectors, strict=False)), vectors[:2], 4)


@pytest.mark.parametrize(('ids', 'error', 'says'), [
    (['picture 1', 'nobody'], KeyError, "Not in the index: 'nobody'"),
    (['picture 1', 'picture 1'], ValueError, 'more than once'),
    ('picture 1', TypeError, 'sequence of ids'),
])
def test_a_refused_removal_changes_nothing(kind, index, vectors, ids, error, says):
    index.add(vectors[:9], names(9))
    with pytest.raises(error, match=says):
        index.remove(ids)
    expect(kind, index, dict(zip(names(9), vectors, strict=False)), vectors[:2], 4)


@pytest.mark.parametrize(('options', 'error', 'says'), [
    ({'k': 0}, ValueError, 'at least 1'),
    ({'k': 2.5}, TypeError, 'integer'),
    ({'queries': NAN}, ValueError, 'finite'),
    ({'queries': np.ones((1, WIDTH - 1))}, ValueError, 'columns'),
    ({'exclude': []}, ValueError, '0 entries for 1 queries'),
    ({'exclude': 'picture 1'}, TypeError, 'sequence'),
    ({'filter': np.ones(3, dtype=bool)}, ValueError, '9 rows'),
    ({'filter': np.ones(9)}, TypeError, 'booleans'),
    ({'filter': 'picture'}, TypeError, 'callable'),
])
def test_bad_search(index, vectors, options, error, says):
    index.add(vectors[:9], names(9))
    if isinstance(options.get('filter'), str) and index.capabilities.expressions:
        error, says = ValueError, 'picture'  # no expression that it understands
    with pytest.raises(error, match=says):
        index.search(**{'queries': np.ones((1, WIDTH)), 'k': 1, **options})


def test_missing_and_damaged_files(index, vectors, tmp_path):
    path = tmp_path / 'index'
    with pytest.raises(FileNotFoundError, match='index'):
        type(index).load(path)
    index.add(vectors, names(200))
    index.save(path)
    whole = path.read_bytes()
    for damaged in (b'', whole[:7], whole[:len(whole) // 2], whole[:-1],
                    *(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:]
                      for at in np.random.default_rng(0).integers(0, len(whole), 40))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match='damaged|holds|version'):
            type(index).load(path)

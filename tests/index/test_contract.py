"""One contract for every index, against a plain loop over float64 scores."""
from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, Index

WIDTH = 6
INDEXES = {
    'exact': lambda: ExactIndex(),
    'exact-inner-product': lambda: ExactIndex('inner_product'),
    'exact-euclidean': lambda: ExactIndex('euclidean'),
    'milvus': lambda new: new(),
    'milvus-inner-product': lambda new: new(similarity='inner_product'),
    'milvus-euclidean': lambda new: new(similarity='euclidean'),
}


def cosine(queries, rows):
    norm = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    return queries @ rows.T / norm


ORACLES = {
    'exact': cosine,
    'exact-inner-product': lambda q, g: q @ g.T,
    'exact-euclidean': lambda q, g: -np.linalg.norm(q[:, None] - g[None], axis=2),
}
ORACLES.update({kind.replace('exact', 'milvus'): score for kind, score in ORACLES.items()})


@pytest.fixture(params=INDEXES)
def kind(request):
    return request.param


@pytest.fixture
def index(kind, request):
    if kind.startswith('milvus'):
        return INDEXES[kind](request.getfixturevalue('new_milvus'))
    return INDEXES[kind]()


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(200, WIDTH)) + 0.3


def names(count, start=0):
    return [f'picture {row}' for row in range(start, start + count)]


def expect(kind, index, held, queries, k, exclude=None, allowed=lambda name: True):
    """Compare a search with a plain loop over what the index should hold: ``{id: vector}``."""
    ids = list(held)
    scores = ORACLES[kind](np.asarray(queries, dtype=np.float64),
                           np.stack([held[name] for name in ids]).astype(np.float64))
    found = index.search(queries, k, exclude=exclude)
    assert list(index.ids) == ids and len(index) == len(ids)
    for query, (row, got) in enumerate(zip(scores, found.ids, strict=True)):
        gone = exclude[query] if exclude else []
        order = [ids[i] for i in np.argsort(-row, kind='stable') if ids[i] not in gone]
        assert got == order[:k]
        values, indices = found.row(query)
        assert [ids[i] for i in indices.tolist()] == got
        np.testing.assert_allclose(values, [row[ids.index(name)] for name in got], rtol=1e-4,
                                   atol=1e-3 if kind.endswith('euclidean') else 1e-6)


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
    scores = ORACLES[kind](vectors[:4], vectors)
    scores[:, ~mask] = -np.inf
    assert by_mask.indices.tolist() == np.argsort(-scores, axis=1)[:, :10].tolist()
    assert by_name.ids == by_mask.ids
    assert index.search(vectors[:2], 500, filter=torch.from_numpy(mask)).indices.shape == (2, 67)
    assert index.search(vectors[:2], 5, filter=lambda name: False).indices.shape == (2, 0)


def test_range_search(kind, index, vectors):
    index.add(vectors, names(200))
    scores = ORACLES[kind](vectors[:4], vectors)
    threshold = float(np.quantile(scores, 0.9))
    found = index.range_search(vectors[:4], threshold, exclude=[None, 'picture 1', None, None])
    scores[1, 1] = -np.inf
    for row, got in zip(scores, found.ids, strict=True):
        assert got == [f'picture {i}' for i in np.argsort(-row) if row[i] >= threshold]


def test_k_above_the_size(index, vectors):
    index.add(vectors[:3], names(3))
    found = index.search(vectors[:2], 1000)
    assert found.indices.shape == (2, 3) and found.valid.all()


def test_duplicate_vectors_come_in_the_order_of_their_rows(index):
    index.add(np.tile(np.arange(1.0, WIDTH + 1), (37, 1)), names(37))
    assert index.search(np.ones((1, WIDTH)), 5).ids == [names(5)]


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
    torch.testing.assert_close(before.scores, after.scores, rtol=0, atol=0 if kind.startswith(
        'exact') else 1e-6)  # a server rounds as it likes
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
    (np.ones((2, WIDTH)), ['x'], ValueError, '2 embeddings but 1 ids'),
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

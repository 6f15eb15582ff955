"""The contract of an index as tests: subclass :class:`IndexContract`, and pytest runs it.

Each search is compared with a plain loop over float64 scores. An exact index must give the loop's
results in its order. An approximate one, with generous parameters, is held to a recall, and to
everything else: how many results there are, of which rows, in falling order, never one that was
removed, excluded or filtered out.
"""
from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch

from retrieval.index import Index

WIDTH = 6
NAN = np.full((1, WIDTH), np.nan)


def cosine(queries, rows):
    norm = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    return queries @ rows.T / norm


def inner_product(queries, rows):
    return queries @ rows.T


def euclidean(queries, rows):
    return -np.linalg.norm(queries[:, None] - rows[None], axis=2)


ORACLES = {'cosine_similarity': cosine, 'inner_product': inner_product, 'euclidean': euclidean}


def names(count, start=0):
    return [f'picture {row}' for row in range(start, start + count)]


class IndexContract:
    """The tests. A subclass gives :attr:`make`, or a fixture ``index`` of its own.

    Attributes:
        make: an empty index that takes rows ``(n, 6)`` at once.
        similarity: what it searches by.
        recall: None for exact results and order, else the share of them that must be found.
        tolerance: how far scores may be off.
        reloaded: how far those of a saved and loaded index may differ from its own.
    """

    make: ClassVar[Callable[[], Index]]
    similarity = 'cosine_similarity'
    recall: float | None = None
    tolerance = 1e-6
    reloaded = 0.0

    @pytest.fixture
    def index(self):
        return type(self).make()

    @pytest.fixture
    def vectors(self):
        return np.random.default_rng(0).normal(size=(200, WIDTH)) + 0.3

    def compare(self, found, wanted):
        """Compare ids found, ``(Q, …)``, with the exact ones: all and in order, or a recall."""
        if self.recall is None:
            assert found == wanted
            return
        assert [len(row) for row in found] == [len(row) for row in wanted]
        assert all(len(set(row)) == len(row) for row in found)
        hits = sum(len(set(row) & set(best)) for row, best in zip(found, wanted, strict=True))
        assert hits >= self.recall * sum(map(len, wanted))

    def expect(self, index, held, queries, k, exclude=None):
        """Compare a search with a plain loop over what the index should hold: ``{id: vector}``."""
        ids = list(held)
        scores = ORACLES[self.similarity](np.asarray(queries, dtype=np.float64),
                                          np.stack([held[name] for name in ids]).astype(np.float64))
        found = index.search(queries, k, exclude=exclude)
        assert list(index.ids) == ids and len(index) == len(ids)
        gone = exclude or [[]] * len(scores)
        wanted = [[ids[i] for i in np.argsort(-row, kind='stable') if ids[i] not in gone[query]][:k]
                  for query, row in enumerate(scores)]
        self.compare(found.ids, wanted)
        for query, (row, got) in enumerate(zip(scores, found.ids, strict=True)):
            assert not set(got) & set(gone[query])
            values, indices = found.row(query)
            assert (values.diff() <= 0).all() and [ids[i] for i in indices.tolist()] == got
            np.testing.assert_allclose(values, [row[ids.index(name)] for name in got], rtol=1e-4,
                                       atol=self.tolerance)

    def test_it_declares_what_it_is(self, index, vectors):
        kind = type(index)
        made, loaded = (inspect.signature(one).parameters for one in (kind, kind.load))
        assert isinstance(index, Index) and index.similarity.name == self.similarity
        assert made['similarity'].default == 'cosine_similarity'
        assert all(one.default is not inspect.Parameter.empty for one in made.values())
        anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in loaded.values())
        for name in kind.load_options:
            assert name in loaded or anything and name in made, name
        assert not kind.follows_device or 'device' in made and 'device' in kind.load_options
        assert index.gallery_digest is None
        assert index.width is None or index.capabilities.training
        index.add(vectors, names(200))
        assert index.width == WIDTH

    def test_add_remove_search(self, index, vectors):
        assert len(index) == 0
        queries = vectors[:5] + 0.01
        held = {}
        for start, stop in ((0, 3), (3, 90), (90, 200)):
            index.add(vectors[start:stop], names(stop - start, start))
            held.update(zip(names(stop - start, start), vectors[start:stop], strict=False))
            self.expect(index, held, queries, 7)
        for gone in (names(1, 199), names(3, 0), names(100, 50)):
            index.remove(gone)
            held = {name: vector for name, vector in held.items() if name not in gone}
            self.expect(index, held, queries, 7)
        index.add(vectors[60:70], names(10, 60))
        held.update(zip(names(10, 60), vectors[60:70], strict=False))
        self.expect(index, held, queries, 7)
        assert 'picture 60' in index and 'picture 0' not in index

    def test_rows_are_given_back(self, index, vectors):
        index.add(vectors, names(200))
        index.remove(names(3))
        try:
            given = index.reconstruct([5, 0, 196])
        except ValueError:
            assert self.recall is not None  # codes may give nothing back
            return
        wanted = vectors[[8, 3, 199]]
        assert given.shape == (3, WIDTH) and given.dtype == torch.float32
        if self.similarity == 'cosine_similarity':
            given = torch.nn.functional.normalize(given)
            wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        if self.recall is None:
            np.testing.assert_allclose(given, wanted, atol=1e-5)
        else:
            assert np.linalg.norm(given - wanted) < np.linalg.norm(wanted)

    def test_replace_fills_an_empty_index(self, index, vectors):
        index.replace(vectors[:30], names(30))
        self.expect(index, dict(zip(names(30), vectors, strict=False)), vectors[:2], 4)
        if not index.capabilities.expressions:
            with pytest.raises(ValueError, match='no metadata'):
                index.replace(vectors[:3], names(3), {'label': [1, 2, 3]})
        if not index.capabilities.persistent:
            with pytest.raises(ValueError, match='holds 30 rows'):
                index.replace(vectors[:3], names(3))

    def test_a_change_forgets_the_gallery(self, index, vectors):
        for change in (lambda: index.add(vectors[:5], names(5)),
                       lambda: index.remove(['picture 3'])):
            index.gallery_digest = 'abc'
            change()
            assert index.gallery_digest is None or index.capabilities.persistent

    def test_exclude(self, index, vectors):
        index.add(vectors, names(200))
        held = dict(zip(names(200), vectors, strict=False))
        self.expect(index, held, vectors[:4], 5,
                    exclude=[['picture 0'], [], ['picture 2', 'picture 7', 'nobody'], ['nobody']])
        found = index.search(vectors[:3], 200, exclude=['picture 0', None, 'nobody'])
        assert found.lengths.tolist() == [199, 200, 200]
        assert index.search(vectors[:1], 200, exclude=['picture 0']).indices.shape == (1, 199)

    def test_filter(self, index, vectors):
        index.add(vectors, names(200))
        mask = np.arange(200) % 3 == 0
        by_mask = index.search(vectors[:4], 10, filter=mask)
        by_name = index.search(vectors[:4], 10, filter=lambda name: int(name.split()[1]) % 3 == 0)
        scores = ORACLES[self.similarity](vectors[:4], vectors)
        scores[:, ~mask] = -np.inf
        assert mask[by_mask.indices.numpy()].all()
        self.compare(by_mask.indices.tolist(), np.argsort(-scores, axis=1)[:, :10].tolist())
        assert by_name.ids == by_mask.ids
        everything = index.search(vectors[:2], 500, filter=torch.from_numpy(mask))
        assert everything.indices.shape == (2, 67)
        assert index.search(vectors[:2], 5, filter=lambda name: False).indices.shape == (2, 0)
        few = index.search(vectors[:2], 5, exclude=['picture 7', None],
                           filter=lambda name: name in ('picture 7', 'picture 150'))
        assert [sorted(row) for row in few.ids] == [['picture 150'], ['picture 150', 'picture 7']]

    def test_range_search(self, index, vectors):
        index.add(vectors, names(200))
        scores = ORACLES[self.similarity](vectors[:4], vectors)
        threshold = float(np.quantile(scores, 0.9))
        found = index.range_search(vectors[:4], threshold, exclude=[None, 'picture 1', None, None])
        scores[1, 1] = -np.inf
        wanted = [[f'picture {i}' for i in np.argsort(-row) if row[i] >= threshold]
                  for row in scores]
        if self.recall is None:
            assert found.ids == wanted
        for query, (row, got) in enumerate(zip(scores, found.ids, strict=True)):
            values, indices = found.row(query)
            assert (values >= threshold).all() and (values.diff() <= 0).all()
            assert [f'picture {i}' for i in indices.tolist()] == got and len(set(got)) == len(got)
            true = row[indices.numpy()]
            assert (true >= threshold - self.tolerance - 1e-4 * abs(threshold)).all()
            assert len(set(got) & set(wanted[query])) >= (self.recall or 1) * len(wanted[query])
        everything = index.range_search(vectors[:4], -1e9, filter=np.arange(200) < 150)
        assert [len(row) for row in everything.ids] == [150] * 4
        if self.similarity == 'inner_product':
            assert index.range_search(vectors[:4], 1e9).ids == [[]] * 4
        else:
            with pytest.raises(ValueError, match='No similarity reaches the threshold'):
                index.range_search(vectors[:4], 1e9)
        with pytest.raises(ValueError, match='NaN'):
            index.range_search(vectors[:4], float('nan'))

    def test_k_above_the_size(self, index, vectors):
        index.add(vectors[:3], names(3))
        found = index.search(vectors[:2], 1000)
        assert found.indices.shape == (2, 3) and found.valid.all()

    def test_duplicate_vectors_come_in_the_order_of_their_rows(self, index):
        index.add(np.tile(np.arange(1.0, WIDTH + 1), (37, 1)), names(37))
        found = index.search(np.ones((1, WIDTH)), 5)
        assert found.ids == [names(5)] or self.recall is not None
        assert found.indices[0].tolist() == sorted(set(found.indices[0].tolist()))
        assert found.lengths.tolist() == [5] and len(found.scores.unique()) == 1

    def test_save_and_load(self, index, vectors, tmp_path):
        ids = [f'Ünïcode/{row}\n' for row in range(200)]
        index.add(vectors, ids)
        index.remove(ids[10:20])
        index.save(tmp_path / 'index')
        assert os.listdir(tmp_path) == ['index']
        loaded = type(index).load(tmp_path / 'index')
        assert list(loaded.ids) == list(index.ids)
        assert loaded.similarity.name == index.similarity.name
        before, after = index.search(vectors[:9], 20), loaded.search(vectors[:9], 20)
        assert torch.equal(before.indices, after.indices)
        torch.testing.assert_close(before.scores, after.scores, rtol=0, atol=self.reloaded)
        loaded.add(vectors[10:20], ids[10:20])
        held = {name: vectors[int(name[8:])] for name in [*index.ids, *ids[10:20]]}
        self.expect(loaded, held, vectors[:3], 8)

    def test_save_and_load_empty(self, index, tmp_path):
        index.save(tmp_path / 'index')
        loaded = type(index).load(tmp_path / 'index')
        assert len(loaded) == 0
        loaded.add(np.ones((1, WIDTH)), ['a'])
        assert loaded.search(np.ones((1, WIDTH)), 1).ids == [['a']]

    def test_a_file_knows_its_gallery(self, index, vectors, tmp_path):
        if index.capabilities.persistent:
            pytest.skip('its rows are known by their own digest')
        index.add(vectors[:5], names(5))
        index.gallery_digest = 'abc'
        index.save(tmp_path / 'index')
        assert type(index).load(tmp_path / 'index').gallery_digest == 'abc'

    def test_empty(self, index, vectors):
        with pytest.raises(ValueError, match='empty'):
            index.search(vectors[:1], 1)
        index.add(vectors[:1], ['a'])
        index.remove(['a'])
        with pytest.raises(ValueError, match='empty'):
            index.range_search(vectors[:1], 0.0)
        index.add(vectors[:0], [])
        assert len(index) == 0

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
    def test_a_refused_add_changes_nothing(self, index, vectors, embeddings, ids, error, says):
        index.add(vectors[:9], names(9))
        with pytest.raises(error, match=says):
            index.add(embeddings, ids)
        self.expect(index, dict(zip(names(9), vectors, strict=False)), vectors[:2], 4)

    @pytest.mark.parametrize(('ids', 'error', 'says'), [
        (['picture 1', 'nobody'], KeyError, "Not in the index: 'nobody'"),
        (['picture 1', 'picture 1'], ValueError, 'more than once'),
        ('picture 1', TypeError, 'sequence of ids'),
    ])
    def test_a_refused_removal_changes_nothing(self, index, vectors, ids, error, says):
        index.add(vectors[:9], names(9))
        with pytest.raises(error, match=says):
            index.remove(ids)
        self.expect(index, dict(zip(names(9), vectors, strict=False)), vectors[:2], 4)

    @pytest.mark.parametrize(('options', 'error', 'says'), [
        ({'k': 0}, ValueError, 'at least 1'),
        ({'k': 2.5}, TypeError, 'integer'),
        ({'queries': NAN}, ValueError, 'finite'),
        ({'queries': np.ones((1, WIDTH - 1))}, ValueError, 'columns'),
        ({'exclude': []}, ValueError, '0 entries for 1 queries'),
        ({'exclude': 'picture 1'}, TypeError, 'sequence'),
        ({'filter': np.ones(3, dtype=bool)}, ValueError, '9 rows'),
        ({'filter': np.ones(9)}, TypeError, 'booleans'),
        ({'filter': object()}, TypeError, 'callable'),
        ({'filter': 'picture'}, TypeError, 'gallery.where'),
    ])
    def test_bad_search(self, index, vectors, options, error, says):
        index.add(vectors[:9], names(9))
        if isinstance(options.get('filter'), str) and index.capabilities.expressions:
            error, says = ValueError, 'picture'  # no expression that it understands
        with pytest.raises(error, match=says):
            index.search(**{'queries': np.ones((1, WIDTH)), 'k': 1, **options})

    def test_missing_and_damaged_files(self, index, vectors, tmp_path):
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

    def test_an_answer_is_of_the_state_before_or_after_a_change(self, index, vectors):
        """Some threads search while one adds and removes; a row that stays is always found."""
        if isinstance(self.recall, float) and self.recall < 0.95:
            least = 0.7  # of a row by its own vector
        else:
            least = 0.95 if self.recall is not None else 1.0
        index.add(vectors[:100], names(100))
        stay, come, ended, errors, hits = set(names(100)), set(names(100, 100)), [], [], []

        def search(seed):
            rng = np.random.default_rng(seed)
            while not ended:
                rows = rng.integers(0, 100, 4)
                try:
                    found = index.search(vectors[rows], 3, exclude=[None, 'picture 3', None, []])
                    near = index.range_search(vectors[rows[:1]], -1e9)
                    assert set(near.ids[0]) in (stay, stay | come) or self.recall is not None
                    assert all(len(row) == 3 and set(row) <= stay | come for row in found.ids)
                    if self.similarity != 'inner_product':
                        hits.extend(row[0] == f'picture {one}' for row, one in
                                    zip(found.ids, rows, strict=True) if one != 3)
                    assert 'picture 5' in index
                except BaseException as error:
                    errors.append(error)
                    return

        threads = [threading.Thread(target=search, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                index.add(vectors[100:], names(100, 100))
                index.remove(names(100, 100))
        finally:
            ended.append(True)
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]
        assert not hits or np.mean(hits) >= least
        assert len(index) == 100

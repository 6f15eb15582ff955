"""What indexes share; the contract itself is in contract.py and test_contract.py."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex, check_gallery, gallery_digest
from retrieval.index.base import (
    Index,
    RowIds,
    as_range,
    exclusions,
    grow_to_threshold,
    named_similarity,
)
from retrieval.string_column import StringColumn
from retrieval.structures import Neighbors

from .toys import WIDTH, blobs, ids


class Plain(Index):
    """The least that an index gives."""

    def __init__(self, similarity='cosine_similarity'):
        super().__init__(similarity)
        self.names, self.rows = RowIds(), torch.zeros(0, 2)

    ids = property(lambda self: self.names.names)
    width = property(lambda self: self.rows.shape[1] if len(self) else None)

    def add(self, embeddings, ids):
        vectors = torch.as_tensor(embeddings).float()
        self.names.append(self.names.new(ids, len(vectors)))
        self.rows = torch.cat([self.rows, vectors])

    def remove(self, ids):
        raise NotImplementedError

    def search(self, queries, k, exclude=None, filter=None):
        scores = self.as_queries(queries) @ self.rows.T
        for query, names in enumerate(exclusions(exclude or [None] * len(scores), len(scores))):
            scores[query, [self.names.row(name) for name in names]] = -torch.inf
        found = scores.sort(dim=1, descending=True, stable=True)
        return Neighbors(found.values[:, :k], found.indices[:, :k], self.ids)

    def vectors(self):
        return self.rows


@pytest.fixture
def plain():
    index = Plain('inner_product')
    index.add([[1., 0.], [0., 1.], [1., 1.], [-1., 0.]], list('abcd'))
    return index


def test_the_rest_is_made_of_the_least(plain, tmp_path):
    assert len(plain) == 4 and 'c' in plain and 'x' not in plain
    assert repr(plain) == 'Plain(4 rows of width 2)'
    assert plain.reconstruct([3, 0]).tolist() == [[-1, 0], [1, 0]]
    found = plain.range_search(torch.tensor([[1., 0.], [0., 2.]]), 1.0, exclude=['a', None])
    assert found.ids == [['c'], ['b', 'c']]
    plain.gallery_digest = 'x'
    plain.save(tmp_path / 'index')
    again = Plain.load(tmp_path / 'index')
    assert list(again.ids) == list('abcd') and torch.equal(again.rows, plain.rows)
    assert again.gallery_digest == 'x' and again.similarity.name == 'inner_product'


def test_an_empty_index_is_saved_too(tmp_path):
    Plain().save(tmp_path / 'index')
    assert len(Plain.load(tmp_path / 'index')) == 0
    with pytest.raises(ValueError, match='empty: add embeddings'):
        Plain().as_queries(torch.eye(2))
    with pytest.raises(ValueError, match='holds'):
        ExactIndex.load(tmp_path / 'index')


def test_replace_fills_what_is_empty(plain):
    other = Plain()
    other.replace([[1., 2.]], ['x'])
    assert list(other.ids) == ['x']
    with pytest.raises(ValueError, match='keeps no metadata'):
        other.replace([[1., 2.]], ['x'], {'a': [1]})
    with pytest.raises(ValueError, match='Plain holds 4 rows: build a new one'):
        plain.replace([[1., 2.]], ['x'])


@pytest.mark.parametrize('names', [list('abcd'), StringColumn.from_strings('abcd')])
def test_rows_of_ids(names):
    rows = RowIds(names)
    assert (len(rows), rows.row('c'), rows.row('x')) == (4, 2, None)
    assert rows.rows(['d', 'a']) == [3, 0]
    rows.append(rows.new([7, 'e'], 2))
    assert rows.row('7') == 4 and list(rows.names) == [*'abcd', '7', 'e']
    rows.drop([0, 4])
    assert list(rows.names) == list('bcde') and rows.row('e') == 3 and rows.row('a') is None
    assert list(rows.column()) == list('bcde')


def test_ids_that_cannot_be_added_or_found():
    rows = RowIds(list('abc'))
    with pytest.raises(ValueError, match="Already in the index: 'b'"):
        rows.new(['x', 'b'], 2)
    with pytest.raises(ValueError, match='2'):
        rows.new(['x'], 2)
    with pytest.raises(KeyError, match="Not in the index: 'x'"):
        rows.rows(['a', 'x'])
    with pytest.raises(ValueError, match='a'):
        rows.rows(['a', 'a'])


@pytest.mark.parametrize(('exclude', 'wanted'), [
    ([None, 'b', 'x'], [[], [1], []]), ([['c', 'a', 'x'], None, ['b']], [[0, 2], [], [1]])])
def test_rows_that_are_excluded(exclude, wanted):
    sets = RowIds(list('abc')).excluded(exclude, 3)
    query, row = sets.block(0, 3)
    assert [sorted(row[query == one].tolist()) for one in range(3)] == wanted
    assert RowIds(list('abc')).excluded(None, 3) is None


@pytest.mark.parametrize(('exclude', 'error', 'says'), [
    ('abc', TypeError, r"write \['abc'\]"), (['a'], ValueError, '1 entries for 3 queries')])
def test_exclusions_that_do_not_fit(exclude, error, says):
    with pytest.raises(error, match=says):
        exclusions(exclude, 3)


def test_filters_become_masks():
    rows = RowIds(list('abc'))
    assert rows.allowed(None) is None
    for chosen in ([True, False, True], np.array([1, 0, 1], bool), lambda name: name != 'b'):
        assert rows.allowed(chosen).tolist() == [True, False, True]


@pytest.mark.parametrize(('chosen', 'error', 'says'), [
    ('label == 1', TypeError, 'filter=gallery.where'), (object(), TypeError, 'got object'),
    ([1, 0, 1], TypeError, 'must hold booleans'), ([True], ValueError, 'each of 3 rows')])
def test_filters_that_are_none(chosen, error, says):
    with pytest.raises(error, match=says):
        RowIds(list('abc')).allowed(chosen)


def test_similarities_with_a_name():
    assert named_similarity('euclidean', 'FaissIndex').name == 'euclidean'
    with pytest.raises(ValueError, match='A FaissIndex searches by .*ExactIndex takes any'):
        named_similarity(lambda queries, rows: queries @ rows.T, 'FaissIndex')


@pytest.mark.parametrize('most', [0, 5, 3000])
def test_a_range_grows_until_a_result_falls_below(most):
    scores = np.sort(np.random.default_rng(0).random((4, most)).astype(np.float32))[:, ::-1]
    scores[0] = 0.1 * scores[0]  # below from the first result on
    scores[1:2] += 1              # all above
    asked = []

    def best(queries, k):
        asked.append((queries.tolist(), k))
        return np.tile(np.arange(k), (len(queries), 1)), scores[queries, :k]

    found = grow_to_threshold(best, 4, most, 0.9)
    for (rows, values), row in zip(found, scores, strict=True):
        assert rows.tolist() == list(range(int((row >= 0.9).sum())))
        np.testing.assert_array_equal(values, row[row >= 0.9])
    if most == 3000:
        assert [k for _, k in asked] == [128, 512, 2048, 3000]
        assert [len(queries) for queries, _ in asked] == [4, 3, 1, 1]


def test_results_of_all_queries_stand_one_after_the_other():
    def part(*rows):
        return np.array(rows, np.int64), np.array(rows, np.float32) / 10
    found = as_range([part(2, 0), part(), part(1)], list('abc'))
    assert found.ids == [['c', 'a'], [], ['b']]
    assert found.row(0)[0].tolist() == pytest.approx([0.2, 0]) and len(found.row(1)[1]) == 0
    assert as_range([], []).ids == []


def test_a_digest_is_of_every_block(monkeypatch):
    vectors = torch.arange(12.).reshape(6, 2)
    whole = gallery_digest(vectors, ids(6))
    assert whole == gallery_digest(vectors.double().numpy(), ids(6))
    monkeypatch.setattr('retrieval.index.base._BLOCK', 4)
    assert gallery_digest(vectors, ids(6)) == whole
    vectors[5, 1] += 1
    assert gallery_digest(vectors, ids(6)) != whole


@pytest.mark.parametrize('kind', [ExactIndex, lambda: FaissIndex('HNSW8')])
def test_an_index_knows_its_gallery(kind, tmp_path):
    vectors = torch.from_numpy(blobs(20))
    index = kind()
    index.add(vectors, ids(20))
    with pytest.raises(ValueError, match='does not say over which'):
        check_gallery(index, vectors, ids(20), 'x')
    index.gallery_digest = gallery_digest(vectors, ids(20))
    index.save(tmp_path / 'index')
    loaded = type(index).load(tmp_path / 'index')
    check_gallery(loaded, vectors, ids(20), 'x')
    changed = vectors.clone()
    changed[19, WIDTH - 1] += 1e-6
    for other, names in ((changed, ids(20)), (vectors, ids(20)[::-1]), (vectors[:19], ids(19))):
        with pytest.raises(ValueError, match='belongs to another gallery'):
            check_gallery(loaded, other, names, 'x')
    loaded.remove(['#3'])
    assert loaded.gallery_digest is None


def test_ids_that_run_together_are_told_apart():
    vectors = torch.zeros(2, 1)
    assert gallery_digest(vectors, ['a', 'bc']) != gallery_digest(vectors, ['ab', 'c'])


def test_a_digest_is_of_every_number_and_every_id():
    vectors, names = torch.eye(5), list('abcde')
    known = {gallery_digest(vectors, names)}
    for row in range(5):
        other = vectors.clone()
        other[row, 2] += 1
        known |= {gallery_digest(other, names), gallery_digest(vectors, [*names[:row], 'x',
                                                                         *names[row + 1:]])}
    assert len(known) == 11

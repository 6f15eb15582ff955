"""Searches of a Milvus collection that is larger than what Milvus gives for one query."""
import uuid

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex
from retrieval.index.milvus.search import close_together, scored

ROWS, LIMIT = 17_000, 16_384


def names(count):
    return [f'picture {row}' for row in range(count)]


@pytest.fixture(scope='module')
def vectors():
    """Rows with 300 copies of one of them, far apart."""
    rows = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    rows[::57] = rows[0]
    return rows


@pytest.fixture(scope='module')
def large(milvus_uri, vectors):
    from retrieval.index import MilvusIndex
    index = MilvusIndex(milvus_uri, f'large_{uuid.uuid4().hex[:8]}', similarity='euclidean')
    index.add(vectors, names(ROWS))
    yield index
    index.close()


@pytest.fixture(scope='module')
def exact(vectors):
    index = ExactIndex('euclidean')
    index.add(vectors, names(ROWS))
    return index


def test_the_limit_on_results(large, exact, vectors):
    query = vectors[5:6] + 0.01
    assert large.search(query, LIMIT).ids[0][:200] == exact.search(query, LIMIT).ids[0][:200]
    assert large.search(query, LIMIT).indices.shape == (1, LIMIT)
    wanted = exact.search(query, ROWS).indices
    for k in (LIMIT + 1, ROWS, 10 ** 9):
        assert torch.equal(large.search(query, k).indices, wanted[:, :k])
    found = large.search(query, LIMIT, exclude=[names(2)]).indices
    assert found.tolist() == [[row for row in wanted[0].tolist() if row > 1][:LIMIT]]
    mask = np.arange(ROWS) < 9_000
    assert large.search(query, ROWS, filter=mask).indices.shape == (1, 9_000)


def test_equal_rows_come_in_their_order(large, vectors):
    copies = list(range(0, ROWS, 57))
    found = large.search(vectors[:1], 250)
    assert found.indices[0].tolist() == copies[:250] and len(set(found.scores[0].tolist())) == 1
    found = large.search(vectors[:2], 20, exclude=[names(400), None])
    assert found.indices[0].tolist() == [row for row in copies if row >= 400][:20]


@pytest.mark.parametrize('mask', [
    np.arange(ROWS) % 2 == 0, np.arange(ROWS) % 50 > 0, np.arange(ROWS) % 16 == 3,
], ids=['half', 'most', 'few'])
def test_masks_are_sent_whole(large, exact, vectors, mask):
    queries = vectors[:3] + 0.02
    found, wanted = large.search(queries, 60, filter=mask), exact.search(queries, 60, filter=mask)
    assert torch.equal(found.indices, wanted.indices)


def test_a_range_that_holds_more_than_milvus_gives(large, exact, vectors):
    queries = np.stack([vectors[1], np.full(4, 9.0, dtype=np.float32)])
    everything = large.range_search(queries, -100.0)
    assert [len(ids) for ids in everything.ids] == [ROWS, ROWS]
    assert sorted(everything.row(0)[1].tolist()) == list(range(ROWS))
    threshold = float(exact.search(queries[:1], 16_500).scores[0, -1] - 1e-4)
    found = large.range_search(queries, threshold, exclude=['picture 1', None])
    wanted = exact.range_search(queries, threshold, exclude=['picture 1', None])
    assert [set(ids) for ids in found.ids] == [set(ids) for ids in wanted.ids]
    assert len(found.ids[0]) > LIMIT and not len(found.ids[1])


def test_close_together():
    scores = np.array([1, 0.9, 0.9 - 1e-7, 0.8, 0.7, 0.7, 0.7, 0.6], dtype=np.float32)
    no, yes = False, True
    assert close_together(scores, 1).tolist() == [no]
    assert close_together(scores, 2).tolist() == [no, yes, yes]  # the third may be the second
    assert close_together(scores, 4).tolist() == [no, yes, yes, no]
    assert close_together(scores, 5).tolist() == [no, yes, yes, no, yes, yes, yes]
    assert close_together(scores[:0], 5).tolist() == []


@pytest.mark.parametrize(('metric', 'wanted'), [
    ('COSINE', [1, 0, 0.6, 0]), ('IP', [4, 0, 6, 0]), ('L2', [0, -8 ** 0.5, -80 ** 0.5, -2])])
def test_scored(metric, wanted):
    rows = np.array([[2, 0], [0, 2], [3, 4], [0, 0]], dtype=np.float32)
    rows[2] = [3, 4] if metric != 'L2' else [10, 4]
    np.testing.assert_allclose(scored(np.array([2, 0], dtype=np.float32), rows, metric), wanted,
                               rtol=1e-6)

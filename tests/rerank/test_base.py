"""The contract of every registered reranker, and what lists of them do."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.registry import RERANKERS
from retrieval.rerank import Reranker, first_state, rerank
from retrieval.structures import Neighbors

from .dense import clustered

VECTORS, _ = clustered(150, 16)
NAMES = sorted(name for name, kind in RERANKERS.module_dict.items()
               if kind.__module__.startswith('retrieval.rerank'))


BLANK = [np.zeros((8, 8), np.uint8)] * len(VECTORS)  # for those that compare pictures


def reranked(name, queries, own_rows, k=10, gallery=VECTORS):
    return rerank(queries, gallery, dict(type=name), k, own_rows=own_rows, query_pictures=BLANK,
                  pictures=BLANK)


@pytest.mark.parametrize('name', NAMES)
def test_results_are_few_finite_and_in_order(name):
    found = reranked(name, VECTORS[:20], range(20))
    assert found.indices.shape == (20, 10) and found.scores.dtype == torch.float32
    for query in range(20):
        scores, rows = found.row(query)
        assert query not in rows.tolist() and len(set(rows.tolist())) == 10
        assert bool(torch.isfinite(scores).all()) and bool((scores[1:] <= scores[:-1]).all())
        tied = scores[1:] == scores[:-1]
        assert bool((rows[1:] > rows[:-1])[tied].all())


@pytest.mark.parametrize('name', NAMES)
def test_a_result_does_not_depend_on_the_queries_beside_it(name):
    queries, own = torch.cat([VECTORS[:5], VECTORS[:5] + 0.1]), [*range(5), *[-1] * 5]
    together = reranked(name, queries, own)
    for query in range(10):
        alone = reranked(name, queries[query:query + 1], own[query:query + 1])
        assert torch.equal(alone.indices[0], together.indices[query])
        torch.testing.assert_close(alone.scores[0], together.scores[query], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_more_results_than_rows(name):
    found = reranked(name, VECTORS[:3], [0, 1, -1], None, VECTORS[:4])
    assert [len(found.row(query)[1]) for query in range(3)] == [3, 3, 4]


class Reversed(Reranker):
    def refine(self, state):
        found = state.neighbors
        return state.ranked(-found.scores.flip(1), found.indices.flip(1))


def test_steps_follow_one_another():
    plain = rerank(VECTORS[:4], VECTORS, [], 6)
    turned = rerank(VECTORS[:4], VECTORS, [Reversed()], 6)
    assert torch.equal(turned.indices, plain.indices.flip(1))
    twice = rerank(VECTORS[:4], VECTORS, [Reversed(), Reversed()], 6)
    assert torch.equal(twice.indices, plain.indices)


def test_a_plain_callable_is_a_step():
    def first_three(queries, gallery, neighbors):
        return Neighbors(neighbors.scores[:, :3], neighbors.indices[:, :3])

    found = rerank(VECTORS[:4], VECTORS, [first_three, Reversed()], 6)
    assert torch.equal(found.indices, rerank(VECTORS[:4], VECTORS, [], 3).indices.flip(1))


def test_what_is_kept_goes_with_the_embeddings():
    gallery, made = Gallery(VECTORS.clone()), []
    state = first_state(VECTORS[:2], gallery, 3, 'cosine_similarity')
    assert state.kept('key', lambda: made.append(1)) is None and state.prepared is state.prepared
    state.kept('key', lambda: made.append(2))
    first_state(VECTORS[:1], gallery, 9, 'cosine_similarity').kept('key', lambda: made.append(3))
    assert made == [1]
    first_state(VECTORS[:2], gallery, 3, 'euclidean').kept('key', lambda: made.append(4))
    gallery.embeddings[0] += 1
    state.kept('key', lambda: made.append(5))
    assert made == [1, 4, 5]


def test_settled_rows_lead_and_the_others_keep_their_order():
    gallery = Gallery(VECTORS)
    state = first_state(VECTORS[:1], gallery, 4, 'cosine_similarity')
    found = Neighbors(torch.tensor([[9., 8, 7, 6, -torch.inf]]),
                      torch.tensor([[30, 20, 10, 5, -1]]))
    scored = torch.tensor([[False, True, False, True, False]])
    settled = state.settled(found, torch.tensor([[0., 1, 0, 1, 0]]), scored).neighbors
    assert settled.indices.tolist() == [[5, 20, 30, 10]]
    assert settled.scores[0, :2].tolist() == [1, 1] and settled.scores[0, 2] < 1
    assert settled.scores[0, 2] - settled.scores[0, 3] == pytest.approx(2)


@pytest.mark.parametrize(('own_rows', 'says'), [
    ([0.5, 1], 'must be integers'), ([1], r'integers \(2,\)'), ([-2, 0], 'between -1 and 149'),
    ([0, 150], 'between -1 and 149, got 0 to 150')])
def test_own_rows_that_are_none(own_rows, says):
    with pytest.raises(ValueError, match=says):
        rerank(VECTORS[:2], VECTORS, [], 3, own_rows=own_rows)


def test_neighbors_of_other_queries():
    found = rerank(VECTORS[:2], VECTORS, [], 3)
    with pytest.raises(ValueError, match='neighbors of 2 queries, but 3 queries'):
        Reversed()(VECTORS[:3], Gallery(VECTORS), found)

"""k-reciprocal re-ranking, on sparse encodings of the gallery's rows."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..checks import real_number, whole_number
from ..ranking import PreparedGallery
from ..ranking.cpu import best_columns
from ..ranking.engine import engine_of
from ..registry import RERANKERS
from .base import Reranker, SearchState
from .neighbor_graph import neighbor_lists, pair_similarities, score_tiles

_TILE = 2 ** 20  # scores that a thread holds at once: 4 MB
_MOST_QUERIES = 128
_ROWS = 1024   # queries that are compared with their rows together
_BLOCK = 1024  # rows whose candidates are compared together: about 5000 comparisons a row


@RERANKERS.register_module()
class KReciprocal(Reranker):
    """k-reciprocal re-ranking (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal
    Encoding", CVPR 2017).

    The final distance is ``(1 - lambda_value) * J + lambda_value * d``: J the Jaccard distance of
    the k-reciprocal encodings, d the squared Euclidean distance over the query's largest one. All
    rows of the gallery take part, also those that the search did not find. The score is 1 less the
    final distance, in [0, 1].

    A query that is in the gallery is the node of its row. One that is not meets the graph of the
    gallery as it is: its neighbours' lists are not changed by it, so that the graph is made once
    and a result does not depend on the queries beside it. ``joint=True`` gives the published form
    for a whole set of queries instead, where they are nodes among the gallery's.

    Args:
        k1: how far the reciprocal neighbours reach.
        k2: over how many neighbours, with itself, an encoding is averaged; 1 for no averaging.
        lambda_value: the weight of the original distance, from 0 to 1.
        joint: the queries of a call are nodes of one graph with the gallery. The result then
            depends on which queries are given together, and the graph is made for each call: for
            evaluating a whole set at once (:func:`rerank`), not in a retriever's config, which is
            searched batch by batch.

    The similarity must be cosine or Euclidean. Cost: once for a gallery a search of it in itself;
    for a query one pass over the gallery, as in exact search, and some hundred inverted lists.
    Memory is O(N k).

    Example:
        >>> from retrieval.rerank import rerank
        >>> gallery = torch.tensor([[1., 0.], [.8, .6], [0., 1.]])
        >>> rerank(gallery, gallery, KReciprocal(k1=1, k2=1), k=1, own_rows=range(3)).indices
        tensor([[1],
                [0],
                [1]])
    """

    similarities = ('cosine_similarity', 'euclidean')

    def __init__(self, k1: int = 20, k2: int = 6, lambda_value: float = 0.3,
                 joint: bool = False) -> None:
        self.k1 = whole_number('k1', k1)
        self.k2 = whole_number('k2', k2)
        self.lambda_value = real_number('lambda_value', lambda_value, 0, 1)
        self.joint = bool(joint)

    def reason(self) -> str:
        return ('it weighs distances. Vectors of length 1 rank alike under all three, so '
                "'cosine_similarity' with normalised embeddings changes nothing.")

    def refine(self, state: SearchState) -> SearchState:
        nodes = self._nodes(state)
        if self.joint and (nodes < 0).any():
            graph, nodes = self._joint_graph(state, nodes)
            columns = graph.columns(len(state.gallery))
        else:
            graph, columns = state.kept((type(self), self.k1, self.k2),
                                        lambda: self._made(state))
        height = max(1, min(_MOST_QUERIES, _TILE // len(graph.gallery)))

        def search(start: int) -> tuple[np.ndarray, np.ndarray]:
            part = slice(start, start + height)
            queries = graph.gallery.prepare_queries(state.queries[part])
            return best_columns(self._block(graph, columns, queries, nodes[part],
                                            state.own_rows[part].numpy()), state.k)

        found = engine_of(graph.gallery).in_order(search, range(0, len(nodes), height))
        scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return state.ranked(torch.from_numpy(scores), torch.from_numpy(rows))

    def _made(self, state: SearchState) -> tuple[ReciprocalGraph, sparse.csc_matrix]:
        graph = build_graph(state.prepared, self.k1, self.k2)
        return graph, graph.columns(len(state.prepared))

    def _nodes(self, state: SearchState) -> np.ndarray:
        """``(Q,)``, the node that each query is, -1 for one that is not in the gallery.

        A query whose vector is no longer its row's (it was expanded) is none either.
        """
        own, embeddings = state.own_rows, state.gallery.embeddings
        apart = []
        for chosen, queries in zip(own.split(_ROWS), state.queries.split(_ROWS), strict=True):
            rows = embeddings[chosen.clamp(min=0).to(embeddings.device)].to(queries.device)
            apart.append(((queries - rows).norm(dim=1) > 1e-3 * rows.norm(dim=1)).cpu())
        return own.masked_fill(torch.cat(apart), -1).numpy()

    def _joint_graph(self, state: SearchState,
                     nodes: np.ndarray) -> tuple[ReciprocalGraph, np.ndarray]:
        embeddings = state.gallery.embeddings.to(state.queries.device)
        strangers = np.flatnonzero(nodes < 0)
        together = torch.cat([embeddings, state.queries[torch.from_numpy(strangers)]])
        nodes = nodes.copy()
        nodes[strangers] = len(embeddings) + np.arange(len(strangers))
        return build_graph(PreparedGallery(together, state.similarity), self.k1, self.k2), nodes

    def _block(self, graph: ReciprocalGraph, columns: sparse.csc_matrix, queries: Tensor,
               nodes: np.ndarray, own_rows: np.ndarray) -> np.ndarray:
        """The scores of all rows of the gallery for a block of prepared queries, ``(B, N)``."""
        (_, tile), = score_tiles(graph.gallery, queries, len(graph.gallery.vectors))
        encoded, farthest = graph.encoded[nodes], graph.farthest[nodes]
        outside = np.flatnonzero(nodes < 0)
        if len(outside):
            theirs, farthest[outside] = encode_queries(
                graph, queries[torch.from_numpy(outside).to(queries.device)], tile[outside],
                own_rows[outside])
            place = np.arange(len(nodes))
            place[outside] = len(nodes) + np.arange(len(outside))
            encoded = sparse.vstack([encoded, theirs], format='csr')[place]
        scores = graph.gallery.similarity.squared_distances(tile[:, :columns.shape[0]])
        scores /= np.maximum(farthest, 1e-30)[:, None]
        np.minimum(scores, 1, out=scores)
        scores *= -self.lambda_value
        scores += self.lambda_value
        shared = shared_weights(encoded, columns)
        shared /= 2 - shared  # 1 less the Jaccard distance
        shared *= 1 - self.lambda_value
        scores += shared
        known = np.flatnonzero(own_rows >= 0)
        scores[known, own_rows[known]] = -np.inf
        return scores


@dataclass
class ReciprocalGraph:
    """The neighbours and encodings of N rows that k-reciprocal re-ranking keeps; memory O(N k).

    Args:
        gallery: the rows.
        k1: how far the reciprocal neighbours reach.
        k2: over how many neighbours an encoding is averaged.
        reach: ``(N,)``, the similarity to the k1-th nearest other row; ``-inf`` with fewer.
        half_reach: the same for the half of k1.
        half_sets: ``(N, half + 1)`` int64, the reciprocal neighbours for half of k1; -1 for none.
        farthest: ``(N,)``, the largest squared distance to any row.
        plain: ``(N, N)`` CSR, the encodings; each sums to 1.
        encoded: the same, averaged over k2 neighbours.
    """

    gallery: PreparedGallery
    k1: int
    k2: int
    reach: np.ndarray
    half_reach: np.ndarray
    half_sets: np.ndarray
    farthest: np.ndarray
    plain: sparse.csr_matrix
    encoded: sparse.csr_matrix

    def columns(self, rows: int) -> sparse.csc_matrix:
        """The encodings of the first ``rows`` rows, by column: an inverted index."""
        return self.encoded[:rows].tocsc()


def half_of(k1: int) -> int:
    """Half of k1, halves to the even number, as the published code rounds."""
    return int(np.around(k1 / 2))


def build_graph(gallery: PreparedGallery, k1: int, k2: int) -> ReciprocalGraph:
    """The encodings of every row among all of them."""
    found = neighbor_lists(gallery, max(k1, k2 - 1))
    lists = np.concatenate([np.arange(len(gallery))[:, None], found.rows], axis=1)
    half = half_of(k1)
    half_sets = reciprocal_sets(lists[:, :half + 1])
    farthest = gallery.similarity.squared_distances(found.least)
    sets = expanded_sets(reciprocal_sets(lists[:, :k1 + 1]), half_sets)
    plain = _encoded(gallery, gallery.own_queries(), sets, farthest)
    averaged = (_averaging(lists[:, :k2], 0, len(lists)) @ plain).tocsr()
    return ReciprocalGraph(gallery, k1, k2, _reach(found.scores, k1),
                           _reach(found.scores, half), half_sets,
                           farthest, plain, averaged)


def _reach(scores: np.ndarray, count: int) -> np.ndarray:
    """The similarity that a further row must pass to be among the first ``count``."""
    if count > scores.shape[1]:
        return np.full(len(scores), -np.inf, np.float32)
    return scores[:, count - 1] if count else np.full(len(scores), np.inf, np.float32)


def reciprocal_sets(lists: np.ndarray) -> np.ndarray:
    """Those of each list ``(N, n)`` whose own list holds its row; -1 in the place of the others."""
    kept = np.empty_like(lists)
    for start in range(0, len(lists), _BLOCK):
        block = lists[start:start + _BLOCK]
        own = np.arange(start, start + len(block))[:, None, None]
        kept[start:start + _BLOCK] = np.where((lists[block] == own).any(axis=2), block, -1)
    return kept


def expanded_sets(sets: np.ndarray, half_sets: np.ndarray,
                  held_by_half: np.ndarray | None = None) -> np.ndarray:
    """The reciprocal sets with the half sets of their members that share more than two thirds.

    Args:
        sets: ``(B, n)`` int64, -1 for none.
        half_sets: ``(N, h)`` int64, -1 for none.
        held_by_half: ``(B, n)`` bool, for sets of rows that the half sets do not know: whether
            the row would be in the half set of each member, and the member in its.

    Returns:
        ``(B, m)`` int64, rising and without repeats; the places of the others hold N.
    """
    none, parts = len(half_sets), []
    for start in range(0, len(sets), _BLOCK):
        own = sets[start:start + _BLOCK]
        candidates = half_sets[own]
        candidates[own < 0] = -1
        shared = np.zeros(candidates.shape, bool)
        for column in range(own.shape[1]):  # a column at a time keeps the comparison small
            shared |= candidates == own[:, column, None, None]
        valid = candidates >= 0
        common, size = (shared & valid).sum(axis=2), valid.sum(axis=2)
        if held_by_half is not None:
            common = common + held_by_half[start:start + _BLOCK]
            size = size + held_by_half[start:start + _BLOCK]
        candidates[3 * common <= 2 * size] = -1
        together = np.concatenate([own, candidates.reshape(len(own), -1)], axis=1)
        parts.append(_without_repeats(together, none))
    width = max((part.shape[1] for part in parts), default=0)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])),
                                  constant_values=none) for part in parts])


def _without_repeats(sets: np.ndarray, none: int) -> np.ndarray:
    sets = np.where(sets < 0, none, sets)
    sets.sort(axis=1)
    sets[:, 1:][sets[:, 1:] == sets[:, :-1]] = none
    sets.sort(axis=1)
    return sets[:, :max(1, int((sets < none).sum(axis=1).max()))]


def _weights(gallery: PreparedGallery, queries: Tensor, query: np.ndarray, row: np.ndarray,
             farthest: np.ndarray) -> np.ndarray:
    """``exp(-d)`` of pairs of a prepared query and a row; d is the squared distance over the
    query's largest one.
    """
    similarities = pair_similarities(gallery, queries, query, row)
    distance = gallery.similarity.squared_distances(similarities)
    # At most 1 but for the rounding of two ways to one score, which tells where all rows are equal
    return np.exp(-np.minimum(distance / np.maximum(farthest[query], 1e-30), 1))


def _encoded(gallery: PreparedGallery, queries: Tensor, sets: np.ndarray, farthest: np.ndarray,
             own: float = 0) -> sparse.csr_matrix:
    """The weights of the members of sets ``(B, m)``, and ``own`` that of the query, to a sum of 1.

    The query's own weight counts in the sum alone.
    """
    valid = sets < len(gallery)
    counts = valid.sum(axis=1)
    query = np.repeat(np.arange(len(sets)), counts)
    weights = _weights(gallery, queries, query, sets[valid], farthest)
    sums = np.bincount(query, weights, len(sets)) + own
    return sparse.csr_matrix(((weights / sums[query]).astype(np.float32), sets[valid],
                              np.concatenate([[0], counts.cumsum()])),
                             shape=(len(sets), len(gallery)))


def _averaging(chosen: np.ndarray, own: int, rows: int) -> sparse.csr_matrix:
    """The matrix that averages over the rows ``chosen (B, n)``, -1 for none, and ``own`` others."""
    valid = chosen >= 0
    counts = valid.sum(axis=1)
    share = 1 / np.maximum(counts + own, 1)
    return sparse.csr_matrix((np.repeat(share, counts).astype(np.float32), chosen[valid],
                              np.concatenate([[0], counts.cumsum()])), shape=(len(chosen), rows))


def encode_queries(graph: ReciprocalGraph, queries: Tensor, similarities: np.ndarray,
                   own_rows: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """The encodings of queries that are not in the graph, by its rows.

    A row and a query are reciprocal neighbours where the row is among the query's first k1, and
    the query is nearer to the row than the row's k1-th neighbour. Each query is its own neighbour,
    too, which takes its share of the weight; no row of the graph knows it.

    Args:
        graph: it stays as it is.
        queries: ``(B, D)``, prepared.
        similarities: ``(B, N)``, of the queries to the graph's rows; they are written to.
        own_rows: ``(B,)`` int64, rows that are left out of the neighbours; -1 for none.

    Returns:
        ``(B, N)`` CSR, and the largest squared distances ``(B,)``.
    """
    gallery, k1 = graph.gallery, graph.k1
    farthest = gallery.similarity.squared_distances(similarities.min(axis=1))
    known = np.flatnonzero(own_rows >= 0)
    similarities[known, own_rows[known]] = -np.inf
    scores, rows = best_columns(similarities, max(k1, graph.k2 - 1))
    near = (rows >= 0) & (np.arange(rows.shape[1]) < k1)
    sets = np.where(near & (scores > graph.reach[rows]), rows, -1)
    held = near & (np.arange(rows.shape[1]) < half_of(k1)) & (scores > graph.half_reach[rows])
    plain = _encoded(gallery, queries, expanded_sets(sets, graph.half_sets, held), farthest, own=1)
    chosen = rows[:, :graph.k2 - 1]
    share = 1 / (1 + (chosen >= 0).sum(axis=1))
    averaged = _averaging(chosen, 1, len(gallery)) @ graph.plain
    return (averaged + sparse.diags(share.astype(np.float32)) @ plain).tocsr(), farthest


def shared_weights(encoded: sparse.csr_matrix, columns: sparse.csc_matrix) -> np.ndarray:
    """The sum over all columns of the lesser of each query's weight and each row's.

    Args:
        encoded: ``(B, M)``, the queries' encodings.
        columns: ``(N, M)``, the rows', by column.

    Returns:
        ``(B, N)`` float32.
    """
    shared = np.empty((encoded.shape[0], columns.shape[0]), np.float32)
    begins, ends = columns.indptr[:-1].tolist(), columns.indptr[1:].tolist()
    for query, (first, last) in enumerate(pairwise(encoded.indptr.tolist())):
        if first == last:  # a query without reciprocal neighbours shares nothing
            shared[query] = 0
            continue
        members = encoded.indices[first:last]
        bounds = [slice(begins[member], ends[member]) for member in members.tolist()]
        holders = np.concatenate([columns.indices[bound] for bound in bounds])
        weights = np.concatenate([columns.data[bound] for bound in bounds])
        own = np.repeat(encoded.data[first:last], np.diff(columns.indptr)[members])
        shared[query] = np.bincount(holders, np.minimum(weights, own, out=own), shared.shape[1])
    return shared

"""The k-reciprocal encodings of a gallery's rows, as sparse rows."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from torch import Tensor

from ..ranking import PreparedGallery
from ..ranking.selection import best_columns
from .neighbor_lists import neighbor_lists, pair_similarities

_BLOCK = 1024  # rows whose candidates are compared together: about 5000 comparisons a row


@dataclass
class ReciprocalGraph:
    """What k-reciprocal re-ranking keeps of N rows; memory O(N k).

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
    farthest = squared_distances(found.least, gallery)
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


def squared_distances(similarities: np.ndarray, gallery: PreparedGallery) -> np.ndarray:
    """The squared Euclidean distances of the compared vectors, for cosine and Euclidean; they are
    written over the similarities.
    """
    if gallery.similarity.name == 'euclidean':
        return np.square(similarities, out=similarities)
    np.multiply(similarities, -2, out=similarities)
    similarities += 2
    return np.maximum(similarities, 0, out=similarities)


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
    distance = squared_distances(pair_similarities(gallery, queries, query, row), gallery)
    return np.exp(-distance / np.maximum(farthest[query], 1e-30))


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
    farthest = squared_distances(similarities.min(axis=1), gallery)
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

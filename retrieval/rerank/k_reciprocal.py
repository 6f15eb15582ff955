"""k-reciprocal re-ranking on a sparse neighbour graph."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..ranking import PreparedGallery
from ..registry import RERANKERS
from .base import Reranker, number_between, positive_integer
from .cache import once_for
from .neighbor_lists import pair_similarities
from .reciprocal_graph import ReciprocalGraph, build_graph, encode_queries, squared_distances
from .state import SearchState, prepared_gallery

_BLOCK = 256  # queries whose candidates are ordered together


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
    for a query some hundred rows of inverted lists. Memory is O(N k).
    """

    similarities = ('cosine_similarity', 'euclidean')

    def __init__(self, k1: int = 20, k2: int = 6, lambda_value: float = 0.3,
                 joint: bool = False) -> None:
        self.k1 = positive_integer('k1', k1)
        self.k2 = positive_integer('k2', k2)
        self.lambda_value = number_between('lambda_value', lambda_value, 0, 1)
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
            graph, columns = once_for(state.gallery, self._key(state), lambda: self._made(state))
        state = state if state.searched else state.searched_again()
        rows: list[np.ndarray] = []
        scores: list[np.ndarray] = []
        for start in range(0, len(nodes), _BLOCK):
            part = slice(start, min(start + _BLOCK, len(nodes)))
            encoded, farthest = self._encoded(state, part, nodes[part], graph)
            found = self._candidates(state, part, encoded, columns)
            rows += found.rows
            scores += self._scores(state, part, found, farthest, graph)
        return state.ranked(_padded(rows, -1), _padded(scores, -np.inf))

    def _key(self, state: SearchState) -> tuple:
        return type(self), self.k1, self.k2, state.similarity, str(state.queries.device)

    def _made(self, state: SearchState) -> tuple[ReciprocalGraph, sparse.csc_matrix]:
        prepared = prepared_gallery(state.gallery, state.similarity, state.queries.device)
        graph = build_graph(prepared, self.k1, self.k2)
        return graph, graph.columns(len(prepared))

    def _nodes(self, state: SearchState) -> np.ndarray:
        """``(Q,)``, the node that each query is, -1 for one that is not in the gallery.

        A query whose vector is no longer its row's (it was expanded) is none either.
        """
        own = state.own_rows
        embeddings = state.gallery.embeddings
        rows = embeddings[own.clamp(min=0).to(embeddings.device)].to(state.queries.device)
        apart = (state.queries - rows).norm(dim=1) > 1e-3 * rows.norm(dim=1)
        return own.masked_fill(apart.cpu(), -1).numpy()

    def _joint_graph(self, state: SearchState,
                     nodes: np.ndarray) -> tuple[ReciprocalGraph, np.ndarray]:
        embeddings = state.gallery.embeddings.to(state.queries.device)
        strangers = np.flatnonzero(nodes < 0)
        together = torch.cat([embeddings, state.queries[torch.from_numpy(strangers)]])
        nodes = nodes.copy()
        nodes[strangers] = len(embeddings) + np.arange(len(strangers))
        return build_graph(PreparedGallery(together, state.similarity), self.k1, self.k2), nodes

    @staticmethod
    def _encoded(state: SearchState, part: slice, nodes: np.ndarray,
                 graph: ReciprocalGraph) -> tuple[sparse.csr_matrix, np.ndarray]:
        """The encodings of a block of queries ``(B, N)``, and their largest squared distances."""
        outside = np.flatnonzero(nodes < 0)
        encoded, farthest = graph.encoded[nodes], graph.farthest[nodes]
        if len(outside):
            chosen = torch.from_numpy(outside)
            theirs, farthest[outside] = encode_queries(
                graph, state.queries[part][chosen.to(state.queries.device)],
                state.own_rows[part][chosen])
            place = np.arange(len(nodes))
            place[outside] = len(nodes) + np.arange(len(outside))
            encoded = sparse.vstack([encoded, theirs], format='csr')[place]
        return encoded, farthest

    @staticmethod
    def _candidates(state: SearchState, part: slice, encoded: sparse.csr_matrix,
                    columns: sparse.csc_matrix) -> _Candidates:
        """Of every query the rows that were found, and those whose encodings share a part with it.
        """
        found = state.neighbors.indices[part].cpu().numpy()
        own_rows = state.own_rows[part].numpy()
        listed = np.zeros(columns.shape[0], bool)
        candidates = _Candidates([], [], [])
        for query, (rows, own) in enumerate(zip(found, own_rows, strict=True)):
            rows = rows[rows >= 0]
            shared = _shared(encoded, query, columns)
            if own >= 0:
                shared[own] = 0
            touched = np.flatnonzero(shared)
            listed[rows] = True
            further = touched[~listed[touched]]
            listed[rows] = False
            rows = np.concatenate([rows, further])
            candidates.rows.append(rows)
            candidates.shared.append(shared[rows])
            candidates.further.append(further)
        return candidates

    def _scores(self, state: SearchState, part: slice, candidates: _Candidates,
                farthest: np.ndarray, graph: ReciprocalGraph) -> list[np.ndarray]:
        counts = [len(rows) for rows in candidates.further]
        query = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        queries = graph.gallery.prepare_queries(state.queries[part])
        row = torch.from_numpy(np.concatenate(candidates.further))
        further = pair_similarities(graph.gallery, queries, query.to(queries.device),
                                    row.to(queries.device)).cpu().numpy()
        known = state.neighbors.scores[part].cpu().numpy()
        scores, begin = [], 0
        for number, (shared, count) in enumerate(zip(candidates.shared, counts, strict=True)):
            similarity = np.concatenate([known[number, :len(shared) - count],
                                         further[begin:begin + count]])
            begin += count
            distance = squared_distances(similarity, graph.gallery) / max(farthest[number], 1e-30)
            jaccard = 1 - shared / (2 - shared)
            scores.append(1 - (self.lambda_value * np.minimum(distance, 1)
                               + (1 - self.lambda_value) * jaccard))
        return scores


class _Candidates(NamedTuple):
    """For every query of a block: candidate rows, what their encodings share with the query's
    (the sum of the lesser weights), and those of the rows, the last, that no search found.
    """

    rows: list[np.ndarray]
    shared: list[np.ndarray]
    further: list[np.ndarray]


def _shared(encoded: sparse.csr_matrix, query: int, columns: sparse.csc_matrix) -> np.ndarray:
    """The sum over all columns of the lesser of a query's weight and each row's, ``(N,)``."""
    part = slice(encoded.indptr[query], encoded.indptr[query + 1])
    members, weights = encoded.indices[part], encoded.data[part]
    begins = columns.indptr[members]
    counts = columns.indptr[members + 1] - begins
    places = np.arange(counts.sum()) + np.repeat(begins - (counts.cumsum() - counts), counts)
    lesser = np.minimum(np.repeat(weights, counts), columns.data[places])
    return np.bincount(columns.indices[places], lesser, columns.shape[0])


def _padded(lists: list[np.ndarray], value: float) -> Tensor:
    """Lists as one tensor, the shorter ones filled up."""
    table = np.full((len(lists), max(map(len, lists))), value, lists[0].dtype)
    for row, values in zip(table, lists, strict=True):
        row[:len(values)] = values
    return torch.from_numpy(table)

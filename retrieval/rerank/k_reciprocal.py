"""k-reciprocal re-ranking on a sparse neighbour graph."""
from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..ranking import PreparedGallery
from ..registry import RERANKERS
from .base import Reranker, number_between, positive_integer
from .cache import once_for
from .neighbor_lists import similarities_to
from .reciprocal_graph import ReciprocalGraph, build_graph, encode_queries, squared_distances
from .state import SearchState, best, prepared_gallery

_BLOCK = 64  # queries that are compared with all of their candidates together


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
        parts = []
        for start in range(0, len(nodes), _BLOCK):
            part = slice(start, min(start + _BLOCK, len(nodes)))
            encoded, farthest = self._encoded(state, part, nodes[part], graph)
            parts.append(best(*self._scored(state, part, encoded, farthest, columns, graph),
                              state.k))
        return state.ranked(*(torch.cat(values) for values in zip(*parts, strict=True)))

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

    def _scored(self, state: SearchState, part: slice, encoded: sparse.csr_matrix,
                farthest: np.ndarray, columns: sparse.csc_matrix,
                graph: ReciprocalGraph) -> tuple[Tensor, Tensor]:
        """For a block of queries the rows ``(B, M)`` that were found, and those whose encoding
        shares something with the query's, and their scores.

        Any other row is behind as many found ones as are asked for: they are nearer.
        """
        found = state.neighbors.indices[part].cpu().numpy()
        candidates, overlaps = [], []
        for query, own in enumerate(state.own_rows[part].tolist()):
            shared = _shared(encoded, query, columns)
            chosen = shared != 0
            chosen[found[query][found[query] >= 0]] = True
            if own >= 0:
                chosen[own] = False
            candidates.append(np.flatnonzero(chosen))
            overlaps.append(shared[candidates[-1]])
        rows = _padded(candidates, -1)
        overlap = _padded(overlaps, 0)
        distance = squared_distances(_similarities(graph, state.queries[part], rows), graph.gallery)
        distance = np.minimum(distance / np.maximum(farthest, 1e-30)[:, None], 1)
        scores = 1 - (self.lambda_value * distance
                      + (1 - self.lambda_value) * (1 - overlap / (2 - overlap)))
        return torch.from_numpy(rows), torch.from_numpy(scores)


def _similarities(graph: ReciprocalGraph, queries: Tensor, rows: np.ndarray) -> np.ndarray:
    """Of queries ``(B, D)`` to their candidates ``(B, M)``, -1 for none."""
    wanted = np.zeros(len(graph.gallery), bool)
    wanted[rows[rows >= 0]] = True
    chosen = np.flatnonzero(wanted)
    place = np.zeros(len(wanted), np.int64)
    place[chosen] = np.arange(len(chosen))
    table = similarities_to(graph.gallery, queries, chosen).cpu().numpy()
    return np.take_along_axis(table, place[rows], axis=1)


def _padded(lists: list[np.ndarray], value: float) -> np.ndarray:
    """Lists as one array, the shorter ones filled up."""
    table = np.full((len(lists), max(map(len, lists))), value, lists[0].dtype)
    for row, values in zip(table, lists, strict=True):
        row[:len(values)] = values
    return table


def _shared(encoded: sparse.csr_matrix, query: int, columns: sparse.csc_matrix) -> np.ndarray:
    """The sum over all columns of the lesser of a query's weight and each row's, ``(N,)``."""
    part = slice(encoded.indptr[query], encoded.indptr[query + 1])
    members, weights = encoded.indices[part], encoded.data[part]
    begins = columns.indptr[members]
    counts = columns.indptr[members + 1] - begins
    places = np.arange(counts.sum()) + np.repeat(begins - (counts.cumsum() - counts), counts)
    lesser = np.minimum(np.repeat(weights, counts), columns.data[places])
    return np.bincount(columns.indices[places], lesser, columns.shape[0])

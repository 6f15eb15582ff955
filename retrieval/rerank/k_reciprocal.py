"""k-reciprocal re-ranking on a sparse neighbour graph."""
from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..ranking import PreparedGallery
from ..ranking.selection import best_columns
from ..ranking.threads import in_order
from ..registry import RERANKERS
from .base import Reranker, number_between, positive_integer
from .cache import once_for
from .neighbor_lists import score_tiles
from .reciprocal_graph import ReciprocalGraph, build_graph, encode_queries, squared_distances
from .state import SearchState, prepared_gallery

_TILE = 2 ** 20  # scores that a thread holds at once: 4 MB
_MOST_QUERIES = 128
_ROWS = 1024  # queries that are compared with their rows together


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
        height = max(1, min(_MOST_QUERIES, _TILE // len(graph.gallery)))

        def search(start: int) -> tuple[np.ndarray, np.ndarray]:
            part = slice(start, start + height)
            queries = graph.gallery.prepare_queries(state.queries[part])
            return best_columns(self._block(graph, columns, queries, nodes[part],
                                            state.own_rows[part].numpy()), state.k)

        threads = None if graph.gallery.on_cpu else 1
        found = in_order(search, range(0, len(nodes), height), threads)
        scores, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return state.ranked(torch.from_numpy(scores), torch.from_numpy(rows))

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
        scores = squared_distances(tile[:, :columns.shape[0]], graph.gallery)
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
        members = encoded.indices[first:last]
        bounds = [slice(begins[member], ends[member]) for member in members.tolist()]
        holders = np.concatenate([columns.indices[bound] for bound in bounds])
        weights = np.concatenate([columns.data[bound] for bound in bounds])
        own = np.repeat(encoded.data[first:last], np.diff(columns.indptr)[members])
        shared[query] = np.bincount(holders, np.minimum(weights, own, out=own), shared.shape[1])
    return shared

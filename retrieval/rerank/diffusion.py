"""Diffusion on the mutual nearest-neighbour graph of the gallery."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..checks import real_number, whole_number
from ..registry import RERANKERS
from .base import Reranker, SearchState
from .neighbor_graph import neighbor_lists

if TYPE_CHECKING:  # else where it is needed: whoever does not diffuse need not wait for it
    from scipy import sparse


@RERANKERS.register_module()
class Diffusion(Reranker):
    """Diffusion (Iscen et al., "Efficient Diffusion on Region Manifolds", CVPR 2017), truncated.

    Rows that are among each other's ``k`` nearest are joined with the weight
    ``max(s, 0) ** gamma``; S is these weights divided by the roots of both rows' sums. A query
    gives its ``query_k`` nearest rows y = ``max(s, 0) ** gamma``, and the rows are ranked by
    f = (1 - alpha) (I - alpha S)^-1 y, which conjugate gradients solve on the ``truncation``
    nearest rows of the query, with the weights of the whole graph (cut as by Yang et al., AAAI
    2019).

    Args:
        k: neighbours of a row in the graph.
        query_k: neighbours of a query.
        alpha: how far it spreads, below 1.
        gamma: the power of the similarities.
        truncation: of how many rows a query's graph consists; None for the whole gallery.
        iterations: of conjugate gradients, at most.

    Scores are f, at least 0. Rows that it does not reach, and those behind the truncated ones, keep
    the order of the search and follow, with scores moved below: of those only the order means
    something. The query itself is no node: where it is in the gallery, its row is left out of its
    graph. The similarity must be cosine. Cost: once for a gallery a search of it in itself; for a
    query a search and a few milliseconds.

    Example:
        >>> from retrieval.rerank import rerank
        >>> gallery = torch.tensor([[1., 0.], [.8, .6], [0., 1.]])
        >>> rerank([[1., .1]], gallery, Diffusion(k=1, query_k=1), k=2).indices
        tensor([[0, 1]])
    """

    similarities = ('cosine_similarity',)

    def __init__(self, k: int = 50, query_k: int = 10, alpha: float = 0.99, gamma: float = 3.0,
                 truncation: int | None = 1000, iterations: int = 20) -> None:
        self.k = whole_number('k', k)
        self.query_k = whole_number('query_k', query_k)
        self.alpha = real_number('alpha', alpha, 0, below=1)
        self.gamma = real_number('gamma', gamma, 0)
        self.truncation = None if truncation is None else whole_number('truncation', truncation)
        self.iterations = whole_number('iterations', iterations)
        if self.truncation is not None and self.truncation < self.query_k:
            raise ValueError(f'truncation must be at least query_k, {self.query_k}, got '
                             f'{truncation}.')

    def refine(self, state: SearchState) -> SearchState:
        graph = state.kept((type(self), self.k, self.gamma), lambda: self._graph(state))
        size = len(state.gallery) if self.truncation is None else self.truncation
        found = state.nearest(max(size, state.k))
        if not found.indices.shape[1]:
            return state.changed(found=found)
        rows, similarity = found.indices.cpu().numpy(), found.scores.cpu().numpy()
        scores = np.zeros(rows.shape, np.float32)
        for query in range(len(rows)):
            near = rows[query, :size]
            near = near[near >= 0]
            start = similarity[query, :len(near)].clip(min=0).astype(np.float64) ** self.gamma
            start[self.query_k:] = 0
            scores[query, :len(near)] = self._spread(graph, near, start)
        reached = torch.from_numpy(scores > 0)
        return state.settled(found, torch.from_numpy(scores).to(found.scores.device),
                             reached.to(found.scores.device))

    def _graph(self, state: SearchState) -> sparse.csr_matrix:
        """``(N, N)``, S."""
        from scipy import sparse

        found = neighbor_lists(state.prepared, self.k)
        count, width = found.rows.shape
        weights = np.maximum(found.scores, 0).astype(np.float64) ** self.gamma
        joined = sparse.csr_matrix((weights.ravel(), found.rows.ravel(),
                                    np.arange(count + 1) * width), shape=(count, count))
        mutual = joined.minimum(joined.T)  # 0 where only one has the other
        sums = np.asarray(mutual.sum(axis=1)).ravel()
        root = sparse.diags(np.where(sums > 0, np.maximum(sums, 1e-300) ** -0.5, 0))
        return (root @ mutual @ root).tocsr()

    def _spread(self, graph: sparse.csr_matrix, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
        from scipy import sparse
        from scipy.sparse import linalg

        inside = graph[rows][:, rows]
        system = sparse.identity(len(rows), format='csr') - self.alpha * inside
        solution, _ = linalg.cg(system, (1 - self.alpha) * start, rtol=1e-6,
                                maxiter=self.iterations)
        return solution

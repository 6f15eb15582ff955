"""Re-ranking with refined global descriptors, as in SuperGlobal."""
from __future__ import annotations

import torch
from torch import Tensor

from ..checks import real_number, whole_number
from ..ranking.topk import select
from ..registry import RERANKERS
from .base import Reranker, SearchState

_GATHERED = 2 ** 22  # numbers held together: 16 MB


@RERANKERS.register_module()
class SuperGlobalReranking(Reranker):
    """The re-ranking of SuperGlobal (Shao et al., "Global Features are All You Need for Image
    Retrieval and Reranking", ICCV 2023), by the rules of the official code.

    Of the first ``top_m`` rows each descriptor becomes the weighted mean of itself (weight 1) and
    its ``top_k`` nearest among them (``beta`` times their similarity). Their products with the
    query are a first score; the query is then replaced by the maximum, element by element, of the
    ``top_k + 1`` refined descriptors with the best first score, whose products are a second one.
    The score is the mean of both. Refined descriptors are not scaled to length 1 again, as in the
    official code, so the score can pass 1; negative similarities count as 0.

    Args:
        top_m: how many rows are re-ranked, whatever number of results is asked for; where a step
            before this one gave another order, at most as many as it gave.
        top_k: how many neighbours refine a descriptor.
        beta: the weight of the neighbours.
        pooling: ``'max'``, or ``'mean'`` for descriptors whose elements are negative as often as
            positive, of which a maximum means little.

    Rows behind the first ``top_m`` keep their order and follow, with scores moved below. The
    similarity must be cosine. Nothing is kept of the gallery. Cost: for a query ``top_m ** 2``
    products.

    Example:
        >>> from retrieval.rerank import rerank
        >>> gallery = torch.tensor([[1., 0.], [.8, .6], [0., 1.]])
        >>> rerank([[1., .1]], gallery, SuperGlobalReranking(top_m=2, top_k=1), k=3).indices
        tensor([[0, 1, 2]])
    """

    similarities = ('cosine_similarity',)

    def __init__(self, top_m: int = 400, top_k: int = 9, beta: float = 0.15,
                 pooling: str = 'max') -> None:
        self.top_m = whole_number('top_m', top_m)
        self.top_k = whole_number('top_k', top_k)
        self.beta = real_number('beta', beta, 0)
        if pooling not in ('max', 'mean'):
            raise ValueError(f"pooling must be 'max' or 'mean', got {pooling!r}.")
        self.pooling = pooling

    def refine(self, state: SearchState) -> SearchState:
        prepared = state.prepared
        queries = prepared.prepare_queries(state.queries)
        found = state.first(max(self.top_m, state.k))
        if not found.indices.shape[1]:
            return state.changed(found=found)
        rows = found.indices[:, :self.top_m].to(queries.device)
        scores = torch.zeros_like(found.scores)
        size = rows.shape[1] * (rows.shape[1] + 2 * queries.shape[1])
        height = max(1, _GATHERED // size)
        for start in range(0, len(queries), height):
            part = slice(start, start + height)
            scores[part, :self.top_m] = self._scores(queries[part], prepared.vectors,
                                                     rows[part]).to(scores.device)
        scored = found.valid.clone()
        scored[:, self.top_m:] = False
        return state.settled(found, scores, scored)

    def _scores(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
        """The new scores ``(B, M)`` of rows ``(B, M)``, -1 for none."""
        none = rows < 0
        refined = self._refined(gallery[rows.clamp(min=0)], none)
        first = torch.einsum('bd,bmd->bm', queries, refined).masked_fill_(none, -torch.inf)
        best, columns = select(first, min(self.top_k + 1, first.shape[1]))
        chosen = refined.gather(1, columns[:, :, None].expand(-1, -1, refined.shape[2]))
        missing = (best == -torch.inf)[:, :, None]
        if self.pooling == 'max':
            pooled = chosen.masked_fill(missing, -torch.inf).amax(dim=1)
        else:
            pooled = chosen.masked_fill(missing, 0).sum(dim=1) / (~missing).sum(dim=1).clamp(min=1)
        pooled = torch.where(none.all(dim=1, keepdim=True), 0, pooled)
        return (first + torch.einsum('bd,bmd->bm', pooled, refined)) / 2

    def _refined(self, vectors: Tensor, none: Tensor) -> Tensor:
        """The descriptors ``(B, M, D)`` as means with their nearest among them."""
        count = vectors.shape[1]
        products = vectors @ vectors.transpose(1, 2)
        products.masked_fill_(none[:, None, :], -torch.inf)
        products.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        means = vectors.clone()
        total = vectors.new_ones(vectors.shape[:2])
        near = min(self.top_k, count - 1)
        if near:
            flat, columns = select(products.reshape(-1, count), near)
            weights = (self.beta * flat.clamp(min=0)).reshape(*vectors.shape[:2], near)
            columns = columns.reshape(*vectors.shape[:2], near)
            for rank in range(near):  # one at a time: (B, M, D) at once, not near times that
                index = columns[:, :, rank, None].expand(-1, -1, vectors.shape[2])
                means += weights[:, :, rank, None] * vectors.gather(1, index)
            total += weights.sum(dim=2)
        return means / total[:, :, None]

"""Query expansion, which searches again with the mean of a query and what it found, and database
augmentation, which searches a gallery whose vectors are means of their neighbours.
"""
from __future__ import annotations

import torch
from torch import Tensor

from ..checks import real_number, whole_number
from ..gallery import Gallery
from ..ranking.prepared import prepared_rows
from ..registry import RERANKERS
from .base import Reranker, SearchState
from .neighbor_graph import neighbor_lists

_GATHERED = 2 ** 22  # numbers of the gallery's vectors copied together: 16 MB


class _WeightedMeans(Reranker):
    """A step that averages vectors with ``top_n`` rows, by powers ``alpha`` of similarities."""

    def __init__(self, top_n: int, alpha: float) -> None:
        self.top_n = whole_number('top_n', top_n)
        self.alpha = real_number('alpha', alpha, 0)
        self.similarities = ('cosine_similarity', 'inner_product') if self.alpha else None

    def reason(self) -> str:
        return ('weights are powers of a similarity that is 0 between strangers. Write alpha=0, '
                'which weighs all alike, as AverageQueryExpansion does.')


@RERANKERS.register_module()
class AlphaQueryExpansion(_WeightedMeans):
    """Alpha query expansion (Radenović et al., "Fine-tuning CNN Image Retrieval with No Human
    Annotation", TPAMI 2018).

    The query becomes the weighted mean of itself and the first ``top_n`` rows, and the gallery is
    searched again. A row's weight is ``max(s, 0) ** alpha`` with its similarity s to the query,
    which itself weighs ``s(q, q) ** alpha``: 1 for cosine. The means are those of the vectors that
    are compared: of unit length for cosine, as they are otherwise.

    Args:
        top_n: how many rows are added, whatever number of results is asked for; a gallery with
            fewer gives all it has, and so does a step before this one that gave another order.
        alpha: 0 weighs all alike (average query expansion), higher values trust only the nearest.

    Scores are similarities to the expanded query. With ``alpha`` above 0 the similarity must be
    cosine or inner product. Cost: one more search.

    Example:
        >>> from retrieval.rerank import rerank
        >>> gallery = torch.tensor([[1., 0.], [.8, .6], [.6, .8]])
        >>> rerank([[1., .1]], gallery, AlphaQueryExpansion(top_n=3, alpha=1)).indices
        tensor([[1, 0, 2]])
    """

    def __init__(self, top_n: int = 10, alpha: float = 3.0) -> None:
        super().__init__(top_n, alpha)

    def refine(self, state: SearchState) -> SearchState:
        gallery = prepared_vectors(state)
        queries = prepared_rows(state.queries, state.similarity, 'queries').to(gallery.device)
        rows = state.first(self.top_n).indices.to(gallery.device)
        expanded = weighted_means(queries, gallery, rows, self.alpha)
        return state.changed(queries=expanded.to(state.queries.device), found=None)


@RERANKERS.register_module()
class AverageQueryExpansion(AlphaQueryExpansion):
    """Average query expansion (Chum et al., "Total Recall", ICCV 2007): the query becomes the mean
    of itself and the first ``top_n`` rows, and the gallery is searched again.

    Args:
        top_n: how many rows are added; see :class:`AlphaQueryExpansion`.

    Example:
        >>> from retrieval.rerank import rerank
        >>> gallery = torch.tensor([[1., 0.], [.8, .6], [.6, .8]])
        >>> rerank([[1., .1]], gallery, AverageQueryExpansion(top_n=3), k=1).indices
        tensor([[1]])
    """

    def __init__(self, top_n: int = 5) -> None:
        super().__init__(top_n, 0)


@RERANKERS.register_module()
class DatabaseAugmentation(_WeightedMeans):
    """Database-side feature augmentation (Turcot and Lowe, "Better matching with fewer features",
    ICCV workshops 2009; Arandjelović and Zisserman, CVPR 2012; Gordo et al., IJCV 2017).

    Every vector of the gallery becomes the weighted mean of itself and its ``top_n`` nearest other
    rows, with the weights of :class:`AlphaQueryExpansion`, and the gallery is searched again, by
    exact search. This is done once for a gallery and kept as long as it.

    Args:
        top_n: how many rows are added to each; a smaller gallery gives all it has.
        alpha: 0 weighs all alike, higher values trust only the nearest.

    Scores are similarities to the augmented vectors. With ``alpha`` above 0 the similarity must be
    cosine or inner product. The steps after this one work on the augmented vectors: put it first.
    A query that is in the gallery does not find its own row, but that row has gone into the means
    of its neighbours, as it would in use. Cost: a search of the gallery in itself, once, and as
    much memory as the gallery takes.

    Example:
        >>> from retrieval.rerank import rerank
        >>> gallery = torch.tensor([[1., 0.], [.8, .6], [0., 1.]])
        >>> rerank([[1., .1]], gallery, DatabaseAugmentation(top_n=1), k=2).indices
        tensor([[0, 1]])
    """

    def __init__(self, top_n: int = 10, alpha: float = 3.0) -> None:
        super().__init__(top_n, alpha)

    def refine(self, state: SearchState) -> SearchState:
        gallery = state.kept((type(self), self.top_n, self.alpha), lambda: self._augmented(state))
        return state.changed(gallery=gallery, engine=None, found=None)

    def _augmented(self, state: SearchState) -> Gallery:
        """Of the same rows, ids and labels; it does not refer to the gallery it was made from,
        which would otherwise never be given up.
        """
        old = state.gallery
        vectors = prepared_vectors(state)
        near = torch.from_numpy(neighbor_lists(state.prepared, self.top_n).rows).to(vectors.device)
        own = torch.arange(len(vectors), device=near.device)[:, None]
        means = weighted_means(vectors, vectors, torch.cat([own, near], dim=1), self.alpha, True)
        return Gallery(means.to(old.embeddings.device), old.ids if old.identified else None,
                       old.labels, old.label_names, old.metadata)


def prepared_vectors(state: SearchState) -> Tensor:
    """The gallery's vectors as they are averaged, ``(N, D)`` float32."""
    if state.similarity.kind == 'product':
        return state.prepared.own_queries()
    return state.gallery.embeddings.to(state.queries.device)


def weighted_means(vectors: Tensor, gallery: Tensor, rows: Tensor, alpha: float,
                   inside: bool = False) -> Tensor:
    """The mean of each vector and some rows of the gallery, by powers of their products with it.

    Args:
        vectors: ``(B, D)``.
        gallery: ``(N, D)``.
        rows: ``(B, n)`` int64, -1 for none.
        alpha: the power.
        inside: the vectors are themselves among their rows.

    Returns:
        ``(B, D)``; a vector whose weights are all 0 stays as it is. The sum is taken in the order
        of the rows, so that rows that are one another's neighbours get equal means, bit by bit,
        where the weights are equal.
    """
    rows = torch.sort(rows, dim=1).values
    means = torch.empty_like(vectors)
    height = max(1, _GATHERED // ((rows.shape[1] + 1) * vectors.shape[1]))
    for start in range(0, len(vectors), height):
        own, found = vectors[start:start + height], rows[start:start + height]
        members, none = gallery[found.clamp(min=0)], found < 0
        if not inside:
            members = torch.cat([own[:, None], members], dim=1)
            none = torch.cat([none.new_zeros(len(own), 1), none], dim=1)
        weights = _weights(own, members, alpha).masked_fill_(none, 0)
        total = weights.sum(dim=1, keepdim=True)
        mean = (weights[:, :, None] * members).sum(dim=1) / total.clamp(min=1e-30)
        means[start:start + height] = torch.where(total > 0, mean, own)
    return means


def _weights(vectors: Tensor, members: Tensor, alpha: float) -> Tensor:
    """``max(s, 0) ** alpha`` over the largest of each row, ``(B, n)``."""
    if not alpha:
        return members.new_ones(members.shape[:2])
    products = (members * vectors[:, None]).sum(dim=2).clamp_(min=0)
    largest = products.amax(dim=1, keepdim=True)  # divided by, so that no power overflows
    return (products / largest.clamp(min=torch.finfo(torch.float32).tiny)) ** alpha

"""Database augmentation: a gallery whose vectors are means of their neighbours."""
from __future__ import annotations

import torch

from ..gallery import Gallery
from ..registry import RERANKERS
from .base import Reranker, number_between, positive_integer
from .cache import once_for
from .expansion import prepared_vectors, weighted_means
from .neighbor_lists import neighbor_lists
from .state import SearchState, prepared_gallery


@RERANKERS.register_module()
class DatabaseAugmentation(Reranker):
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
    """

    def __init__(self, top_n: int = 10, alpha: float = 3.0) -> None:
        self.top_n = positive_integer('top_n', top_n)
        self.alpha = number_between('alpha', alpha, 0)
        self.similarities = ('cosine_similarity', 'inner_product') if self.alpha else None

    def reason(self) -> str:
        return ('weights are powers of a similarity that is 0 between strangers. Write alpha=0, '
                'which weighs all alike.')

    def refine(self, state: SearchState) -> SearchState:
        gallery = once_for(state.gallery, (type(self), self.top_n, self.alpha, state.similarity),
                           lambda: self._augmented(state))
        return state.changed(gallery=gallery, engine=None, found=None)

    def _augmented(self, state: SearchState) -> Gallery:
        """Of the same rows, ids and labels; it does not refer to the gallery it was made from,
        which would otherwise never be given up.
        """
        old = state.gallery
        prepared = prepared_gallery(old, state.similarity, state.queries.device)
        vectors = prepared_vectors(state)
        near = torch.from_numpy(neighbor_lists(prepared, self.top_n).rows).to(vectors.device)
        own = torch.arange(len(vectors), device=near.device)[:, None]
        means = weighted_means(vectors, vectors, torch.cat([own, near], dim=1), self.alpha, True)
        return Gallery(means.to(old.embeddings.device), old.ids if old.identified else None,
                       old.labels, old.label_names, old.metadata)

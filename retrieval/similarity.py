"""Similarity functions by name. Larger is always more similar."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .registry import unknown_name

SimilarityFn = Callable[[Tensor, Tensor], Tensor]


def cosine_similarity(queries: Tensor, gallery: Tensor) -> Tensor:
    """Cosine of the angle, ``(Q, D), (N, D) -> (Q, N)``, in [-1, 1]; 0 for a zero vector."""
    return normalize(queries) @ normalize(gallery).T


def inner_product(queries: Tensor, gallery: Tensor) -> Tensor:
    """Inner product, ``(Q, D), (N, D) -> (Q, N)``."""
    return queries @ gallery.T


def euclidean(queries: Tensor, gallery: Tensor) -> Tensor:
    """Negative Euclidean distance, ``(Q, D), (N, D) -> (Q, N)``, at most 0.

    Computed as ``-sqrt(|q|² + |g|² - 2 q·g)`` after both are shifted by the gallery's mean, which
    changes no distance and loses fewer digits.
    """
    centre = gallery.mean(dim=0)
    queries, gallery = queries - centre, gallery - centre
    squares = queries.square().sum(1, keepdim=True) + gallery.square().sum(1)
    return -torch.addmm(squares, queries, gallery.T, alpha=-2).clamp_(min=0).sqrt_()


def normalize(vectors: Tensor) -> Tensor:
    """Rows scaled to length 1, ``(N, D) -> (N, D)``; a zero row stays zero."""
    return functional.normalize(vectors, dim=1)


@dataclass(frozen=True)
class Similarity:
    """A similarity, and how an engine may split it: prepare each side once, then multiply.

    Args:
        name: its name.
        function: ``(Q, D), (N, D) -> (Q, N)``.
        prepare: applied to the rows of each side once, so that ``function`` equals
            ``prepare(q) @ prepare(g).T``; None where it is no plain product.
    """

    name: str
    function: SimilarityFn
    prepare: Callable[[Tensor], Tensor] | None = None


def _same(vectors: Tensor) -> Tensor:
    return vectors


SIMILARITIES: dict[str, Similarity] = {
    'cosine_similarity': Similarity('cosine_similarity', cosine_similarity, normalize),
    'inner_product': Similarity('inner_product', inner_product, _same),
    'euclidean': Similarity('euclidean', euclidean),
}


def resolve_similarity(similarity: str | SimilarityFn | Similarity) -> Similarity:
    """The similarity of that name, or the callable ``(Q, D), (N, D) -> (Q, N)`` as one.

    Raises:
        ValueError: there is no similarity of that name; the message lists them.
        TypeError: it is neither a name nor callable.
    """
    if isinstance(similarity, Similarity):
        return similarity
    if isinstance(similarity, str):
        if similarity not in SIMILARITIES:
            raise ValueError(unknown_name('similarity function', similarity, SIMILARITIES))
        return SIMILARITIES[similarity]
    if callable(similarity):
        return Similarity(getattr(similarity, '__name__', type(similarity).__name__), similarity)
    raise TypeError('similarity_fn must be a name or a callable (Q, D), (N, D) -> (Q, N), got '
                    f'{type(similarity).__name__}. Names: {", ".join(sorted(SIMILARITIES))}.')

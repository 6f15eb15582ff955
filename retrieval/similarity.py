"""Similarity functions by name, and how they relate to distances. Larger is always more similar."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .registry import unknown_name

SimilarityFn = Callable[[Tensor, Tensor], Tensor]
Array = TypeVar('Array', Tensor, np.ndarray)


@dataclass(frozen=True)
class Similarity:
    """A similarity: a function of two sets of vectors, and what an engine may know of it.

    Args:
        name: its name.
        function: ``(Q, D), (N, D) -> (Q, N)``.
        kind: ``'product'`` where it is the inner product of prepared vectors, ``'distance'`` where
            it is their negative Euclidean distance, ``'function'`` where nothing is known.
        normalizes: it compares directions, so that vectors are prepared by scaling them to
            length 1.

    Example:
        >>> cosine = resolve_similarity('cosine_similarity')
        >>> cosine.function(torch.tensor([[3., 4.]]), torch.tensor([[6., 8.], [-4., 3.]]))
        tensor([[1., 0.]])
        >>> cosine.prepare(torch.tensor([[3., 4.]]))
        tensor([[0.6000, 0.8000]])
    """

    name: str
    function: SimilarityFn
    kind: Literal['product', 'distance', 'function'] = 'function'
    normalizes: bool = False

    @property
    def symmetric(self) -> bool:
        """A pair of vectors is known to have one score, whichever is the query."""
        return self.kind != 'function'

    def prepare(self, vectors: Tensor) -> Tensor:
        """Vectors ``(…, D)`` as they are multiplied or compared: of length 1 for cosine."""
        return normalize(vectors) if self.normalizes else vectors

    def of_pairs(self, vectors: Tensor, others: Tensor) -> Tensor:
        """The similarities ``(…)`` of prepared vectors ``(…, D)``, pair by pair.

        Each is summed alone, so that equal pairs tie. Not for a ``'function'``.

        Example:
            >>> SIMILARITIES['euclidean'].of_pairs(torch.zeros(2), torch.tensor([3., 4.]))
            tensor(-5.)
        """
        if self.kind == 'distance':
            return (vectors - others).square_().sum(dim=-1).sqrt_().neg_()
        return (vectors * others).sum(dim=-1)

    def from_squared_distances(self, squares: Array) -> Array:
        """The similarities of the squared Euclidean distances of prepared vectors, in their place.

        For cosine and the Euclidean distance; what rounding has put below 0 counts as 0.

        Example:
            >>> SIMILARITIES['euclidean'].from_squared_distances(torch.tensor([9., 0.25]))
            tensor([-3.0000, -0.5000])
            >>> SIMILARITIES['cosine_similarity'].from_squared_distances(torch.tensor([2., 0.5]))
            tensor([0.0000, 0.7500])
        """
        if self.normalizes:  # |q - g|² = 2 - 2 cos
            squares *= -0.5
            squares += 1
            return squares
        squares = _at_least_zero(squares)
        if isinstance(squares, np.ndarray):
            return np.negative(np.sqrt(squares, out=squares), out=squares)
        return squares.sqrt_().neg_()

    def squared_distances(self, similarities: Array) -> Array:
        """The squared Euclidean distances of prepared vectors, in the place of their similarities.

        For cosine and the Euclidean distance.

        Example:
            >>> SIMILARITIES['cosine_similarity'].squared_distances(torch.tensor([1., -1.]))
            tensor([0., 4.])
        """
        if not self.normalizes:
            similarities *= similarities
            return similarities
        similarities *= -2
        similarities += 2
        return _at_least_zero(similarities)


def _at_least_zero(values: Array) -> Array:
    """Values with 0 in the place of those below, in place."""
    if isinstance(values, np.ndarray):
        return np.maximum(values, 0, out=values)
    return values.clamp_(min=0)


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
    squares = torch.addmm(squares, queries, gallery.T, alpha=-2)
    return SIMILARITIES['euclidean'].from_squared_distances(squares)


def normalize(vectors: Tensor) -> Tensor:
    """Vectors ``(…, D)`` scaled to length 1; a zero vector stays zero."""
    return functional.normalize(vectors, dim=-1)


SIMILARITIES: dict[str, Similarity] = {
    'cosine_similarity': Similarity('cosine_similarity', cosine_similarity, 'product', True),
    'inner_product': Similarity('inner_product', inner_product, 'product'),
    'euclidean': Similarity('euclidean', euclidean, 'distance'),
}


def resolve_similarity(similarity: str | SimilarityFn | Similarity) -> Similarity:
    """The similarity of that name, or the callable ``(Q, D), (N, D) -> (Q, N)`` as one.

    Raises:
        ValueError: there is no similarity of that name; the message lists them.
        TypeError: it is neither a name nor callable.

    Example:
        >>> resolve_similarity('inner_product').kind
        'product'
        >>> resolve_similarity(lambda queries, gallery: queries @ gallery.T).kind
        'function'
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

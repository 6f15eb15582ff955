"""Similarity functions by name, and how they relate to distances. Larger is always more similar."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .registry import unknown_name

SimilarityFn = Callable[[Tensor, Tensor], Tensor]
Array = TypeVar('Array', Tensor, np.ndarray)
_AT_ONCE = 2 ** 20  # numbers in float64 that are held at once
_SAMPLED = 512      # rows whose middle is taken


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

        Each is summed alone, so that equal pairs tie; distances in float64, from the differences,
        so that equal vectors are at 0 and whole numbers exact. Not for a ``'function'``.

        Example:
            >>> SIMILARITIES['euclidean'].of_pairs(torch.zeros(2), torch.tensor([3., 4.]))
            tensor(-5.)
        """
        if self.kind == 'distance':
            return (0 - squares_of_pairs(vectors, others).sqrt_()).to(vectors.dtype)
        return self.clipped((vectors * others).sum(dim=-1))

    def clipped(self, scores: Array) -> Array:
        """Scores of this similarity, in their place, without what rounding puts outside of its
        range: cosine stays in [-1, 1].

        Example:
            >>> SIMILARITIES['cosine_similarity'].clipped(torch.tensor([1.0000002, 0.5]))
            tensor([1.0000, 0.5000])
        """
        if not self.normalizes:
            return scores
        if isinstance(scores, np.ndarray):
            return np.clip(scores, -1, 1, out=scores)
        return scores.clamp_(-1, 1)

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
            return self.clipped(squares)
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
    return (normalize(queries) @ normalize(gallery).T).clamp(-1, 1)


def inner_product(queries: Tensor, gallery: Tensor) -> Tensor:
    """Inner product, ``(Q, D), (N, D) -> (Q, N)``."""
    return queries @ gallery.T


def euclidean(queries: Tensor, gallery: Tensor) -> Tensor:
    """Negative Euclidean distance, ``(Q, D), (N, D) -> (Q, N)``, at most 0.

    Computed in float64 (:func:`distances`), and rounded once at the end: equal rows are at 0.
    """
    centre = centre_of(gallery)
    parts = [distances(queries, part, centre).to(queries.dtype)
             for part in gallery.split(max(1, _AT_ONCE // max(1, len(queries))))]
    return 0 - torch.cat(parts, dim=1) if parts else queries.new_zeros(len(queries), 0)


def distances(queries: Array, rows: Array, centre: Array, lengths: Array | None = None) -> Array:
    """The Euclidean distances ``(B, T)`` float64 of float vectors ``(B, D)`` and ``(T, D)``.

    They are ``sqrt(|q|² + |g|² - 2 q·g)`` after a shift that changes no distance. Where that loses
    more than a fraction of what float32 can tell, because two vectors are nearly the same, the
    distance is summed from the differences; so equal vectors are at 0. Of whole numbers below 2²⁰
    every step is exact.

    Args:
        queries, rows: as they were given, of any float type.
        centre: ``(D,)`` float64, from :func:`centre_of`.
        lengths: ``(T,)`` float64, the squared lengths of the shifted rows, where they are known.

    Example:
        >>> rows = torch.tensor([[3., 4.], [1000., 0.]])
        >>> distances(torch.tensor([[1000., 0.]]), rows, centre_of(rows))
        tensor([[997.0080,   0.0000]], dtype=torch.float64)
    """
    near, far = _double(queries) - centre, _double(rows) - centre
    own = (near * near).sum(1)[:, None]
    lengths = (far * far).sum(1) if lengths is None else lengths
    squares = (near * -2) @ far.T
    squares += lengths
    squares += own
    # An error of at most (D + 3) 2^-52 (|q|² + |g|²) must be below 2^-27 of the square.
    share = (near.shape[1] + 3) * 2.0 ** -25
    where: Any = np.where if isinstance(squares, np.ndarray) else torch.where
    query, row = where(squares <= share * (own + lengths.max())) if len(lengths) else ([], [])
    if len(query):
        close = squares[query, row] <= share * (own[query, 0] + lengths[row])
        query, row = query[close], row[close]
        step = max(1, _AT_ONCE // near.shape[1])
        for start in range(0, len(query), step):
            some, those = query[start:start + step], row[start:start + step]
            squares[some, those] = squares_of_pairs(queries[some], rows[those])
    if isinstance(squares, np.ndarray):
        return np.sqrt(squares, out=squares)
    return squares.sqrt()


def squares_of_pairs(vectors: Array, others: Array) -> Array:
    """The squared distances ``(…)`` float64 of vectors ``(…, D)``, from their differences.

    Example:
        >>> squares_of_pairs(torch.zeros(2), torch.tensor([3., 4.]))
        tensor(25., dtype=torch.float64)
    """
    apart = _double(vectors) - _double(others)
    return (apart * apart).sum(-1)


def centre_of(vectors: Tensor) -> Tensor:
    """A vector ``(D,)`` float64 in the middle of ``(N, D)``, to shift them by.

    It has eight digits of binary, and so takes no digit from whole numbers.

    Example:
        >>> centre_of(torch.tensor([[1., 5.], [2., 5.], [9., 5.]]))
        tensor([2., 5.], dtype=torch.float64)
    """
    if not len(vectors):
        return vectors.new_zeros(vectors.shape[1], dtype=torch.float64)
    sample = vectors[::max(1, len(vectors) // _SAMPLED)].double()
    mantissa, exponent = torch.frexp(sample.sort(dim=0).values[len(sample) // 2])
    return torch.ldexp((mantissa * 256).round_(), exponent.double() - 8)


def _double(values: Array) -> Array:
    return values.astype(np.float64) if isinstance(values, np.ndarray) else values.double()


def normalize(vectors: Tensor) -> Tensor:
    """Vectors ``(…, D)`` scaled to length 1, however short or long they are; a zero vector stays
    zero.

    Example:
        >>> normalize(torch.tensor([[3e-30, 4e-30], [3e30, 4e30], [0., 0.]]))
        tensor([[0.6000, 0.8000],
                [0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)  # squares neither vanish nor burst
    return functional.normalize(vectors / largest.masked_fill(largest == 0, 1), dim=-1)


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

"""What every reranker keeps to."""
from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..gallery import Gallery
from ..ranking import as_vectors
from ..similarity import Similarity, SimilarityFn, resolve_similarity
from ..structures import Neighbors
from .state import SearchState


class Reranker(ABC):
    """A step between the index and the result: ``(queries, gallery, neighbors) -> Neighbors``.

    Any callable with this contract may be registered in RERANKERS:

    - ``queries (Q, D)`` float32, the embeddings that were searched for; ``gallery`` the
      :class:`Gallery`; ``neighbors`` what the search, or the step before, found, ``(Q, k)``.
    - The result has at most k columns, scores float32, finite and descending in every row, the
      lower row first among equal scores, and short rows end in ``-inf`` and -1.
    - A query's result is a function of this query and the gallery, whatever the queries beside it,
      so that it depends neither on the batch size nor on the number of processes.
    - A query in the gallery never finds its own row.

    Steps of a list are applied in turn. Those that derive from this class hand a
    :class:`SearchState` on (:meth:`refine`), so that a step may also change what is searched for
    (query expansion) or the vectors that are searched in (database augmentation): those after it
    work on the changed ones. The steps that give a new order (k-reciprocal, diffusion, SuperGlobal)
    leave queries and vectors as they are.
    """

    similarities: tuple[str, ...] | None = None  # those that it works with; None for any

    @abstractmethod
    def refine(self, state: SearchState) -> SearchState:
        """The state after this step."""

    def check_similarity(self, similarity: Similarity) -> None:
        """Raise ValueError where the step makes no sense with this similarity."""
        if self.similarities is not None and similarity.name not in self.similarities:
            raise ValueError(
                f'{type(self).__name__} wants similarity_fn to be '
                f'{" or ".join(map(repr, self.similarities))}, got {similarity.name!r}: '
                f'{self.reason()}')

    def reason(self) -> str:
        """Why other similarities are refused, and what to write instead."""
        return f"set similarity_fn='{(self.similarities or ('',))[0]}'."

    def __call__(self, queries: Any, gallery: Gallery, neighbors: Neighbors,
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                 own_rows: Tensor | None = None) -> Neighbors:
        """This step alone.

        Args:
            queries: ``(Q, D)`` floats.
            gallery: the gallery that was searched.
            neighbors: what was found in it.
            similarity: with which it was searched.
            own_rows: ``(Q,)`` int64, the row of each query in the gallery, -1 where there is none.

        Raises:
            TypeError, ValueError: the arguments do not fit each other, or the similarity does not
                fit the step.
        """
        if len(neighbors) != len(queries):
            raise ValueError(f'There are neighbors of {len(neighbors)} queries, but {len(queries)} '
                             'queries.')
        state = first_state(queries, gallery, neighbors.indices.shape[1], similarity, own_rows,
                            found=neighbors, gallery_ids=neighbors.gallery_ids)
        self.check_similarity(state.similarity)
        return self.refine(state).neighbors if len(state.queries) and state.k else neighbors


def first_state(queries: Any, gallery: Gallery, k: int, similarity: str | SimilarityFn | Similarity,
                own_rows: Any = None, **fields: Any) -> SearchState:
    """The state before the first step.

    Raises:
        TypeError, ValueError: the arguments do not fit each other.
    """
    vectors = as_vectors(queries, 'queries', gallery.dim)
    own = torch.full((len(vectors),), -1) if own_rows is None else torch.as_tensor(own_rows)
    own = own.to(torch.int64) if own.numel() == 0 else own  # an empty list has no type
    if own.dtype.is_floating_point or own.dtype == torch.bool or own.shape != (len(vectors),):
        raise ValueError(f'own_rows must be integers ({len(vectors)},), the row of each query in '
                         f'the gallery or -1, got {own.dtype} {tuple(own.shape)}.')
    if len(own) and (int(own.min()) < -1 or int(own.max()) >= len(gallery)):
        raise ValueError(f'own_rows must lie between -1 and {len(gallery) - 1}, got '
                         f'{int(own.min())} to {int(own.max())}.')
    return SearchState(vectors, gallery, resolve_similarity(similarity),
                       own.to(torch.int64).cpu(), k, **fields)


def positive_integer(name: str, value: Any) -> int:
    """``value`` as an integer of at least 1. Raises TypeError or ValueError where it is none."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f'{name} must be an integer of at least 1, got {value!r}.') from error
    if isinstance(value, bool) or number < 1:
        raise ValueError(f'{name} must be an integer of at least 1, got {value!r}.')
    return number


def number_between(name: str, value: Any, low: float, high: float = math.inf,
                   open_end: bool = False) -> float:
    """``value`` as a float in that interval. Raises TypeError or ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{name} must be a number, got {value!r}.')
    inside = low <= value < high if open_end else low <= value <= high
    if not inside or not math.isfinite(value):
        bounds = (f'at least {low:g}' if high == math.inf else
                  f'from {low:g} to {"below " if open_end else ""}{high:g}')
        raise ValueError(f'{name} must be {bounds}, got {value!r}.')
    return float(value)

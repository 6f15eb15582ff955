"""Every row of a gallery that is similar enough."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..progress import counted
from ..similarity import Similarity, SimilarityFn, resolve_similarity
from .engine import engine_of
from .prepared import TILE_BUDGET, as_prepared
from .row_sets import Exclusion, as_mask, as_row_sets, leave_out

_ROUNDING = 1e-6  # a cosine of 1 may be computed as a little more


@dataclass
class RangeNeighbors:
    """The results of a range search, best first, a different number for every query.

    Args:
        offsets: ``(Q + 1,)`` int64; the results ``offsets[i]:offsets[i + 1]`` belong to query i.
        scores: ``(M,)`` float32, descending for each query; the lower row first among equals.
        indices: ``(M,)`` int64, rows of the gallery.
        gallery_ids: the id of every row of the gallery, or None.

    Example:
        >>> found = RangeNeighbors(torch.tensor([0, 2, 2]), torch.tensor([.9, .8]),
        ...                        torch.tensor([1, 0]), ['a', 'b'])
        >>> found.ids
        [['b', 'a'], []]
    """

    offsets: Tensor
    scores: Tensor
    indices: Tensor
    gallery_ids: Sequence[str] | np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One ``(scores, indices)`` for each query."""
        return (self.row(query) for query in range(len(self)))

    def row(self, query: int) -> tuple[Tensor, Tensor]:
        """The scores and indices of one query."""
        part = slice(int(self.offsets[query]), int(self.offsets[query + 1]))
        return self.scores[part], self.indices[part]

    @property
    def ids(self) -> list[list[str]]:
        """The ids of the results, a list for each query."""
        names = self.gallery_ids
        return [[str(i if names is None else names[i]) for i in indices.tolist()]
                for _, indices in self]


def within(queries: Any, gallery: Any, threshold: float,
           similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
           exclude: Exclusion | None = None, mask: Any = None,
           tile_budget: int = TILE_BUDGET) -> RangeNeighbors:
    """Every row whose similarity is at least ``threshold``, for every query.

    The arguments are those of :func:`retrieval.ranking.topk`. The result takes the memory of what
    is found; the search that of one tile.

    Raises:
        TypeError, ValueError: vectors, threshold, exclusion or mask are wrong.

    Example:
        >>> gallery = torch.tensor([[1., 0.], [0., 1.], [3., 4.]])
        >>> [rows.tolist() for _, rows in within([[1., 0.], [0., 1.]], gallery, 0.7)]
        [[0], [1, 2]]
    """
    prepared = as_prepared(gallery, similarity)
    threshold = checked_threshold(threshold, prepared.similarity)
    vectors = prepared.prepare_queries(queries)
    allowed = as_mask(mask, len(prepared))
    sets = as_row_sets(exclude, len(vectors), len(prepared))
    height, width = prepared.tiles(len(vectors), tile_budget)
    engine, tiles = engine_of(prepared), list(prepared.column_tiles(width))

    def search(start: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        block, found = vectors[start:start + height], []
        left_out = None if sets is None else sets.block(start, start + len(block))
        for first, tile in engine.score_tiles(prepared, block, tiles):
            leave_out(tile, left_out, first, allowed)
            scores = torch.as_tensor(tile)
            query, row = ((scores >= threshold) & (scores > -torch.inf)).nonzero(as_tuple=True)
            found.append((query + start, row + first, scores[query, row]))
        return found

    starts = range(0, len(vectors), height)
    found = list(chain.from_iterable(
        counted('Ranking', engine.in_order(search, starts), len(starts))))
    return _joined(found, len(vectors), vectors.device)


def _joined(found: list[tuple[Tensor, Tensor, Tensor]], num_queries: int,
            device: torch.device) -> RangeNeighbors:
    none = torch.zeros(0, dtype=torch.int64, device=device)
    query, row, scores = (torch.cat(parts) for parts in zip(
        *found, (none, none, none.float()), strict=True))
    order = torch.sort(row, stable=True).indices
    order = order[torch.sort(scores[order], descending=True, stable=True).indices]
    order = order[torch.sort(query[order], stable=True).indices]
    counts = torch.bincount(query, minlength=num_queries)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return RangeNeighbors(offsets, scores[order], row[order])


def checked_threshold(threshold: Any, similarity: str | SimilarityFn | Similarity) -> float:
    """``threshold`` as a float.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN, or no similarity reaches it: of the cosine 1 is the largest, of
            negative Euclidean distances 0.

    Example:
        >>> checked_threshold(0.95, 'cosine_similarity')
        0.95
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float, np.number)):
        raise TypeError(f'The threshold must be a number, got {threshold!r}.')
    if math.isnan(threshold):
        raise ValueError('The threshold is NaN.')
    chosen = resolve_similarity(similarity)
    highest = 1.0 if chosen.normalizes else 0.0 if chosen.kind == 'distance' else math.inf
    if threshold > highest + _ROUNDING:
        other = f'{-threshold:g}, a negative distance' if chosen.kind == 'distance' else \
            f'{threshold / 100:g} for {threshold:g} percent' if 2 <= threshold <= 100 else \
            'a number from -1 to 1'
        raise ValueError(f'No similarity reaches the threshold {threshold:g}: {chosen.name} is '
                         f'at most {highest:g}. Write {other}.')
    return float(threshold)

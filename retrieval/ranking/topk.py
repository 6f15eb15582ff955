"""The best rows of a gallery for every query, exactly, in tiles."""
from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..similarity import Similarity, SimilarityFn
from ..structures import Neighbors
from .rowsets import RowSets
from .scoring import TILE_BUDGET, PreparedGallery, as_prepared

Exclusion = RowSets | Tensor | Sequence[Any]


def topk(queries: Any, gallery: Any, k: int | None,
         similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
         exclude: Exclusion | None = None, mask: Any = None,
         tile_budget: int = TILE_BUDGET) -> Neighbors:
    """The ``k`` most similar rows for every query; among equal scores the lower row comes first.

    Args:
        queries: ``(Q, D)`` floats.
        gallery: ``(N, D)`` floats, or a :class:`PreparedGallery` (``similarity`` is then its).
        k: how many; None for all. More than there are gives what there are.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        exclude: rows that a query must not find: ``(Q,)`` or ``(Q, E)`` int64 where -1 stands for
            none, a list of rows for every query, or a :class:`RowSets`.
        mask: ``(N,)`` bool, the rows that may be found at all.
        tile_budget: how many scores are held at once.

    Returns:
        Scores ``(Q, w)`` float32 descending and rows ``(Q, w)`` int64, where ``w`` is the largest
        number of results that any query has; shorter rows end in ``-inf`` and -1.

    Raises:
        TypeError, ValueError: vectors, k, exclusion or mask are wrong, or the gallery is empty.
    """
    prepared = as_prepared(gallery, similarity)
    vectors = prepared.prepare_queries(queries)
    k = len(prepared) if k is None else min(checked_k(k), len(prepared))
    allowed = as_mask(mask, len(prepared))
    sets = as_row_sets(exclude, len(vectors), len(prepared))
    found = len(prepared) if allowed is None else int(allowed.sum())
    k = min(k, found)
    scores = torch.full((len(vectors), k), -torch.inf, device=vectors.device)
    indices = torch.full((len(vectors), k), -1, dtype=torch.int64, device=vectors.device)
    rows, columns = prepared.tiles(len(vectors), tile_budget)
    for start in range(0, len(vectors) if k else 0, rows):
        stop = min(start + rows, len(vectors))
        left_out = None if sets is None else sets.block(start, stop)
        best = _best_of_block(prepared, vectors[start:stop], k, columns, left_out, allowed)
        scores[start:stop], indices[start:stop] = best
    indices[scores == -torch.inf] = -1
    width = int((indices >= 0).sum(dim=1).max()) if indices.numel() else 0
    return Neighbors(scores[:, :width], indices[:, :width])


def _best_of_block(gallery: PreparedGallery, queries: Tensor, k: int, width: int,
                   left_out: tuple[Tensor, Tensor] | None,
                   allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    best: tuple[Tensor, Tensor] | None = None
    for start, stop in gallery.column_tiles(width):
        scores = gallery.scores(queries, start, stop)
        leave_out(scores, left_out, start)
        if allowed is not None:
            scores.masked_fill_(~allowed[start:start + scores.shape[1]].to(scores.device),
                                -torch.inf)
        values, rows = select(scores, min(k, scores.shape[1]))
        rows += start
        best = (values, rows) if best is None else merge(*best, values, rows, k)
    assert best is not None  # a prepared gallery has at least one tile
    return best


def leave_out(scores: Tensor, pairs: tuple[Tensor, Tensor] | None, start: int = 0) -> None:
    """Set the scores of those (query, row) pairs to ``-inf``, where the tile has them."""
    if pairs is None:
        return
    query, row = (part.to(scores.device) for part in pairs)
    if start or scores.shape[1] <= (int(row.max()) if len(row) else 0):
        inside = (row >= start) & (row < start + scores.shape[1])
        query, row = query[inside], row[inside] - start
    scores[query, row] = -torch.inf


def merge(scores: Tensor, rows: Tensor, more_scores: Tensor, more_rows: Tensor,
          k: int) -> tuple[Tensor, Tensor]:
    """The best k of two ordered lists, where all of the first's rows are lower ones."""
    scores = torch.cat([scores, more_scores], dim=1)
    rows = torch.cat([rows, more_rows], dim=1)
    values, order = torch.sort(scores, dim=1, descending=True, stable=True)
    return values[:, :k], rows.gather(1, order[:, :k])


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of every row of ``(B, T)``, descending; the lower column first among equals."""
    if k >= scores.shape[1]:
        return sort_rows(scores)
    values, columns = torch.topk(scores, k + 1, dim=1)
    tied = values[:, :-1] == values[:, 1:]
    cut = tied[:, -1] & (values[:, -1] > -torch.inf)
    values, columns = values[:, :k], columns[:, :k]
    for row in cut.nonzero()[:, 0].tolist():
        columns[row] = _lowest_at_the_cut(scores[row], values[row], columns[row])
    some = (tied.any(dim=1)).nonzero()[:, 0]
    if len(some):
        columns[some] = _lower_first(values[some], columns[some])
    return values, columns


def sort_rows(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Every row of ``(B, T)`` float32 descending, the lower column first among equals.

    On a CPU each score and its column become one integer, whose order is the order wanted: numpy
    sorts plain integers several times faster than torch sorts values with their places.
    """
    if scores.device.type != 'cpu' or scores.dtype != torch.float32:
        values, columns = torch.sort(scores, dim=1, descending=True, stable=True)
        return values, columns
    bits = (scores + 0.0).view(torch.int32)  # a sum has no negative zero, which would rank lower
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as an integer in the order of the floats
    keys = (~rising).to(torch.int64) << 32
    keys += torch.arange(scores.shape[1])
    keys.numpy().sort(axis=1)
    rising = ~(keys >> 32).to(torch.int32)  # undone rather than gathered: it reads in order
    values = (rising ^ ((rising >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return values, keys & 0xFFFFFFFF


def _lowest_at_the_cut(scores: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """``columns`` with those that share the last value replaced by the lowest that have it."""
    last = values[-1]
    above = int((values > last).sum())
    equal = (scores == last).nonzero()[:len(columns) - above, 0]
    return torch.cat([columns[:above], equal])


def _lower_first(values: Tensor, columns: Tensor) -> Tensor:
    """The columns ordered by value descending, then by column."""
    columns, order = torch.sort(columns, dim=1)
    _, by_value = torch.sort(values.gather(1, order), dim=1, descending=True, stable=True)
    return columns.gather(1, by_value)


def checked_k(k: Any) -> int:
    """``k`` as a positive integer.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1.
    """
    try:
        number = operator.index(k)
    except TypeError as error:
        raise TypeError(f'k must be an integer of at least 1, got {k!r}.') from error
    if number < 1 or isinstance(k, bool):
        raise ValueError(f'k must be at least 1, got {k!r}.')
    return number


def as_mask(mask: Any, num_rows: int) -> Tensor | None:
    """``mask`` as a bool tensor ``(N,)``. Raises TypeError or ValueError where it is none."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask)
    if mask.dtype != torch.bool:
        raise TypeError(f'The mask must be boolean, got {mask.dtype}.')
    if mask.shape != (num_rows,):
        raise ValueError(f'The mask must be ({num_rows},), one for each row of the gallery, got '
                         f'{tuple(mask.shape)}.')
    return mask


def as_row_sets(rows: Exclusion | None, num_queries: int, num_rows: int) -> RowSets | None:
    """What ``exclude`` may be, as row sets.

    Raises:
        ValueError: it is not given for every query, or names a row that is not there.
    """
    if rows is None:
        return None
    if len_of(rows) != num_queries:
        raise ValueError(f'Rows are named for {len_of(rows)} queries, but there are {num_queries}.')
    if isinstance(rows, RowSets):
        if rows.num_rows != num_rows:
            raise ValueError(f'The row sets are over {rows.num_rows} rows, the gallery has '
                             f'{num_rows}.')
        return rows
    if isinstance(rows, Tensor) or hasattr(rows, '__array__'):
        table = torch.as_tensor(rows)
        if table.is_floating_point() or table.dtype == torch.bool or table.ndim not in (1, 2):
            raise TypeError(f'Rows must be int64 (Q,) or (Q, E), got {table.dtype} '
                            f'{tuple(table.shape)}.')
        return RowSets.from_rows(table.to(torch.int64), num_rows)
    if all(isinstance(row, int) for row in rows):
        return RowSets.from_rows(torch.tensor(rows, dtype=torch.int64), num_rows)
    return RowSets.from_lists(rows, num_rows)


def len_of(rows: Exclusion) -> int:
    """The number of queries that an exclusion is for."""
    return rows.num_queries if isinstance(rows, RowSets) else len(rows)

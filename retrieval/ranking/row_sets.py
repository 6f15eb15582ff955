"""For every query a set of gallery rows: the relevant ones, or the ones that are left out."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pairs = tuple[Tensor, Tensor]
_LONG = 64


class RowSets:
    """A set of gallery rows for every query, given out for a block of queries at a time.

    Args:
        num_queries: number of queries, Q.
        num_rows: number of rows of the gallery, N.
        pairs: ``(start, stop) -> (query, row)``, two int64 tensors ``(P,)`` that list the members
            for the queries ``start:stop``; ``query`` counts from ``start``. Sorted by query, then
            by row, without repeats.
        counts: ``(Q,)`` int64, how many members each query has, where that is known beforehand.

    Example:
        >>> sets = RowSets.from_labels(torch.tensor([7, 8]), torch.tensor([8, 7, 7]))
        >>> sets.block(0, 2)
        (tensor([0, 0, 1]), tensor([1, 2, 0]))
    """

    def __init__(self, num_queries: int, num_rows: int,
                 pairs: Callable[[int, int], Pairs], counts: Tensor | None = None) -> None:
        self.num_queries = num_queries
        self.num_rows = num_rows
        self.counts = counts
        self._pairs = pairs

    def block(self, start: int, stop: int) -> Pairs:
        """The members of the queries ``start:stop`` as ``(query - start, row)``."""
        return self._pairs(start, stop)

    def part(self, start: int, stop: int) -> RowSets:
        """The sets of the queries ``start:stop``.

        Example:
            >>> RowSets.from_rows(torch.tensor([4, 5, 6]), 9).part(1, 3).block(1, 2)
            (tensor([0]), tensor([6]))
        """
        return RowSets(stop - start, self.num_rows,
                       lambda first, last: self._pairs(start + first, start + last),
                       None if self.counts is None else self.counts[start:stop])

    def of(self, queries: Tensor) -> RowSets:
        """The sets of some of the queries ``(B,)`` int64.

        Example:
            >>> RowSets.from_rows(torch.tensor([4, 5, 6]), 9).of(torch.tensor([2, 0])).block(0, 2)
            (tensor([0, 1]), tensor([6, 4]))
        """
        return RowSets.from_lists([self.block(query, query + 1)[1] for query in queries.tolist()],
                                  self.num_rows)

    @classmethod
    def from_labels(cls, query_labels: Tensor, gallery_labels: Tensor) -> RowSets:
        """The rows whose label ``(N,)`` int64 equals the query's ``(Q,)``."""
        ordered, order = torch.sort(gallery_labels, stable=True)
        query_labels = query_labels.contiguous()
        first = torch.searchsorted(ordered, query_labels)
        count = torch.searchsorted(ordered, query_labels, right=True) - first

        def pairs(start: int, stop: int) -> Pairs:
            counts = count[start:stop]
            query = torch.repeat_interleave(counts)
            if len(query) > _LONG * (stop - start):  # long runs are copied as such
                runs = [order[begin:begin + many] for begin, many in
                        zip(first[start:stop].tolist(), counts.tolist(), strict=True)]
                return query, torch.cat(runs)
            begins = first[start:stop] - (counts.cumsum(0) - counts)
            return query, order[begins[query] + torch.arange(len(query), device=query.device)]

        return cls(len(query_labels), len(gallery_labels), pairs, count)

    @classmethod
    def from_matrix(cls, matrix: Any) -> RowSets:
        """The True columns of a boolean matrix ``(Q, N)``.

        Raises:
            ValueError: it is not two-dimensional.
            TypeError: it is not boolean.
        """
        matrix = torch.as_tensor(matrix)
        if matrix.ndim != 2:
            raise ValueError(f'A matrix of rows must be (Q, N), got {tuple(matrix.shape)}.')
        if matrix.dtype != torch.bool:
            raise TypeError(f'A matrix of rows must be boolean, got {matrix.dtype}: compare first.')

        def pairs(start: int, stop: int) -> Pairs:
            query, row = matrix[start:stop].nonzero(as_tuple=True)
            return query, row

        return cls(matrix.shape[0], matrix.shape[1], pairs)

    @classmethod
    def from_callable(cls, function: Callable[[Tensor], Any], num_queries: int,
                      num_rows: int) -> RowSets:
        """The True columns of ``function(query_rows (B,) int64) -> (B, N)`` bool.

        A block whose shape or dtype is wrong raises ValueError or TypeError when it is asked for.
        """
        def pairs(start: int, stop: int) -> Pairs:
            block = torch.as_tensor(function(torch.arange(start, stop)))
            if block.shape != (stop - start, num_rows):
                raise ValueError(f'The callable must return ({stop - start}, {num_rows}) for '
                                 f'{stop - start} queries, got {tuple(block.shape)}.')
            if block.dtype != torch.bool:
                raise TypeError(f'The callable must return booleans, got {block.dtype}.')
            query, row = block.nonzero(as_tuple=True)
            return query, row

        return cls(num_queries, num_rows, pairs)

    @classmethod
    def from_lists(cls, lists: Sequence[Any], num_rows: int) -> RowSets:
        """The rows listed for every query: Q sequences of int64 or None, repeats allowed.

        Raises:
            ValueError: a row is not in the gallery.
            TypeError: a list holds no integers.
        """
        lengths, parts = [], []
        for query, rows in enumerate(lists):
            rows = [] if rows is None else rows
            part = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
            if part.size and part.dtype.kind not in 'iu':
                raise TypeError(f'The rows of query {query} must be integers, got {part.dtype}.')
            parts.append(torch.from_numpy(np.unique(part).astype(np.int64)))
            lengths.append(len(parts[-1]))
        rows = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
        count = torch.tensor(lengths, dtype=torch.int64)
        _check_rows(rows, torch.repeat_interleave(count), num_rows)
        ends = count.cumsum(0)

        def pairs(start: int, stop: int) -> Pairs:
            begin = int(ends[start - 1]) if start else 0
            end = int(ends[stop - 1]) if stop else 0
            return torch.repeat_interleave(count[start:stop]), rows[begin:end]

        return cls(len(lists), num_rows, pairs, count)

    @classmethod
    def from_rows(cls, rows: Tensor, num_rows: int) -> RowSets:
        """The rows in ``rows``, ``(Q,)`` or ``(Q, E)`` int64, where -1 stands for none.

        Raises:
            ValueError: a row is not in the gallery.
        """
        table = rows[:, None] if rows.ndim == 1 else rows
        if table.numel() and int(table.min()) < -1:
            raise ValueError(f'Rows must be -1 or more, got {int(table.min())}.')
        query, column = (table >= 0).nonzero(as_tuple=True)
        _check_rows(table[query, column], query, num_rows)

        def pairs(start: int, stop: int) -> Pairs:
            block = table[start:stop]
            query, column = (block >= 0).nonzero(as_tuple=True)
            row = block[query, column]
            if block.shape[1] == 1:
                return query, row
            key = torch.unique(query * num_rows + row)
            return key // num_rows, key % num_rows

        return cls(len(rows), num_rows, pairs)

    def union(self, other: RowSets | None) -> RowSets:
        """The rows in either."""
        if other is None:
            return self

        def pairs(start: int, stop: int) -> Pairs:
            keys = [self.keys(start, stop), other.keys(start, stop)]
            key = torch.unique(torch.cat([k.cpu() for k in keys]))
            return key // self.num_rows, key % self.num_rows

        return RowSets(self.num_queries, self.num_rows, pairs)

    def keys(self, start: int, stop: int) -> Tensor:
        """The members as one rising number each, ``(query - start) * num_rows + row``."""
        query, row = self.block(start, stop)
        return query * self.num_rows + row


Exclusion = RowSets | Tensor | Sequence[Any]


def as_row_sets(rows: Exclusion | None, num_queries: int, num_rows: int) -> RowSets | None:
    """An argument ``exclude`` as row sets.

    Raises:
        ValueError: it is not given for every query, or names a row that is not there.
    """
    if rows is None:
        return None
    given = rows.num_queries if isinstance(rows, RowSets) else len(rows)
    if given != num_queries:
        raise ValueError(f'Rows are named for {given} queries, but there are {num_queries}.')
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


def leave_out(scores: Tensor | np.ndarray, pairs: Pairs | None, start: int = 0,
              allowed: Tensor | None = None) -> None:
    """Set scores to ``-inf`` where a row must not be found.

    Args:
        scores: a tile ``(B, T)`` of the rows from ``start`` on.
        pairs: ``(query, row)`` that are left out, or None; those outside the tile are passed over.
        start: the tile's first row.
        allowed: ``(N,)`` bool, the rows that may be found at all, or None.
    """
    def beside_scores(part: Tensor) -> Any:
        return part.to(scores.device) if isinstance(scores, Tensor) else part.cpu().numpy()

    if pairs is not None:
        query, row = map(beside_scores, pairs)
        if start or scores.shape[1] <= (int(row.max()) if len(row) else 0):
            inside = (row >= start) & (row < start + scores.shape[1])
            query, row = query[inside], row[inside] - start
        scores[query, row] = -torch.inf
    if allowed is not None:
        forbidden = beside_scores(~allowed[start:start + scores.shape[1]])
        if isinstance(scores, Tensor):
            scores.masked_fill_(forbidden, -torch.inf)
        else:
            scores[:, forbidden] = -np.inf


def without(pairs: Pairs, left_out: Pairs, num_queries: int, num_rows: int) -> Pairs:
    """Those of the ``(query, row)`` that are not left out, all rising."""
    (query, row), (out_query, out_row) = pairs, left_out
    if torch.equal(out_query, torch.arange(num_queries, device=out_query.device)):
        keep = row != out_row[query]  # one for each query: itself
    else:
        keep = ~member_of(query * num_rows + row, out_query * num_rows + out_row)
    return query[keep], row[keep]


def member_of(keys: Tensor, ordered: Tensor) -> Tensor:
    """Which of ``keys`` stand in the rising int64 tensor ``ordered``, bool of the same shape."""
    if not len(ordered):
        return torch.zeros_like(keys, dtype=torch.bool)
    at = torch.searchsorted(ordered, keys).clamp_(max=len(ordered) - 1)
    return ordered[at] == keys


def paired_labels(first: Sequence[Tensor], second: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One label for every combination of labels, the same for queries and gallery.

    Args:
        first: the labels of the queries, each ``(Q,)`` int64, for example identity and camera.
        second: those of the gallery in the same order, each ``(N,)``.

    Example:
        >>> identity, camera = torch.tensor([5, 5]), torch.tensor([0, 1])
        >>> paired_labels([identity, camera], [identity, camera])
        (tensor([0, 1]), tensor([0, 1]))
    """
    together = torch.stack([torch.cat([a, b]) for a, b in zip(first, second, strict=True)])
    _, code = torch.unique(together, dim=1, return_inverse=True)
    return code[:len(first[0])], code[len(first[0]):]


def _check_rows(rows: Tensor, queries: Tensor, num_rows: int) -> None:
    bad = (rows < 0) | (rows >= num_rows)
    if bad.any():
        at = int(bad.nonzero()[0, 0])
        raise ValueError(f'Query {int(queries[at])} names row {int(rows[at])}, but the gallery '
                         f'has rows 0 to {num_rows - 1}.')

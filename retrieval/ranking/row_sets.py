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


def _check_rows(rows: Tensor, queries: Tensor, num_rows: int) -> None:
    bad = (rows < 0) | (rows >= num_rows)
    if bad.any():
        at = int(bad.nonzero()[0, 0])
        raise ValueError(f'Query {int(queries[at])} names row {int(rows[at])}, but the gallery '
                         f'has rows 0 to {num_rows - 1}.')


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
    """
    together = torch.stack([torch.cat([a, b]) for a, b in zip(first, second, strict=True)])
    _, code = torch.unique(together, dim=1, return_inverse=True)
    return code[:len(first[0])], code[len(first[0]):]

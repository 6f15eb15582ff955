"""The ranks of the relevant rows in one block of scores, on the CPU.

Counting the scores above a relevant one is two passes over a row of scores and costs a hundredth of
sorting it; so few relevant rows are ranked by counting. Ranks up to a depth are found among the
scores that reach a lower bound of that depth; and only where many ranks are wanted of the whole row
is it sorted, down to the worst relevant score.
"""
from __future__ import annotations

import numpy as np
import torch

from .ranks import BEYOND, Depth, RelevantRanks
from .rowsets import Pairs
from .selection import LOWEST, best_columns, from_keys, keys_of, likely_bar, lower_bound

_COUNTED = 48       # with more relevant rows a sort is cheaper than counting for each
_LISTED = 64        # down to this depth all queries' lists are made together
_SCANNED_TIES = 100  # with more values that tie, one sort of scores and rows is cheaper


def ranks_of_block(scores: np.ndarray, relevant: Pairs, left_out: Pairs | None, depth: Depth,
                   start: int = 0, num_rows: int | None = None) -> RelevantRanks:
    """The ranks in one block of scores ``(B, T)``, which is changed in place.

    Args:
        scores: float32; finite, but for ``-inf`` behind the last row.
        relevant: ``(query, row)`` of the relevant rows, sorted.
        left_out: ``(query, row)`` of the rows that are not ranked, or None.
        depth: how deep the ranks must be exact.
        start: number of the block's first query.
        num_rows: N, where the block has further columns.
    """
    num_queries, width = scores.shape
    num_rows = width if num_rows is None else num_rows
    query, row = (part.numpy() for part in relevant)
    rankable = np.full(num_queries, num_rows)
    if left_out is not None and len(left_out[0]):
        out_query, out_row = (part.numpy() for part in left_out)
        rankable -= np.bincount(out_query, minlength=num_queries)
        scores[out_query, out_row] = -np.inf
        keep = scores[query, row] > -np.inf
        query, row = query[keep], row[keep]
    offsets = offsets_of(query, num_queries)
    ranks = np.full(len(query), BEYOND)
    if depth.everything:
        _everywhere(scores, row, offsets, ranks)
    else:
        wanted = np.full(num_queries, depth.rows)
        if depth.relevant:
            wanted = np.maximum(wanted, np.diff(offsets))
        _down_to(scores, query, row, offsets, wanted, num_rows, ranks)
        _best(scores, row, offsets, wanted < depth.best, ranks)
    return RelevantRanks(torch.from_numpy(offsets), torch.from_numpy(ranks),
                         torch.from_numpy(rankable), start)


def offsets_of(query: np.ndarray, num_queries: int) -> np.ndarray:
    """Where each query's pairs begin and the last one's end, ``(B + 1,)``; queries must rise."""
    return np.searchsorted(query, np.arange(num_queries + 1))


def write_found(columns: np.ndarray, query: np.ndarray, row: np.ndarray, offsets: np.ndarray,
                num_rows: int, ranks: np.ndarray) -> None:
    """Write the ranks of the relevant rows that are among the best ``columns (B, k)``.

    A column of -1 stands for none.
    """
    wanted = query * num_rows + row
    if not len(wanted):
        return
    keys = columns + np.arange(len(columns))[:, None] * num_rows
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    hit_query, position = np.nonzero((wanted[place] == keys) & (columns >= 0))
    nth = np.arange(len(hit_query)) - np.searchsorted(hit_query, hit_query)
    ranks[offsets[hit_query] + nth] = position + 1


def _down_to(scores: np.ndarray, query: np.ndarray, row: np.ndarray, offsets: np.ndarray,
             wanted: np.ndarray, num_rows: int, ranks: np.ndarray) -> None:
    """Write the ranks that are at most what is ``wanted (B,)`` of each query."""
    deepest = int(wanted.max(initial=0))
    if not deepest or not len(row):
        return
    if deepest <= _LISTED:
        _, columns = best_columns(scores, min(deepest, num_rows))
        write_found(columns, query, row, offsets, num_rows, ranks)
        return
    flags = np.zeros(scores.shape[1], dtype=bool)
    for one in np.flatnonzero(np.diff(offsets)):
        pairs = slice(offsets[one], offsets[one + 1])
        flags[row[pairs]] = True
        columns = _best_of_row(scores[one], min(int(wanted[one]), num_rows))
        places = np.flatnonzero(flags[columns]) + 1
        flags[row[pairs]] = False
        ranks[pairs][:len(places)] = places


def _best_of_row(scores: np.ndarray, k: int) -> np.ndarray:
    """The k best columns of ``(T,)`` in order, without those that are left out."""
    columns = np.flatnonzero(scores >= max(likely_bar(scores, k), LOWEST))
    if len(columns) < k:  # the sample was not like the rest, or there are no more
        columns = np.flatnonzero(scores >= max(lower_bound(scores[None], k)[0], LOWEST))
    keys = keys_of(scores[columns], columns)
    keys.sort()
    return from_keys(keys[:k])[1]


def _best(scores: np.ndarray, row: np.ndarray, offsets: np.ndarray, asked: np.ndarray,
          ranks: np.ndarray) -> None:
    """Write the rank of the best relevant row of the queries ``asked (B,)``, if not known yet."""
    above = np.empty(scores.shape[1], dtype=bool)
    for one in np.flatnonzero(asked & (np.diff(offsets) > 0)):
        first = offsets[one]
        if ranks[first] == BEYOND:
            rows = row[first:offsets[one + 1]]
            own = scores[one, rows]
            ranks[first] = _counted(scores[one], rows[own.argmax()], own.max(), above)


def _counted(scores: np.ndarray, row: int, own: np.float32, above: np.ndarray) -> int:
    """The rank of a row whose score is ``own``, by counting; ``above`` is used for the passes."""
    rank = 1 + int(np.count_nonzero(np.greater(scores, own, out=above)))
    equal = np.count_nonzero(np.equal(scores, own, out=above))
    return rank if equal == 1 else rank + int(np.count_nonzero(above[:row]))


def _everywhere(scores: np.ndarray, row: np.ndarray, offsets: np.ndarray,
                ranks: np.ndarray) -> None:
    """Write the ranks of all relevant rows."""
    above = np.empty(scores.shape[1], dtype=bool)
    for one in np.flatnonzero(np.diff(offsets)):
        pairs = slice(offsets[one], offsets[one + 1])
        rows, own = row[pairs], scores[one, row[pairs]]
        if len(rows) <= _COUNTED:
            counted = [_counted(scores[one], place, score, above)
                       for place, score in zip(rows.tolist(), own, strict=True)]
            ranks[pairs] = np.sort(counted)
        else:
            ranks[pairs] = ranks_of_query(scores[one], rows, own)


def ranks_of_query(scores: np.ndarray, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rising ranks of ``rows (R,)``, whose scores are ``own (R,)``, among ``scores (T,)``."""
    columns = np.flatnonzero(scores >= own.min())
    scores = scores[columns]
    ordered = np.sort(scores)
    wanted = np.sort(own)  # in order, each search starts near the last
    reached = np.searchsorted(ordered, wanted, 'right')
    ranks = (len(scores) + 1) - reached
    tied = (ordered[np.maximum(reached - 2, 0)] == wanted) & (reached > 1)
    if not tied.any():
        return ranks[::-1]
    values = np.unique(wanted[tied])
    if len(values) > _SCANNED_TIES:
        rank = np.empty(len(scores), np.int64)
        rank[np.argsort(-scores, kind='stable')] = np.arange(1, len(scores) + 1)
        return np.sort(rank[np.searchsorted(columns, rows)])
    for value in values:
        equal = columns[scores == value]  # from the lower row on
        ours = np.searchsorted(equal, rows[own == value])
        ranks[wanted == value] = ranks[wanted == value] + ours
    return np.sort(ranks)

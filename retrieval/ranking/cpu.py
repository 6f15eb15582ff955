"""Work on tiles by several threads, each of which multiplies and selects by itself.

A thread that takes a tile through product and selection waits for nobody, while a product shared by
all threads ends in a selection for which only one is at hand. NumPy lets other threads run during
its loops; its BLAS is held to one thread meanwhile, so that there are as many threads as torch may
use and no more.

The best columns of every row of a tile of scores, on the CPU.

A score and its column make one integer whose order is the order wanted: falling score, then rising
column. Sorting those is exact and several times faster than sorting scores with their places; and
only what reaches a lower bound of the k-th best score is sorted at all.

The ranks of the relevant rows in one block of scores, on the CPU.

Counting the scores above a relevant one is two passes over a row of scores and costs a hundredth of
sorting it; so few relevant rows are ranked by counting. Ranks up to a depth are found among the
scores that reach a lower bound of that depth; and only where many ranks are wanted of the whole row
is it sorted, down to the worst relevant score.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from .ranks import BEYOND, Depth, RelevantRanks
from .row_sets import Pairs

Task = TypeVar('Task')
Result = TypeVar('Result')


class _Limit:
    """The BLAS held to one thread while anybody needs it so, also from several threads at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.held: Any = None

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                self.held = _controller().limit(limits=1, user_api='blas')

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.held.restore_original_limits()
                self.held = None


_LIMIT = _Limit()


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes milliseconds, once


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold NumPy's BLAS to one thread."""
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task],
             threads: int | None = None) -> Iterator[Result]:
    """``work`` of every task, in order, by so many threads at once (torch's number by default).

    At most twice as many results as threads are held at a time.
    """
    threads = torch.get_num_threads() if threads is None else threads
    tasks = iter(tasks)
    if threads <= 1:
        with single_threaded_blas():
            yield from map(work, tasks)
        return
    waiting: deque[Future[Result]] = deque()
    with single_threaded_blas(), ThreadPoolExecutor(threads) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def shares(count: int, parts: int | None = None) -> list[tuple[int, int]]:
    """``range(count)`` as that many (torch's number of threads) even ``(start, stop)``, none empty.
    """
    parts = max(1, min(torch.get_num_threads() if parts is None else parts, count))
    edges = [count * part // parts for part in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


Scores = np.ndarray
Places = np.ndarray

LOWEST = np.finfo(np.float32).min  # what is left out has the score -inf, below this
_LAST = np.int64(0x7F800000_FFFFFFFF)  # the key of -inf at the last place: sorts behind everything
_GROUPS = 4      # so many groups for each result that is wanted
_ROOM = 3        # pairs kept for each result that is wanted before they are cut
_LARGEST = 64    # a group's size, at the most
_SAMPLED = 8     # one score of so many tells about where the bar is
_SKEWED = 8      # lists that are so many times longer than the mean are ordered by themselves


def keys_of(scores: Scores, places: Places) -> np.ndarray:
    """One int64 for a score (float32) and a place below 2**32; rising keys are falling scores."""
    bits = (scores + np.float32(0)).view(np.int32)  # a sum has no negative zero, which would differ
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return (~rising).astype(np.int64) << 32 | places


def from_keys(keys: np.ndarray) -> tuple[Scores, Places]:
    """The scores float32 and places int64 of keys; the place of ``-inf`` is -1."""
    rising = ~(keys >> 32).astype(np.int32)
    scores = (rising ^ ((rising >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    places = keys & 0xFFFFFFFF
    places[scores == -np.inf] = -1
    return scores, places


def sort_all(scores: Scores) -> tuple[Scores, Places]:
    """All columns of ``(B, T)`` float32 in order; the place of ``-inf`` is -1."""
    keys = keys_of(scores, np.arange(scores.shape[1]))
    keys.sort(axis=1)
    return from_keys(keys)


def best_columns(scores: Scores, k: int) -> tuple[Scores, Places]:
    """The k best columns of ``(B, T)`` float32, the lower one first among equals.

    Returns:
        Scores float32 and columns int64, ``(B, min(k, T))``; where a row has fewer that are above
        ``-inf``, it ends in ``-inf`` and -1.
    """
    if 4 * k > 3 * scores.shape[1]:
        values, columns = sort_all(scores)
        return values[:, :k], columns[:, :k]
    best = BestOfBlock(len(scores), k)
    best.offer(scores, 0)
    return best.result()


def lower_bound(scores: Scores, k: int) -> np.ndarray:
    """For every row of ``(B, T)`` a score that at least k of its columns reach, ``(B,)``.

    The k-th best of the maxima of groups of columns: k groups reach it, so k columns do.
    """
    num_rows, width = scores.shape
    size = max(1, min(_LARGEST, width // max(_GROUPS * k, 64)))
    if size > 1:
        groups = width // size
        scores = scores[:, :groups * size].reshape(num_rows, size, groups).max(axis=1)
        width = groups
    return np.partition(scores, width - k, axis=1)[:, width - k]


def likely_bar(scores: Scores, k: int) -> float:
    """A score that k of the columns ``(T,)`` and some more probably reach, from every eighth."""
    sample = scores[::_SAMPLED]
    expected = k / _SAMPLED
    place = int(expected + 3 * np.sqrt(expected)) + 1
    if place >= len(sample):
        return -np.inf
    return np.partition(sample, len(sample) - place)[len(sample) - place]


class BestOfBlock:
    """The k best rows of a gallery for a block of queries, offered tile after tile.

    Kept are the pairs above a bar, which at least k rows of the query reach. When there are too
    many they are cut to k, which raises the bar; they are put in order once, at the end.

    Args:
        num_queries: B.
        k: how many to keep.
    """

    def __init__(self, num_queries: int, k: int) -> None:
        self.num_queries, self.k = num_queries, k
        self.bar = np.full(num_queries, -np.inf, dtype=np.float32)
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._count = 0

    def offer(self, scores: Scores, start: int) -> None:
        """Take in a tile ``(B, T)`` of the rows from ``start`` on, which lie behind all before."""
        bar = self.bar[:, None]
        if not self._parts and scores.shape[1] >= self.k:
            self.bar = lower_bound(scores, self.k)
            above = scores >= np.maximum(self.bar, LOWEST)[:, None]
        else:
            above = scores > bar  # an equal score of a later row ranks behind
        query, column = np.divmod(np.flatnonzero(above), scores.shape[1])
        self._parts.append((query, keys_of(scores[query, column], column + start)))
        self._count += len(query)
        if self._count > _ROOM * self.num_queries * self.k:
            self._cut()

    def _cut(self) -> None:
        keys = best_keys(self._parts, self.num_queries, self.k, ordered=False)
        worst = keys.max(axis=1)
        self.bar = np.maximum(self.bar, from_keys(worst)[0])
        there = keys != _LAST
        query = np.repeat(np.arange(self.num_queries), there.sum(axis=1))
        self._parts, self._count = [(query, keys[there])], len(query)

    def result(self) -> tuple[Scores, Places]:
        """Scores float32 and rows int64 ``(B, k)``, filled with ``-inf`` and -1."""
        return from_keys(best_keys(self._parts, self.num_queries, self.k))


def best_keys(parts: list[tuple[np.ndarray, np.ndarray]], num_queries: int, k: int,
              ordered: bool = True) -> np.ndarray:
    """The k lowest keys of every query, ``(B, k)`` int64, filled with the key of ``-inf``.

    Args:
        parts: ``(query, keys)`` of equal length each, the queries rising within each part.
        num_queries: B.
        ordered: whether they are put in order.
    """
    counts = [np.bincount(query, minlength=num_queries) for query, _ in parts]
    total = sum(counts, np.zeros(num_queries, dtype=np.int64))
    usual = max(2 * k, _SKEWED * int(total.mean() + 1))
    long = total > usual
    width = max(k, int(total[~long].max(initial=0)))
    table = np.full((num_queries, width), _LAST)
    filled = np.zeros(num_queries, dtype=np.int64)
    for (query, keys), count in zip(parts, counts, strict=True):
        nth = np.arange(len(query)) + np.repeat(filled - (np.cumsum(count) - count), count)
        if long.any():
            those = ~long[query]
            table[query[those], nth[those]] = keys[those]
        else:
            table[query, nth] = keys
        filled += count
    for one in np.flatnonzero(long):  # a great many ties, or nearest to a dense place
        own = [keys[slice(*np.searchsorted(query, (one, one + 1)))] for query, keys in parts]
        table[one, :k] = np.partition(np.concatenate(own), k - 1)[:k]
    if ordered:
        if 2 * k < width:
            table = np.partition(table, k - 1, axis=1)[:, :k]
        table.sort(axis=1)
    elif k < width:
        table = np.partition(table, k - 1, axis=1)
    return table[:, :k]


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

"""The best columns of every row of a tile of scores, on the CPU.

A score and its column make one integer whose order is the order wanted: falling score, then rising
column. Sorting those is exact and several times faster than sorting scores with their places; and
only what reaches a lower bound of the k-th best score is sorted at all.
"""
from __future__ import annotations

import numpy as np

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

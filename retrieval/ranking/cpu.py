"""The work on tiles of scores by NumPy, on the CPU: the best columns, and ranks of relevant rows.

Only what reaches a lower bound of the k-th best score is sorted at all.

Counting the scores above a relevant one is two passes over a row of scores and costs a hundredth of
sorting it; so few relevant rows are ranked by counting. Ranks up to a depth are found among the
scores that reach a lower bound of that depth; and only where many ranks are wanted of the whole row
is it sorted, down to the worst relevant score.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from .lists import LAST_KEY, best_keys, from_keys, keys_of
from .prepared import PreparedGallery
from .ranks import BEYOND, Depth, RelevantRanks
from .row_sets import Pairs
from .threads import in_order as in_order  # a part of the protocol

LOST = np.inf  # the best score of a query that must be searched again, by an engine that is sure
LOWEST = np.finfo(np.float32).min  # what is left out has the score -inf, below this
_SMALL = 2 ** 24     # fewer multiplications than that are done before a thread is started
_GROUPS = 4          # so many groups for each result that is wanted
_ROOM = 3            # pairs kept for each result that is wanted before they are cut
_LARGEST = 64        # a group's size, at the most
_SAMPLED = 7         # one score of so many tells where the bar is; prime, as classes may alternate
_COUNTED = 48        # with more relevant rows a sort is cheaper than counting for each
_LISTED = 64         # down to this depth all queries' lists are made together
_SCANNED_TIES = 100  # with more values that tie, one sort of scores and rows is cheaper


def num_threads(products: int) -> int:
    """How many threads so many multiplications are worth."""
    return torch.get_num_threads() if products > _SMALL else 1


def score_tiles(gallery: PreparedGallery, queries: Tensor,
                tiles: Iterable[tuple[int, int]]) -> Iterator[tuple[int, np.ndarray]]:
    """The scores of prepared queries ``(B, D)`` and the rows of each tile; see the protocol."""
    tiles, block = list(tiles), queries.contiguous().numpy()
    buffer = np.empty(len(block) * max(stop - start for start, stop in tiles), np.float32)
    for start, stop in tiles:
        yield start, gallery.score_into(buffer, block, start, stop)


class BestOfTiles:
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

    def offer(self, scores: np.ndarray, start: int) -> None:
        """Take in a tile ``(B, T)`` of the rows from ``start`` on, which lie behind all before."""
        if not self._parts and scores.shape[1] >= self.k:
            above = self._begin(scores)
        else:
            above = scores > self.bar[:, None]  # an equal score of a later row ranks behind
        self._parts.append(pairs_where(above, scores, start))
        self._count += len(self._parts[-1][0])
        if self._count > _ROOM * self.num_queries * self.k:
            self._cut()

    def _begin(self, scores: np.ndarray) -> np.ndarray:
        """Where the first tile's scores are kept, which also makes the first bar."""
        self.bar = lower_bound(scores, self.k)
        return scores >= np.maximum(self.bar, LOWEST)[:, None]

    def _cut(self) -> None:
        keys = best_keys(self._parts, self.num_queries, self.k, ordered=False)
        worst = keys.max(axis=1)
        self.bar = np.maximum(self.bar, from_keys(worst)[0])
        there = keys != LAST_KEY
        query = np.repeat(np.arange(self.num_queries), there.sum(axis=1))
        self._parts, self._count = [(query, keys[there])], len(query)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores float32 and rows int64 ``(B, k)``, filled with ``-inf`` and -1."""
        scores, rows = from_keys(best_keys(self._parts, self.num_queries, self.k))
        return torch.from_numpy(scores), torch.from_numpy(rows)


def pairs_where(kept: np.ndarray, scores: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a tile ``(B, T)`` of the rows from ``start`` on that are kept: queries, keys."""
    places = np.flatnonzero(kept)
    query = places // scores.shape[1]
    return query, keys_of(scores.ravel()[places], places - query * scores.shape[1] + start)


def best_of_tiles(gallery: PreparedGallery, queries: Tensor, k: int) -> BestOfTiles:
    """What collects the k best rows of a block of queries; see the protocol."""
    return BestOfTiles(len(queries), k)


def best_columns(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best columns of ``(B, T)`` float32, the lower one first among equals.

    Returns:
        Scores float32 and columns int64, ``(B, min(k, T))``; where a row has fewer that are above
        ``-inf``, it ends in ``-inf`` and -1.
    """
    if 4 * k > 3 * scores.shape[1]:
        values, columns = _sort_all(scores)
        return values[:, :k], columns[:, :k]
    best = BestOfTiles(len(scores), k)
    best.offer(scores, 0)
    found, places = best.result()
    return found.numpy(), places.numpy()


def _sort_all(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All columns of ``(B, T)`` float32 in order; the place of ``-inf`` is -1."""
    keys = keys_of(scores, np.arange(scores.shape[1]))
    keys.sort(axis=1)
    return from_keys(keys)


def lower_bound(scores: np.ndarray, k: int) -> np.ndarray:
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


def ranks_in_block(scores: np.ndarray, relevant: Pairs, left_out: Pairs | None, depth: Depth,
                   start: int = 0) -> RelevantRanks:
    """The ranks of the relevant rows in one block of scores ``(B, N)``; see the protocol."""
    num_queries, num_rows = scores.shape
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
        _all_ranks(scores, row, offsets, ranks)
    else:
        wanted = np.full(num_queries, depth.rows)
        if depth.relevant:
            wanted = np.maximum(wanted, np.diff(offsets))
        _ranks_down_to(scores, query, row, offsets, wanted, num_rows, ranks)
        _best_ranks(scores, row, offsets, wanted < depth.best, ranks)
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


def _ranks_down_to(scores: np.ndarray, query: np.ndarray, row: np.ndarray, offsets: np.ndarray,
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
    columns = np.flatnonzero(scores >= max(_likely_bar(scores, k), LOWEST))
    if len(columns) < k:  # the sample was not like the rest, or there are no more
        columns = np.flatnonzero(scores >= max(lower_bound(scores[None], k)[0], LOWEST))
    keys = keys_of(scores[columns], columns)
    keys.sort()
    return from_keys(keys[:k])[1]


def _likely_bar(scores: np.ndarray, k: int) -> float:
    """A score that k of the columns ``(T,)`` and some more probably reach, from every eighth."""
    sample = scores[::_SAMPLED]
    expected = k / _SAMPLED
    place = int(expected + 3 * np.sqrt(expected)) + 1
    if place >= len(sample):
        return -np.inf
    return np.partition(sample, len(sample) - place)[len(sample) - place]


def _best_ranks(scores: np.ndarray, row: np.ndarray, offsets: np.ndarray, asked: np.ndarray,
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


def _all_ranks(scores: np.ndarray, row: np.ndarray, offsets: np.ndarray,
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

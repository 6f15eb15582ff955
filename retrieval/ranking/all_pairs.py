"""The best other rows of every row of a set, where each pair is computed once.

The matrix of similarities within a set is symmetric: one tile of it serves the queries of its rows
and those of its columns.
"""
from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import distributed
from ..progress import counted
from . import rounded
from .cpu import LOST, LOWEST, best_columns, lower_bound, pairs_where
from .lists import best_keys, best_of_lists, from_keys, keys_of, kth_scores, scores_of
from .prepared import PreparedGallery
from .row_sets import RowSets
from .threads import in_order, shares
from .topk import best_rows

DEEPEST = 64      # beyond that many rows for each query the lists cost more than the second half
_STRIP = 768      # rows of a tile
_TILE_SHARE = 2   # a tile is passed over twice: half of the budget stays nearer
_PENDING = 2 ** 17
_AHEAD = 24       # tiles of each thread that wait while the bars are raised
_BLOCK = 2048     # queries whose candidates are scored again together


Tile = tuple[int, int, int, int]  # top, bottom, left, right


class Found(NamedTuple):
    """Pairs above their query's bar: ``(n,)`` queries, and keys of score and row."""

    queries: np.ndarray
    keys: np.ndarray


class BestRows:
    """The k best rows of every query so far; what is not above the last of them is passed over.

    Rows must be offered to each query in rising order: then an equal score that comes later
    belongs to a higher row and ranks behind.

    Args:
        num_queries: number of queries, N.
        k: how many to keep for each.
    """

    def __init__(self, num_queries: int, k: int) -> None:
        self.num_queries, self.k = num_queries, k
        self.bar = np.full(num_queries, -np.inf, dtype=np.float32)
        self._kept = Found(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        self._pending: list[Found] = []
        self._count = 0
        self._limit = max(_PENDING, 2 * num_queries * k)

    def offer(self, found: Found) -> None:
        """Note pairs above their query's bar."""
        self._pending.append(found)
        self._count += len(found.queries)
        if self._count > self._limit:
            self.settle()

    def settle(self) -> None:
        """Take in what was noted, and raise the bars."""
        keys = best_keys(self._parts(), self.num_queries, self.k, ordered=False)
        self.bar = from_keys(keys.max(axis=1))[0]
        there = keys >> 32 != 0x7F800000  # the key of -inf
        queries = np.repeat(np.arange(self.num_queries), there.sum(axis=1))
        self._kept = Found(queries, keys[there])
        self._pending, self._count = [], 0

    def first(self, scores: np.ndarray, top: int, left: int) -> Found:
        """For the queries from ``top`` on, which have no bar yet, the best of a tile's rows."""
        values, places = best_columns(scores, min(self.k, scores.shape[1]))
        query, nth = np.nonzero(places >= 0)
        return Found(query + top, keys_of(values[query, nth], places[query, nth] + left))

    def _parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        parts: list[tuple[np.ndarray, np.ndarray]] = [self._kept]
        if self._count:
            queries, keys = _joined(self._pending)
            order = queries << 32
            order |= np.arange(len(queries))
            order.sort()
            order &= 0xFFFFFFFF
            parts.append(Found(queries[order], keys[order]))
        return parts

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores ``(N, k)`` float32 descending and rows int64, filled with ``-inf`` and -1."""
        scores, rows = from_keys(best_keys(self._parts(), self.num_queries, self.k))
        return torch.from_numpy(scores), torch.from_numpy(rows)


class NearRows(BestRows):
    """The rows that may be among the k best of every query, by rounded scores; see
    :mod:`~retrieval.ranking.rounded`.

    Args:
        gallery: the set, N rows.
        vectors: its rows ``(N, D)`` float32 as queries.
        k: how many are wanted of each.
    """

    def __init__(self, gallery: PreparedGallery, vectors: Tensor, k: int) -> None:
        super().__init__(len(vectors), k)
        self.gallery, self.vectors = gallery, vectors
        self.reach = rounded.Reach(gallery, vectors)

    def first(self, scores: np.ndarray, top: int, left: int) -> Found:
        lowest = np.full(len(scores), LOWEST, np.float32)
        if scores.shape[1] >= self.k:
            queries = slice(top, top + len(scores))
            lowest = self.reach.below(lower_bound(scores, self.k), queries)
        query, keys = pairs_where(scores >= lowest[:, None], scores, left)
        return Found(query + top, keys)

    def settle(self) -> None:
        found = _joined([self._kept, *self._pending])
        self._pending, self._count = [], 0
        worst = kth_scores([found], self.num_queries, self.k)
        with np.errstate(over='ignore'):  # from the lowest to -inf
            below = np.nextafter(self.reach.below(worst), np.float32(-np.inf))
        self.bar = np.where(self.bar == LOST, self.bar, below)
        self._kept = self._near(found)
        lost = rounded.too_many([self._kept], self.num_queries, self.k)
        if lost.any():
            self.bar[lost] = LOST
            self._kept = self._near(self._kept)
        self._limit = max(self._limit, len(self._kept.queries))

    def _near(self, found: Found) -> Found:
        """What is above its query's bar."""
        near = scores_of(found.keys) > self.bar[found.queries]
        return Found(found.queries[near], found.keys[near])

    def result(self) -> tuple[Tensor, Tensor]:
        order = np.argsort(self._kept.queries, kind='stable')
        queries, rows = self._kept.queries[order], from_keys(self._kept.keys[order])[1]

        def work(block: tuple[int, int]) -> tuple[Tensor, Tensor]:
            start, stop = block
            part = slice(*np.searchsorted(queries, block))
            return rounded.exact_lists(self.gallery, self.vectors[start:stop],
                                       queries[part] - start, rows[part], self.k)

        blocks = shares(self.num_queries, -(-self.num_queries // _BLOCK))
        lists = zip(*in_order(work, blocks), strict=True)
        scores, places = (torch.cat(part) for part in lists)
        lost = torch.from_numpy(np.flatnonzero(self.bar == LOST))
        if len(lost):
            itself = RowSets.from_rows(lost, self.num_queries)
            scores[lost], places[lost] = best_rows(self.gallery, self.vectors[lost], self.k, itself)
        return scores, places


def _joined(parts: list[Found]) -> Found:
    return Found(*map(np.concatenate, zip(*parts, strict=True)))


def best_others(gallery: PreparedGallery, k: int, tile_budget: int, part: int = 0,
                parts: int = 1) -> tuple[Tensor, Tensor]:
    """The k best other rows for every row of a set, from one share of the tiles.

    Args:
        gallery: the set, N rows, on the CPU; its similarity must be symmetric.
        k: how many.
        tile_budget: how many scores a thread holds at once.
        part, parts: which share. With several, the lists of all shares make the whole: see
            :func:`gathered`.

    Returns:
        Scores ``(N, k)`` float32 descending and rows ``(N, k)`` int64; where there are fewer,
        ``-inf`` and -1. Among equal scores the lower row comes first.
    """
    vectors = gallery.own_queries().contiguous()
    by_halves = parts == 1 and rounded.pays(gallery, len(gallery), k)
    best = NearRows(gallery, vectors, k) if by_halves else BestRows(len(gallery), k)

    def work(tile: Tile) -> list[Found]:
        top, bottom, left, right = tile
        if by_halves:  # a row is rounded as a query alike
            size = (bottom - top) * (right - left)
            scores = gallery.half_rows.score_into(
                torch.empty(size, dtype=torch.bfloat16), torch.empty(size),
                gallery.half_rows.rows[top:bottom], left, right)
        else:
            buffer = np.empty((bottom - top) * (right - left), dtype=np.float32)
            scores = gallery.score_into(buffer, vectors[top:bottom].numpy(), left, right)
        if left == top:
            np.fill_diagonal(scores, -np.inf)
        return list(_above(best, scores, top, left, bottom))

    strips = list(_strips(gallery, tile_budget, part, parts))
    first = strips[0] if strips else []

    def worked() -> Iterator[list[Found]]:
        for tiles in (first, list(chain.from_iterable(strips[1:]))):
            yield from in_order(work, tiles, torch_alone=by_halves, ahead=_AHEAD)
            best.settle()  # the first strip gives every query a bar

    for found in counted('Ranking', worked(), sum(map(len, strips))):
        for pairs in found:
            best.offer(pairs)
    return best.result()


def _strips(gallery: PreparedGallery, budget: int, part: int,
            parts: int) -> Iterator[list[Tile]]:
    """The strips of one share, each its tiles on and right of the diagonal."""
    count = len(gallery)
    height = max(64, min(_STRIP, budget // 64) // 64 * 64)
    width = max(height, budget // _TILE_SHARE // height // 64 * 64)
    for top in range(height * part, count, height * parts):
        bottom = min(top + height, count)
        yield [(top, bottom, left, min(left + width, len(gallery.vectors)))
               for left in range(top, count, width)]


def _above(best: BestRows, scores: np.ndarray, top: int, left: int,
           bottom: int) -> Iterator[Found]:
    """The pairs that a tile offers: columns to the queries of its rows, and rows to its columns."""
    columns = left + scores.shape[1]
    yield _of_rows(best, scores, top, left)
    beyond = max(0, bottom - left)  # columns of the square on the diagonal were all queries above
    if left + beyond < columns:
        yield _of_columns(best, scores[:, beyond:], top, left + beyond)


def _of_rows(best: BestRows, scores: np.ndarray, top: int, left: int) -> Found:
    bar = best.bar[top:top + len(scores)]
    if np.isneginf(bar).any():
        return best.first(scores, top, left)
    query, keys = pairs_where(scores > bar[:, None], scores, left)
    return Found(query + top, keys)


def _of_columns(best: BestRows, scores: np.ndarray, top: int, left: int) -> Found:
    bar = best.bar[left:left + scores.shape[1]]
    if np.isneginf(bar).any():
        return best.first(np.ascontiguousarray(scores.T), left, top)
    other, query = np.divmod(np.flatnonzero(scores > bar), scores.shape[1])
    return Found(query + left, keys_of(scores[other, query], other + top))


def gathered(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The lists of all processes' shares as one, the same on each: ``(N, k)`` both."""
    world = distributed.world_size()
    if world == 1:
        return scores, rows
    count, k = scores.shape
    scores, rows = (distributed.all_gather_rows(part).reshape(world, count, k).permute(1, 0, 2)
                    .reshape(count, -1) for part in (scores, rows))
    return best_of_lists(scores, rows, k)

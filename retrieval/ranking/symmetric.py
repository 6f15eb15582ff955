"""The best other rows of every row of a set, where each pair is computed once.

The matrix of similarities within a set is symmetric: one tile of it serves the queries of its rows
and those of its columns.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import distributed
from .scoring import PreparedGallery
from .topk import select

DEEPEST = 64      # beyond that many rows for each query the lists cost more than the second half
_STRIP = 1024     # rows of a tile
_PENDING = 2 ** 20


class BestRows:
    """The k best rows of every query so far; what is not above the last of them is passed over.

    Rows must be offered to each query in rising order: then an equal score that comes later
    belongs to a higher row and ranks behind.

    Args:
        num_queries: number of queries, N.
        k: how many to keep for each.
    """

    def __init__(self, num_queries: int, k: int) -> None:
        self.scores = np.full((num_queries, k), -np.inf, dtype=np.float32)
        self.rows = np.full((num_queries, k), -1, dtype=np.int64)
        self.bar = np.full(num_queries, -np.inf, dtype=np.float32)
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._count = 0
        self._limit = max(_PENDING, num_queries * k // 2)

    def offer(self, queries: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Note pairs above their query's bar, ``(n,)`` each."""
        self._pending.append((queries, rows, scores))
        self._count += len(queries)
        if self._count > self._limit:
            self.settle()

    def settle(self) -> None:
        """Take in what was noted, and raise the bars."""
        if not self._pending:
            return
        k = self.scores.shape[1]
        queries, rows, scores = (np.concatenate(parts) for parts in zip(*self._pending,
                                                                        strict=True))
        self._pending, self._count = [], 0
        seen = np.zeros(len(self.scores), dtype=bool)
        seen[queries] = True
        touched = np.flatnonzero(seen)
        queries = np.concatenate([np.repeat(touched, k), queries])
        rows = np.concatenate([self.rows[touched].reshape(-1), rows])
        scores = np.concatenate([self.scores[touched].reshape(-1), scores])
        order = _by_query_and_score(queries, scores)
        queries = queries[order]
        begins = np.searchsorted(queries, touched)
        place = np.arange(len(queries)) - np.repeat(
            begins, np.diff(np.append(begins, len(queries))))
        keep = place < k
        queries, order, place = queries[keep], order[keep], place[keep]
        self.scores[queries, place] = scores[order]
        self.rows[queries, place] = rows[order]
        self.bar = self.scores[:, -1].copy()


def _by_query_and_score(queries: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The stable order by rising query, then falling score.

    Two sorts of plain numbers, each made unique by its place, are several times faster than one
    of two keys.
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0 and 0 one number
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    place = np.arange(len(queries), dtype=np.uint64)
    order = np.sort((~rising).astype(np.uint64) << 32 | place) & 0xFFFFFFFF
    again = np.sort(queries[order].astype(np.uint64) << 32 | place) & 0xFFFFFFFF
    return order[again]


def best_others(gallery: PreparedGallery, k: int, tile_budget: int, part: int = 0,
                parts: int = 1) -> tuple[Tensor, Tensor]:
    """The k best other rows for every row of a set, from one share of the tiles.

    Args:
        gallery: the set, N rows, on the CPU; its similarity must be symmetric.
        k: how many.
        tile_budget: how many scores are held at once.
        part, parts: which share. With several, the lists of all shares make the whole: see
            :func:`gathered`.

    Returns:
        Scores ``(N, k)`` float32 descending and rows ``(N, k)`` int64; where there are fewer,
        ``-inf`` and -1. Among equal scores the lower row comes first.
    """
    count = len(gallery)
    best = BestRows(count, k)
    strip = max(64, min(_STRIP, tile_budget // 64) // 64 * 64)
    width = max(strip, tile_budget // strip // 64 * 64)
    for top in range(0, count, strip * parts):
        top += strip * part
        bottom = min(top + strip, count)
        for left in range(top, count, width):
            right = min(left + width, len(gallery.vectors))
            scores = gallery.scores(gallery.vectors[top:bottom], left, right)
            if left == top:
                scores.fill_diagonal_(-torch.inf)
            _offer_tile(best, scores, top, left, bottom)
    best.settle()
    return torch.from_numpy(best.scores), torch.from_numpy(best.rows)


def _offer_tile(best: BestRows, scores: Tensor, top: int, left: int, bottom: int) -> None:
    """Offer a tile's columns to the queries of its rows, and its rows to those of its columns."""
    rows = np.arange(top, top + len(scores))
    columns = np.arange(left, left + scores.shape[1])
    _offer_rows(best, scores, rows, columns)
    beyond = max(0, bottom - left)  # columns of the square on the diagonal were all queries above
    if beyond < len(columns):
        _offer_columns(best, scores[:, beyond:], rows, columns[beyond:])


def _offer_rows(best: BestRows, scores: Tensor, queries: np.ndarray, others: np.ndarray) -> None:
    bar = best.bar[queries[0]:queries[-1] + 1]
    if np.isneginf(bar).any():
        _offer_the_best(best, scores, queries, others)
        return
    values = scores.numpy()
    query, other = np.divmod(np.flatnonzero(values > bar[:, None]), values.shape[1])
    best.offer(queries[query], others[other], values[query, other])


def _offer_columns(best: BestRows, scores: Tensor, others: np.ndarray,
                   queries: np.ndarray) -> None:
    bar = best.bar[queries[0]:queries[-1] + 1]
    if np.isneginf(bar).any():
        _offer_the_best(best, scores.T.contiguous(), queries, others)
        return
    values = scores.numpy()
    other, query = np.divmod(np.flatnonzero(values > bar), values.shape[1])
    best.offer(queries[query], others[other], values[other, query])


def _offer_the_best(best: BestRows, scores: Tensor, queries: np.ndarray,
                    others: np.ndarray) -> None:
    """Offer each query, which has no full list yet, its best rows of this tile."""
    kept = min(best.scores.shape[1], scores.shape[1])
    values, places = (part.numpy() for part in select(scores, kept))
    order = np.argsort(places, axis=1)  # in rising order of rows, as everything is offered
    values = np.take_along_axis(values, order, 1)
    places = np.take_along_axis(places, order, 1)
    query, place = np.nonzero(values > -np.inf)
    best.offer(queries[query], others[places[query, place]], values[query, place])
    best.settle()


def gathered(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The lists of all processes' shares as one, the same on each: ``(N, k)`` both."""
    world = distributed.world_size()
    if world == 1:
        return scores, rows
    count, k = scores.shape
    values, places = (
        distributed.all_gather_rows(part).reshape(world, count, k).permute(1, 0, 2)
        .reshape(count, -1).numpy() for part in (scores, rows))
    order = np.lexsort((places, -values), axis=1)[:, :k]
    return (torch.from_numpy(np.take_along_axis(values, order, 1)),
            torch.from_numpy(np.take_along_axis(places, order, 1)))

"""Exact search on the CPU by products of vectors that are rounded to bfloat16.

It is the engine of :mod:`~retrieval.ranking.cpu` with a product that takes half of the time, or
less, where the processor multiplies bfloat16. Such a product differs from the true one by a known
bound. Kept are the pairs within twice that bound of the k-th best; their float32 scores decide in
the end. NumPy rounds a product of few vectors as one of many (:func:`is_faster` looks whether), so
that the results are those of float32, bit for bit.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import write_json
from .cpu import LOST, LOWEST, lower_bound, pairs_where
from .cpu import num_threads as num_threads  # a part of the protocol
from .half_precision import UNIT, rescored
from .lists import best_keys, best_of_lists, from_keys, keys_of, kth_scores, scores_of
from .prepared import PreparedGallery
from .threads import Result, Task, shares
from .threads import in_order as in_threads

_TOGETHER = (4, 32)     # queries whose candidates are scored again in one product
_PRODUCT = 2 ** 20      # multiplications from which on OpenBLAS rounds as in large products
_ROOM = 3               # pairs kept for each result that is wanted before they are cut
_MOST, _FEW = 8, 256    # with more candidates than that for each result, and so many, it is lost
# Scoring the candidates again costs what the product saves, where there are more results than that
# or than such a share of the rows, or the product is but so large for each query.
_DEEPEST, _SHARE, _LEAST, _NARROWEST = 128, 500, 2 ** 22, 64
_FEWEST = 64            # queries
_FORM = 2               # of the products that are measured: what was kept of another is not read
_GAIN = 0.75            # of float32's time: it takes as much less that selecting costs more


def pays(gallery: PreparedGallery, num_queries: int, k: int) -> bool:
    """True where a gallery is to be searched so: by its precision, the work, and this machine."""
    if gallery.precision == 'float32' or not gallery.on_cpu:
        return False
    if gallery.precision == 'half':
        return True
    return (gallery.similarity.kind == 'product' and num_queries >= _FEWEST
            and gallery.width >= _NARROWEST and gallery.width * len(gallery) >= _LEAST
            and k <= min(_DEEPEST, len(gallery) // _SHARE) and is_faster())


@lru_cache(maxsize=1)
def is_faster() -> bool:
    """True where this machine multiplies bfloat16 so much faster than float32 that it pays.

    Measured once for a processor, version of the libraries and number of threads, in a fifth of a
    second, and kept in the user's cache (``$XDG_CACHE_HOME``, else ``~/.cache``).
    """
    try:
        processor = Path('/proc/cpuinfo').read_text().split('\n\n')[0]
        lines = [line for line in processor.splitlines()
                 if line.startswith(('model name', 'flags'))]
    except OSError:
        lines = [platform.machine(), platform.processor()]
    told = [_FORM, *lines, torch.__version__, np.__version__, torch.get_num_threads()]
    name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    kept = Path(home, 'retrieval', 'products', f'{name}.json')
    try:
        return bool(json.loads(kept.read_text())['bfloat16'] <= _GAIN)
    except (OSError, ValueError, TypeError, KeyError):
        ratio = product_ratio()
    with suppress(OSError):  # where nothing can be kept the next process measures again
        write_json(kept, dict(bfloat16=ratio))
    return ratio <= _GAIN


def product_ratio(width: int = 512) -> float:
    """The time of a product in bfloat16 over one in float32, as the engines multiply; infinite
    where a product of few vectors is rounded otherwise than one of many.

    Example:
        >>> product_ratio(64) > 0
        True
    """
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4096, width), np.float32)
    queries, few = rows[:384], np.sort(rng.choice(len(rows), _PRODUCT // 4 // width, replace=False))
    halves = torch.from_numpy(rows).bfloat16()
    scores = np.empty((384, 4096), np.float32)

    def exact(_: int) -> None:
        np.matmul(queries, rows.T)

    def by_halves(_: int) -> None:
        torch.from_numpy(np.empty_like(scores)).copy_(halves[:384] @ halves.T)

    def seconds(work: Callable[[int], None]) -> float:
        start = time.perf_counter()
        list(in_order(work, range(torch.get_num_threads())))
        return time.perf_counter() - start

    for out in in_order(lambda _: queries @ rows.T, range(1)):
        scores = out
    for part in in_order(lambda _: rows[few] @ queries[3:7].T, range(1)):
        if not np.array_equal(part.T, scores[3:7, few]):
            return float('inf')
    taken = [(seconds(by_halves), seconds(exact)) for _ in range(4)][1:]
    half, full = (min(part) for part in zip(*taken, strict=True))
    return half / full


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task],
             threads: int | None = None) -> Iterator[Result]:
    """``work`` of every task, in order, by so many threads, in each of which torch is alone."""
    return in_threads(work, tasks, threads, torch_alone=True)


def score_tiles(gallery: PreparedGallery, queries: Tensor,
                tiles: Iterable[tuple[int, int]]) -> Iterator[tuple[int, np.ndarray]]:
    """Scores that are off by the margins, of prepared queries ``(B, D)`` and the rows of each tile;
    see the protocol.
    """
    half, tiles = gallery.half_rows, list(tiles)
    block = half.rounded(half.shifted(queries))
    size = len(block) * max(stop - start for start, stop in tiles)
    product, buffer = torch.empty(size, dtype=torch.bfloat16), torch.empty(size)
    for start, stop in tiles:
        yield start, half.score_into(product, buffer, block, start, stop)


class _Candidates:
    """The candidates for the k best rows of a block of queries, and in the end the k best.

    Args:
        gallery: the gallery.
        queries: prepared, ``(B, D)``.
        k: how many to keep.
    """

    def __init__(self, gallery: PreparedGallery, queries: Tensor, k: int) -> None:
        self.gallery, self.queries, self.k = gallery, queries, k
        self.reach = Reach(gallery, queries)
        self.bar = np.full(len(queries), LOWEST, np.float32)  # lower scores are passed over
        self._best = np.full(len(queries), -np.inf, np.float32)
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._count, self._full = 0, _ROOM * len(queries) * k

    def offer(self, scores: np.ndarray, start: int) -> None:
        """Take in a tile ``(B, T)`` of the rows from ``start`` on, which lie behind all before."""
        if not self._parts and scores.shape[1] >= self.k:
            self._raise(lower_bound(scores, self.k))
        self._parts.append(pairs_where(scores >= self.bar[:, None], scores, start))
        self._count += len(self._parts[-1][0])
        if self._count > self._full:
            self._cut()

    def _raise(self, best: np.ndarray) -> None:
        self._best = np.maximum(self._best, best)
        self.bar = np.maximum(self.bar, self.reach.below(self._best))

    def _cut(self) -> None:
        self._raise(kth_scores(self._parts, len(self.queries), self.k))
        self._drop()
        lost = too_many(self._parts, len(self.bar), self.k)
        if lost.any():
            self.bar[lost] = LOST  # nothing more is kept for it
            self._drop()
        self._count = sum(len(query) for query, _ in self._parts)
        self._full = max(_ROOM * len(self.queries) * self.k, 2 * self._count)

    def _drop(self) -> None:
        self._parts = [(query[keep], keys[keep]) for query, keys in self._parts
                       for keep in [scores_of(keys) >= self.bar[query]]]

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores float32 and rows int64 ``(B, k)``, filled with ``-inf`` and -1; the best score of
        a query to which too many rows are as near as the last ones is :data:`~.cpu.LOST`.
        """
        self._cut()
        query, keys = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.argsort(query, kind='stable')
        scores, rows = exact_lists(self.gallery, self.queries, query[order],
                                   from_keys(keys[order])[1], self.k)
        scores[torch.from_numpy(self.bar == LOST)] = LOST
        return scores, rows


def best_of_tiles(gallery: PreparedGallery, queries: Tensor, k: int) -> _Candidates:
    """What collects the candidates of a block of queries, and the k best; see the protocol."""
    return _Candidates(gallery, queries, k)


def too_many(parts: Sequence[tuple[np.ndarray, np.ndarray]], num_queries: int,
             k: int) -> np.ndarray:
    """The queries ``(B,)`` bool that have more candidates, ``(query, key)``, than are worth it."""
    counts = sum((np.bincount(query, minlength=num_queries) for query, _ in parts),
                 np.zeros(num_queries, np.int64))
    return counts > _MOST * k + _FEW


class Reach:
    """How far below a score that rows reach another may lie whose true score is not lower."""

    def __init__(self, gallery: PreparedGallery, queries: Tensor) -> None:
        half = gallery.half_rows
        shifted = half.shifted(queries)
        self.margins = half.margins(shifted, half.rounded(shifted)).numpy()
        self.halves = 0.0 if half.halves is None else float(half.halves.max())

    def below(self, best: np.ndarray, queries: slice = slice(None)) -> np.ndarray:
        """Scores ``(B,)`` from which on pairs are kept."""
        size = np.abs(best) + self.halves
        low = best - 2 * self.margins[queries] - 2 * UNIT[torch.bfloat16] * size
        return np.maximum(low, LOWEST).astype(np.float32)


def exact_lists(gallery: PreparedGallery, queries: Tensor, query: np.ndarray, rows: np.ndarray,
                k: int) -> tuple[Tensor, Tensor]:
    """The k best of the candidates of every query, by their float32 scores.

    Args:
        queries: prepared, ``(B, D)``.
        query, rows: ``(C,)`` int64, the pairs, by rising query.

    Returns:
        Scores float32 and rows int64 ``(B, k)``, filled with ``-inf`` and -1.
    """
    edges = np.searchsorted(query, np.arange(len(queries) + 1))
    if gallery.similarity.kind == 'distance':
        table = np.full((len(queries), max(k, int(np.diff(edges).max(initial=0)))), -1)
        table[query, np.arange(len(query)) - edges[query]] = rows
        there = torch.from_numpy(table)
        scores = rescored(gallery, queries, there.clamp(min=0))
        return best_of_lists(scores.masked_fill_(there < 0, -torch.inf), there, k)
    block, found = queries.contiguous().numpy(), []
    room = gallery.vectors.new_empty(0, gallery.width)
    usual = len(query) / len(block) * gallery.width  # so many that the product is just large enough
    together = int(np.clip(math.sqrt(_PRODUCT / max(usual, 1)), *_TOGETHER))
    for start, stop in shares(len(block), -(-len(block) // together)):
        part = slice(edges[start], edges[stop])
        own, those = query[part] - start, rows[part]
        fewest = -(-_PRODUCT // ((stop - start) * gallery.width))
        padded = np.pad(those, (0, max(0, fewest - len(those))))
        if len(room) < len(padded):  # memory that was just given is slow to write to
            room = gallery.vectors.new_empty(len(padded) * 5 // 4, gallery.width)
        taken = room[:len(padded)]
        torch.index_select(gallery.vectors, 0, torch.from_numpy(padded), out=taken)
        # the few queries on the right: the rows, which are many, are packed but once
        scores = gallery.similarity.clipped(taken.float().numpy() @ block[start:stop].T)
        keys = keys_of(scores[np.arange(len(those)), own], those)
        found.append(best_keys([(own, keys)], stop - start, k))
    values, places = from_keys(np.concatenate(found))
    return torch.from_numpy(values), torch.from_numpy(places)

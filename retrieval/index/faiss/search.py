"""One search of a faiss index: what may be found, and candidates until there are enough of them."""
from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...ranking import RowSets
from ...ranking.lists import best_of_lists
from ...registry import unknown_name
from ...similarity import SIMILARITIES
from .engine import FaissEngine
from .factory import load_faiss

DTYPES = {'float16': torch.float16, 'float32': torch.float32}
_HALF_LARGEST = 65504.0
_BLOCK = 2 ** 18  # numbers that are gathered at once: they stay in the cache
_BUDGET = 2 ** 22  # candidates that are held at once
_MORE = 4  # how many times as many candidates the next round fetches
_ROUNDING = 1e-6  # of a product of two lengths; faiss's blocked products differ by less


class KeptVectors:
    """Prepared vectors ``(N, D)`` in half or single precision.

    Args:
        similarity: ``cosine_similarity`` (the vectors have length 1 or 0), ``inner_product`` or
            ``euclidean``.
        dtype: ``float16`` or ``float32``.
        rows: the vectors, where there are some already.

    Raises:
        ValueError: the dtype is another one.
    """

    def __init__(self, similarity: str, dtype: str, rows: Tensor | None = None) -> None:
        if dtype not in DTYPES:
            raise ValueError(unknown_name('dtype of the kept vectors', dtype, DTYPES))
        self.similarity, self.dtype = similarity, dtype
        self._buffer = torch.zeros((0, 0), dtype=DTYPES[dtype]) if rows is None else rows
        self._count = len(self._buffer)

    @property
    def rows(self) -> Tensor:
        """The vectors ``(N, D)``, in the dtype that they are kept in."""
        return self._buffer[:self._count]

    def check(self, vectors: Tensor) -> None:
        """Refuse vectors that half precision cannot hold. Raises ValueError."""
        if self.dtype == 'float16':
            check_half(vectors, "which rescore_dtype='float16'")

    def add(self, vectors: Tensor) -> None:
        """Append vectors ``(n, D)`` float32."""
        need = self._count + len(vectors)
        if len(self._buffer) < need:
            room = max(need, 3 * self._count // 2, 1024)
            larger = torch.zeros((room, vectors.shape[1]), dtype=self._buffer.dtype)
            if self._count:
                larger[:self._count] = self.rows
            self._buffer = larger
        self._buffer[self._count:need] = vectors
        self._count = need

    def keep(self, rows: np.ndarray) -> None:
        """Leave only the rows of these numbers, in this order."""
        self._buffer = self.rows[torch.from_numpy(rows)]
        self._count = len(self._buffer)

    def floats(self, rows: np.ndarray | slice) -> Tensor:
        """Some of the vectors in float32, cosine's scaled to length 1 again."""
        chosen = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        vectors = self.rows[chosen].float()
        if self.dtype == 'float16':
            vectors = SIMILARITIES[self.similarity].prepare(vectors)
        return vectors

    def scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The similarities ``(Q, C)`` float32 of queries ``(Q, D)`` to their rows ``(Q, C)``;
        ``-inf`` where the row is -1.
        """
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        height = max(1, _BLOCK // max(1, rows.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), height):
            block = rows[start:start + height]
            query = torch.from_numpy(queries[start:start + height])[:, None]
            vectors = self.floats(np.maximum(block, 0))
            found = SIMILARITIES[self.similarity].of_pairs(vectors, query)
            scores[start:start + height] = np.where(block >= 0, found.numpy(), -np.inf)
        return scores


def check_half(vectors: Tensor, who: str) -> None:
    """Refuse numbers that float16 cannot hold. Raises ValueError."""
    if len(vectors) and float(vectors.abs().max()) > _HALF_LARGEST:
        raise ValueError(f'The vectors hold numbers above 65504, {who} cannot keep: use float32, '
                         'or divide them by a constant.')


class Scope:
    """Which rows may be found, and which row a slot is.

    Args:
        slots: of every row, ``(N,)`` int64 rising.
        allowed: ``(N,)`` bool, or None for all.
        excluded: the rows that each query must not find, or None.
        num_queries: how many queries there are, Q.
    """

    def __init__(self, slots: np.ndarray, allowed: np.ndarray | None, excluded: RowSets | None,
                 num_queries: int) -> None:
        self.slots, self.allowed = slots, allowed
        self.dense = bool(len(slots)) and int(slots[-1]) == len(slots) - 1
        self._keys = np.zeros(0, dtype=np.int64)
        self._numbers = np.arange(num_queries)
        rows = len(slots) if allowed is None else int(allowed.sum())
        self.available = np.full(num_queries, rows)
        self.most_excluded = 0
        if excluded is not None:
            query, row = (part.numpy() for part in excluded.block(0, num_queries))
            if allowed is not None:
                query, row = query[allowed[row]], row[allowed[row]]
            counts = np.bincount(query, minlength=num_queries)
            self.available -= counts
            self.most_excluded = int(counts.max(initial=0))
            self._keys = query * len(slots) + row

    def of(self, queries: np.ndarray) -> Scope:
        """The scope of some of the queries, by number."""
        part = copy(self)
        part._numbers, part.available = self._numbers[queries], self.available[queries]
        return part

    def selector(self, held: int) -> Any:
        """faiss's selector of what may be found at all; None where that is all of ``held``."""
        if self.allowed is None and held == len(self.slots):
            return None
        flags = np.zeros(int(self.slots[-1]) + 1, dtype=bool)
        flags[self.slots if self.allowed is None else self.slots[self.allowed]] = True
        return load_faiss().IDSelectorBitmap(np.packbits(flags, bitorder='little'))

    def rows(self, queries: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The rows of slots ``(Q, C)`` that queries (by number, ``(Q,)``) found; -1 for what is
        no row, or may not be found.
        """
        count = len(self.slots)
        if self.dense:
            rows = np.where(slots < count, slots, -1)
        else:
            rows = np.searchsorted(self.slots, slots)
            np.minimum(rows, count - 1, out=rows)
            rows[self.slots[rows] != slots] = -1
        if self.allowed is not None:
            rows[(rows < 0) | ~self.allowed[rows]] = -1
        if len(self._keys):
            keys = self._numbers[queries][:, None] * count + rows
            at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            rows[(self._keys[at] == keys) & (rows >= 0)] = -1
        return rows


@dataclass
class FaissSearch:
    """One search: prepared queries over an engine, within a scope.

    Args:
        engine: what is searched.
        queries: prepared, ``(Q, D)`` float32.
        scope: what may be found.
        longest: length of the longest vector in the index; only an exact engine needs it.
        kept: vectors to score the candidates by, or None.
        factor: how many times as many candidates as results are scored.
        device: a mirror of the engine on a GPU, or None.
    """

    engine: FaissEngine
    queries: np.ndarray
    scope: Scope
    longest: float = 0.0
    kept: KeptVectors | None = None
    factor: float = 1
    device: Any = None

    def of(self, queries: np.ndarray) -> FaissSearch:
        """The search of some of the queries, by number."""
        return replace(self, queries=self.queries[queries], scope=self.scope.of(queries))

    def best(self, k: int, complete: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The best ``k`` rows of every query.

        Where queries lack results because the search looked at too little of the index, it looks
        at more, down to a scan of everything; where what was found may not be found, more is
        fetched.

        Args:
            k: how many.
            complete: False to look at no more of the index than the search parameters say.

        Returns:
            Similarities ``(Q, k)`` float32 descending and rows, -inf and -1 where there are none.
        """
        count = len(self.queries)
        scores = np.full((count, k), -np.inf, dtype=np.float32)
        rows = np.full((count, k), -1, dtype=np.int64)
        held = len(self.engine)
        chosen = self.scope.selector(held)
        todo = np.flatnonzero(self.scope.available > 0) if k else np.zeros(0, dtype=np.int64)
        fetch, effort = min(held, self._first_fetch(k)), 0
        while len(todo):
            lacking, dry = [], []
            height = max(1, _BUDGET // fetch)
            for start in range(0, len(todo), height):
                block = todo[start:start + height]
                scores[block], rows[block], lacks, ended = self._round(
                    block, k, fetch, chosen, effort)
                lacking.append(block[lacks])
                dry.append(ended[lacks])
            todo, ended = np.concatenate(lacking), np.concatenate(dry)
            more = complete and bool(ended.any()) and not self.engine.exhausted(effort)
            if not more and (fetch == held or bool(ended.all())):
                break
            effort += more
            if not ended.all():
                fetch = min(held, fetch * _MORE)
        return scores, rows

    def _first_fetch(self, k: int) -> int:
        spare = min(self.scope.most_excluded, 4 * k + 64) + (1 if self.engine.exact else 0)
        return int(k * (self.factor if self.kept is not None else 1)) + spare

    def _round(self, block: np.ndarray, k: int, fetch: int, chosen: Any,
               effort: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Similarities and rows ``(B, k)``, who lacks results, and for whom the search ran dry."""
        queries = self.queries[block]
        source = self.device if self.device is not None and self.device.serves(
            fetch, chosen, effort) else self.engine
        keys, slots = source.candidates(queries, fetch, chosen, effort)
        rows = self.scope.rows(block, slots)
        if self.kept is not None:
            values = self.kept.scores(queries, rows)
        else:
            values = self.engine.similarities(
                self.engine.exact_keys(queries, slots) if self.engine.exact else keys, queries)
        if not np.isfinite(values[rows >= 0]).all():
            raise ValueError('faiss returned scores that are no numbers: the vectors are out of '
                             'the range of this factory. Divide them by a constant.')
        values, found = ordered(values, rows)
        wanted = np.minimum(k, self.scope.available[block])
        lacks = (found[:, :k] >= 0).sum(axis=1) < wanted
        ended = slots[:, -1] < 0
        if self.engine.exact and self.kept is None and fetch < len(self.engine):
            lacks |= ~ended & self._cut_is_open(queries, values[:, k - 1], keys[:, -1])
        return (_filled(values, k, -np.inf), _filled(found, k, -1), lacks, ended)

    def _cut_is_open(self, queries: np.ndarray, last: np.ndarray,
                     fetched: np.ndarray) -> np.ndarray:
        """True where a row that was not fetched could belong above the last result, or tie with it.
        """
        length = np.linalg.norm(queries, axis=1)
        if self.engine.l2:
            slack = 4 * _ROUNDING * (length ** 2 + self.longest ** 2)
            return fetched >= -last ** 2 * (1 + _ROUNDING) - slack
        return fetched >= last - _ROUNDING * length * self.longest


def ordered(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(Q, C)`` both, best first, the lower row first among equal scores, rows of -1 last."""
    scores = np.where(rows >= 0, scores, -np.inf).astype(np.float32)
    wrong = scores[:, 1:] > scores[:, :-1]
    wrong |= (scores[:, 1:] == scores[:, :-1]) & (rows[:, 1:] < rows[:, :-1]) & (rows[:, 1:] >= 0)
    todo = np.flatnonzero(wrong.any(axis=1))
    if len(todo):
        rows = rows.copy()
        best = best_of_lists(torch.from_numpy(scores[todo]), torch.from_numpy(rows[todo]))
        scores[todo], rows[todo] = (part.numpy() for part in best)
    return scores, rows


def _filled(values: np.ndarray, k: int, value: float) -> np.ndarray:
    if values.shape[1] >= k:
        return values[:, :k]
    return np.pad(values, ((0, 0), (0, k - values.shape[1])), constant_values=value)

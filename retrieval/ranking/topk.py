"""The best rows of a gallery for every query, exactly, in tiles."""
from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..similarity import Similarity, SimilarityFn
from ..structures import Neighbors
from .cpu import BestOfBlock, best_columns, from_keys, in_order, keys_of, shares
from .gpu import leave_out, merge, select_on_device
from .half_precision import search_by_half
from .prepared import TILE_BUDGET, PreparedGallery, as_prepared
from .row_sets import RowSets

_SMALL = 2 ** 24  # fewer multiplications than that are done before a thread is started
Exclusion = RowSets | Tensor | Sequence[Any]


def topk(queries: Any, gallery: Any, k: int | None,
         similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
         exclude: Exclusion | None = None, mask: Any = None,
         tile_budget: int = TILE_BUDGET) -> Neighbors:
    """The ``k`` most similar rows for every query; among equal scores the lower row comes first.

    Args:
        queries: ``(Q, D)`` floats.
        gallery: ``(N, D)`` floats, or a :class:`PreparedGallery` (``similarity`` is then its).
        k: how many; None for all. More than there are gives what there are.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        exclude: rows that a query must not find: ``(Q,)`` or ``(Q, E)`` int64 where -1 stands for
            none, a list of rows for every query, or a :class:`RowSets`.
        mask: ``(N,)`` bool, the rows that may be found at all.
        tile_budget: how many scores a thread holds at once.

    Returns:
        Scores ``(Q, w)`` float32 descending and rows ``(Q, w)`` int64, where ``w`` is the largest
        number of results that any query has; shorter rows end in ``-inf`` and -1.

    Raises:
        TypeError, ValueError: vectors, k, exclusion or mask are wrong, or the gallery is empty.
    """
    prepared = as_prepared(gallery, similarity)
    vectors = prepared.prepare_queries(queries)
    k = len(prepared) if k is None else min(checked_k(k), len(prepared))
    allowed = as_mask(mask, len(prepared))
    sets = as_row_sets(exclude, len(vectors), len(prepared))
    k = min(k, len(prepared) if allowed is None else int(allowed.sum()))
    if not k or not len(vectors):
        return Neighbors(torch.zeros((len(vectors), 0), device=vectors.device),
                         torch.zeros((len(vectors), 0), dtype=torch.int64, device=vectors.device))
    by_threads = prepared.on_cpu and prepared.precision == 'float32'
    search = _search_in_threads if by_threads else _search_in_turn
    scores, indices = search(prepared, vectors, k, sets, allowed, tile_budget)
    width = int((indices >= 0).sum(dim=1).max())
    return Neighbors(scores[:, :width], indices[:, :width])


def _search_in_threads(gallery: PreparedGallery, vectors: Tensor, k: int, sets: RowSets | None,
                       allowed: Tensor | None, budget: int) -> tuple[Tensor, Tensor]:
    """A thread takes a block of queries; where there are too few blocks, a part of the gallery."""
    height, width = gallery.tiles(len(vectors), budget)
    threads = torch.get_num_threads() if _worth_threads(gallery, len(vectors)) else 1
    blocks = _even_blocks(len(vectors), height, threads)
    tiles = list(gallery.column_tiles(width))
    parts = shares(len(tiles), -(-threads // len(blocks)))
    queries = vectors.contiguous().numpy()
    forbidden = None if allowed is None else ~allowed.numpy()

    def search(task: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        start, stop, first, last = task
        best = BestOfBlock(stop - start, k)
        buffer = np.empty((stop - start) * width, dtype=np.float32)
        left_out = None if sets is None else sets.block(start, stop)
        for left, right in tiles[first:last]:
            scores = gallery.score_into(buffer, queries[start:stop], left, right)
            leave_out(torch.from_numpy(scores), left_out, left)
            if forbidden is not None:
                part = forbidden[left:right]
                scores[:, :len(part)][:, part] = -np.inf
            best.offer(scores, left)
        return best.result()

    tasks = [(*block, *part) for block in blocks for part in parts]
    found = list(in_order(search, tasks, threads))
    lists = [_joined(found[place:place + len(parts)], k)
             for place in range(0, len(found), len(parts))]
    return (torch.from_numpy(np.concatenate([scores for scores, _ in lists])),
            torch.from_numpy(np.concatenate([rows for _, rows in lists])))


def _even_blocks(count: int, height: int, threads: int) -> list[tuple[int, int]]:
    """Blocks of at most ``height`` queries, so many that every thread gets as many."""
    blocks = -(-count // height)
    if blocks > 1:
        blocks = -(-blocks // threads) * threads
    return shares(count, blocks)


def _worth_threads(gallery: PreparedGallery, num_queries: int) -> bool:
    return num_queries * len(gallery) * gallery.width > _SMALL


def _joined(found: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The lists of parts of the gallery, in rising order, as one."""
    if len(found) == 1:
        return found[0]
    scores, rows = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    keys = keys_of(scores, rows & 0xFFFFFFFF)
    keys.sort(axis=1)
    return from_keys(keys[:, :k])


def _search_in_turn(gallery: PreparedGallery, vectors: Tensor, k: int, sets: RowSets | None,
                      allowed: Tensor | None, budget: int) -> tuple[Tensor, Tensor]:
    """Block after block: on a GPU, in half precision, or by a callable that sees every row."""
    half = gallery.precision == 'half'
    rows, width = gallery.tiles(len(vectors), budget, whole_rows=half)
    found = []
    for start in range(0, len(vectors), rows):
        stop = min(start + rows, len(vectors))
        left_out = None if sets is None else sets.block(start, stop)
        block = vectors[start:stop]
        found.append(search_by_half(gallery, block, k, left_out, allowed) if half else
                     _best_of_block(gallery, block, k, width, left_out, allowed))
    scores, indices = (torch.cat(part) for part in zip(*found, strict=True))
    indices[scores == -torch.inf] = -1
    return scores, indices


def _best_of_block(gallery: PreparedGallery, queries: Tensor, k: int, width: int,
                   left_out: tuple[Tensor, Tensor] | None,
                   allowed: Tensor | None) -> tuple[Tensor, Tensor]:
    best: tuple[Tensor, Tensor] | None = None
    for start, stop in gallery.column_tiles(width):
        scores = gallery.scores(queries, start, stop)
        leave_out(scores, left_out, start)
        if allowed is not None:
            scores.masked_fill_(~allowed[start:start + scores.shape[1]].to(scores.device),
                                -torch.inf)
        values, rows = select(scores, min(k, scores.shape[1]))
        rows += start
        best = (values, rows) if best is None else merge(*best, values, rows, k)
    assert best is not None  # a prepared gallery has at least one tile
    return best


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of every row of ``(B, T)``, descending; the lower column first among equals."""
    k = min(k, scores.shape[1])
    if scores.device.type == 'cpu' and scores.dtype == torch.float32:
        tile = scores.contiguous().numpy()
        parts = shares(len(tile), None if tile.size > _SMALL else 1)
        found = list(in_order(lambda part: best_columns(tile[part[0]:part[1]], k), parts,
                              len(parts)))
        values, columns = (np.concatenate(part) for part in zip(*found, strict=True))
        if (columns < 0).any():  # what is left out is not dropped here: it ranks last, by column
            return select_on_device(scores, k)
        return torch.from_numpy(values), torch.from_numpy(columns)
    return select_on_device(scores, k)


def checked_k(k: Any) -> int:
    """``k`` as a positive integer.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1.
    """
    try:
        number = operator.index(k)
    except TypeError as error:
        raise TypeError(f'k must be an integer of at least 1, got {k!r}.') from error
    if number < 1 or isinstance(k, bool):
        raise ValueError(f'k must be at least 1, got {k!r}.')
    return number


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


def as_row_sets(rows: Exclusion | None, num_queries: int, num_rows: int) -> RowSets | None:
    """What ``exclude`` may be, as row sets.

    Raises:
        ValueError: it is not given for every query, or names a row that is not there.
    """
    if rows is None:
        return None
    if len_of(rows) != num_queries:
        raise ValueError(f'Rows are named for {len_of(rows)} queries, but there are {num_queries}.')
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


def len_of(rows: Exclusion) -> int:
    """The number of queries that an exclusion is for."""
    return rows.num_queries if isinstance(rows, RowSets) else len(rows)

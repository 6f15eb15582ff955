"""The best rows of a gallery for every query, exactly, in tiles."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import whole_number
from ..progress import counted
from ..similarity import Similarity, SimilarityFn
from ..structures import Neighbors
from . import cpu, gpu, rounded, sampled
from .engine import TileEngine, engine_of
from .half_precision import best_by_half, rescored
from .lists import best_of_lists
from .prepared import TILE_BUDGET, PreparedGallery, as_prepared
from .row_sets import Exclusion, RowSets, as_mask, as_row_sets, leave_out
from .threads import in_order, shares

_MORE = 32        # candidates beside k
_WORTH = 4        # with fewer rows for each candidate all distances are computed
_SEVERAL = 9      # a product of fewer is rounded otherwise
_LARGE = 2 ** 24  # scores that are selected from by several threads


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

    Example:
        >>> gallery = torch.tensor([[1., 0.], [0., 1.], [3., 4.]])
        >>> found = topk([[1., 0.]], gallery, k=2, exclude=[0])
        >>> found.indices, found.scores
        (tensor([[2, 1]]), tensor([[0.6000, 0.0000]]))
    """
    prepared = as_prepared(gallery, similarity)
    vectors = prepared.prepare_queries(queries)
    k = len(prepared) if k is None else min(whole_number('k', k), len(prepared))
    allowed = as_mask(mask, len(prepared))
    sets = as_row_sets(exclude, len(vectors), len(prepared))
    k = min(k, len(prepared) if allowed is None else int(allowed.sum()))
    if not k or not len(vectors):
        return Neighbors(torch.zeros((len(vectors), 0), device=vectors.device),
                         torch.zeros((len(vectors), 0), dtype=torch.int64, device=vectors.device))
    scores, indices = best_rows(prepared, vectors, k, sets, allowed, tile_budget)
    width = int((indices >= 0).sum(dim=1).max())
    return Neighbors(scores[:, :width], indices[:, :width])


def best_rows(gallery: PreparedGallery, vectors: Tensor, k: int, sets: RowSets | None = None,
              allowed: Tensor | None = None, budget: int = TILE_BUDGET) -> tuple[Tensor, Tensor]:
    """The k best rows for prepared queries ``(Q, D)``, in the way that is fastest for them: scores
    float32 and rows int64 ``(Q, k)``, filled with ``-inf`` and -1.
    """
    if gallery.precision == 'half' and not gallery.on_cpu:
        return best_by_half(gallery, vectors, k, sets, allowed, budget)
    way: TileEngine | None = None
    if rounded.pays(gallery, len(vectors), k):
        way = rounded
    elif allowed is None and sampled.pays(gallery, len(vectors), k):
        way = sampled
    if way is not None:
        scores, rows = _best_rows(gallery, vectors, k, sets, allowed, budget, way)
        unsure = (scores[:, 0] == cpu.LOST).nonzero()[:, 0]
    elif gallery.similarity.kind == 'distance':
        scores, rows, unsure = nearest_rows(gallery, vectors, k, sets, allowed, budget)
    else:
        return _best_rows(gallery, vectors, k, sets, allowed, budget, engine_of(gallery))
    if len(unsure):
        several = unsure.repeat(-(-_SEVERAL // len(unsure)))
        theirs = None if sets is None else sets.of(several)
        found = _best_rows(gallery, vectors[several], k, theirs, allowed, budget,
                           engine_of(gallery))
        scores[unsure], rows[unsure] = (part[:len(unsure)] for part in found)
    return scores, rows


def nearest_rows(gallery: PreparedGallery, vectors: Tensor, k: int, sets: RowSets | None,
                 allowed: Tensor | None, budget: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest rows: products in float32 say which may be among them, and the distances of
    these decide. And the queries for which too many may be, int64.
    """
    engine = engine_of(gallery)
    many = k + max(_MORE, k // 4)
    if _WORTH * many > len(gallery):
        scores, rows = _best_rows(gallery, vectors, k, sets, allowed, budget, engine)
        return scores, rows, rows.new_zeros(0)
    rough, margin = gallery.rough_rows.prepare(vectors)
    scores, rows = _best_rows(gallery.rough_rows.gallery, rough, many, sets, allowed, budget,
                              engine)
    bar = (scores[:, k - 1].double() - 2 * margin)[:, None]
    sure = (scores[:, -1:] < bar)[:, 0] | (rows[:, -1] < 0)
    needed = max(k, int((scores[sure] >= bar[sure]).sum(dim=1).max())) if sure.any() else k
    scores, rows = scores[:, :needed], rows[:, :needed]
    exact = rescored(gallery, vectors, rows.clamp(min=0))
    scores, rows = best_of_lists(exact.masked_fill_(rows < 0, -torch.inf), rows, k)
    return scores, rows, (~sure).nonzero()[:, 0]


def _best_rows(gallery: PreparedGallery, vectors: Tensor, k: int, sets: RowSets | None,
               allowed: Tensor | None, budget: int, engine: TileEngine) -> tuple[Tensor, Tensor]:
    """Scores and rows ``(Q, k)``, a block of queries at a time.

    A thread takes a block; where there are too few blocks, a part of the gallery.
    """
    threads = engine.num_threads(len(vectors) * len(gallery) * gallery.width)
    height, width = gallery.tiles(len(vectors), budget)
    count = -(-len(vectors) // height)
    whole = 2 * k > len(gallery)  # to join two long lists costs as much as to sort them
    if count > 1 or whole:  # every thread gets as many blocks
        count = -(-count // threads) * threads
    blocks, tiles = shares(len(vectors), count), list(gallery.column_tiles(width))
    parts = shares(len(tiles), 1 if whole else -(-threads // len(blocks)))

    def search(task: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
        start, stop, first, last = task
        best = engine.best_of_tiles(gallery, vectors[start:stop], k)
        left_out = None if sets is None else sets.block(start, stop)
        for left, scores in engine.score_tiles(gallery, vectors[start:stop], tiles[first:last]):
            leave_out(scores, left_out, left, allowed)
            best.offer(scores, left)
        return best.result()

    tasks = [(*block, *part) for block in blocks for part in parts]
    found = list(counted('Ranking', engine.in_order(search, tasks, threads), len(tasks)))
    lists = [tuple(torch.cat(part) for part in zip(*found[number::len(parts)], strict=True))
             for number in range(len(parts))]
    scores, rows = (torch.cat(part, dim=1) for part in zip(*lists, strict=True))
    return (scores, rows) if len(parts) == 1 else best_of_lists(scores, rows, k)


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best columns of every row, the lower column first among equals.

    Args:
        scores: ``(B, T)`` floats.
        k: how many, at most T are given.

    Returns:
        Scores descending and columns int64, ``(B, min(k, T))``; ``-inf`` is a score like others.

    Example:
        >>> select(torch.tensor([[1., 3., 2., 3.]]), 3)
        (tensor([[3., 3., 2.]]), tensor([[1, 3, 2]]))
    """
    k = min(k, scores.shape[1])
    if scores.device.type == 'cpu' and scores.dtype == torch.float32:
        tile = scores.contiguous().numpy()
        parts = shares(len(tile), None if tile.size > _LARGE else 1)
        found = list(in_order(lambda part: cpu.best_columns(tile[part[0]:part[1]], k), parts,
                              len(parts)))
        values, columns = (np.concatenate(part) for part in zip(*found, strict=True))
        if (columns >= 0).all():  # else -inf was among the best, which has no column there
            return torch.from_numpy(values), torch.from_numpy(columns)
    return gpu.select(scores, k)



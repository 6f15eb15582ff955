"""The neighbour lists of a gallery's rows among each other, and similarities of single pairs."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..ranking import PreparedGallery
from ..ranking.topk import merge, select
from ..similarity import SIMILARITIES

_GATHERED = 2 ** 22  # numbers copied together: 16 MB


@dataclass
class NeighborLists:
    """The nearest other rows of every row.

    Args:
        rows: ``(N, n)`` int64, best first; the lower row first among equals.
        scores: ``(N, n)`` float32, their similarities.
        least: ``(N,)`` float32, the lowest similarity of any row.
    """

    rows: Tensor
    scores: Tensor
    least: Tensor


def neighbor_lists(gallery: PreparedGallery, count: int) -> NeighborLists:
    """The ``count`` nearest other rows of every row, or all where there are fewer.

    Memory is that of the result and of one tile of scores.
    """
    total = len(gallery)
    count = min(count, total - 1)
    queries = gallery.own_queries() if gallery.symmetric else gallery.vectors[:total]
    rows = torch.empty((total, count), dtype=torch.int64, device=queries.device)
    scores = torch.empty((total, count), device=queries.device)
    least = torch.empty(total, device=queries.device)
    height, width = gallery.tiles(total)
    for start in range(0, total, height):
        part = slice(start, min(start + height, total))
        scores[part], rows[part], least[part] = _of_block(gallery, queries[part], start, count,
                                                          width)
    return NeighborLists(rows, scores, least)


def _of_block(gallery: PreparedGallery, queries: Tensor, first: int, count: int,
              width: int) -> tuple[Tensor, Tensor, Tensor]:
    values = queries.new_empty(len(queries), 0)
    rows = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    least = queries.new_full((len(queries),), torch.inf)
    for start, stop in gallery.column_tiles(width):
        tile = gallery.scores(queries, start, stop)
        least = torch.minimum(least, tile.amin(dim=1))
        if not count:
            continue
        own = torch.arange(max(first, start), min(first + len(queries), start + tile.shape[1]),
                           device=tile.device)
        tile[own - first, own - start] = -torch.inf
        more, columns = select(tile, min(count, tile.shape[1]))
        values, rows = merge(values, rows, more, columns + start, count)
    return values, rows, least


def pair_similarities(gallery: PreparedGallery, queries: Tensor, query: Tensor,
                      row: Tensor) -> Tensor:
    """The similarity of pairs, for cosine and Euclidean distance.

    Args:
        gallery: the rows.
        queries: ``(Q, D)``, as :meth:`PreparedGallery.prepare_queries` returned them.
        query: ``(P,)`` int64, which query.
        row: ``(P,)`` int64, which row.

    Returns:
        ``(P,)`` float32.
    """
    euclidean = gallery.similarity is SIMILARITIES['euclidean']
    result = queries.new_empty(len(query))
    height = max(1, _GATHERED // queries.shape[1])
    for start in range(0, len(query), height):
        part = slice(start, start + height)
        left, right = queries[query[part]], gallery.vectors[row[part]]
        if euclidean:
            result[part] = left.sub_(right).square_().sum(dim=1).sqrt_().neg_()
        else:
            result[part] = left.mul_(right).sum(dim=1)
    return result

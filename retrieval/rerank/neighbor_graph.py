"""The neighbour lists of a gallery's rows among each other, and similarities of single pairs."""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..ranking import PreparedGallery
from ..ranking.cpu import BestOfTiles
from ..ranking.engine import engine_of

_GATHERED = 2 ** 20  # numbers copied together: 4 MB


class NeighborLists(NamedTuple):
    """The nearest other rows of every row.

    Args:
        rows: ``(N, n)`` int64, best first; the lower row first among equals.
        scores: ``(N, n)`` float32, their similarities.
        least: ``(N,)`` float32, the lowest similarity to any row, itself included.
    """

    rows: np.ndarray
    scores: np.ndarray
    least: np.ndarray


def neighbor_lists(gallery: PreparedGallery, count: int) -> NeighborLists:
    """The ``count`` nearest other rows of every row, or all where there are fewer.

    Memory is that of the result and of a tile of scores for each thread.
    """
    total = len(gallery)
    queries = gallery.own_queries()
    height, width = gallery.tiles(total)

    def search(start: int) -> NeighborLists:
        block = queries[start:start + height]
        own = np.arange(start, start + len(block))
        best = BestOfTiles(len(block), max(1, min(count, total - 1)))
        least = np.full(len(block), np.inf, np.float32)
        for first, scores in score_tiles(gallery, block, width):
            np.minimum(least, scores.min(axis=1), out=least)
            inside = (own >= first) & (own < first + scores.shape[1])
            scores[own[inside] - start, own[inside] - first] = -np.inf
            best.offer(scores, first)
        values, rows = best.result()
        return NeighborLists(rows.numpy(), values.numpy(), least)

    found = engine_of(gallery).in_order(search, range(0, total, height))
    rows, scores, least = (np.concatenate(parts) for parts in zip(*found, strict=True))
    width = min(count, total - 1)  # of a single row there are no others
    return NeighborLists(rows[:, :width], scores[:, :width], least)


def score_tiles(gallery: PreparedGallery, queries: Tensor,
                width: int) -> Iterator[tuple[int, np.ndarray]]:
    """The similarities of prepared queries ``(B, D)`` to the gallery, so many rows at a time.

    Yields the number of the first row, and ``(B, width)`` float32, which may be written to and is
    overwritten by the next.
    """
    tiles = engine_of(gallery).score_tiles(gallery, queries, gallery.column_tiles(width))
    for start, scores in tiles:
        yield start, scores.cpu().numpy() if isinstance(scores, Tensor) else scores


def pair_similarities(gallery: PreparedGallery, queries: Tensor, query: np.ndarray,
                      row: np.ndarray) -> np.ndarray:
    """The similarity of pairs, for cosine and Euclidean distance.

    Args:
        gallery: the rows.
        queries: ``(Q, D)``, as :meth:`PreparedGallery.prepare_queries` returned them.
        query: ``(P,)`` int64, which query.
        row: ``(P,)`` int64, which row.

    Returns:
        ``(P,)`` float32.
    """
    height = max(1, _GATHERED // queries.shape[1])
    # Small results that are kept between large pieces that are freed would pin the heap.
    similarities = np.empty(len(query), np.float32)
    for start in range(0, len(query), height):
        left, right = (side[torch.from_numpy(places[start:start + height]).to(side.device)]
                       for side, places in ((queries, query), (gallery.vectors, row)))
        part = gallery.similarity.of_pairs(left, right)
        similarities[start:start + height] = part.cpu().numpy()
    return similarities

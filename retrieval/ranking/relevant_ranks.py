"""The exact ranks of the relevant rows, in one streaming pass over blocks of queries."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..similarity import Similarity, SimilarityFn
from .all_pairs import DEEPEST, best_others, gathered
from .cpu import in_order, offsets_of, ranks_of_block, write_found
from .gpu import ranks_on_device
from .half_precision import search_by_half
from .prepared import TILE_BUDGET, PreparedGallery, as_prepared
from .ranks import BEYOND, Depth, RelevantRanks
from .row_sets import RowSets

_FEWEST = 2  # a product of fewer rows is rounded otherwise, and shares would not agree
_LISTED = 8192
_LONGEST_LIST = 1024  # longer lists cost more in half precision than whole rows in float32


def relevant_ranks(queries: Any, gallery: Any, relevant: RowSets,
                   exclude: RowSets | None = None, depth: Depth | None = None,
                   similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                   tile_budget: int = TILE_BUDGET,
                   part: int = 0, parts: int = 1) -> Iterator[RelevantRanks]:
    """The ranks of every query's relevant rows, a block of queries at a time.

    Args:
        queries: ``(Q, D)`` floats; None for the gallery's own rows.
        gallery: ``(N, D)`` floats, or a prepared gallery.
        relevant: the relevant rows of every query; those that are also excluded do not count.
        exclude: rows that are taken out before ranking, for every query.
        depth: how deep the ranks must be exact; the default is all of them.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        tile_budget: how many scores a thread holds at once, at least one query's.
        part, parts: which share of the blocks to go through. Blocks are cut in the same places
            whatever ``parts`` is.

    Raises:
        TypeError, ValueError: vectors that are wrong, or sets for other numbers of rows.
    """
    prepared = as_prepared(gallery, similarity)
    vectors = prepared.own_queries() if queries is None else prepared.prepare_queries(queries)
    for sets in (relevant, exclude):
        if sets is not None and (sets.num_queries, sets.num_rows) != (len(vectors), len(prepared)):
            raise ValueError(f'Rows are named for {sets.num_queries} queries and {sets.num_rows} '
                             f'gallery rows, but there are {len(vectors)} and {len(prepared)}.')
    depth = Depth(everything=True) if depth is None else depth
    height, _ = prepared.tiles(len(vectors), tile_budget, whole_rows=True)
    starts = range(0, len(vectors), height)
    tasks = [(start, min(start + height, len(vectors))) for start in
             starts[len(starts) * part // parts:len(starts) * (part + 1) // parts]]
    if prepared.precision == 'half' and _listed_depth(relevant, depth):
        yield from _from_lists(prepared, vectors, relevant, exclude, depth, tasks)
        return
    if prepared.on_cpu:
        yield from in_order(_ranking(prepared, vectors, relevant, exclude, depth), tasks)
        return
    for start, stop in tasks:
        scores = prepared.scores(vectors[start:stop])
        left_out = None if exclude is None else exclude.block(start, stop)
        yield ranks_on_device(scores, relevant.block(start, stop), left_out, depth, start)


def _listed_depth(relevant: RowSets, depth: Depth) -> int:
    """How long a list of the best rows gives all ranks; 0 where none so short does."""
    if depth.everything or (depth.relevant and relevant.counts is None):
        return 0
    deepest = _deepest(relevant, depth)
    return deepest if deepest <= _LONGEST_LIST else 0


def _from_lists(gallery: PreparedGallery, vectors: Tensor, relevant: RowSets,
                exclude: RowSets | None, depth: Depth,
                tasks: list[tuple[int, int]]) -> Iterator[RelevantRanks]:
    """The ranks among the best rows, which a search in half precision finds."""
    deep = min(_listed_depth(relevant, depth), len(gallery))
    for start, stop in tasks:
        left_out = None if exclude is None else exclude.block(start, stop)
        _, rows = search_by_half(gallery, vectors[start:stop], deep, left_out)
        query, row = (part.numpy() for part in relevant.block(start, stop))
        rankable = np.full(stop - start, len(gallery))
        if left_out is not None:
            out_query, out_row = (part.numpy() for part in left_out)
            rankable -= np.bincount(out_query, minlength=stop - start)
            keep = ~np.isin(query * len(gallery) + row, out_query * len(gallery) + out_row)
            query, row = query[keep], row[keep]
        offsets = offsets_of(query, stop - start)
        ranks = np.full(len(query), BEYOND)
        write_found(rows.cpu().numpy(), query, row, offsets, len(gallery), ranks)
        yield RelevantRanks(torch.from_numpy(offsets), torch.from_numpy(ranks),
                            torch.from_numpy(rankable), start)


def _ranking(gallery: PreparedGallery, vectors: Tensor, relevant: RowSets,
             exclude: RowSets | None, depth: Depth) -> Callable[[tuple[int, int]], RelevantRanks]:
    """What a thread does with the queries ``(start, stop)``."""
    queries = vectors.contiguous().numpy()
    width = len(gallery.vectors)

    def rank(task: tuple[int, int]) -> RelevantRanks:
        start, stop = task
        first = max(0, min(start, stop - _FEWEST))
        buffer = np.empty((stop - first) * width, dtype=np.float32)
        scores = gallery.score_into(buffer, queries[first:stop], 0, width)[start - first:]
        left_out = None if exclude is None else exclude.block(start, stop)
        return ranks_of_block(scores, relevant.block(start, stop), left_out, depth, start,
                              len(gallery))

    return rank


def ranks_among_themselves(gallery: PreparedGallery, relevant: RowSets, depth: Depth,
                           tile_budget: int = TILE_BUDGET, part: int = 0,
                           parts: int = 1) -> Iterator[RelevantRanks]:
    """The ranks of every row's relevant rows among all others (leave-one-out).

    Where ``depth`` needs but a few rows of each ranking (:func:`is_shallow`), each pair is computed
    once; with several ``parts`` the processes then exchange their lists, and each gets the ranks
    of all queries. Otherwise it gets those of its share.
    """
    count = len(gallery)
    if not is_shallow(gallery, relevant, depth):
        itself = RowSets.from_rows(torch.arange(count), count)
        yield from relevant_ranks(None, gallery, relevant, itself, depth,
                                  tile_budget=tile_budget, part=part, parts=parts)
        return
    deep = min(_deepest(relevant, depth), count - 1)
    scores, rows = best_others(gallery, deep, tile_budget, part, parts)
    _, rows = gathered(scores, rows) if parts > 1 else (scores, rows)
    for start in range(0, count, _LISTED):
        stop = min(start + _LISTED, count)
        query, row = relevant.block(start, stop)
        other = row != query + start
        query, row = query[other], row[other]
        offsets = offsets_of(query.numpy(), stop - start)
        ranks = np.full(len(query), BEYOND)
        write_found(rows[start:stop].numpy(), query.numpy(), row.numpy(), offsets, count, ranks)
        yield RelevantRanks(torch.from_numpy(offsets), torch.from_numpy(ranks),
                            torch.full((stop - start,), count - 1), start)


def is_shallow(gallery: PreparedGallery, relevant: RowSets, depth: Depth) -> bool:
    """Whether the rankings within a set are needed only so deep that lists of the best rows do."""
    return (gallery.on_cpu and gallery.precision == 'float32' and not depth.everything
            and relevant.counts is not None and len(gallery) >= _FEWEST
            and 0 < _deepest(relevant, depth) <= DEEPEST)


def _deepest(relevant: RowSets, depth: Depth) -> int:
    most = 0
    if depth.relevant and relevant.counts is not None and len(relevant.counts):
        most = int(relevant.counts.max())
    return max(depth.rows, depth.best, most)

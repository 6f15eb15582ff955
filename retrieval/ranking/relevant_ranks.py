"""The exact ranks of the relevant rows, in one streaming pass over blocks of queries."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..progress import counted
from ..similarity import Similarity, SimilarityFn
from .all_pairs import DEEPEST, best_others, gathered
from .cpu import offsets_of, write_found
from .engine import engine_of
from .prepared import TILE_BUDGET, PreparedGallery, as_prepared
from .ranks import BEYOND, Depth, RelevantRanks
from .rounded import pays
from .row_sets import Pairs, RowSets, without
from .topk import best_rows

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

    Example:
        >>> gallery = torch.tensor([[1., 0.], [.6, .8], [0., 1.]])
        >>> relevant = RowSets.from_rows(torch.tensor([[0, 2]]), 3)
        >>> [block.ranks.tolist() for block in relevant_ranks([[1., 0.]], gallery, relevant)]
        [[1, 3]]
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
    deepest = 0 if depth.everything else _deepest(relevant, depth)
    if tasks and 0 < deepest <= _LONGEST_LIST and (
            prepared.similarity.kind == 'distance' or prepared.precision == 'half'
            or pays(prepared, tasks[-1][1] - tasks[0][0], deepest)):
        for start in range(tasks[0][0], tasks[-1][1], _LISTED):
            stop = min(start + _LISTED, tasks[-1][1])
            sets = None if exclude is None else exclude.part(start, stop)
            _, rows = best_rows(prepared, vectors[start:stop], min(deepest, len(prepared)), sets,
                                budget=tile_budget)
            left_out = None if sets is None else sets.block(0, stop - start)
            yield _ranks_in_lists(rows, relevant.block(start, stop), left_out, len(prepared), start)
        return
    engine = engine_of(prepared)

    def rank(task: tuple[int, int]) -> RelevantRanks:
        start, stop = task
        first = max(0, min(start, stop - _FEWEST))
        (_, scores), = engine.score_tiles(prepared, vectors[first:stop],
                                          [(0, len(prepared.vectors))])
        left_out = None if exclude is None else exclude.block(start, stop)
        return engine.ranks_in_block(scores[start - first:], relevant.block(start, stop), left_out,
                                     depth, start)

    yield from counted('Ranking', engine.in_order(rank, tasks), len(tasks))


def ranks_among_themselves(gallery: PreparedGallery, relevant: RowSets, depth: Depth,
                           tile_budget: int = TILE_BUDGET, part: int = 0,
                           parts: int = 1) -> Iterator[RelevantRanks]:
    """The ranks of every row's relevant rows among all others (leave-one-out).

    Where ``depth`` needs but a few rows of each ranking (:func:`is_shallow`), each pair is computed
    once; with several ``parts`` the processes then exchange their lists, and each gets the ranks
    of all queries. Otherwise it gets those of its share.

    Example:
        >>> rows, labels = torch.tensor([[1., 0.], [.6, .8], [0., 1.]]), torch.tensor([0, 1, 0])
        >>> ranks, = ranks_among_themselves(PreparedGallery(rows),
        ...                                 RowSets.from_labels(labels, labels), Depth(rows=2))
        >>> ranks.ranks, ranks.num_relevant
        (tensor([2, 2]), tensor([1, 0, 1]))
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
        own = torch.arange(stop - start), torch.arange(start, stop)
        yield _ranks_in_lists(rows[start:stop], relevant.block(start, stop), own, count, start)


def is_shallow(gallery: PreparedGallery, relevant: RowSets, depth: Depth) -> bool:
    """True where the rankings within a set are needed only so deep that lists of the best rows do.

    Example:
        >>> sets = RowSets.from_rows(torch.tensor([1, 0]), 2)
        >>> is_shallow(PreparedGallery(torch.eye(2)), sets, Depth(rows=1))
        True
    """
    return (gallery.on_cpu and not depth.everything
            and gallery.similarity.kind == 'product'  # distances are found by products of their own
            and len(gallery) >= _FEWEST and 0 < _deepest(relevant, depth) <= DEEPEST)


def _deepest(relevant: RowSets, depth: Depth) -> int:
    """How long a list of the best rows gives all ranks; 0 where it is not known."""
    most = 0
    if depth.relevant:
        if relevant.counts is None:
            return 0
        most = int(relevant.counts.max()) if len(relevant.counts) else 0
    return max(depth.rows, depth.best, most)


def _ranks_in_lists(best: Tensor, relevant: Pairs, left_out: Pairs | None, num_rows: int,
                    start: int) -> RelevantRanks:
    """The ranks of the relevant rows among the best ``(B, k)``, which hold none that is left out.
    """
    rankable = torch.full((len(best),), num_rows)
    if left_out is not None:
        rankable -= torch.bincount(left_out[0], minlength=len(best))
        relevant = without(relevant, left_out, len(best), num_rows)
    query, row = (part.numpy() for part in relevant)
    offsets = offsets_of(query, len(best))
    ranks = np.full(len(query), BEYOND)
    write_found(best.cpu().numpy(), query, row, offsets, num_rows, ranks)
    return RelevantRanks(torch.from_numpy(offsets), torch.from_numpy(ranks), rankable, start)

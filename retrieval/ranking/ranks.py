"""The exact ranks of the relevant rows, in one streaming pass over blocks of queries."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..similarity import Similarity, SimilarityFn
from .rowsets import Pairs, RowSets, member_of
from .scoring import TILE_BUDGET, as_prepared
from .topk import leave_out, select

BEYOND = 2 ** 62  # the rank of a relevant row that was not looked for that deep
_SORT_FROM = 64   # above this depth a sort of the scores is cheaper than a selection
_SCANNED_TIES = 8


@dataclass(frozen=True)
class Depth:
    """How deep the ranks must be exact; the best relevant row's rank always is.

    Args:
        everything: the rank of every relevant row.
        rows: ranks up to this number.
        relevant: ranks up to R, each query's own number of relevant rows.
    """

    everything: bool = False
    rows: int = 0
    relevant: bool = False

    def __or__(self, other: Depth) -> Depth:
        return Depth(self.everything or other.everything, max(self.rows, other.rows),
                     self.relevant or other.relevant)


@dataclass(frozen=True)
class RelevantRanks:
    """Where the relevant rows of a block of queries stand in the exact ranking.

    Args:
        offsets: ``(B + 1,)`` int64; ``ranks[offsets[i]:offsets[i + 1]]`` belong to query i.
        ranks: int64, counted from 1, rising for each query; :data:`BEYOND` where not looked for.
        rankable: ``(B,)`` int64, how many rows each query ranks.
        start: number of the block's first query.
    """

    offsets: Tensor
    ranks: Tensor
    rankable: Tensor
    start: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_relevant(self) -> Tensor:
        """``(B,)`` int64, R of each query."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def query(self) -> Tensor:
        """``(P,)`` int64, the query of each rank, counted from the block's first."""
        return torch.repeat_interleave(self.num_relevant)

    @property
    def order(self) -> Tensor:
        """``(P,)`` int64, which of its query's relevant rows each rank is, counted from 1."""
        position = torch.arange(len(self.ranks), device=self.ranks.device)
        return position - self.offsets[:-1][self.query] + 1


def relevant_ranks(queries: Any, gallery: Any, relevant: RowSets,
                   exclude: RowSets | None = None, depth: Depth | None = None,
                   similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                   tile_budget: int = TILE_BUDGET,
                   part: int = 0, parts: int = 1) -> Iterator[RelevantRanks]:
    """The ranks of every query's relevant rows, a block of queries at a time.

    Args:
        queries: ``(Q, D)`` floats.
        gallery: ``(N, D)`` floats, or a prepared gallery.
        relevant: the relevant rows of every query; those that are also excluded do not count.
        exclude: rows that are taken out before ranking, for every query.
        depth: how deep the ranks must be exact; the default is all of them.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        tile_budget: how many scores are held at once, at least one query's.
        part, parts: which share of the blocks to go through. Blocks are cut in the same places
            whatever ``parts`` is.

    Raises:
        TypeError, ValueError: vectors that are wrong, or sets for other numbers of rows.
    """
    prepared = as_prepared(gallery, similarity)
    vectors = prepared.prepare_queries(queries)
    for sets in (relevant, exclude):
        if sets is not None and (sets.num_queries, sets.num_rows) != (len(vectors), len(prepared)):
            raise ValueError(f'Rows are named for {sets.num_queries} queries and {sets.num_rows} '
                             f'gallery rows, but there are {len(vectors)} and {len(prepared)}.')
    depth = Depth(everything=True) if depth is None else depth
    height, _ = prepared.tiles(len(vectors), tile_budget, whole_rows=True)
    starts = range(0, len(vectors), height)
    for start in starts[len(starts) * part // parts:len(starts) * (part + 1) // parts]:
        stop = min(start + height, len(vectors))
        scores = prepared.scores(vectors[start:stop])
        left_out = None if exclude is None else exclude.block(start, stop)
        pairs = relevant.block(start, stop)
        yield ranks_of_block(scores, pairs, left_out, depth, start)


def ranks_of_block(scores: Tensor, relevant: Pairs, left_out: Pairs | None, depth: Depth,
                   start: int = 0) -> RelevantRanks:
    """The ranks in one block of scores ``(B, N)``, which is changed in place.

    Args:
        scores: float32, finite.
        relevant: ``(query, row)`` of the relevant rows, sorted.
        left_out: ``(query, row)`` of the rows that are not ranked, or None.
        depth: how deep the ranks must be exact.
        start: number of the block's first query.
    """
    num_queries, num_rows = scores.shape
    query, row = (part.to(scores.device) for part in relevant)
    rankable = torch.full((num_queries,), num_rows, device=scores.device)
    if left_out is not None and len(left_out[0]):
        out_query, out_row = (part.to(scores.device) for part in left_out)
        rankable -= torch.bincount(out_query, minlength=num_queries)
        keep = ~member_of(query * num_rows + row, out_query * num_rows + out_row)
        query, row = query[keep], row[keep]
        leave_out(scores, (out_query, out_row))
    counts = torch.bincount(query, minlength=num_queries)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    deep = max(depth.rows, int(counts.max()) if depth.relevant and len(counts) else 0)
    if depth.everything or deep > _SORT_FROM:
        ranks = _by_sorting(scores, query, row, offsets)
    else:
        ranks = torch.full((len(query),), BEYOND, device=scores.device)
        if deep:
            _by_selecting(scores, query, row, offsets, min(deep, num_rows), ranks)
        _best_by_counting(scores, query, row, offsets, ranks)
    return RelevantRanks(offsets, ranks, rankable, start)


def _by_selecting(scores: Tensor, query: Tensor, row: Tensor, offsets: Tensor, deep: int,
                  ranks: Tensor) -> None:
    """Write the ranks up to ``deep``, from the best ``deep`` rows of every query."""
    num_rows = scores.shape[1]
    _, columns = select(scores, deep)
    base = torch.arange(len(scores), device=scores.device)[:, None] * num_rows
    hit_query, position = member_of(columns + base, query * num_rows + row).nonzero(as_tuple=True)
    hits = torch.bincount(hit_query, minlength=len(scores))
    nth = torch.arange(len(hit_query), device=scores.device) - (hits.cumsum(0) - hits)[hit_query]
    ranks[offsets[hit_query] + nth] = position + 1


def _best_by_counting(scores: Tensor, query: Tensor, row: Tensor, offsets: Tensor,
                      ranks: Tensor) -> None:
    """Write the rank of every query's best relevant row, where it is not known yet."""
    first = offsets[:-1]
    todo = (offsets[1:] > first).nonzero()[:, 0]
    todo = todo[ranks[first[todo]] == BEYOND]
    if not len(todo):
        return
    own = scores[query, row]
    best = torch.full((len(scores),), -torch.inf, device=scores.device)
    best.scatter_reduce_(0, query, own, 'amax')
    lowest = torch.full((len(scores),), scores.shape[1], device=scores.device)
    at_best = own == best[query]
    lowest.scatter_reduce_(0, query[at_best], row[at_best], 'amin')
    if scores.is_cuda:
        above = (scores > best[:, None]).sum(dim=1)
        reaching = (scores >= best[:, None]).sum(dim=1)
    else:
        above, reaching = _counts(scores.numpy(), best.numpy())
    rank = above + 1
    for tied in (reaching > above + 1).nonzero()[:, 0].tolist():
        rank[tied] += (scores[tied, :int(lowest[tied])] == best[tied]).sum()
    ranks[first[todo]] = rank[todo]


def _counts(scores: np.ndarray, thresholds: np.ndarray) -> tuple[Tensor, Tensor]:
    """How many scores of each row are above, and how many reach, its threshold."""
    above = [np.count_nonzero(row > t) for row, t in zip(scores, thresholds, strict=True)]
    reach = [np.count_nonzero(row >= t) for row, t in zip(scores, thresholds, strict=True)]
    return torch.tensor(above), torch.tensor(reach)


def _by_sorting(scores: Tensor, query: Tensor, row: Tensor, offsets: Tensor) -> Tensor:
    """The ranks of all pairs, from every query's scores in order."""
    own = scores[query, row]
    if scores.is_cuda:
        ordered = torch.sort(scores, dim=1).values
        low, high = _places_on_device(ordered, own, query, offsets)
    else:
        low, high = _places(np.sort(scores.numpy(), axis=1), own.numpy(), offsets.numpy())
    ranks = scores.shape[1] - high + 1
    tied = high - low > 1
    for one in torch.unique(query[tied]).tolist():
        pairs = slice(int(offsets[one]), int(offsets[one + 1]))
        _repair_ties(scores[one], row[pairs], own[pairs], tied[pairs], ranks[pairs])
    # Rising ranks of each query: pairs come by query, so one sort of a joint key is enough.
    width = scores.shape[1] + 1
    return torch.sort(query * width + ranks).values - query * width


def _places(ordered: np.ndarray, own: np.ndarray, offsets: np.ndarray) -> tuple[Tensor, Tensor]:
    low, high = np.empty(len(own), np.int64), np.empty(len(own), np.int64)
    for index, scores in enumerate(ordered):
        begin, end = offsets[index], offsets[index + 1]
        low[begin:end] = np.searchsorted(scores, own[begin:end], 'left')
        high[begin:end] = np.searchsorted(scores, own[begin:end], 'right')
    return torch.from_numpy(low), torch.from_numpy(high)


def _places_on_device(ordered: Tensor, own: Tensor, query: Tensor,
                      offsets: Tensor) -> tuple[Tensor, Tensor]:
    counts = offsets[1:] - offsets[:-1]
    nth = torch.arange(len(own), device=own.device) - offsets[:-1][query]
    table = own.new_zeros((len(ordered), max(1, int(counts.max()))))
    table[query, nth] = own
    low = torch.searchsorted(ordered, table)[query, nth]
    return low, torch.searchsorted(ordered, table, right=True)[query, nth]


def _repair_ties(scores: Tensor, rows: Tensor, own: Tensor, tied: Tensor, ranks: Tensor) -> None:
    """Put lower rows first among equal scores: correct one query's ``ranks`` in place."""
    places = tied.nonzero()[:, 0]
    if len(places) <= _SCANNED_TIES:
        for place in places.tolist():
            ranks[place] += (scores[:int(rows[place])] == own[place]).sum()
        return
    order = torch.sort(scores, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1, device=order.device)
    ranks[:] = rank[rows]

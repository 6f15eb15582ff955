"""The ranks of the relevant rows in one block of scores."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from .ranks import BEYOND, Depth, RelevantRanks
from .rowsets import Pairs, member_of
from .topk import leave_out, select

_SCANNED_TIES = 100  # with more values that tie, one stable sort is cheaper
_SORT_FROM = 64  # above this depth a sort of the scores is cheaper than a selection


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
        if torch.equal(out_query, torch.arange(num_queries, device=scores.device)):
            keep = row != out_row[query]  # one for each query: itself
        else:
            keep = ~member_of(query * num_rows + row, out_query * num_rows + out_row)
        query, row = query[keep], row[keep]
        leave_out(scores, (out_query, out_row))
    offsets = offsets_of(query, num_queries)
    most = int((offsets[1:] - offsets[:-1]).max()) if num_queries else 0
    deep = max(depth.rows, most if depth.relevant else 0)
    if depth.everything or deep > _SORT_FROM:
        ranks = _by_sorting(scores, query, row, offsets)
    else:
        ranks = torch.full((len(query),), BEYOND, device=scores.device)
        if deep:
            _, columns = select(scores, min(deep, num_rows))
            write_found(columns, query, row, offsets, num_rows, ranks)
        if depth.best > deep:
            _best_by_counting(scores, query, row, offsets, ranks)
    return RelevantRanks(offsets, ranks, rankable, start)


def offsets_of(query: Tensor, num_queries: int) -> Tensor:
    """Where each query's pairs begin and the last one's end, ``(B + 1,)``."""
    counts = torch.bincount(query, minlength=num_queries)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def write_found(columns: Tensor, query: Tensor, row: Tensor, offsets: Tensor, num_rows: int,
                ranks: Tensor) -> None:
    """Write the ranks of the relevant rows that are among the best ``columns (B, k)``.

    A column of -1 stands for none.
    """
    base = torch.arange(len(columns), device=columns.device)[:, None] * num_rows
    hits = member_of(columns + base, query * num_rows + row) & (columns >= 0)
    hit_query, position = hits.nonzero(as_tuple=True)
    counts = torch.bincount(hit_query, minlength=len(columns))
    nth = torch.arange(len(hit_query), device=columns.device)
    nth -= (counts.cumsum(0) - counts)[hit_query]
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
    above, reach = np.empty(len(scores), np.int64), np.empty(len(scores), np.int64)

    def count(begin: int, end: int) -> None:
        for index in range(begin, end):
            above[index] = np.count_nonzero(scores[index] > thresholds[index])
            reach[index] = np.count_nonzero(scores[index] >= thresholds[index])

    _in_threads(count, len(scores))
    return torch.from_numpy(above), torch.from_numpy(reach)


def _in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(begin, end)`` on shares of ``range(count)``, as many at once as torch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))


def _by_sorting(scores: Tensor, query: Tensor, row: Tensor, offsets: Tensor) -> Tensor:
    """The ranks of all pairs, from every query's scores in order."""
    own = scores[query, row]
    if not scores.is_cuda:
        return _places(scores.numpy(), row.numpy(), own.numpy(), offsets.numpy())
    ranks, tied = _places_on_device(scores, own, query, offsets)
    for one in tied.nonzero()[:, 0].tolist():
        pairs = slice(int(offsets[one]), int(offsets[one + 1]))
        order = torch.sort(scores[one], descending=True, stable=True).indices
        rank = torch.empty_like(order)
        rank[order] = torch.arange(1, len(order) + 1, device=order.device)
        ranks[pairs] = torch.sort(rank[row[pairs]]).values
    return ranks


def _places(scores: np.ndarray, row: np.ndarray, own: np.ndarray, offsets: np.ndarray) -> Tensor:
    """Rising ranks of each query's relevant scores."""
    ranks = np.empty(len(own), np.int64)

    def place(begin: int, end: int) -> None:
        for index in range(begin, end):
            pairs = slice(offsets[index], offsets[index + 1])
            if pairs.start < pairs.stop:
                ranks[pairs] = _ranks_of_query(scores[index], row[pairs], own[pairs])

    _in_threads(place, len(scores))
    return torch.from_numpy(ranks)


def _ranks_of_query(scores: np.ndarray, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rising ranks of ``rows (R,)``, whose scores are ``own (R,)``, among ``scores (N,)``."""
    ordered = np.sort(scores)
    wanted = np.sort(own)  # in order, each search starts near the last
    reached = np.searchsorted(ordered, wanted, 'right')
    ranks = (len(scores) + 1) - reached
    tied = (ordered[np.maximum(reached - 2, 0)] == wanted) & (reached > 1)
    if not tied.any():
        return ranks[::-1]
    values = np.unique(wanted[tied])
    if len(values) > _SCANNED_TIES:
        rank = np.empty(len(scores), np.int64)
        rank[np.argsort(-scores, kind='stable')] = np.arange(1, len(scores) + 1)
        return np.sort(rank[rows])
    for value in values:
        equal = np.flatnonzero(scores == value)  # from the lower row on
        ours = np.searchsorted(equal, rows[own == value])
        ranks[wanted == value] = ranks[wanted == value] + ours
    return np.sort(ranks)


def _places_on_device(scores: Tensor, own: Tensor, query: Tensor,
                      offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The same for all queries at once, on a GPU."""
    ordered = torch.sort(scores, dim=1).values
    counts = offsets[1:] - offsets[:-1]
    nth = torch.arange(len(own), device=own.device) - offsets[:-1][query]
    table = own.new_full((len(ordered), max(1, int(counts.max()))), -torch.inf)
    table[query, nth] = own
    table = torch.sort(table, dim=1, descending=True).values
    high = torch.searchsorted(ordered, table, right=True)
    low = torch.searchsorted(ordered, table)
    ranks = (scores.shape[1] + 1 - high)[query, nth]
    ties = ((high - low)[query, nth] > 1).long()
    return ranks, torch.zeros_like(counts).index_add_(0, query, ties) > 0

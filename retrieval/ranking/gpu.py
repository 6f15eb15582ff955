"""The work on tiles of scores by PyTorch alone: on a GPU, and of scores by a callable."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .lists import best_of_lists
from .prepared import PreparedGallery
from .ranks import BEYOND, Depth, RelevantRanks
from .row_sets import Pairs, leave_out, member_of, without
from .threads import Result, Task

_SORT_FROM = 64  # above this depth a sort of the scores is cheaper than a selection
_TOGETHER = 8    # lists of so many tiles are joined at once


def num_threads(products: int) -> int:
    """One: the device is shared by all queries of a block, and blocks come one after the other."""
    return 1


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task],
             threads: int | None = None) -> Iterator[Result]:
    """``work`` of every task, one after the other."""
    return map(work, tasks)


def score_tiles(gallery: PreparedGallery, queries: Tensor,
                tiles: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Tensor]]:
    """The scores of prepared queries ``(B, D)`` and the rows of each tile; see the protocol."""
    return ((start, gallery.scores(queries, start, stop)) for start, stop in tiles)


class BestOfTiles:
    """The k best rows of a gallery for a block of queries, offered tile after tile.

    Args:
        num_queries: B.
        k: how many to keep.
    """

    def __init__(self, num_queries: int, k: int) -> None:
        self.k = k
        self._lists: list[tuple[Tensor, Tensor]] = []

    def offer(self, scores: Tensor, start: int) -> None:
        """Take in a tile ``(B, T)`` of the rows from ``start`` on."""
        values, columns = select(scores, min(self.k, scores.shape[1]))
        self._lists.append((values, columns + start))
        if len(self._lists) == _TOGETHER:
            self._lists = [self._joined()]

    def _joined(self) -> tuple[Tensor, Tensor]:
        if len(self._lists) == 1:
            return self._lists[0]
        scores, rows = (torch.cat(part, dim=1) for part in zip(*self._lists, strict=True))
        return best_of_lists(scores, rows, self.k)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores float32 and rows int64 ``(B, k)``, or of fewer columns where there are fewer."""
        scores, rows = self._joined()
        return scores, rows.masked_fill(scores == -torch.inf, -1)


def best_of_tiles(gallery: PreparedGallery, queries: Tensor, k: int) -> BestOfTiles:
    """What collects the k best rows of a block of queries; see the protocol."""
    return BestOfTiles(len(queries), k)


def ranks_in_block(scores: Tensor, relevant: Pairs, left_out: Pairs | None, depth: Depth,
                   start: int = 0) -> RelevantRanks:
    """The ranks of the relevant rows in one block of scores ``(B, N)``; see the protocol."""
    num_queries, num_rows = scores.shape
    query, row = (part.to(scores.device) for part in relevant)
    rankable = torch.full((num_queries,), num_rows, device=scores.device)
    if left_out is not None and len(left_out[0]):
        out_query, out_row = (part.to(scores.device) for part in left_out)
        rankable -= torch.bincount(out_query, minlength=num_queries)
        query, row = without((query, row), (out_query, out_row), num_queries, num_rows)
        leave_out(scores, (out_query, out_row))
    offsets = _offsets_of(query, num_queries)
    most = int((offsets[1:] - offsets[:-1]).max()) if num_queries else 0
    deep = max(depth.rows, most if depth.relevant else 0)
    if depth.everything or deep > _SORT_FROM:
        ranks = _ranks_by_sorting(scores, query, row, offsets)
    else:
        ranks = torch.full((len(query),), BEYOND, device=scores.device)
        if deep:
            _, columns = select(scores, min(deep, num_rows))
            _write_found(columns, query, row, offsets, num_rows, ranks)
        if depth.best > deep:
            _best_ranks(scores, query, row, offsets, ranks)
    return RelevantRanks(offsets, ranks, rankable, start)


def select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of every row of ``(B, T)``, descending; the lower column first among equals."""
    if k >= scores.shape[1]:
        values, columns = torch.sort(scores, dim=1, descending=True, stable=True)
        return values, columns
    values, columns = torch.topk(scores, k + 1, dim=1)
    tied = values[:, :-1] == values[:, 1:]
    cut = tied[:, -1] & (values[:, -1] > -torch.inf)
    values, columns = values[:, :k], columns[:, :k]
    for row in cut.nonzero()[:, 0].tolist():
        columns[row] = _lowest_at_the_cut(scores[row], values[row], columns[row])
    some = (tied.any(dim=1)).nonzero()[:, 0]
    if len(some):
        columns[some] = _lower_first(values[some], columns[some])
    return values, columns


def _lowest_at_the_cut(scores: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """``columns`` with those that share the last value replaced by the lowest that have it."""
    last = values[-1]
    above = int((values > last).sum())
    equal = (scores == last).nonzero()[:len(columns) - above, 0]
    return torch.cat([columns[:above], equal])


def _lower_first(values: Tensor, columns: Tensor) -> Tensor:
    """The columns ordered by value descending, then by column."""
    columns, order = torch.sort(columns, dim=1)
    _, by_value = torch.sort(values.gather(1, order), dim=1, descending=True, stable=True)
    return columns.gather(1, by_value)


def _offsets_of(query: Tensor, num_queries: int) -> Tensor:
    """Where each query's pairs begin and the last one's end, ``(B + 1,)``."""
    counts = torch.bincount(query, minlength=num_queries)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _write_found(columns: Tensor, query: Tensor, row: Tensor, offsets: Tensor, num_rows: int,
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


def _best_ranks(scores: Tensor, query: Tensor, row: Tensor, offsets: Tensor,
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
    above = (scores > best[:, None]).sum(dim=1)
    reaching = (scores >= best[:, None]).sum(dim=1)
    rank = above + 1
    for tied in (reaching > above + 1).nonzero()[:, 0].tolist():
        rank[tied] += (scores[tied, :int(lowest[tied])] == best[tied]).sum()
    ranks[first[todo]] = rank[todo]


def _ranks_by_sorting(scores: Tensor, query: Tensor, row: Tensor, offsets: Tensor) -> Tensor:
    """The ranks of all pairs, from every query's scores in order."""
    own = scores[query, row]
    ranks, tied = _places(scores, own, query, offsets)
    for one in tied.nonzero()[:, 0].tolist():
        pairs = slice(int(offsets[one]), int(offsets[one + 1]))
        order = torch.sort(scores[one], descending=True, stable=True).indices
        rank = torch.empty_like(order)
        rank[order] = torch.arange(1, len(order) + 1, device=order.device)
        ranks[pairs] = torch.sort(rank[row[pairs]]).values
    return ranks


def _places(scores: Tensor, own: Tensor, query: Tensor,
            offsets: Tensor) -> tuple[Tensor, Tensor]:
    """The ranks of all pairs where nothing ties with them, and the queries where something does."""
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

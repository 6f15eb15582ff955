"""The work on tiles of scores, as NumPy does it in threads and PyTorch on a device."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor

from . import cpu, gpu
from .prepared import PreparedGallery
from .ranks import Depth, RelevantRanks
from .row_sets import Pairs
from .threads import Result, Task

Scores = Any  # (B, T) float32: an array of NumPy's on the CPU, else a tensor


class Best(Protocol):
    """The k best rows for a block of queries, from one tile after the other."""

    def offer(self, scores: Scores, start: int) -> None:
        """Take in a tile ``(B, T)`` of the rows from ``start`` on, which lie behind all before."""

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores ``(B, k)`` float32 descending, the lower row first among equals, and rows int64;
        fewer columns where there are fewer rows, and short lists end in ``-inf`` and -1.
        """


class TileEngine(Protocol):
    """A module that finds the best rows in tiles: the engines, and
    :mod:`~retrieval.ranking.rounded`.
    """

    def num_threads(self, products: int) -> int:
        """How many threads so many multiplications are worth."""

    def in_order(self, work: Callable[[Task], Result], tasks: Iterable[Task],
                 threads: int | None = None) -> Iterator[Result]:
        """``work`` of every task, in order, by so many threads at once."""

    def score_tiles(self, gallery: PreparedGallery, queries: Tensor,
                    tiles: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Scores]]:
        """The scores of prepared queries ``(B, D)`` and the rows ``(start, stop)`` of each tile.

        Yields ``start`` and the tile, which ends at row N, may be written to, and is overwritten by
        the next.
        """

    def best_of_tiles(self, gallery: PreparedGallery, queries: Tensor, k: int) -> Best:
        """What collects the k best rows of a gallery for prepared queries ``(B, D)``."""


class Engine(TileEngine, Protocol):
    """A module that works on tiles: :mod:`~retrieval.ranking.cpu`, :mod:`~retrieval.ranking.gpu`.
    """

    def ranks_in_block(self, scores: Scores, relevant: Pairs, left_out: Pairs | None,
                       depth: Depth, start: int = 0) -> RelevantRanks:
        """The ranks of the relevant rows in one block of scores ``(B, N)``, which is changed.

        Args:
            scores: finite float32.
            relevant: ``(query, row)`` of the relevant rows, sorted.
            left_out: ``(query, row)`` of the rows that are not ranked, or None.
            depth: how deep the ranks must be exact.
            start: number of the block's first query.
        """


def engine_of(gallery: PreparedGallery) -> Engine:
    """NumPy's for a gallery on the CPU whose similarity is known, else PyTorch's."""
    return cpu if gallery.on_cpu else gpu

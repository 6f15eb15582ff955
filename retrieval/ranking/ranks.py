"""The ranks of relevant rows, and how deep they must be exact."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

BEYOND = 2 ** 62  # the rank of a relevant row that was not looked for that deep


@dataclass(frozen=True)
class Depth:
    """How deep the ranks must be exact.

    Args:
        everything: the rank of every relevant row.
        rows: ranks up to this number.
        relevant: ranks up to R, each query's own number of relevant rows.
        best: the rank of the best relevant row, up to this number; :data:`BEYOND` wherever it is.

    Example:
        >>> Depth(rows=5) | Depth(rows=3, relevant=True)
        Depth(everything=False, rows=5, relevant=True, best=0)
    """

    everything: bool = False
    rows: int = 0
    relevant: bool = False
    best: int = 0

    def __or__(self, other: Depth) -> Depth:
        return Depth(self.everything or other.everything, max(self.rows, other.rows),
                     self.relevant or other.relevant, max(self.best, other.best))


@dataclass(frozen=True)
class RelevantRanks:
    """Where the relevant rows of a block of queries stand in the exact ranking.

    Args:
        offsets: ``(B + 1,)`` int64; ``ranks[offsets[i]:offsets[i + 1]]`` belong to query i.
        ranks: int64, counted from 1, rising for each query; :data:`BEYOND` where not looked for.
        rankable: ``(B,)`` int64, how many rows each query ranks.
        start: number of the block's first query.

    Example:
        >>> offsets, rankable = torch.tensor([0, 2, 3]), torch.tensor([9, 9])
        >>> ranks = RelevantRanks(offsets, torch.tensor([1, 4, 2]), rankable)
        >>> ranks.num_relevant, ranks.precisions
        (tensor([2, 1]), tensor([1.0000, 0.5000, 0.5000], dtype=torch.float64))
    """

    offsets: Tensor
    ranks: Tensor
    rankable: Tensor
    start: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def num_relevant(self) -> Tensor:
        """``(B,)`` int64, R of each query."""
        return self.offsets[1:] - self.offsets[:-1]

    @cached_property
    def query(self) -> Tensor:
        """``(P,)`` int64, the query of each rank, counted from the block's first."""
        return torch.repeat_interleave(self.num_relevant)

    @cached_property
    def order(self) -> Tensor:
        """``(P,)`` int64, which of its query's relevant rows each rank is, counted from 1."""
        position = torch.arange(len(self.ranks), device=self.ranks.device)
        return position - self.offsets[:-1][self.query] + 1

    @cached_property
    def precisions(self) -> Tensor:
        """``(P,)`` float64, the precision at each rank."""
        return self.order / self.ranks.double()

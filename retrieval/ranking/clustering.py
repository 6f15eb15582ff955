"""k-means, in tiles."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .prepared import TILE_BUDGET, as_vectors
from .topk import checked_k


def kmeans(vectors: Any, k: int, iterations: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means from k-means++ centres (Arthur and Vassilvitskii, 2007).

    A cluster that loses all its rows takes over the row that is farthest from its own centre.

    Args:
        vectors: ``(N, D)`` floats.
        k: how many clusters, at most N.
        iterations: how often at most the centres are moved.
        seed: of the choice of the first centres.

    Returns:
        Centres ``(k, D)`` float32, and the cluster of every row, ``(N,)`` int64.

    Raises:
        TypeError, ValueError: the vectors are not finite floats, or k is not between 1 and N.
    """
    rows, k = as_vectors(vectors, 'vectors'), checked_k(k)
    if k > len(rows):
        raise ValueError(f'k must be at most the number of vectors, {len(rows)}, got {k}.')
    centres = _first_centres(rows, k, torch.Generator().manual_seed(seed))
    nearest, apart = _assign(rows, centres)
    for _ in range(max(1, iterations)):
        sizes = torch.bincount(nearest, minlength=k)
        for empty in (sizes == 0).nonzero()[:, 0].tolist():
            far = int(apart.argmax())
            nearest[far], apart[far] = empty, 0
        sizes = torch.bincount(nearest, minlength=k).clamp_(min=1)
        centres = torch.zeros_like(centres).index_add_(0, nearest, rows) / sizes[:, None]
        before = nearest
        nearest, apart = _assign(rows, centres)
        if torch.equal(nearest, before):
            break
    return centres, nearest


def _first_centres(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Each centre a row, drawn in proportion to its squared distance from those before it."""
    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    apart = (rows - rows[chosen[0]]).square().sum(dim=1)
    while len(chosen) < k:
        total = apart.cumsum(0, dtype=torch.float64)
        if float(total[-1]) > 0:
            point = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
            row = min(int(torch.searchsorted(total, point, right=True)), len(rows) - 1)
        else:  # fewer different vectors than clusters
            row = len(chosen)
        chosen.append(row)
        apart = torch.minimum(apart, (rows - rows[row]).square().sum(dim=1))
    return rows[torch.tensor(chosen)]


def _assign(rows: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every row, and the squared distance to it."""
    nearest = torch.empty(len(rows), dtype=torch.int64)
    apart = torch.empty(len(rows))
    squares = centres.square().sum(dim=1)
    height = max(1, TILE_BUDGET // len(centres))
    for start in range(0, len(rows), height):
        block = rows[start:start + height]
        distance = torch.addmm(squares, block, centres.T, alpha=-2)
        least = distance.min(dim=1)
        nearest[start:start + height] = least.indices
        apart[start:start + height] = least.values + block.square().sum(dim=1)
    return nearest, apart.clamp_(min=0)

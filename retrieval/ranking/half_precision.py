"""Exact search by half-precision products on a device, all rows of the gallery at once.

A product of rounded vectors differs from the true one by a known bound. All rows whose rounded
score is within twice that bound of the k-th best are candidates; their float32 scores decide. So
the result is that of a float32 search, at the speed of a GPU's tensor cores. On a CPU it is
:mod:`~retrieval.ranking.rounded` that searches so, in tiles.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .lists import best_of_lists
from .prepared import PreparedGallery
from .row_sets import Pairs, RowSets, leave_out

_MORE = 32            # candidates beside k that are looked at first
_GATHERED = 2 ** 24  # numbers of candidates' vectors held at once
_CACHED = 2 ** 20    # on the CPU
UNIT = {torch.bfloat16: 2.0 ** -8, torch.float16: 2.0 ** -10}  # of rounding, generously


def best_by_half(gallery: PreparedGallery, vectors: Tensor, k: int, sets: RowSets | None,
                 allowed: Tensor | None, budget: int) -> tuple[Tensor, Tensor]:
    """The k best rows for prepared queries ``(Q, D)``, a block at a time; see :func:`topk`."""
    height, _ = gallery.tiles(len(vectors), budget, whole_rows=True)
    found = [search_by_half(gallery, block, k, None if sets is None else
                            sets.block(start, start + len(block)), allowed)
             for start, block in zip(range(0, len(vectors), height), vectors.split(height),
                                     strict=True)]
    scores, rows = (torch.cat(part) for part in zip(*found, strict=True))
    return scores, rows


def search_by_half(gallery: PreparedGallery, queries: Tensor, k: int, left_out: Pairs | None,
                   allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k best rows for a block of queries: scores float32 and rows int64, filled with -inf, -1.

    Args:
        gallery: prepared with ``precision='half'``.
        queries: prepared, ``(B, D)``; ``B * N`` scores are held at once.
        k: at most N.
        left_out: ``(query, row)`` that are not found.
        allowed: ``(N,)`` bool, the rows that may be found, or None.
    """
    half = gallery.half_rows
    shifted = half.shifted(queries)
    rounded = half.rounded(shifted)
    scores = _product(rounded, half.rows)
    if half.halves is not None:  # q·g - |g|²/2 falls as the distance rises
        scores -= half.halves
    leave_out(scores, left_out, 0, allowed)
    margins = half.margins(shifted, rounded)
    many = min(len(gallery), k + max(_MORE, k // 4))
    while True:
        approximate, rows = torch.topk(scores, many, dim=1)
        last = approximate[:, k - 1]
        size = last.abs() if half.halves is None else last.abs() + half.halves.max()
        bar = last - 2 * margins - 2 * UNIT[half.rows.dtype] * size
        if many == len(gallery) or bool((approximate[:, -1] < bar).all()):
            break
        many = min(len(gallery), 2 * many)
    many = max(k, int((approximate >= bar[:, None]).sum(dim=1).max()))
    approximate, rows = approximate[:, :many], rows[:, :many]
    exact = rescored(gallery, queries, rows)
    return best_of_lists(exact.masked_fill_(approximate == -torch.inf, -torch.inf), rows, k)


def _product(queries: Tensor, rows: Tensor) -> Tensor:
    """The product in float32; on a GPU summed and written so."""
    if queries.is_cuda:
        return torch.mm(queries, rows.T, out_dtype=torch.float32)
    return (queries @ rows.T).float()


def rescored(gallery: PreparedGallery, queries: Tensor, rows: Tensor) -> Tensor:
    """The float32 scores ``(B, C)`` of the candidates ``rows (B, C)``."""
    scores = torch.empty(rows.shape, device=queries.device)
    held = _GATHERED if queries.is_cuda else _CACHED
    step = max(1, held // (rows.shape[1] * queries.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        those = gallery.vectors[rows[part]].float()
        if gallery.similarity.kind == 'distance':
            scores[part] = gallery.similarity.of_pairs(queries[part, None], those)
        else:
            scores[part] = torch.bmm(those, queries[part, :, None])[:, :, 0]
    return gallery.similarity.clipped(scores)

"""Every query's figures, from one pass over the scores."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..ranking import (
    TILE_BUDGET,
    Depth,
    PreparedGallery,
    RelevantRanks,
    RowSets,
    as_vectors,
    is_shallow,
    ranks_among_themselves,
    relevant_ranks,
)
from ..similarity import Similarity, SimilarityFn
from .names import Measure


def query_values(queries: Any, gallery: Any, relevant: RowSets, left_out: RowSets | None,
                 measures: Sequence[Measure],
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                 tile_budget: int = TILE_BUDGET, sharded: bool = False,
                 precision: str = 'float32') -> tuple[Tensor, Tensor]:
    """Every query's figures, from one pass over the scores.

    Args:
        queries: ``(Q, D)``; None where every row of the gallery is a query against all others.
        left_out: further rows that are not ranked.
        precision: ``float32``, or ``half`` with float32 scores of what it finds.

    Returns:
        ``(Q, M)`` float64 in [0, 1], one column a measure, and ``(Q,)`` int64, the number of
        relevant rows of each query. Where that is 0 the figures mean nothing.
    """
    depth = Depth()
    for measure in measures:
        depth |= measure.depth
    part, parts = (distributed.rank(), distributed.world_size()) if sharded else (0, 1)
    prepared = gallery if isinstance(gallery, PreparedGallery) else \
        PreparedGallery(as_vectors(gallery, 'gallery'), similarity, precision=precision)
    values: list[Tensor] = [torch.zeros((0, len(measures)), dtype=torch.float64)]
    counts: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
    stream, whole = _rank_stream(queries, prepared, relevant, left_out, depth, tile_budget, part,
                                 parts)
    for ranks in stream:
        values.append(torch.stack([measure.values(ranks) for measure in measures], dim=1).cpu())
        counts.append(ranks.num_relevant.cpu())
    own, number = torch.cat(values), torch.cat(counts)
    if sharded and not whole:
        return distributed.all_gather_rows(own), distributed.all_gather_rows(number)
    return own, number


def _rank_stream(queries: Any, gallery: PreparedGallery, relevant: RowSets,
                 left_out: RowSets | None, depth: Depth, tile_budget: int, part: int,
                 parts: int) -> tuple[Iterator[RelevantRanks], bool]:
    """The ranks, and whether each process gets those of all queries and not of its share."""
    if queries is None and left_out is None:
        stream = ranks_among_themselves(gallery, relevant, depth, tile_budget, part, parts)
        return stream, is_shallow(gallery, relevant, depth)
    if queries is None and left_out is not None:
        itself = torch.arange(len(gallery))
        left_out = left_out.union(RowSets.from_rows(itself, len(gallery)))
    return relevant_ranks(queries, gallery, relevant, left_out, depth, tile_budget=tile_budget,
                          part=part, parts=parts), False

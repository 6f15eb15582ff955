"""Evaluation as pure functions: embeddings and labels in, percentages out."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from ..registry import unknown_name
from ..similarity import Similarity, SimilarityFn
from .names import Measure, parse_metrics
from .relations import (
    RelevanceLike,
    as_relevance,
    check_length,
    label_codes,
    same_ids,
    same_source,
    united,
)

DEFAULT_METRICS = ('Recall@1', 'MAP@R', 'mAP')


def evaluate(embeddings: Any, labels: Any = None, gallery: Any = None, gallery_labels: Any = None,
             metrics: str | Iterable[str] = DEFAULT_METRICS,
             similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
             average: str = 'micro', *, ids: Sequence[Any] | None = None,
             gallery_ids: Sequence[Any] | None = None, relevance: RelevanceLike | None = None,
             junk: RelevanceLike | None = None, cameras: Any = None, gallery_cameras: Any = None,
             tile_budget: int = TILE_BUDGET, sharded: bool = False) -> dict[str, float]:
    """Rank the gallery exactly for every query and measure the rankings.

    Without a gallery every embedding is a query against all others (leave-one-out).

    Args:
        embeddings: the queries, ``(Q, D)`` floats.
        labels: their classes ``(Q,)``, whole numbers or strings.
        gallery: ``(N, D)`` floats.
        gallery_labels: ``(N,)``.
        metrics: names out of ``Recall@K``, ``Precision@K``, ``R-Precision``, ``MAP@R``, ``mAP``,
            ``mAP@K``, ``mAP-trapezoid``, ``MRR``, ``CMC@K``, ``mINP``; each is defined in
            :mod:`retrieval.evaluation.measures`.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        average: ``micro``, the mean over queries; ``macro``, the mean over classes of their
            queries' means.
        ids, gallery_ids: ids of both sides; a query does not rank rows with its own id.
        relevance: replaces equality of labels: a boolean ``(Q, N)``, a callable from query rows
            ``(B,)`` to a boolean ``(B, N)``, or a list of rows for each query.
        junk: rows that are taken out before ranking, in the same forms.
        cameras, gallery_cameras: whole numbers or strings; a query does not rank rows of its own
            class and camera.
        tile_budget: how many scores are held at once.
        sharded: the processes of the process group share the work; each is given all embeddings
            and gets the same result.

    Returns:
        Percent by metric name, beside ``num_queries``, the queries that were given, and
        ``num_skipped_queries``, those with no relevant row, which no mean contains.

    Raises:
        ValueError: numbers or widths do not fit, vectors are not finite, a side is empty, a
            metric is unknown, or no query has a relevant row.
        TypeError: an argument is of the wrong kind.
    """
    measures = parse_metrics(metrics)
    check_average(average, labels)
    queries = as_vectors(embeddings, 'embeddings')
    if not len(queries):
        raise ValueError('There are no queries: embeddings is empty.')
    rows = queries if gallery is None else as_vectors(gallery, 'gallery', queries.shape[1])
    numbers, theirs = _labels_of(labels, gallery_labels, len(queries), len(rows), gallery is None)
    own = _own_rows(gallery is None, ids, gallery_ids, len(queries), len(rows))
    left_out = united(own, None if junk is None else as_relevance(junk, len(queries), len(rows)),
                      _same_camera(cameras, gallery_cameras, numbers, theirs, gallery is None))
    if relevance is not None:
        relevant = as_relevance(relevance, len(queries), len(rows))
    elif numbers is None or theirs is None:
        raise ValueError('Give labels (and gallery_labels, if there is a gallery), or relevance.')
    else:
        relevant = RowSets.from_labels(numbers, theirs)
    values, counts = query_values(None if gallery is None else queries, rows, relevant, left_out,
                                  measures, similarity, tile_budget, sharded)
    return summarise(measures, values, counts, average, numbers)


def query_values(queries: Any, gallery: Any, relevant: RowSets, left_out: RowSets | None,
                 measures: Sequence[Measure],
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                 tile_budget: int = TILE_BUDGET, sharded: bool = False) -> tuple[Tensor, Tensor]:
    """Every query's figures, from one pass over the scores.

    Args:
        queries: ``(Q, D)``; None where every row of the gallery is a query against all others.
        left_out: further rows that are not ranked.

    Returns:
        ``(Q, M)`` float64 in [0, 1], one column a measure, and ``(Q,)`` int64, the number of
        relevant rows of each query. Where that is 0 the figures mean nothing.
    """
    depth = Depth()
    for measure in measures:
        depth |= measure.depth
    part, parts = (distributed.rank(), distributed.world_size()) if sharded else (0, 1)
    prepared = gallery if isinstance(gallery, PreparedGallery) else \
        PreparedGallery(as_vectors(gallery, 'gallery'), similarity)
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


def summarise(measures: Sequence[Measure], values: Tensor, counts: Tensor, average: str = 'micro',
              labels: Tensor | None = None) -> dict[str, float]:
    """The means in percent, and how many queries there were and had to be skipped.

    Args:
        measures: what the columns of ``values (Q, M)`` are.
        counts: ``(Q,)`` int64, relevant rows of each query.
        average: ``micro`` or ``macro``.
        labels: ``(Q,)`` int64, for ``macro``.

    Raises:
        ValueError: no query has a relevant row.
    """
    counted = counts > 0
    if not counted.any():
        raise ValueError(f'None of {len(counts)} queries has a relevant row to find: queries and '
                         'gallery have no label in common, or every class has a single image.')
    values = values[counted]
    if average == 'macro':
        assert labels is not None
        _, place = torch.unique(labels.cpu()[counted], return_inverse=True)
        sizes = torch.bincount(place).double()
        sums = torch.zeros((len(sizes), values.shape[1]), dtype=torch.float64)
        values = sums.index_add_(0, place, values) / sizes[:, None]
    means = values.mean(dim=0).mul(100).tolist()
    result = {measure.name: mean for measure, mean in zip(measures, means, strict=True)}
    skipped = int((~counted).sum())
    return {**result, 'num_queries': len(counts), 'num_skipped_queries': skipped}


def check_average(average: Any, labels: Any) -> None:
    """Raise ValueError unless ``average`` is ``micro``, or ``macro`` with labels."""
    if average not in ('micro', 'macro'):
        raise ValueError(unknown_name('average', average, ('micro', 'macro')))
    if average == 'macro' and labels is None:
        raise ValueError("average='macro' is a mean over classes: give labels.")


def _labels_of(labels: Any, gallery_labels: Any, num_queries: int, num_rows: int,
               leave_one_out: bool) -> tuple[Tensor | None, Tensor | None]:
    if leave_one_out and gallery_labels is not None:
        raise ValueError('gallery_labels were given without a gallery.')
    if labels is None:
        return None, None
    numbers, theirs, _ = label_codes(labels, gallery_labels)
    check_length('labels', numbers, num_queries, 'embeddings')
    check_length('gallery_labels', theirs, num_rows, 'rows of the gallery')
    return numbers, numbers if leave_one_out else theirs


def _own_rows(leave_one_out: bool, ids: Sequence[Any] | None, gallery_ids: Sequence[Any] | None,
              num_queries: int, num_rows: int) -> RowSets | None:
    check_length('ids', ids, num_queries, 'embeddings')
    check_length('gallery_ids', gallery_ids, num_rows, 'rows of the gallery')
    if leave_one_out:
        if ids is not None and len({str(one) for one in ids}) < len(ids):
            return same_ids(ids, ids)
        return None
    if ids is None or gallery_ids is None:
        return None
    return same_ids(ids, gallery_ids)


def _same_camera(cameras: Any, gallery_cameras: Any, labels: Tensor | None, theirs: Tensor | None,
                 leave_one_out: bool) -> RowSets | None:
    if cameras is None and gallery_cameras is None:
        return None
    gallery_cameras = cameras if leave_one_out else gallery_cameras
    if cameras is None or gallery_cameras is None or labels is None or theirs is None:
        raise ValueError('Leaving out rows of the same camera needs cameras and labels of both '
                         'sides.')
    check_length('cameras', cameras, len(labels), 'embeddings')
    check_length('gallery_cameras', gallery_cameras, len(theirs), 'rows of the gallery')
    return same_source(labels, cameras, theirs, gallery_cameras)

"""Evaluation as pure functions: embeddings and labels in, percentages out."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from ..ranking import TILE_BUDGET, RowSets, as_vectors
from ..similarity import Similarity, SimilarityFn
from .figures import QueryFigures, check_average
from .names import parse_metrics
from .query_values import query_values
from .relations import (
    RelevanceLike,
    as_relevance,
    check_length,
    label_codes,
    same_as_query,
    same_ids,
    united,
)

DEFAULT_METRICS = ('Recall@1', 'MAP@R', 'mAP')


def evaluate(embeddings: Any, labels: Any = None, gallery: Any = None, gallery_labels: Any = None,
             metrics: str | Iterable[str] = DEFAULT_METRICS,
             similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
             average: str = 'micro', *, ids: Sequence[Any] | None = None,
             gallery_ids: Sequence[Any] | None = None, relevance: RelevanceLike | None = None,
             junk: RelevanceLike | None = None, cameras: Any = None, gallery_cameras: Any = None,
             sequences: Any = None, gallery_sequences: Any = None,
             tile_budget: int = TILE_BUDGET, sharded: bool = False,
             precision: str = 'float32') -> dict[str, float]:
    """Rank the gallery exactly for every query and measure the rankings.

    Without a gallery every embedding is a query against all others (leave-one-out).

    Args:
        embeddings: the queries, ``(Q, D)`` floats.
        labels: their classes ``(Q,)``, whole numbers or strings.
        gallery: ``(N, D)`` floats.
        gallery_labels: ``(N,)``.
        metrics: names out of ``Recall@K``, ``Precision@K``, ``R-Precision``, ``MAP@R``, ``mAP``,
            ``mAP@K``, ``mAP-trapezoid``, ``MRR``, ``CMC@K``, ``mINP``, ``mP@K``; each is defined
            in :mod:`retrieval.evaluation.measures`.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        average: ``micro``, the mean over queries; ``macro``, the mean over classes of their
            queries' means.
        ids, gallery_ids: ids of both sides; a query does not rank rows with its own id.
        relevance: replaces equality of labels: a boolean ``(Q, N)``, a callable from query rows
            ``(B,)`` to a boolean ``(B, N)``, or a list of rows for each query.
        junk: rows that are taken out before ranking, in the same forms.
        cameras, gallery_cameras: whole numbers or strings; a query does not rank rows of its own
            class and camera.
        sequences, gallery_sequences: the same of the sequence (track, burst) of an image.
        tile_budget: how many scores a thread holds at once.
        sharded: the processes of the process group share the work; each is given all embeddings
            and gets the same result.
        precision: ``half`` ranks by half-precision products and scores again in float32 what they
            find, with the same result; meant for GPUs. Metrics that need whole rankings are
            computed in float32 all the same.

    Returns:
        Percent by metric name, beside ``num_queries``, the queries that were given, and
        ``num_skipped_queries``, those with no relevant row, which no mean contains.

    Raises:
        ValueError: numbers or widths do not fit, vectors are not finite, a side is empty, a
            metric is unknown, or no query has a relevant row.
        TypeError: an argument is of the wrong kind.
    """
    check_average(average, labels)
    figures = rank_queries(
        embeddings, labels, gallery, gallery_labels, metrics, similarity, ids=ids,
        gallery_ids=gallery_ids, relevance=relevance, junk=junk, cameras=cameras,
        gallery_cameras=gallery_cameras, sequences=sequences,
        gallery_sequences=gallery_sequences, tile_budget=tile_budget, sharded=sharded,
        precision=precision)
    return figures.summary(average)


def rank_queries(embeddings: Any, labels: Any = None, gallery: Any = None,
                 gallery_labels: Any = None, metrics: str | Iterable[str] = DEFAULT_METRICS,
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity', *,
                 ids: Sequence[Any] | None = None, gallery_ids: Sequence[Any] | None = None,
                 relevance: RelevanceLike | None = None, junk: RelevanceLike | None = None,
                 cameras: Any = None, gallery_cameras: Any = None, sequences: Any = None,
                 gallery_sequences: Any = None,
                 tile_budget: int = TILE_BUDGET, sharded: bool = False,
                 precision: str = 'float32') -> QueryFigures:
    """What every single query scores; the arguments and errors are those of :func:`evaluate`.

    From the result come the means, a table by class, confidence intervals, and, with that of
    another run, the significance of the difference (:func:`retrieval.evaluation.compare`).
    """
    measures = parse_metrics(metrics)
    queries = as_vectors(embeddings, 'embeddings')
    if not len(queries):
        raise ValueError('There are no queries: embeddings is empty.')
    rows = queries if gallery is None else as_vectors(gallery, 'gallery', queries.shape[1])
    numbers, theirs, names = _labels_of(labels, gallery_labels, len(queries), len(rows),
                                        gallery is None)
    if gallery is None:
        gallery_cameras, gallery_sequences = cameras, sequences
    own = _own_rows(gallery is None, ids, gallery_ids, len(queries), len(rows))
    left_out = united(own, None if junk is None else as_relevance(junk, len(queries), len(rows)),
                      same_as_query('cameras', cameras, gallery_cameras, numbers, theirs),
                      same_as_query('sequences', sequences, gallery_sequences, numbers, theirs))
    if relevance is not None:
        relevant = as_relevance(relevance, len(queries), len(rows))
    elif numbers is None or theirs is None:
        raise ValueError('Give labels (and gallery_labels, if there is a gallery), or relevance.')
    else:
        relevant = RowSets.from_labels(numbers, theirs)
    values, counts = query_values(None if gallery is None else queries, rows, relevant, left_out,
                                  measures, similarity, tile_budget, sharded, precision)
    return QueryFigures([measure.name for measure in measures], values, counts, numbers, names)


def _labels_of(labels: Any, gallery_labels: Any, num_queries: int, num_rows: int,
               leave_one_out: bool) -> tuple[Tensor | None, Tensor | None, list[Any]]:
    if leave_one_out and gallery_labels is not None:
        raise ValueError('gallery_labels were given without a gallery.')
    if labels is None:
        return None, None, []
    numbers, theirs, names = label_codes(labels, gallery_labels)
    check_length('labels', numbers, num_queries, 'embeddings')
    check_length('gallery_labels', theirs, num_rows, 'rows of the gallery')
    return numbers, numbers if leave_one_out else theirs, names


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

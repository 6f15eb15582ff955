"""Every query's figures, from one pass over the scores.

Evaluation as pure functions: embeddings and labels in, percentages out.

Ways to split one evaluation into several: by split, parent label, level of a hierarchy.

The counterparts of pytorch-metric-learning's testers, as functions. Two streams (queries through
one encoder, the gallery through another) are :func:`~retrieval.evaluation.evaluate` with a gallery,
whose ids say which rows are a query's own.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ..structures import as_labels
from .metrics import Measure, parse_metrics
from .relevance import (
    RelevanceLike,
    as_relevance,
    check_length,
    label_codes,
    same_as_query,
    same_ids,
    united,
)
from .results import QueryFigures, check_average


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
            in :mod:`retrieval.evaluation.metrics`.
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


Result = dict[str, float]


def evaluate_splits(splits: Mapping[str, tuple[Any, Any]],
                    pairs: Sequence[tuple[str, Sequence[str]]] | None = None,
                    **options: Any) -> dict[str, Result]:
    """Every split by itself, or against the splits that are named for it, joined.

    Args:
        splits: name to ``(embeddings (N, D), labels (N,))``.
        pairs: queries' split and the splits of its gallery, for example
            ``[('val', ['train', 'val'])]``; the default is each split alone. Where the queries'
            split is in the gallery, a query does not rank itself.
        options: those of :func:`evaluate`, without ids and galleries.

    Returns:
        Its result by the name of each query split.

    Raises:
        ValueError: a split is not there, or as in :func:`evaluate`.
    """
    results = {}
    for name, against in pairs or [(name, [name]) for name in splits]:
        for one in (name, *against):
            if one not in splits:
                raise ValueError(unknown_name('split', one, splits))
        queries, labels = splits[name]
        if list(against) == [name]:
            results[name] = evaluate(queries, labels, **options)
            continue
        gallery = torch.cat([as_vectors(splits[one][0], one) for one in against])
        theirs = torch.cat([as_labels(splits[one][1], f'labels of {one}') for one in against])
        ids = [f'{one} {row}' for one in against for row in range(len(splits[one][0]))]
        results[name] = evaluate(queries, labels, gallery, theirs, gallery_ids=ids,
                                 ids=[f'{name} {row}' for row in range(len(queries))], **options)
    return results


def evaluate_within_parents(embeddings: Any, labels: Any, parents: Any,
                            **options: Any) -> Result:
    """Leave-one-out among the rows of the same parent label only, averaged over the parents.

    Args:
        embeddings: ``(N, D)``.
        labels: ``(N,)`` whole numbers.
        parents: ``(N,)`` whole numbers, such as super-classes.
        options: those of :func:`evaluate`, without ids and galleries.

    Returns:
        The mean over parents in percent, and the sums of ``num_queries`` and
        ``num_skipped_queries``. Parents within which no query has a relevant row are left out of
        the means; their queries are counted as skipped.

    Raises:
        ValueError: no parent has such a query, or as in :func:`evaluate`.
    """
    vectors = as_vectors(embeddings, 'embeddings')
    numbers, groups = as_labels(labels, 'labels'), as_labels(parents, 'parents')
    check_length('labels', numbers, len(vectors), 'embeddings')
    check_length('parents', groups, len(vectors), 'embeddings')
    results, skipped = [], 0
    for parent in torch.unique(groups):
        rows = (groups == parent).nonzero()[:, 0]
        of_class = torch.unique(numbers[rows], return_counts=True)[1]
        if bool((of_class > 1).any()):
            results.append(evaluate(vectors[rows], numbers[rows], **options))
        else:
            skipped += len(rows)
    if not results:
        raise ValueError('Within no parent label has a query a relevant row to find.')
    means = {name: sum(result[name] for result in results) / len(results) for name in results[0]}
    return {**means, 'num_queries': len(vectors), 'num_skipped_queries': skipped + int(
        sum(result['num_skipped_queries'] for result in results))}


def evaluate_levels(embeddings: Any, labels: Any, names: Sequence[str] | None = None,
                    **options: Any) -> dict[str, Result]:
    """Leave-one-out by every level of a label hierarchy.

    Args:
        embeddings: ``(N, D)``.
        labels: ``(N, L)`` whole numbers, a column a level.
        names: of the levels; the default is ``level0`` and so on.
        options: those of :func:`evaluate`, without ids and galleries.

    Returns:
        Its result by the name of each level.

    Raises:
        ValueError: labels are not two-dimensional, there is not a name for each level, or as in
            :func:`evaluate`.
    """
    table = torch.as_tensor(labels)
    if table.ndim != 2:
        raise ValueError(f'Labels of a hierarchy must be (N, L), got {tuple(table.shape)}.')
    levels = [f'level{level}' for level in range(table.shape[1])] if names is None else list(names)
    if len(levels) != table.shape[1]:
        raise ValueError(f'There are {len(levels)} names for {table.shape[1]} levels.')
    return {name: evaluate(embeddings, table[:, level], **options)
            for level, name in enumerate(levels)}

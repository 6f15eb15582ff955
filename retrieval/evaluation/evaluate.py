"""Evaluation as pure functions: embeddings and labels in, percentages out.

Beside :func:`evaluate` stand ways to split one evaluation into several (by split, parent label,
level of a hierarchy), the counterparts of pytorch-metric-learning's testers. Two streams (queries
through one encoder, the gallery through another) are an evaluation with a gallery, whose ids say
which rows are a query's own.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..checks import same_length
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
from .metrics import parse_metrics
from .relevance import RelevanceLike
from .results import QueryResults, check_average, check_empty_queries
from .task import EmbeddingSet, EvaluationTask

DEFAULT_METRICS = ('Recall@1', 'MAP@R', 'mAP')


def evaluate(embeddings: Any, labels: Any = None, gallery: Any = None, gallery_labels: Any = None,
             metrics: str | Iterable[str] = DEFAULT_METRICS,
             similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
             average: str = 'micro', *, ids: Sequence[Any] | None = None,
             gallery_ids: Sequence[Any] | None = None, relevance: RelevanceLike | None = None,
             junk: RelevanceLike | None = None, cameras: Any = None, gallery_cameras: Any = None,
             sequences: Any = None, gallery_sequences: Any = None,
             tile_budget: int = TILE_BUDGET, sharded: bool = False,
             precision: str = 'auto', empty_queries: str = 'skip') -> dict[str, float]:
    """Rank the gallery exactly for every query and measure the rankings.

    Without a gallery every embedding is a query against all others (leave-one-out).

    Args:
        embeddings: the queries, ``(Q, D)`` floats.
        labels: their classes ``(Q,)``, whole numbers or strings.
        gallery: ``(N, D)`` floats.
        gallery_labels: ``(N,)``.
        metrics: names out of ``Recall@K``, ``Precision@K``, ``R-Precision``, ``MAP@R``, ``mAP``,
            ``mAP@K``, ``mAP-trapezoid``, ``MRR``, ``CMC@K``, ``mINP``, ``mP@K``, ``NDCG@K``,
            ``AUROC``, ``Recall-share@K``, ``OML-Precision@K``, each defined in
            :mod:`retrieval.evaluation.metrics`; of ``CMC-single-shot@K``, ``FNMR@FMR=R`` and
            ``PCF@K``, which are no means of single rankings; and of those that were registered
            since.
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
            find, with the same result; ``auto`` does so where a CPU was measured to be faster with
            it; ``float32`` never. Metrics that need whole rankings are computed in float32 all the
            same.
        empty_queries: what becomes of a query without a relevant row: ``skip`` leaves it out of
            every mean, ``zero`` counts it as 0, ``error`` refuses.

    Returns:
        Percent by metric name, beside ``num_queries``, the queries that were given, and
        ``num_skipped_queries``, those with no relevant row, which no mean contains; with ``zero``
        these are in the means, and counted as ``num_empty_queries``.

    Raises:
        ValueError: lengths or widths do not fit, vectors are not finite, a side is empty, a
            metric is unknown, or no query has a relevant row.
        TypeError: an argument is of the wrong kind.

    Example:
        >>> evaluate([[1., 0.], [.9, .1], [0., 1.]], ['cat', 'cat', 'dog'], metrics='Recall@1')
        {'Recall@1': 100.0, 'num_queries': 3, 'num_skipped_queries': 1}
    """
    check_average(average, labels)
    columns = {'camera': (cameras, gallery_cameras), 'sequence': (sequences, gallery_sequences)}
    if gallery is None:
        given = [name for name, value in (
            ('gallery_labels', gallery_labels), ('gallery_ids', gallery_ids),
            ('gallery_cameras', gallery_cameras), ('gallery_sequences', gallery_sequences))
            if value is not None]
        if given:
            raise ValueError(f'{", ".join(given)} cannot be given without a gallery.')
    task = EvaluationTask(
        EmbeddingSet(embeddings, labels, ids, {name: own for name, (own, _) in columns.items()}),
        None if gallery is None else EmbeddingSet(
            gallery, gallery_labels, gallery_ids,
            {name: theirs for name, (_, theirs) in columns.items()}),
        relevance, junk, tuple(name for name, (own, theirs) in columns.items()
                               if own is not None or theirs is not None), similarity)
    return rank_queries(task, metrics, tile_budget=tile_budget, sharded=sharded,
                        precision=precision, empty_queries=empty_queries).summary(average)


def rank_queries(task: EvaluationTask, metrics: str | Iterable[str] = DEFAULT_METRICS, *,
                 tile_budget: int = TILE_BUDGET, sharded: bool = False,
                 precision: str = 'auto', empty_queries: str = 'skip') -> QueryResults:
    """The result of each metric for every single query, from one pass over the scores.

    From it come the means, a table by class, confidence intervals, and, with that of another run,
    the significance of the difference (:func:`retrieval.evaluation.compare`).

    Args:
        task: queries, gallery, and what is relevant.
        metrics, tile_budget, sharded, precision, empty_queries: as in :func:`evaluate`, as are
            the errors.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> rank_queries(task, ['Recall@1', 'MRR']).results.tolist()
        [[0.0, 0.5], [0.0, 0.0], [0.0, 0.5]]
    """
    check_empty_queries(empty_queries)
    given = parse_metrics(metrics)
    wanted = [metric for metric in given if metric.depth is not None]
    depth = Depth()
    for metric in wanted:
        depth |= metric.depth or Depth()
    queries, rows = task.query_vectors, task.gallery_vectors
    excluded, relevant = task.excluded_rows(), task.relevant_rows()
    gallery = PreparedGallery(rows, task.similarity, precision=precision)
    part, parts = (distributed.rank(), distributed.world_size()) if sharded else (0, 1)
    stream, whole = _rank_stream(None if task.gallery is None else queries, gallery, relevant,
                                 excluded, depth, tile_budget, part, parts)
    blocks: list[Tensor] = [torch.zeros((0, len(wanted)), dtype=torch.float64)]
    counts: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
    for ranks in stream:
        columns = [metric.results(ranks) for metric in wanted]
        blocks.append(torch.stack(columns, dim=1).cpu() if columns else torch.zeros(len(ranks), 0))
        counts.append(ranks.num_relevant.cpu())
    results, num_relevant = torch.cat(blocks), torch.cat(counts)
    if sharded and not whole:
        results = distributed.all_gather_rows(results)
        num_relevant = distributed.all_gather_rows(num_relevant)
    found = {metric.name: column for metric, column in zip(wanted, results.T, strict=True)} | {
        metric.name: torch.as_tensor(metric.function(task), dtype=torch.float64)
        for metric in given if metric.depth is None}
    each = [metric.name for metric in given if found[metric.name].ndim]
    return QueryResults(
        each, torch.stack([found[name] for name in each], dim=1) if each else results[:, :0],
        num_relevant, task.labels[0], task.label_names,
        {name: float(value) for name, value in found.items() if not value.ndim}, empty_queries,
        '' if bool((num_relevant > 0).any()) else task.nothing_relevant())


def _rank_stream(queries: Tensor | None, gallery: PreparedGallery, relevant: RowSets,
                 excluded: RowSets | None, depth: Depth, tile_budget: int, part: int,
                 parts: int) -> tuple[Iterator[RelevantRanks], bool]:
    """The ranks, and whether each process gets those of all queries and not of its share."""
    if queries is None and excluded is None:
        stream = ranks_among_themselves(gallery, relevant, depth, tile_budget, part, parts)
        return stream, is_shallow(gallery, relevant, depth)
    if queries is None and excluded is not None:
        itself = torch.arange(len(gallery))
        excluded = excluded.union(RowSets.from_rows(itself, len(gallery)))
    return relevant_ranks(queries, gallery, relevant, excluded, depth, tile_budget=tile_budget,
                          part=part, parts=parts), False


def evaluate_splits(splits: Mapping[str, tuple[Any, Any]],
                    pairs: Sequence[tuple[str, Sequence[str]]] | None = None,
                    **options: Any) -> dict[str, dict[str, float]]:
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

    Example:
        >>> splits = {'val': ([[1., 0.], [.9, .1]], [0, 0]), 'test': ([[0., 1.], [.1, .9]], [1, 1])}
        >>> evaluate_splits(splits, metrics='mAP')['test']
        {'mAP': 100.0, 'num_queries': 2, 'num_skipped_queries': 0}
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
                            **options: Any) -> dict[str, float]:
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

    Example:
        >>> vectors = [[1., 0.], [.9, .1], [0., 1.], [.1, .9]]
        >>> evaluate_within_parents(vectors, [0, 0, 1, 1], [5, 5, 6, 6], metrics='mAP')
        {'mAP': 100.0, 'num_queries': 4, 'num_skipped_queries': 0}
    """
    vectors = as_vectors(embeddings, 'embeddings')
    numbers, groups = as_labels(labels, 'labels'), as_labels(parents, 'parents')
    same_length('labels', numbers, len(vectors), 'embeddings')
    same_length('parents', groups, len(vectors), 'embeddings')
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
                    **options: Any) -> dict[str, dict[str, float]]:
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

    Example:
        >>> vectors = [[1., 0.], [.9, .1], [0., 1.], [.1, .9]]
        >>> table = [[0, 0], [0, 0], [1, 0], [1, 0]]
        >>> found = evaluate_levels(vectors, table, ['species', 'genus'], metrics='mAP')
        >>> found['species']['mAP'], found['genus']['mAP']
        (100.0, 100.0)
    """
    table = torch.as_tensor(labels)
    if table.ndim != 2:
        raise ValueError(f'Labels of a hierarchy must be (N, L), got {tuple(table.shape)}.')
    levels = [f'level{level}' for level in range(table.shape[1])] if names is None else list(names)
    if len(levels) != table.shape[1]:
        raise ValueError(f'There are {len(levels)} names for {table.shape[1]} levels.')
    return {name: evaluate(embeddings, table[:, level], **options)
            for level, name in enumerate(levels)}

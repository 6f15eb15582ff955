"""Metrics of the ranked lists that the configured search returned."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import whole_number
from ..ranking import BEYOND, RelevantRanks
from ..registry import METRICS, unknown_name
from ..structures import as_labels, sample_id_of
from .gathered_metric import Columns, GatheredMetric
from .metrics import (
    EVERY_RANK,
    Metric,
    average_precision,
    parse_metric,
    trapezoid_average_precision,
)
from .results import QueryResults, check_empty_queries

AVERAGE_PRECISION = {'IR': average_precision, 'integrate': trapezoid_average_precision}


class RankedListMetric(GatheredMetric):
    """The base of recall and average precision: a sample's ranked rows and its relevant rows.

    The ranked rows are ``pred_label``; without it the columns of ``pred_score``, one a row of the
    gallery, by falling score. Relevant are the rows that ``gt_indices`` names; else the rows of
    the handed gallery with the sample's ``gt_label``; else the non-zero columns of ``gt_score``;
    else ``gt_label`` itself lists rows (mmpretrain's conventions). The query's own row (the one
    with its id) is neither ranked nor relevant. A query with no relevant row is left out of the
    mean and counted under the metric's name (``search/Recall@1/num_skipped_queries``), since the
    evaluator wants a name of its own for every result.

    Args:
        metrics: functions of the ranks of the relevant rows.
        length: the first so many ranked rows count.
        collect_device, prefix: as in MMEngine.
        empty_queries: ``skip``; ``zero`` counts a query with no relevant row as 0, ``error``
            refuses.
    """

    default_prefix = 'search'

    def __init__(self, metrics: Sequence[Metric], length: int, collect_device: str,
                 prefix: str | None, empty_queries: str = 'skip') -> None:
        self.metrics = metrics
        self.empty_queries = check_empty_queries(empty_queries)
        self.length = length
        super().__init__(collect_device=collect_device, prefix=prefix)

    def set_gallery(self, gallery: Any) -> None:
        """Take the gallery that the retriever searches (``embeddings``, ``ids``, ``labels``)."""
        self.gallery = gallery
        known = gallery is not None and getattr(gallery, 'identified', True)
        self._row_of = {str(name): row for row, name in enumerate(gallery.ids)} if known else {}
        self._labels = None
        if gallery is not None and gallery.labels is not None:
            self._labels = as_labels(gallery.labels, 'gallery labels').cpu()
            values, counts = torch.unique(self._labels, return_counts=True)
            self._counts = dict(zip(values.tolist(), counts.tolist(), strict=True))

    def columns_of(self, data_samples: Sequence[dict[str, Any]]) -> list[Columns]:
        """Each sample's results ``(M,)`` and the number of its relevant rows.

        Raises:
            ValueError: a sample has no ranked rows, or nothing says what is relevant.
        """
        hits = [self._hits(data_sample) for data_sample in data_samples]
        found = _query_results([relevant for relevant, _ in hits], [count for _, count in hits],
                               self.metrics)
        return [{'results': results, 'num_relevant': count}
                for results, count in zip(found.results, found.num_relevant, strict=True)]

    def result_names(self) -> list[str]:
        """The names of the results that an evaluation has."""
        names = [metric.name for metric in self.metrics]
        return self.prefixed([*names, f'{names[0]}/num_skipped_queries'])

    def compute_metrics(self, columns: Columns) -> dict[str, float]:
        """The means in percent, and how many queries have no relevant row."""
        names = [metric.name for metric in self.metrics]
        summary = QueryResults(names, columns['results'], columns['num_relevant'],
                               empty_queries=self.empty_queries).summary()
        counts = {name: count for name, count in summary.items() if name not in names}
        del counts['num_queries']
        return {**{name: summary[name] for name in names},
                **{f'{names[0]}/{name}': count for name, count in counts.items()}}

    def _hits(self, data_sample: dict[str, Any]) -> tuple[Tensor, int]:
        """Which of the first ranked rows are relevant, ``(n,)`` bool, and R."""
        own = None
        if self.gallery is not None:
            own = self._row_of.get(sample_id_of(data_sample) or '')
        rows = _ranked(data_sample)
        rows = (rows if own is None else rows[rows != own])[:self.length]
        label = data_sample.get('gt_label')
        if data_sample.get('gt_indices') is None and self.gallery is not None and \
                self._labels is not None and label is not None:
            return self._hits_by_label(rows, as_labels(label, 'gt_label').cpu(), own)
        relevant = torch.unique(_listed(data_sample))
        relevant = relevant if own is None else relevant[relevant != own]
        return torch.isin(rows, relevant), len(relevant)

    def _hits_by_label(self, rows: Tensor, label: Tensor, own: int | None) -> tuple[Tensor, int]:
        assert self._labels is not None
        label = torch.unique(label)
        if len(rows) and int(rows.max()) >= len(self._labels):
            raise ValueError(f'pred_label names row {int(rows.max())}, but the gallery has '
                             f'{len(self._labels)} rows.')
        count = sum(self._counts.get(one, 0) for one in label.tolist())
        if own is not None and bool(torch.isin(self._labels[own], label)):
            count -= 1
        return torch.isin(self._labels[rows], label), count


@METRICS.register_module()
class RetrievalRecall(RankedListMetric):
    """Recall@K of ranked lists: the share of queries with a relevant row among the first K.

    Args:
        topk: one K or several.
        collect_device, prefix: as in MMEngine; results are named ``search/Recall@1``.
        empty_queries: ``skip``, ``zero`` or ``error``, as in :class:`RankedListMetric`.

    Raises:
        TypeError: a K is no integer.
        ValueError: a K is below 1, or there is none.

    Example:
        >>> recall = RetrievalRecall(topk=(1, 2))
        >>> recall.process(None, [{'sample_idx': 0, 'pred_label': [4, 7], 'gt_indices': [7]}])
        >>> result = recall.evaluate(1)
        >>> result['search/Recall@1'], result['search/Recall@2']
        (0.0, 100.0)
    """

    def __init__(self, topk: int | Sequence[int], collect_device: str = 'cpu',
                 prefix: str | None = None, empty_queries: str = 'skip') -> None:
        self.topk = _several(topk)
        super().__init__(_recalls(self.topk), max(self.topk), collect_device, prefix,
                         empty_queries)

    @staticmethod
    def calculate(pred: Any, target: Any, topk: int | Sequence[int], pred_indices: bool = False,
                  target_indices: bool = False) -> list[Tensor]:
        """The mean recall in percent for every K.

        Args:
            pred: scores ``(Q, N)``, or with ``pred_indices`` Q ranked lists of rows.
            target: non-zero where relevant, ``(Q, N)``, or with ``target_indices`` Q lists of rows.
            topk: one K or several.

        Raises:
            TypeError, ValueError: the arguments are of the wrong kind or length, or no query has
                a relevant row.

        Example:
            >>> RetrievalRecall.calculate([[4, 7]], [[7]], (1, 2), True, True)
            [tensor(0.), tensor(100.)]
        """
        several = _several(topk)
        metrics = _recalls(several)
        summary = _results_of_lists(pred, target, max(several), pred_indices, target_indices,
                                    metrics).summary()
        return [torch.tensor(summary[metric.name]) for metric in metrics]


@METRICS.register_module()
class RetrievalAveragePrecision(RankedListMetric):
    """Mean average precision of ranked lists cut at K, over all relevant items.

    Args:
        topk: the first K ranked rows count.
        mode: ``IR`` adds the precision at every relevant row; ``integrate`` the mean of the
            precisions before and at it (trapezoids, as in revisited Oxford and Paris).
        collect_device, prefix: as in MMEngine; the result is named ``search/mAP@10``.
        empty_queries: ``skip``, ``zero`` or ``error``, as in :class:`RankedListMetric`.

    Raises:
        TypeError: ``topk`` is no integer.
        ValueError: it is below 1, or the mode is unknown.

    Example:
        >>> precision = RetrievalAveragePrecision(topk=10)
        >>> precision.process(None, [{'sample_idx': 0, 'pred_label': [4, 7], 'gt_indices': [7]}])
        >>> precision.evaluate(1)['search/mAP@10']
        50.0
    """

    def __init__(self, topk: int | None = None, mode: str = 'IR', collect_device: str = 'cpu',
                 prefix: str | None = None, empty_queries: str = 'skip') -> None:
        self.topk, self.mode = _single(topk), mode
        super().__init__([_average_precision(self.topk, mode)], self.topk, collect_device, prefix,
                         empty_queries)

    @staticmethod
    def calculate(pred: Any, target: Any, topk: int | None = None, pred_indices: bool = False,
                  target_indices: bool = False, mode: str = 'IR') -> float:
        """The mean average precision in percent; the arguments are as in :class:`RetrievalRecall`.

        Raises:
            TypeError, ValueError: the arguments are of the wrong kind or length, or no query has
                a relevant row.

        Example:
            >>> RetrievalAveragePrecision.calculate([[4, 7]], [[7]], 10, True, True)
            50.0
        """
        metric = _average_precision(length := _single(topk), mode)
        return _results_of_lists(pred, target, length, pred_indices, target_indices,
                                 [metric]).summary()[metric.name]


def _single(topk: Any) -> int:
    if topk is None:
        raise ValueError('topk must be an integer of at least 1, got None.')
    return whole_number('topk', topk)


def _several(topk: Any) -> tuple[int, ...]:
    several = tuple(topk) if isinstance(topk, (list, tuple, range)) else (topk,)
    if not several:
        raise ValueError('topk must be an integer of at least 1 or several, got none.')
    return tuple(whole_number('topk', k) for k in several)


def _recalls(topk: Sequence[int]) -> list[Metric]:
    return [parse_metric(f'Recall@{k}') for k in topk]


def _average_precision(topk: int, mode: Any) -> Metric:
    """Over all relevant rows, found or not, where the registered ``mAP@K`` is over min(R, K)."""
    if mode not in AVERAGE_PRECISION:
        raise ValueError(unknown_name('mode', mode, AVERAGE_PRECISION))
    return Metric(f'mAP@{topk}', EVERY_RANK, AVERAGE_PRECISION[mode])


def _query_results(hits: Sequence[Tensor], num_relevant: Sequence[int],
                   metrics: Sequence[Metric]) -> QueryResults:
    """The results of ranked lists.

    Args:
        hits: for each query, which of its ranked rows are relevant, ``(n,)`` bool.
        num_relevant: R of each query, found or not.
    """
    offsets = torch.tensor([0, *num_relevant]).cumsum(0)
    ranks = torch.full((int(offsets[-1]),), BEYOND)
    for hit, start, stop in zip(hits, offsets.tolist(), offsets[1:].tolist(), strict=False):
        found = hit.nonzero()[:, 0] + 1
        if len(found) > stop - start:
            raise ValueError(f'A ranked list holds {len(found)} relevant rows, but the query has '
                             f'{stop - start}: it names a row more than once.')
        ranks[start:start + len(found)] = found
    relevant = RelevantRanks(offsets, ranks, torch.tensor([len(hit) for hit in hits]))
    return QueryResults([metric.name for metric in metrics],
                        torch.stack([metric.results(relevant) for metric in metrics], dim=1),
                        relevant.num_relevant)


def _results_of_lists(pred: Any, target: Any, length: int, pred_indices: bool,
                      target_indices: bool, metrics: Sequence[Metric]) -> QueryResults:
    ranked = ranked_rows(pred, length, pred_indices)
    relevant = relevant_rows(target, target_indices)
    if len(ranked) != len(relevant):
        raise ValueError(f'pred is for {len(ranked)} queries and target for {len(relevant)}: they '
                         'must be the same.')
    hits = [torch.isin(rows, theirs) for rows, theirs in zip(ranked, relevant, strict=True)]
    return _query_results(hits, [len(rows) for rows in relevant], metrics)


def ranked_rows(pred: Any, length: int, indices: bool) -> list[Tensor]:
    """The first ``length`` ranked rows of every query.

    Args:
        pred: scores ``(Q, N)``, or with ``indices`` Q ranked lists of rows.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if indices:
        return [rows[:length] for rows in _row_lists(pred, 'pred')]
    scores = _dense(pred, 'pred')
    if scores.is_floating_point() and scores.isnan().any():
        raise ValueError('pred holds NaN.')
    return list(torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :length])


def relevant_rows(target: Any, indices: bool) -> list[Tensor]:
    """The relevant rows of every query.

    Args:
        target: non-zero where relevant, ``(Q, N)``, or with ``indices`` Q lists of rows.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if indices:
        return _row_lists(target, 'target')
    return [row.nonzero()[:, 0] for row in _dense(target, 'target')]


def _row_lists(lists: Any, name: str) -> list[Tensor]:
    if isinstance(lists, (str, bytes)) or not isinstance(lists, (Sequence, np.ndarray, Tensor)):
        raise TypeError(f'{name} must be a sequence of lists of rows when {name}_indices is True, '
                        f'got {type(lists).__name__}.')
    rows = []
    for query, one in enumerate(lists):
        if not isinstance(one, (Sequence, np.ndarray, Tensor)) or isinstance(one, (str, bytes)):
            raise TypeError(f'{name}[{query}] must be a list of rows when {name}_indices is True, '
                            f'got {one!r}.')
        rows.append(as_labels(one, f'{name}[{query}]').cpu())
    return rows


def _dense(values: Any, name: str) -> Tensor:
    try:
        dense = values.detach().cpu() if isinstance(values, Tensor) else \
            torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError) as error:
        raise TypeError(f'{name} must be an array or tensor (Q, N), got {type(values).__name__}; '
                        f'for lists of rows set {name}_indices=True.') from error
    if dense.ndim != 2:
        raise ValueError(f'{name} must be (Q, N), got {tuple(dense.shape)}; for lists of rows set '
                         f'{name}_indices=True.')
    return dense


def _ranked(data_sample: dict[str, Any]) -> Tensor:
    rows = data_sample.get('pred_label')
    if rows is not None:
        return as_labels(rows, 'pred_label').cpu()
    score = data_sample.get('pred_score')
    if score is None:
        raise ValueError('A sample has neither pred_label (ranked rows) nor pred_score (one score '
                         "for each row): the retriever's predict must set them.")
    return torch.sort(score.detach().cpu().reshape(-1), descending=True, stable=True).indices


def _listed(data_sample: dict[str, Any]) -> Tensor:
    if data_sample.get('gt_indices') is not None:
        return as_labels(data_sample.get('gt_indices'), 'gt_indices').cpu()
    score = data_sample.get('gt_score')
    if score is not None:
        return torch.as_tensor(score).detach().cpu().reshape(-1).nonzero()[:, 0]
    if data_sample.get('gt_label') is not None:
        return as_labels(data_sample.get('gt_label'), 'gt_label').cpu()
    raise ValueError('A sample says nothing about what is relevant: it has no gt_label, no '
                     'gt_indices and no gt_score.')

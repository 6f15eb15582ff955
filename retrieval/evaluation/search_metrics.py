"""The forms in which ranked and relevant rows may be given: lists of rows, or dense columns.

Metrics of the ranked lists that the configured search returned.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ranking.topk import checked_k
from ..registry import METRICS, unknown_name
from ..structures import as_labels, sample_id_of
from .gathered_metric import Columns, GatheredMetric


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


MODES = ('IR', 'integrate')


class RankedListMetric(GatheredMetric):
    """What recall and average precision share: a sample's ranked rows and its relevant rows.

    The ranked rows are ``pred_label``; without it the columns of ``pred_score``, one a row of the
    gallery, by falling score. Relevant are the rows that ``gt_indices`` names; else the rows of
    the handed gallery with the sample's ``gt_label``; else the non-zero columns of ``gt_score``;
    else ``gt_label`` itself lists rows (mmpretrain's conventions). The query's own row (the one
    with its id) is neither ranked nor relevant. A query with no relevant row is left out of the
    mean and counted under the metric's name (``search/Recall@1/num_skipped_queries``), since the
    evaluator wants a name of its own for every figure.
    """

    default_prefix = 'search'
    _row_of: dict[str, int]
    _counts: dict[int, int]

    def set_gallery(self, gallery: Any) -> None:
        self.gallery = gallery
        known = gallery is not None and getattr(gallery, 'identified', True)
        self._row_of = {str(name): row for row, name in enumerate(gallery.ids)} if known else {}
        self._labels = None
        if gallery is not None and gallery.labels is not None:
            self._labels = as_labels(gallery.labels, 'gallery labels').cpu()
            values, counts = torch.unique(self._labels, return_counts=True)
            self._counts = dict(zip(values.tolist(), counts.tolist(), strict=True))

    def hits(self, data_sample: dict, length: int) -> tuple[Tensor, int]:
        """Which of the first ``length`` ranked rows are relevant, ``(n,)`` bool, and R.

        Raises:
            ValueError: the sample has no ranked rows, or nothing says what is relevant.
        """
        own = None
        if self.gallery is not None:
            own = self._row_of.get(sample_id_of(data_sample) or '')
        rows = _ranked(data_sample)
        rows = (rows if own is None else rows[rows != own])[:length]
        label = data_sample.get('gt_label')
        if data_sample.get('gt_indices') is None and self.gallery is not None and \
                self._labels is not None and label is not None:
            return self._by_label(rows, as_labels(label, 'gt_label').cpu(), own)
        relevant = torch.unique(_listed(data_sample))
        relevant = relevant if own is None else relevant[relevant != own]
        return torch.isin(rows, relevant), len(relevant)

    def _by_label(self, rows: Tensor, label: Tensor, own: int | None) -> tuple[Tensor, int]:
        assert self._labels is not None
        label = torch.unique(label)
        if len(rows) and int(rows.max()) >= len(self._labels):
            raise ValueError(f'pred_label names row {int(rows.max())}, but the gallery has '
                             f'{len(self._labels)} rows.')
        count = sum(self._counts.get(one, 0) for one in label.tolist())
        if own is not None and bool(torch.isin(self._labels[own], label)):
            count -= 1
        return torch.isin(self._labels[rows], label), count

    def means(self, columns: Columns, names: Sequence[str]) -> dict[str, float]:
        """The percentages of the per-sample figures, without the queries that have none (NaN)."""
        figures = columns['figures']
        counted = ~figures[:, 0].isnan()
        if not counted.any():
            raise ValueError(f'None of {len(figures)} queries has a relevant row in the gallery: '
                             'queries and gallery have no label in common.')
        means = figures[counted].mean(dim=0).mul(100).tolist()
        return {**dict(zip(names, means, strict=True)),
                f'{names[0]}/num_skipped_queries': int((~counted).sum())}


@METRICS.register_module()
class RetrievalRecall(RankedListMetric):
    """Recall@K of ranked lists: the share of queries with a relevant row among the first K.

    Args:
        topk: one K or several.
        collect_device, prefix: as in MMEngine; figures are named ``search/Recall@1``.

    Raises:
        TypeError: a K is no integer.
        ValueError: a K is below 1, or there is none.
    """

    def __init__(self, topk: int | Sequence[int], collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        self.topk = _several(topk)
        super().__init__(collect_device=collect_device, prefix=prefix)

    def sample(self, data_sample: dict) -> Columns:
        hits, count = self.hits(data_sample, max(self.topk))
        figures = [float(hits[:k].any()) if count else float('nan') for k in self.topk]
        return {'figures': torch.tensor(figures, dtype=torch.float64)}

    def measure(self, columns: Columns) -> dict[str, float]:
        return self.means(columns, [f'Recall@{k}' for k in self.topk])

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
        """
        several = _several(topk)
        lists = _lists(pred, target, max(several), pred_indices, target_indices)
        found = [torch.isin(rows, relevant) for rows, relevant in lists]
        shares = [sum(bool(hits[:k].any()) for hits in found) / len(found) for k in several]
        return [torch.tensor(share * 100) for share in shares]


@METRICS.register_module()
class RetrievalAveragePrecision(RankedListMetric):
    """Mean average precision of ranked lists cut at K, over all relevant items.

    Args:
        topk: the first K ranked rows count.
        mode: ``IR`` adds the precision at every relevant row; ``integrate`` the mean of the
            precisions before and at it (trapezoids, as in revisited Oxford and Paris).
        collect_device, prefix: as in MMEngine; the figure is named ``search/mAP@10``.

    Raises:
        TypeError: ``topk`` is no integer.
        ValueError: it is below 1, or the mode is unknown.
    """

    def __init__(self, topk: int | None = None, mode: str = 'IR', collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        self.topk = _single(topk)
        self.mode = _mode(mode)
        super().__init__(collect_device=collect_device, prefix=prefix)

    def sample(self, data_sample: dict) -> Columns:
        hits, count = self.hits(data_sample, self.topk)
        figure = average_precision(hits, count, self.mode) if count else float('nan')
        return {'figures': torch.tensor([figure], dtype=torch.float64)}

    def measure(self, columns: Columns) -> dict[str, float]:
        return self.means(columns, [f'mAP@{self.topk}'])

    @staticmethod
    def calculate(pred: Any, target: Any, topk: int | None = None, pred_indices: bool = False,
                  target_indices: bool = False, mode: str = 'IR') -> float:
        """The mean average precision in percent; the arguments are as in :class:`RetrievalRecall`.

        Raises:
            TypeError, ValueError: the arguments are of the wrong kind or length, or no query has
                a relevant row.
        """
        lists = _lists(pred, target, _single(topk), pred_indices, target_indices)
        mode = _mode(mode)
        figures = [average_precision(torch.isin(rows, relevant), len(relevant), mode)
                   for rows, relevant in lists]
        return float(np.mean(figures)) * 100


def average_precision(hits: Tensor, num_relevant: int, mode: str = 'IR') -> float:
    """The average precision in [0, 1] of one ranked list, over all relevant items.

    Args:
        hits: which ranked rows are relevant, ``(n,)`` bool, best first.
        num_relevant: how many relevant items there are, found or not; at least 1.
        mode: ``IR`` or ``integrate``.
    """
    ranks = hits.nonzero()[:, 0].double() + 1
    order = torch.arange(1, len(ranks) + 1, dtype=torch.float64)
    precision = order / ranks
    if mode == 'integrate':
        before = (order - 1) / (ranks - 1).clamp(min=1)
        before[ranks == 1] = 1.0
        precision = (before + precision) / 2
    return float(precision.sum()) / num_relevant


def _lists(pred: Any, target: Any, length: int, pred_indices: bool,
           target_indices: bool) -> list[tuple[Tensor, Tensor]]:
    """Ranked and relevant rows of the queries that have a relevant row."""
    ranked = ranked_rows(pred, length, pred_indices)
    relevant = relevant_rows(target, target_indices)
    if len(ranked) != len(relevant):
        raise ValueError(f'pred is for {len(ranked)} queries and target for {len(relevant)}: they '
                         'must be the same.')
    lists = [(rows, rel) for rows, rel in zip(ranked, relevant, strict=True) if len(rel)]
    if not lists:
        raise ValueError(f'None of {len(ranked)} queries has a relevant row in target.')
    return lists


def _ranked(data_sample: dict) -> Tensor:
    rows = data_sample.get('pred_label')
    if rows is not None:
        return as_labels(rows, 'pred_label').cpu()
    score = data_sample.get('pred_score')
    if score is None:
        raise ValueError('A sample has neither pred_label (ranked rows) nor pred_score (one score '
                         "for each row): the retriever's predict must set them.")
    return torch.sort(score.detach().cpu().reshape(-1), descending=True, stable=True).indices


def _listed(data_sample: dict) -> Tensor:
    if data_sample.get('gt_indices') is not None:
        return as_labels(data_sample['gt_indices'], 'gt_indices').cpu()
    if data_sample.get('gt_score') is not None:
        return data_sample['gt_score'].detach().cpu().reshape(-1).nonzero()[:, 0]
    if data_sample.get('gt_label') is not None:
        return as_labels(data_sample['gt_label'], 'gt_label').cpu()
    raise ValueError('A sample says nothing about what is relevant: it has no gt_label, no '
                     'gt_indices and no gt_score.')


def _single(topk: Any) -> int:
    if topk is None:
        raise ValueError('topk must be an integer of at least 1, got None.')
    return checked_k(topk)


def _several(topk: Any) -> tuple[int, ...]:
    several = tuple(topk) if isinstance(topk, (list, tuple, range)) else (topk,)
    if not several:
        raise ValueError('topk must be an integer of at least 1 or several, got none.')
    return tuple(checked_k(k) for k in several)


def _mode(mode: Any) -> str:
    if mode not in MODES:
        raise ValueError(unknown_name('mode', mode, MODES))
    return mode

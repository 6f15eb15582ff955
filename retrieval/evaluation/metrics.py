"""Figures of single queries, from the ranks of their relevant rows.

Every function takes :class:`~retrieval.ranking.RelevantRanks` of B queries and returns ``(B,)``
float64 in [0, 1]. A query without a relevant row has no figure: what stands in its place is 0 and
must be left out of the mean.

The metrics by the names that results carry.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ranking import BEYOND, Depth, RelevantRanks
from ..registry import unknown_name


def recall_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """1 where a relevant row is among the first k, else 0: the hit rate.

    This is the Recall@K of metric learning (CUB, SOP, In-Shop), not the share of the relevant
    rows that is found.
    """
    return _hits(ranks, k).clamp_(max=1)


def cmc_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Cumulative matching characteristic of re-identification: 1 where a match is in the first k,
    once junk and same-camera rows are taken out. The same figure as :func:`recall_at_k`.
    """
    return recall_at_k(ranks, k)


def precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Relevant rows among the first k, over k, even where fewer rows can be ranked."""
    return _hits(ranks, k) / k


def cut_precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Relevant rows among the first k, over k or, where it is less, the rank of the worst relevant
    row: what comes behind the last relevant row does not count.

    The mP@k of revisited Oxford and Paris (Radenović et al., 2018), as their program computes it.
    """
    last = ranks.order == ranks.num_relevant[ranks.query]
    worst = _per_query(ranks, (last * ranks.ranks).double())
    return _hits(ranks, k) / worst.clamp_(min=1, max=k)


def r_precision(ranks: RelevantRanks) -> Tensor:
    """Relevant rows among the first R, over R, where R is the query's number of relevant rows."""
    within = ranks.ranks <= ranks.num_relevant[ranks.query]
    return _per_query(ranks, within.double()) / _relevant(ranks)


def map_at_r(ranks: RelevantRanks) -> Tensor:
    """Sum over i <= R of precision(i) where row i is relevant, over R.

    Musgrave et al., A Metric Learning Reality Check, 2020.
    """
    within = ranks.ranks <= ranks.num_relevant[ranks.query]
    return _per_query(ranks, ranks.precisions * within) / _relevant(ranks)


def average_precision(ranks: RelevantRanks) -> Tensor:
    """Mean of the precision at the rank of every relevant row, over the full ranking."""
    return _per_query(ranks, ranks.precisions) / _relevant(ranks)


def average_precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Sum of the precision at the relevant rows among the first k, over min(R, k).

    The mAP@100 of Google Landmarks v2 (Weyand et al., 2020).
    """
    total = _per_query(ranks, ranks.precisions * (ranks.ranks <= k))
    return total / _relevant(ranks).clamp_(max=k)


def trapezoid_average_precision(ranks: RelevantRanks) -> Tensor:
    """Area under precision over recall by trapezoids: every relevant row adds the mean of the
    precisions just before it and at it, over R; the precision before rank 1 is 1.

    The average precision of Oxford5k and of revisited Oxford and Paris (Radenović et al., 2018).
    It is not comparable with :func:`average_precision`.
    """
    before = (ranks.order - 1) / (ranks.ranks - 1).clamp(min=1).double()
    before[ranks.ranks == 1] = 1.0
    return _per_query(ranks, (before + ranks.precisions) / 2) / _relevant(ranks)


def reciprocal_rank(ranks: RelevantRanks) -> Tensor:
    """1 over the rank of the best relevant row."""
    return _per_query(ranks, (ranks.order == 1) / ranks.ranks.double())


def inverse_negative_penalty(ranks: RelevantRanks) -> Tensor:
    """R over the rank of the worst relevant row (Ye et al., Deep Learning for Person
    Re-identification, 2021); its mean is mINP.
    """
    last = ranks.order == ranks.num_relevant[ranks.query]
    return _per_query(ranks, last / ranks.ranks.double()) * ranks.num_relevant


def _per_query(ranks: RelevantRanks, values: Tensor) -> Tensor:
    sums = torch.zeros(len(ranks), dtype=torch.float64, device=ranks.ranks.device)
    if sums.is_cuda:
        return sums.index_add_(0, ranks.query, values)
    some = (ranks.num_relevant > 0).numpy()
    if some.any():  # the pairs of a query stand together
        sums.numpy()[some] = np.add.reduceat(values.numpy(), ranks.offsets.numpy()[:-1][some])
    return sums


def _hits(ranks: RelevantRanks, k: int) -> Tensor:
    return _per_query(ranks, (ranks.ranks <= k).double())


def _relevant(ranks: RelevantRanks) -> Tensor:
    return ranks.num_relevant.double().clamp_(min=1)


@dataclass(frozen=True)
class Measure:
    """A metric of ranked lists.

    Args:
        name: as results carry it, such as ``Recall@10``.
        depth: how deep the ranks must be exact.
        values: from the ranks of B queries to ``(B,)`` float64 in [0, 1].
    """

    name: str
    depth: Depth
    values: Callable[[RelevantRanks], Tensor]


_PLAIN: dict[str, tuple[Depth, Callable[[RelevantRanks], Tensor]]] = {
    'R-Precision': (Depth(relevant=True), r_precision),
    'MAP@R': (Depth(relevant=True), map_at_r),
    'mAP': (Depth(everything=True), average_precision),
    'mAP-trapezoid': (Depth(everything=True), trapezoid_average_precision),
    'MRR': (Depth(best=BEYOND), reciprocal_rank),
    'mINP': (Depth(everything=True), inverse_negative_penalty),
}
_AT_K: dict[str, tuple[bool, Callable[[RelevantRanks, int], Tensor]]] = {
    'Recall': (False, recall_at_k),  # the best relevant row alone decides
    'CMC': (False, cmc_at_k),
    'Precision': (True, precision_at_k),
    'mP': (True, cut_precision_at_k),
    'mAP': (True, average_precision_at_k),
}
VALID_NAMES = (*(f'{name}@K' for name in _AT_K), *_PLAIN)


def parse_metric(name: Any) -> Measure:
    """The metric of that name.

    Raises:
        TypeError: the name is no string.
        ValueError: there is none of that name (the message lists them), or its K is no whole
            number of at least 1.
    """
    if not isinstance(name, str):
        raise TypeError(f'A metric is given by its name, got {name!r}. Names: '
                        f'{", ".join(VALID_NAMES)}.')
    if name in _PLAIN:
        depth, values = _PLAIN[name]
        return Measure(name, depth, values)
    stem, _, number = name.partition('@')
    if stem not in _AT_K or '@' not in name:
        raise ValueError(unknown_name('metric', name, VALID_NAMES))
    if not re.fullmatch(r'[0-9]+', number) or int(number) < 1:
        raise ValueError(f'{name!r}: K must be a whole number of at least 1, got {number!r}. Write '
                         f'{stem}@10, for example.')
    deep, at_k = _AT_K[stem]
    k = int(number)
    return Measure(name, Depth(rows=k) if deep else Depth(best=k), lambda ranks: at_k(ranks, k))


def parse_metrics(names: str | Iterable[Any]) -> list[Measure]:
    """The metrics of those names, each once.

    Raises:
        TypeError, ValueError: as :func:`parse_metric`; or there is none.
    """
    given = [names] if isinstance(names, str) else list(names)
    if not given:
        raise ValueError(f'No metric is given. Names: {", ".join(VALID_NAMES)}.')
    return [parse_metric(name) for name in dict.fromkeys(given)]

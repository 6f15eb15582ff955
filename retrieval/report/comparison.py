"""Two runs over the same queries: which wins how often, and whether it is more than chance."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks import some_of
from ..evaluation import QueryResults, compare


class MetricComparison(NamedTuple):
    """A metric in two runs, in percent, over the queries that both have.

    Args:
        name: of the metric.
        first, second: the means.
        low, high: the 95 % bootstrap interval of the difference of second and first.
        wins, losses, ties: queries at which the second is better, worse, and the same.
        p_value: of the difference of the means, by a paired permutation test.
        sign_p_value: of wins against losses, by the exact two-sided sign test.
    """

    name: str
    first: float
    second: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    p_value: float
    sign_p_value: float

    @property
    def difference(self) -> float:
        """The second mean less the first."""
        return self.second - self.first


@dataclass(frozen=True)
class RunComparison:
    """Two runs query by query.

    Args:
        metrics: the comparison of each metric.
        queries: ``(M,)`` int64 twice, the rows of the queries of either run that are compared.
        differences: ``(M, metrics)`` float64 in percent, second less first.
        only: how many queries stand in the first run alone, and in the second alone.
        skipped: how many shared queries have no relevant row in one of the runs.
    """

    metrics: list[MetricComparison]
    queries: tuple[Tensor, Tensor]
    differences: Tensor
    only: tuple[int, int]
    skipped: int


def compare_runs(first: QueryResults, second: QueryResults, first_ids: Sequence[Any] | None = None,
                 second_ids: Sequence[Any] | None = None) -> RunComparison:
    """Compare two runs over the queries that both have.

    Queries are paired by their ids; where a run has none, by their place, and both must then have
    as many.

    Args:
        first, second: the results, of the same metrics.
        first_ids, second_ids: the ids of the queries.

    Raises:
        ValueError: the runs share no query that has a relevant row in both, an id occurs twice, or
            the metrics differ.

    Example:
        >>> runs = [QueryResults(['mAP'], torch.tensor(rows).double(), torch.tensor([1, 1, 1]))
        ...         for rows in ([[0.], [.5], [1.]], [[1.], [.5], [1.]])]
        >>> compared = compare_runs(*runs).metrics[0]
        >>> compared.wins, compared.losses, compared.ties, round(compared.difference, 2)
        (1, 0, 2, 33.33)
    """
    if list(first.metrics) != list(second.metrics):
        raise ValueError(f'The runs have other metrics, {", ".join(first.metrics)} and '
                         f'{", ".join(second.metrics)}: evaluate both with the same.')
    ours, theirs = _paired(first, second, first_ids, second_ids)
    counted = first.counted[ours] & second.counted[theirs]
    only = len(first.num_relevant) - len(ours), len(second.num_relevant) - len(theirs)
    kept = ours[counted], theirs[counted]
    if not len(kept[0]):
        raise ValueError('No query has a relevant row in both runs.')
    before, after = _of_queries(first, kept[0]), _of_queries(second, kept[1])
    after = replace(after, num_relevant=before.num_relevant)  # both count, whatever R is
    apart = replace(before, results=after.results - before.results, of_all={})
    bounds, tests = apart.confidence(), compare(before, after)
    metrics = [_compared(name, before.results[:, column], after.results[:, column], bounds[name],
                         tests[name]['p_value'])
               for column, name in enumerate(before.metrics)]
    return RunComparison(metrics, kept, 100 * apart.results, only, int((~counted).sum()))


def _paired(first: QueryResults, second: QueryResults, first_ids: Sequence[Any] | None,
            second_ids: Sequence[Any] | None) -> tuple[Tensor, Tensor]:
    counts = len(first.num_relevant), len(second.num_relevant)
    if first_ids is None or second_ids is None:
        if counts[0] != counts[1]:
            raise ValueError(f'The runs have {counts[0]} and {counts[1]} queries, and not both '
                             'have ids by which they could be paired: give galleries with ids, or '
                             'the same queries in the same order.')
        return torch.arange(counts[0]), torch.arange(counts[0])
    names = [[str(one) for one in ids] for ids in (first_ids, second_ids)]
    for side in names:
        if len(set(side)) < len(side):
            twice = Counter(side).most_common(1)[0][0]
            raise ValueError(f'Queries are paired by their ids, and one occurs twice: {twice!r}.')
    place = {name: row for row, name in enumerate(names[1])}
    pairs = [(row, place[name]) for row, name in enumerate(names[0]) if name in place]
    if not pairs:
        raise ValueError(f'The runs share no query: the first has {some_of(names[0])}, the second '
                         f'{some_of(names[1])}.')
    ours, theirs = torch.tensor(pairs).T
    return ours, theirs


def _of_queries(results: QueryResults, rows: Tensor) -> QueryResults:
    return replace(results, results=results.results[rows], num_relevant=results.num_relevant[rows],
                   labels=None if results.labels is None else results.labels[rows])


def _compared(name: str, before: Tensor, after: Tensor, bounds: tuple[float, float],
              p_value: float) -> MetricComparison:
    from scipy.stats import binomtest

    wins, losses = int((after > before).sum()), int((after < before).sum())
    sign = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    return MetricComparison(name, 100 * float(before.mean()), 100 * float(after.mean()), *bounds,
                            wins, losses, len(before) - wins - losses, p_value, float(sign))

"""The results of every single query, and what can be said of them: means, classes, certainty."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..checks import real_number, whole_number
from ..files import write_json
from ..registry import unknown_name

AVERAGES = ('micro', 'macro')
EMPTY_QUERIES = ('skip', 'zero', 'error')
_DRAWN = 2 ** 22  # numbers drawn at once

Value = TypeVar('Value')


@dataclass(frozen=True)
class QueryResults:
    """The result of each metric for each query.

    Args:
        metrics: the names of the metrics, M.
        results: ``(Q, M)`` float64 in [0, 1].
        num_relevant: ``(Q,)`` int64, relevant rows of each query; where 0, it has no results.
        labels: ``(Q,)`` int64, or None.
        label_names: the name of class i at place i, where classes have names.
        of_all: results in [0, 1] by name that are of all queries together, and of none alone.
        empty_queries: what becomes of a query without a relevant row: ``skip`` leaves it out of
            the means, ``zero`` counts it as 0, ``error`` refuses.
        nothing_relevant: why no query has a relevant row, where that is so.

    Example:
        >>> results = QueryResults(['Recall@1'], torch.tensor([[1.], [0.], [0.]]).double(),
        ...                        torch.tensor([3, 1, 0]))
        >>> results.summary()
        {'Recall@1': 50.0, 'num_queries': 3, 'num_skipped_queries': 1}
    """

    metrics: Sequence[str]
    results: Tensor
    num_relevant: Tensor
    labels: Tensor | None = None
    label_names: Sequence[Any] = ()
    of_all: Mapping[str, float] = field(default_factory=dict)
    empty_queries: str = 'skip'
    nothing_relevant: str = ''

    @property
    def counted(self) -> Tensor:
        """``(Q,)`` bool: the queries that the means are over.

        Raises:
            ValueError: there is none; or with ``empty_queries='error'`` one has no relevant row.
        """
        counted = self.num_relevant > 0
        check_empty_queries(self.empty_queries)
        if self.empty_queries == 'error' and not counted.all():
            empty = (~counted).nonzero()[:, 0].tolist()
            raise ValueError(f'{len(empty)} of {len(counted)} queries have no relevant row to find '
                             f'(the first is query {empty[0]}): take them out, or give '
                             "empty_queries='skip' or 'zero'.")
        if self.empty_queries == 'zero':
            return torch.ones_like(counted)
        if not counted.any():
            raise ValueError(
                f'None of {len(counted)} queries has a relevant row to find: ' + (
                    self.nothing_relevant or 'queries and gallery have no label in common, or '
                    'every class has a single image.'))
        return counted

    def summary(self, average: str = 'micro') -> dict[str, float]:
        """The means in percent, beside ``num_queries`` and ``num_skipped_queries``; where empty
        queries count as 0, ``num_empty_queries`` too.

        Args:
            average: ``micro``, over queries; ``macro``, over classes of their queries' means.

        Raises:
            ValueError: no query has a relevant row, or there are no classes to average over.
        """
        check_average(average, self.labels)
        counted = self.counted
        means = self._averaged(average).mean(dim=0).mul(100).tolist()
        empty = {'num_empty_queries': int((self.num_relevant == 0).sum())}
        return {**dict(zip(self.metrics, means, strict=True)),
                **{name: 100 * value for name, value in self.of_all.items()},
                'num_queries': len(counted), 'num_skipped_queries': int((~counted).sum()),
                **(empty if self.empty_queries == 'zero' else {})}

    def per_class(self) -> dict[Any, dict[str, float]]:
        """For every class that has a counted query its means in percent and ``num_queries``.

        Keys are the labels, by name where they have names.
        """
        check_average('macro', self.labels)
        assert self.labels is not None
        labels, sizes, means = self._by_class(self.labels)
        names = [self.label_names[label] if 0 <= label < len(self.label_names) else label
                 for label in labels.tolist()]
        return {name: {**dict(zip(self.metrics, row, strict=True)), 'num_queries': size}
                for name, row, size in zip(names, means.mul(100).tolist(), sizes.tolist(),
                                           strict=True)}

    def confidence(self, level: float = 0.95, draws: int = 1000, seed: int = 0,
                   average: str = 'micro') -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals in percent, ``(low, high)`` by metric.

        Queries (with ``macro``, classes) are drawn with replacement (Efron, 1979).

        Args:
            level: the interval's share, between 0 and 1.
            draws: how many samples.
            seed: of the draws.

        Raises:
            ValueError: the level or the number of draws makes no interval.
        """
        level = real_number('level', level, above=0, below=1)
        whole_number('draws', draws)
        check_average(average, self.labels)
        means = _resampled(self._averaged(average), draws, seed)
        tail = (1 - level) / 2
        bounds = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
        return {name: (low, high) for name, (low, high) in zip(
            self.metrics, bounds.mul(100).T.tolist(), strict=True)}

    def _averaged(self, average: str) -> Tensor:
        """The rows that a mean is over: counted queries, or classes."""
        if average == 'micro':
            return self.results[self.counted]
        assert self.labels is not None
        return self._by_class(self.labels)[2]

    def _by_class(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counted = self.counted
        labels, place = torch.unique(labels.cpu()[counted], return_inverse=True)
        sizes = torch.bincount(place)
        sums = torch.zeros((len(labels), len(self.metrics)), dtype=torch.float64)
        return labels, sizes, sums.index_add_(0, place, self.results[counted]) / sizes[:, None]


def compare(first: QueryResults, second: QueryResults, draws: int = 10000,
            seed: int = 0) -> dict[str, dict[str, float]]:
    """The difference of two runs over the same queries, and whether it is more than chance.

    A paired permutation test: under the null hypothesis the sign of each query's difference is as
    likely either way (Smucker et al., 2007).

    Returns:
        By metric ``difference``, the second's mean minus the first's in percent, and ``p_value``,
        the share of sign changes whose difference is at least as large, both sides.

    Raises:
        ValueError: the runs have other queries or metrics, or there are no draws.
    """
    whole_number('draws', draws)
    if list(first.metrics) != list(second.metrics) or len(first.results) != len(second.results):
        raise ValueError(f'The runs must have the same queries and metrics, got '
                         f'{len(first.results)} queries with {list(first.metrics)} and '
                         f'{len(second.results)} with {list(second.metrics)}.')
    if not torch.equal(first.counted, second.counted):
        raise ValueError('The runs skip different queries: evaluate both with the same relevance.')
    apart = (second.results - first.results)[first.counted]
    observed = apart.mean(dim=0)
    generator = torch.Generator().manual_seed(seed)
    as_large = torch.zeros(len(first.metrics))
    for start in range(0, draws, step := max(1, _DRAWN // len(apart))):
        size = min(step, draws - start)
        signs = torch.randint(0, 2, (size, len(apart)), generator=generator).mul_(2).sub_(1)
        means = signs.double() @ apart / len(apart)
        as_large += (means.abs() >= observed.abs() - 1e-12).sum(dim=0)
    p_values = ((as_large + 1) / (draws + 1)).tolist()
    return {name: {'difference': 100 * difference, 'p_value': p_value} for name, difference, p_value
            in zip(first.metrics, observed.tolist(), p_values, strict=True)}


def _resampled(values: Tensor, draws: int, seed: int) -> Tensor:
    """The means ``(draws, M)`` of samples drawn with replacement from the rows of ``values``."""
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _DRAWN // len(values))
    means = []
    for start in range(0, draws, step):
        size = (min(step, draws - start), len(values))
        drawn = torch.randint(0, len(values), size, generator=generator)
        times = torch.zeros(size, dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones(size, dtype=torch.float64))
        means.append(times @ values / len(values))
    return torch.cat(means)


def check_average(average: Any, labels: Any) -> None:
    """Raise ValueError unless ``average`` is ``micro``, or ``macro`` with labels."""
    if average not in AVERAGES:
        raise ValueError(unknown_name('average', average, AVERAGES))
    if average == 'macro' and labels is None:
        raise ValueError("A mean over classes (average='macro') needs labels: give them.")


def check_empty_queries(empty_queries: Any) -> str:
    """``empty_queries`` as it is. Raises ValueError unless it is ``skip``, ``zero`` or ``error``.
    """
    if empty_queries not in EMPTY_QUERIES:
        raise ValueError(unknown_name('empty_queries', empty_queries, EMPTY_QUERIES))
    return str(empty_queries)


def with_levels(by_level: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """Everything by one name, ``level/name``; the plain name under the empty level.

    Example:
        >>> with_levels({'easy': {'mAP': 81.5}, 'hard': {'mAP': 62.0}})
        {'easy/mAP': 81.5, 'hard/mAP': 62.0}
    """
    return {f'{level}/{name}' if level else name: value
            for level, values in by_level.items() for name, value in values.items()}


def write_per_class(by_level: Mapping[str, QueryResults], path: str) -> None:
    """Write the results of every class to a JSON file, by level where there are several."""
    tables = {level: {str(label): row for label, row in results.per_class().items()}
              for level, results in by_level.items()}
    write_json(path, tables.get('', tables))

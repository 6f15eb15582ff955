"""The metrics of rankings, each a pure function that is registered by its name where it stands.

Every function takes the :class:`~retrieval.ranking.RelevantRanks` of B queries (and K, where the
name has one) and returns the results ``(B,)`` float64 in [0, 1]. A query without a relevant row
has no result: what stands in its place is 0 and is left out of the mean.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..ranking import BEYOND, Depth, RelevantRanks
from ..registry import unknown_name

EVERY_RANK = Depth(everything=True)
UP_TO_R = Depth(relevant=True)

Function = TypeVar('Function', bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """A metric of rankings, or of a whole task.

    Args:
        name: as results carry it, such as ``Recall@10``.
        depth: how deep the ranks must be exact; None for a metric of the task.
        function: from the ranks of B queries to their results ``(B,)`` in [0, 1]; or from an
            ``EvaluationTask`` to the results ``(Q,)`` of its queries, or to one of all.
    """

    name: str
    depth: Depth | None
    function: Callable[[Any], Any]

    def results(self, ranks: RelevantRanks) -> Tensor:
        """The results ``(B,)`` float64 of B queries.

        Raises:
            TypeError: the function returns no tensor.
            ValueError: the tensor has another shape.
        """
        results = self.function(ranks)
        if not isinstance(results, Tensor):
            raise TypeError(f'The metric {self.name!r} must return a tensor with a result for each '
                            f'of {len(ranks)} queries, got {type(results).__name__}.')
        if results.shape != (len(ranks),):
            raise ValueError(f'The metric {self.name!r} must return a result for each of '
                             f'{len(ranks)} queries, got the shape {tuple(results.shape)}: add up '
                             'the ranks of each query with per_query.')
        return results.double()


_REGISTERED: dict[str, tuple[Callable[..., Any], Depth | Callable[[int], Depth] | None]] = {}


def metric(name: str, depth: Depth | Callable[[int], Depth] | None = EVERY_RANK,
           ) -> Callable[[Function], Function]:
    """Register the decorated function as a metric.

    Args:
        name: a plain name, for a function of the ranks; or one that ends in ``@K``, for a function
            of the ranks and a whole number K that is asked for as in ``Recall@10``.
        depth: how deep the ranks must be exact, or a callable that says it for K. What lies deeper
            may be ``BEYOND``. A shallow one is faster; by default every rank is exact. None for a
            function of the whole :class:`~retrieval.evaluation.EvaluationTask` in their place; its
            name may end in ``=R``, for a rate that is asked for as in ``FNMR@FMR=0.01``.

    Raises:
        TypeError: the depth of a plain name depends on K.
        ValueError: another function has the name.

    Example:
        >>> @metric('Toy@K')
        ... def relevant_at_rank_k(ranks, k):
        ...     return per_query(ranks, ranks.ranks == k)
        >>> parse_metric('Toy@3').name
        'Toy@3'
    """
    if not name.endswith('@K') and callable(depth):
        raise TypeError(f'The metric {name!r} has no K: give a Depth, got {depth!r}.')

    def register(function: Function) -> Function:
        known = _REGISTERED.get(name)
        # a module that is run again, such as a notebook's cell, replaces what it registered
        if known and (known[0].__module__, known[0].__qualname__) != (
                function.__module__, function.__qualname__):
            raise ValueError(f'There is a metric {name!r} already ({known[0].__module__}.'
                             f'{known[0].__qualname__}): give yours another name.')
        _REGISTERED[name] = function, depth
        return function
    return register


def metric_names() -> list[str]:
    """The names of all metrics, with ``@K`` where a number takes the place of K.

    Example:
        >>> 'Recall@K' in metric_names() and 'mAP' in metric_names()
        True
    """
    return list(_REGISTERED)


def parse_metric(name: Any) -> Metric:
    """The metric of that name.

    Raises:
        TypeError: the name is no string.
        ValueError: there is none of that name (the message lists them), or its K is no whole
            number of at least 1.

    Example:
        >>> parse_metric('Recall@10').depth
        Depth(everything=False, rows=0, relevant=False, best=10)
    """
    if not isinstance(name, str):
        raise TypeError(f'A metric is given by its name, got {name!r}. Names: '
                        f'{", ".join(metric_names())}.')
    stem, at, number = name.partition('@')
    kind, equals, rate = number.partition('=')
    registered = name if name in _REGISTERED else \
        f'{stem}@{kind}=R' if equals else f'{stem}@K' if at else ''
    if registered not in _REGISTERED:
        raise ValueError(unknown_name('metric', name, metric_names()))
    function, depth = _REGISTERED[registered]
    if not registered.endswith(('@K', '=R')):
        return Metric(name, depth, function)  # type: ignore[arg-type]
    if equals:
        if not re.fullmatch(r'[0-9]*\.?[0-9]+(e-?[0-9]+)?', rate) or float(rate) > 1:
            raise ValueError(f'{name!r}: R must be a rate from 0 to 1, got {rate!r}. Write '
                             f'{stem}@{kind}=0.01, for example.')
        return Metric(name, None, lambda given: function(given, float(rate)))
    if not re.fullmatch(r'[0-9]+', number) or int(number) < 1:
        raise ValueError(f'{name!r}: K must be a whole number of at least 1, got {number!r}. Write '
                         f'{stem}@10, for example.')
    k = int(number)
    return Metric(name, depth(k) if callable(depth) else depth, lambda given: function(given, k))


def metric_definition(name: str) -> str:
    """The first sentence of a metric's definition.

    Raises:
        TypeError, ValueError: as :func:`parse_metric`.

    Example:
        >>> metric_definition('Recall@10')
        '1 where a relevant row is among the first k, else 0: the hit rate.'
    """
    stem = re.sub(r'@(.*=)?[^@=]*$', lambda found: f'@{found[1]}R' if found[1] else '@K',
                  parse_metric(name).name)
    function = _REGISTERED[name if name in _REGISTERED else stem][0]
    paragraph = (function.__doc__ or '').strip().partition('\n\n')[0]
    return re.split(r'(?<=\.)\s', ' '.join(paragraph.split()))[0]


def parse_metrics(names: str | Iterable[Any]) -> list[Metric]:
    """The metrics of those names, each once.

    Raises:
        TypeError, ValueError: as :func:`parse_metric`; or there is none.

    Example:
        >>> [metric.name for metric in parse_metrics(['mAP', 'MRR', 'mAP'])]
        ['mAP', 'MRR']
    """
    given = [names] if isinstance(names, str) else list(names)
    if not given:
        raise ValueError(f'No metric is given. Names: {", ".join(metric_names())}.')
    return [parse_metric(name) for name in dict.fromkeys(given)]


def per_query(ranks: RelevantRanks, values: Tensor) -> Tensor:
    """The sum of each query's values ``(B,)`` float64, 0 where it has none.

    Args:
        values: ``(P,)`` numbers or booleans, one for each rank in ``ranks.ranks``.

    Example:
        >>> ranks = RelevantRanks(torch.tensor([0, 2, 2]), torch.tensor([1, 4]),
        ...                       torch.tensor([9, 9]))
        >>> per_query(ranks, ranks.ranks <= 3)
        tensor([1., 0.], dtype=torch.float64)
    """
    values = values.double()
    sums = torch.zeros(len(ranks), dtype=torch.float64, device=ranks.ranks.device)
    if sums.is_cuda:
        return sums.index_add_(0, ranks.query, values)
    some = (ranks.num_relevant > 0).numpy()
    if some.any():  # the pairs of a query stand together
        sums.numpy()[some] = np.add.reduceat(values.numpy(), ranks.offsets.numpy()[:-1][some])
    return sums


def _hits(ranks: RelevantRanks, k: int) -> Tensor:
    return per_query(ranks, ranks.ranks <= k)


def _found(ranks: RelevantRanks) -> Tensor:
    """``(P,)`` bool: a relevant row is in the ranking, which may be a list that was cut."""
    return ranks.ranks < BEYOND


def _num_relevant(ranks: RelevantRanks) -> Tensor:
    """R of each query to divide by, 1 where there is none."""
    return ranks.num_relevant.double().clamp_(min=1)


@metric('Recall@K', depth=lambda k: Depth(best=k))  # the best relevant row decides
def recall_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """1 where a relevant row is among the first k, else 0: the hit rate.

    This is the Recall@K of metric learning (CUB, SOP, In-Shop), not the share of the relevant
    rows that is found.
    """
    return _hits(ranks, k).clamp_(max=1)


@metric('CMC@K', depth=lambda k: Depth(best=k))
def cmc_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Cumulative matching characteristic of re-identification: 1 where a match is in the first k,
    once junk and same-camera rows are taken out. The same result as :func:`recall_at_k`.
    """
    return recall_at_k(ranks, k)


@metric('Precision@K', depth=lambda k: Depth(rows=k))
def precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Relevant rows among the first k, over k, even where fewer rows can be ranked."""
    return _hits(ranks, k) / k


@metric('OML-Precision@K', depth=lambda k: Depth(rows=k))
def possible_precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Relevant rows among the first k, over min(R, k): a perfect ranking has 1 for every k.

    The precision@k of Open Metric Learning (Shabanov et al.), which is not :func:`precision_at_k`.
    """
    return _hits(ranks, k) / _num_relevant(ranks).clamp_(max=k)


@metric('Recall-share@K', depth=lambda k: Depth(rows=k))
def recall_share_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Relevant rows among the first k, over R: the share of the relevant that is found, which is
    the recall of information retrieval (Manning et al., Introduction to Information Retrieval,
    2008, chapter 8); not the hit rate of :func:`recall_at_k`.
    """
    return _hits(ranks, k) / _num_relevant(ranks)


@metric('NDCG@K', depth=lambda k: Depth(rows=k))
def ndcg_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Sum over the relevant rows among the first k of 1 / log2(1 + rank), over that of a perfect
    ranking: the normalised discounted cumulative gain of relevance 0 and 1.

    Järvelin and Kekäläinen, Cumulated Gain-based Evaluation of IR Techniques, 2002, with the
    discount of Burges et al., 2005, as scikit-learn's ``ndcg_score`` computes it.
    """
    gains = (ranks.ranks <= k) / (1 + ranks.ranks.double()).log2()
    most = int(ranks.num_relevant.max()) if len(ranks) else 0
    places = torch.arange(2, min(most, k) + 2, device=gains.device).double()
    ideal = torch.cat([places.new_ones(1), (1 / places.log2()).cumsum(0)])
    return per_query(ranks, gains) / ideal[ranks.num_relevant.clamp(max=k)]


@metric('AUROC')
def area_under_roc(ranks: RelevantRanks) -> Tensor:
    """The share of pairs of a relevant and another row in which the relevant one ranks higher: the
    area under each query's ROC curve (Hanley and McNeil, 1982). 1 where every row is relevant.

    Rows of equal score rank by row here, where other programs count such a pair half.
    """
    above = per_query(ranks, (ranks.ranks - ranks.order) * _found(ranks))
    pairs = ranks.num_relevant * (ranks.rankable - ranks.num_relevant).to(above.device)
    return (1 - above / pairs.clamp(min=1)) * (ranks.num_relevant > 0)


@metric('mP@K', depth=lambda k: Depth(rows=k))
def cut_precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Relevant rows among the first k, over k or, where it is less, the rank of the worst relevant
    row: what comes behind the last relevant row does not count.

    The mP@k of revisited Oxford and Paris (Radenović et al., 2018), as their program computes it.
    """
    last = ranks.order == ranks.num_relevant[ranks.query]
    worst = per_query(ranks, last * ranks.ranks)
    return _hits(ranks, k) / worst.clamp_(min=1, max=k)


@metric('R-Precision', depth=UP_TO_R)
def r_precision(ranks: RelevantRanks) -> Tensor:
    """Relevant rows among the first R, over R, where R is the query's number of relevant rows."""
    within = ranks.ranks <= ranks.num_relevant[ranks.query]
    return per_query(ranks, within) / _num_relevant(ranks)


@metric('MAP@R', depth=UP_TO_R)
def map_at_r(ranks: RelevantRanks) -> Tensor:
    """Sum over i <= R of precision(i) where row i is relevant, over R.

    Musgrave et al., A Metric Learning Reality Check, 2020.
    """
    within = ranks.ranks <= ranks.num_relevant[ranks.query]
    return per_query(ranks, ranks.precisions * within) / _num_relevant(ranks)


@metric('mAP')
def average_precision(ranks: RelevantRanks) -> Tensor:
    """Mean of the precision at the rank of every relevant row, over the full ranking; 0 where a
    row was not found.
    """
    return per_query(ranks, ranks.precisions * _found(ranks)) / _num_relevant(ranks)


@metric('mAP@K', depth=lambda k: Depth(rows=k))
def average_precision_at_k(ranks: RelevantRanks, k: int) -> Tensor:
    """Sum of the precision at the relevant rows among the first k, over min(R, k).

    The mAP@100 of Google Landmarks v2 (Weyand et al., 2020).
    """
    total = per_query(ranks, ranks.precisions * (ranks.ranks <= k))
    return total / _num_relevant(ranks).clamp_(max=k)


@metric('mAP-trapezoid')
def trapezoid_average_precision(ranks: RelevantRanks) -> Tensor:
    """Area under precision over recall by trapezoids: every relevant row adds the mean of the
    precisions just before it and at it, over R; the precision before rank 1 is 1.

    The average precision of Oxford5k and of revisited Oxford and Paris (Radenović et al., 2018).
    It is not comparable with :func:`average_precision`.
    """
    before = (ranks.order - 1) / (ranks.ranks - 1).clamp(min=1).double()
    before[ranks.ranks == 1] = 1.0
    return per_query(ranks, (before + ranks.precisions) / 2 * _found(ranks)) / _num_relevant(ranks)


@metric('MRR', depth=Depth(best=BEYOND))
def reciprocal_rank(ranks: RelevantRanks) -> Tensor:
    """1 over the rank of the best relevant row."""
    return per_query(ranks, (ranks.order == 1) / ranks.ranks.double())


@metric('mINP')
def inverse_negative_penalty(ranks: RelevantRanks) -> Tensor:
    """R over the rank of the worst relevant row (Ye et al., Deep Learning for Person
    Re-identification, 2021); its mean is mINP.
    """
    last = ranks.order == ranks.num_relevant[ranks.query]
    return per_query(ranks, last / ranks.ranks.double()) * ranks.num_relevant

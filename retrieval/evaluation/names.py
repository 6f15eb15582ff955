"""The metrics by the names that results carry."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..ranking import BEYOND, Depth, RelevantRanks
from ..registry import unknown_name
from . import measures


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
    'R-Precision': (Depth(relevant=True), measures.r_precision),
    'MAP@R': (Depth(relevant=True), measures.map_at_r),
    'mAP': (Depth(everything=True), measures.average_precision),
    'mAP-trapezoid': (Depth(everything=True), measures.trapezoid_average_precision),
    'MRR': (Depth(best=BEYOND), measures.reciprocal_rank),
    'mINP': (Depth(everything=True), measures.inverse_negative_penalty),
}
_AT_K: dict[str, tuple[bool, Callable[[RelevantRanks, int], Tensor]]] = {
    'Recall': (False, measures.recall_at_k),  # the best relevant row alone decides
    'CMC': (False, measures.cmc_at_k),
    'Precision': (True, measures.precision_at_k),
    'mP': (True, measures.cut_precision_at_k),
    'mAP': (True, measures.average_precision_at_k),
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

"""Which rows are relevant to a query, and which it does not rank."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import same_length, some_of
from ..labels import names_in
from ..ranking import RowSets, paired_labels
from ..structures import as_labels

RelevanceLike = RowSets | Tensor | np.ndarray | Sequence[Any] | Callable[[Tensor], Any]


def label_codes(labels: Any, gallery_labels: Any = None,
                name: str = 'labels') -> tuple[Tensor, Tensor | None, list[Any]]:
    """Labels of both sides as int64 and the names of the classes.

    The kind is decided over both sides together: where one has names, the other's whole numbers
    are names too, and 1 and ``'1'`` are one class. Integers on both sides stay what they are;
    names are numbered in their order.

    Args:
        labels: ``(Q,)`` whole numbers or strings.
        gallery_labels: ``(N,)`` of either kind, or None.
        name: what they are called in a message.

    Returns:
        ``(Q,)`` int64, ``(N,)`` int64 or None, and for strings the name of every number.

    Raises:
        TypeError, ValueError: a side holds neither whole numbers nor strings, or both; the message
            names a value and its row. Or one side has strings, the other has numbers, and they
            have nothing in common.

    Example:
        >>> label_codes([2, 1], ['1', 'distractor', '2'])
        (tensor([1, 0]), tensor([0, 2, 1]), ['1', '2', 'distractor'])
    """
    sides = [(labels, name)]
    if gallery_labels is not None:
        sides.append((gallery_labels, f'gallery {name}'))
    words = [names_in(*side) for side in sides]
    known: list[Any] = []
    if all(names is None for names in words):
        codes = [as_labels(*side) for side in sides]
    else:
        listed = [[str(one) for one in as_labels(*side).tolist()] if names is None else names
                  for side, names in zip(sides, words, strict=True)]
        known = sorted({one for names in listed for one in names})
        if None in words and not set(listed[0]) & set(listed[1]):
            raise TypeError(f'One side has strings for {name} ({some_of(known, 2)}) and the other '
                            'has numbers, and they have none in common.')
        number = {one: place for place, one in enumerate(known)}
        codes = [torch.tensor([number[one] for one in names], dtype=torch.int64)
                 for names in listed]
    return codes[0], codes[1] if len(codes) > 1 else None, known


def as_relevance(relevance: Any, num_queries: int, num_rows: int) -> RowSets:
    """Relevance that is no matter of labels.

    Args:
        relevance: a boolean matrix ``(Q, N)``; a callable from query rows ``(B,)`` int64 to a
            boolean ``(B, N)``; or for every query the list of its relevant rows.

    Raises:
        TypeError, ValueError: it is none of these, or does not fit the numbers of rows.
    """
    if isinstance(relevance, RowSets):
        sets = relevance
    elif callable(relevance) and not isinstance(relevance, Tensor):
        sets = RowSets.from_callable(relevance, num_queries, num_rows)
    elif isinstance(relevance, (Tensor, np.ndarray)) and relevance.ndim == 2:
        sets = RowSets.from_matrix(relevance)
    elif isinstance(relevance, Sequence) and not isinstance(relevance, str):
        sets = RowSets.from_lists(relevance, num_rows)
    else:
        raise TypeError('relevance must be a boolean matrix (Q, N), a callable from query rows to '
                        'a boolean (B, N), or a list of rows for each query, got '
                        f'{type(relevance).__name__}.')
    if (sets.num_queries, sets.num_rows) != (num_queries, num_rows):
        raise ValueError(f'relevance is for {sets.num_queries} queries and {sets.num_rows} rows, '
                         f'but there are {num_queries} and {num_rows}.')
    return sets


def shares_a_label(labels: Any, gallery_labels: Any) -> Callable[[Tensor], Tensor]:
    """Relevance where images have several labels: at least one in common.

    Args:
        labels: ``(Q, C)`` of 0 and 1, which of C labels each query has.
        gallery_labels: ``(N, C)``.

    Returns:
        A callable for ``relevance``, from query rows ``(B,)`` to ``(B, N)`` bool.

    Raises:
        ValueError: they are not two-dimensional, differ in width, or hold other numbers.

    Example:
        >>> relevance = shares_a_label([[1, 0], [0, 1]], [[1, 1], [0, 1]])
        >>> relevance(torch.tensor([0, 1]))
        tensor([[ True, False],
                [ True,  True]])
    """
    sides = [torch.as_tensor(side) for side in (labels, gallery_labels)]
    for side in sides:
        if side.ndim != 2 or side.shape[1] != sides[0].shape[1]:
            raise ValueError('Labels of several to an image must be (Q, C) and (N, C), got '
                             f'{tuple(sides[0].shape)} and {tuple(sides[1].shape)}.')
        if not ((side == 0) | (side == 1)).all():
            raise ValueError('Labels of several to an image must be 0 or 1 in each column.')
    own, theirs = (side.float() for side in sides)
    return lambda rows: own[rows] @ theirs.T > 0


def same_ids(ids: Sequence[Any], gallery_ids: Sequence[Any]) -> RowSets:
    """The rows that are the query's own picture: those with its id."""
    numbers: dict[str, int] = {}
    own, theirs = (torch.tensor([numbers.setdefault(str(one), len(numbers)) for one in side],
                                dtype=torch.int64) for side in (ids, gallery_ids))
    return RowSets.from_labels(own, theirs)


def same_as_query(name: str, values: Any, gallery_values: Any, labels: Tensor | None,
                  gallery_labels: Tensor | None) -> RowSets:
    """The rows of the query's own class that share its value of a column (camera, sequence).

    Re-identification does not rank them: they show the same moment once more.

    Args:
        name: what the column is called, for the messages.
        values: ``(Q,)`` whole numbers or strings.
        gallery_values: ``(N,)`` of the same kind.

    Raises:
        ValueError: one side or the labels are missing, or lengths do not fit.
    """
    if values is None or gallery_values is None or labels is None or gallery_labels is None:
        raise ValueError(f'Leaving out rows of the same {name} needs {name} and labels of both '
                         'sides.')
    same_length(name, values, len(labels), 'queries')
    same_length(f'{name} of the gallery', gallery_values, len(gallery_labels), 'rows')
    own, theirs, _ = label_codes(values, gallery_values, name)
    assert theirs is not None
    return RowSets.from_labels(*paired_labels((labels, own), (gallery_labels, theirs)))


def united(*sets: RowSets | None) -> RowSets | None:
    """The rows in any of the sets."""
    given = [one for one in sets if one is not None]
    if not given:
        return None
    first, *rest = given
    for one in rest:
        first = first.union(one)
    return first

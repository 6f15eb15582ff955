"""The forms in which ranked and relevant rows may be given: lists of rows, or dense columns."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..structures import as_labels


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

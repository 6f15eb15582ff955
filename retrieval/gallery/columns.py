"""Columns beside the embeddings: strings or numbers, one for each row."""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..labels import whole_number_in
from ..string_column import StringColumn

Column = StringColumn | Tensor
_NUMBER = re.compile(r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf')


class LazyColumns(Mapping[str, Column]):
    """Columns by name, each read when it is first asked for.

    Args:
        readers: for each name what reads the column.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Column]]) -> None:
        self._readers = dict(readers)
        self._read: dict[str, Column] = {}

    def __getitem__(self, name: str) -> Column:
        if name not in self._read:
            self._read[name] = self._readers[name]()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def string_column(values: Iterable[Any]) -> StringColumn:
    """Values as a column of strings; bytes are read as UTF-8."""
    if isinstance(values, StringColumn):
        return values
    return StringColumn.from_strings(text_of(value) for value in values)


def text_of(value: Any) -> str:
    """A value as a column of strings holds it: None is empty, bytes are read as UTF-8."""
    if isinstance(value, bytes):
        return value.decode('utf-8', 'surrogateescape')
    return '' if value is None else str(value)


def column(values: Any) -> Column:
    """Values as a column of numbers, where they are numbers, else of strings; None is empty.

    Whole numbers that no type of integers holds together stay text, since floats would round
    them. bfloat16, which NumPy does not have, becomes float32.
    """
    if isinstance(values, StringColumn):
        return values
    if isinstance(values, Tensor):
        return values.float() if values.dtype == torch.bfloat16 else values
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind in 'iufb' and not (
            array.dtype.kind == 'f' and not hasattr(values, 'dtype')
            and all(isinstance(value, int) for value in values)):
        return torch.from_numpy(np.ascontiguousarray(array))
    return string_column(values)


def as_number(text: str) -> float | None:
    """The number that a text is, None where it is another text.

    Example:
        >>> as_number('-0.5'), as_number('1e3'), as_number('1_000')
        (-0.5, 1000.0, None)
    """
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def value_at(values: Column, row: int) -> Any:
    """One value of a column as plain Python."""
    return values[row] if isinstance(values, StringColumn) else values[row].item()


def take(values: Column, rows: np.ndarray) -> Column:
    """The values of the rows with these numbers."""
    if isinstance(values, StringColumn):
        return values.take(rows)
    return values[torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(values.device)]


def joined(parts: Sequence[Column], name: str) -> Column:
    """Columns after one another; numbers of different types in one that holds all.

    Raises:
        ValueError: some hold strings and some numbers.
    """
    if len(parts) == 1:
        return parts[0]
    texts = [part for part in parts if isinstance(part, StringColumn)]
    numbers = [part for part in parts if isinstance(part, Tensor)]
    if texts and numbers:
        raise ValueError(f'The metadata column {name!r} holds numbers in one gallery and strings '
                         'in another: write it as one of both.')
    return StringColumn.joined(texts) if texts else torch.cat([part.cpu() for part in numbers])


def equal_to(values: Column, wanted: Any) -> np.ndarray:
    """In which rows a column has a value, or one of a list of values, ``(N,)`` bool.

    A value is compared by the column's type, and may be written as text: ``'True'`` of truth
    values, ``'-3'`` of whole numbers, ``'0.5'`` of fractions, which count as the column holds
    them (0.1 in float32). A column of strings takes numbers as they are written.

    Raises:
        ValueError: the value is none of the column's type.
    """
    listed = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
    if isinstance(values, StringColumn):
        chosen = {text_of(value) for value in listed}
        return np.fromiter((value in chosen for value in values), dtype=bool, count=len(values))
    array = values.cpu().numpy()
    mask = np.zeros(len(array), dtype=bool)
    for value in listed:
        mask |= array == _of_type(value, array.dtype)
    return mask


def _of_type(value: Any, dtype: np.dtype[Any]) -> Any:
    """A value, or its text, as a column of that type holds it; see :func:`equal_to`."""
    given = value.item() if hasattr(value, 'item') else value
    found: Any = None
    if dtype.kind == 'b':
        texts = {'true': True, 'false': False, '1': True, '0': False}
        found = texts.get(str(given).lower()) if isinstance(given, (str, bool, int)) else None
        kind = 'True and False'
    elif dtype.kind == 'f':
        if isinstance(given, str) and _NUMBER.fullmatch(given):
            given = float(given)
        if isinstance(given, (int, float)) and not isinstance(given, bool) and given == given:
            found = dtype.type(given)
        kind = 'numbers'
    else:
        if isinstance(given, str):
            found = whole_number_in(given)
        elif isinstance(given, (int, float)) and not isinstance(given, bool):
            found = int(given) if math.isfinite(given) and given == int(given) else None
        kind = 'whole numbers'
    if found is None:
        raise ValueError(f'The column ({dtype}) holds {kind}, and {value!r} is none.')
    return found

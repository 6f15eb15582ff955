"""Columns beside the embeddings: strings or numbers, one for each row."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tensor_file import StringColumn

Column = StringColumn | Tensor


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
    """Values as a column of strings."""
    if isinstance(values, StringColumn):
        return values
    return StringColumn.from_strings(str(value) for value in values)


def column(values: Any) -> Column:
    """Values as a column of numbers, where they are numbers, else of strings; None is empty.

    bfloat16, which NumPy does not have, becomes float32.
    """
    if isinstance(values, StringColumn):
        return values
    if isinstance(values, Tensor):
        return values.float() if values.dtype == torch.bfloat16 else values
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind in 'iufb':
        return torch.from_numpy(np.ascontiguousarray(array))
    return string_column('' if value is None else value for value in values)


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
    """In which rows a column has a value, or one of a list of values, ``(N,)`` bool."""
    listed = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
    if isinstance(values, StringColumn):
        chosen = {str(value) for value in listed}
        return np.fromiter((value in chosen for value in values), dtype=bool, count=len(values))
    array = values.cpu().numpy()
    mask = np.zeros(len(array), dtype=bool)
    for value in listed:
        try:
            mask |= array == float(value) if array.dtype.kind == 'f' else array == int(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f'The column holds numbers ({array.dtype}), and {value!r} is '
                             'none.') from error
    return mask

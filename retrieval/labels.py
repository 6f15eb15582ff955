"""Labels and other columns as they are written: whole numbers, or names.

A value is what is written, without blanks and byte-order marks around it. Text is whole numbers
only where every entry of a column is written as one writes whole numbers: ``0012``, ``1_2``,
``+12`` and ``1.0`` are names.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_WHOLE = re.compile(r'0|-?[1-9][0-9]{0,18}')
_INT64 = np.iinfo(np.int64)


def written(text: str) -> str:
    """A text without the blanks and byte-order marks around it.

    Example:
        >>> written('\\ufeff cat ')
        'cat'
    """
    return text.strip().strip('\ufeff').strip()


def whole_number_in(text: str) -> int | None:
    """The whole number that a text is, None where it is another text.

    Example:
        >>> [whole_number_in(text) for text in ('12', '-3', '012', '1_2', '1.0')]
        [12, -3, None, None, None]
    """
    if not _WHOLE.fullmatch(text):
        return None
    number = int(text)
    return number if _INT64.min <= number <= _INT64.max else None


def as_written(texts: Iterable[str]) -> list[int] | list[str]:
    """The values of a column of text: whole numbers where every entry is one, else names.

    Example:
        >>> as_written(['1', '20']), as_written(['1', '020 '])
        ([1, 20], ['1', '020'])
    """
    names = [written(text) for text in texts]
    numbers = []
    for name in names:
        number = whole_number_in(name)
        if number is None:
            return names
        numbers.append(number)
    return numbers


def names_in(values: Any, what: str = 'labels') -> list[str] | None:
    """Values ``(N,)`` as names where they are strings, None where they are numbers.

    Args:
        values: a sequence, an array, or a column of strings; a tensor is numbers.
        what: what they are called in a message.

    Raises:
        ValueError: one is missing, or strings and numbers are mixed; the message names the value
            and its row.

    Example:
        >>> names_in(np.array([b'cat', b'dog'])), names_in([3, 4])
        (['cat', 'dog'], None)
    """
    if values is None or isinstance(values, (str, bytes)) or not (
            isinstance(values, Sequence) or hasattr(values, '__array__')):
        return None
    kind = getattr(getattr(values, 'dtype', None), 'kind', 'O')
    if kind in 'iufbc' or type(values).__module__.startswith('torch'):
        return None
    if getattr(values, 'ndim', 1) != 1:
        return None
    rows = values.tolist() if hasattr(values, 'tolist') else list(values)
    texts = [isinstance(value, (str, bytes)) for value in rows]
    if not any(texts):
        refuse_missing(rows, what)
        return None
    for row, (value, text) in enumerate(zip(rows, texts, strict=True)):
        if not text:
            refuse_missing(rows, what)
            raise ValueError(f'{what} mix names and numbers: row {row} is {value!r}, and row '
                             f'{texts.index(True)} is {rows[texts.index(True)]!r}. Give whole '
                             'numbers or names (strings) for all rows.')
    names = [written(value.decode('utf-8', 'surrogateescape') if isinstance(value, bytes) else
                     value) for value in rows]
    if '' in names:
        raise ValueError(f'{what} has no value in row {names.index("")}: give every row a whole '
                         'number or a name.')
    return names


def refuse_missing(rows: Iterable[Any], what: str) -> None:
    """Raise ValueError where a value is None, or a number that is none (NaN, NA)."""
    for row, value in enumerate(rows):
        if value is None or (isinstance(value, float) and math.isnan(value)) or \
                type(value).__name__ in ('NAType', 'NaTType'):
            raise ValueError(f'{what} has no value in row {row} ({value!r}): give every row a '
                             'whole number or a name (a string).')

"""Metadata columns as Milvus keeps them: whole numbers, numbers, truth values and strings."""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..registry import unknown_name

KINDS = {'int': 'INT64', 'float': 'DOUBLE', 'bool': 'BOOL', 'str': 'VARCHAR'}
RESERVED = ('id', 'row', 'embedding')
MOST_BYTES = 65_535  # of a string
_PYTHON = {'int': int, 'float': float, 'bool': bool, 'str': str}
Columns = dict[str, tuple[str, list[Any]]]  # by name: the kind and a value for each row


def declared(metadata: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The kinds of the columns that a constructor was given: names or Python types.

    Raises:
        TypeError: it is no mapping.
        ValueError: a kind or a name is none that there is.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError("metadata must map a column's name to its kind, got "
                        f'{type(metadata).__name__}: write metadata=dict(label="int").')
    kinds = {name: str(getattr(kind, '__name__', kind)) for name, kind in metadata.items()}
    for kind in kinds.values():
        if kind not in KINDS:
            raise ValueError(unknown_name('kind of a metadata column', kind, KINDS))
    return dict(zip(_field_names(kinds), kinds.values(), strict=True))


def field_name(name: Any) -> str:
    """A column's name as a Milvus field: what is no letter, digit or underscore becomes one, and
    one is added to the names ``id``, ``row`` and ``embedding``.
    """
    name = re.sub(r'\W', '_', str(name), flags=re.ASCII)
    name = f'_{name}' if not name or name[0].isdigit() else name
    return f'{name}_' if name in RESERVED else name


def _field_names(names: Iterable[Any]) -> list[str]:
    names = list(names)
    fields = [field_name(name) for name in names]
    if len(set(fields)) != len(fields):
        twice = next(one for one in fields if fields.count(one) > 1)
        both = [name for name, one in zip(names, fields, strict=True) if one == twice]
        raise ValueError(f'The metadata columns {both} would both be the field {twice!r}: rename '
                         'one.')
    return fields


def as_columns(metadata: Mapping[str, Any] | None, count: int,
               kinds: Mapping[str, str] | None) -> Columns:
    """The columns of ``count`` rows.

    Args:
        metadata: by name an array, tensor or sequence of ``count`` values, or None.
        kinds: the columns that there must be, or None where they are whatever is given.

    Raises:
        TypeError: values are of no kind that Milvus has, or of mixed kinds.
        ValueError: a column is missing, unknown or of another length or kind; a number is NaN or
            does not fit 64 bits; a string is too long.
    """
    given = dict(metadata or {})
    fields = _field_names(given)
    columns = {name: (_kind(name, values), _values(values))
               for name, values in zip(fields, given.values(), strict=True)}
    if kinds is not None:
        _check_names(columns, kinds)
        columns = {name: (kind, columns[name][1] if kind == columns[name][0] else
                          _converted(name, *columns[name], kind))
                   for name, kind in kinds.items()}
    for name, (kind, values) in columns.items():
        if len(values) != count:
            raise ValueError(f'The metadata column {name!r} has {len(values)} values for {count} '
                             'embeddings: give one each.')
        _check_values(name, kind, values)
    return columns


def _check_names(columns: Columns, kinds: Mapping[str, str]) -> None:
    for name in columns:
        if name not in kinds:
            raise ValueError(
                unknown_name('metadata column', name, kinds) if kinds else
                f'The collection has no metadata columns, got {name!r}: build another one, with '
                f'metadata=dict({name}="{columns[name][0]}").')
    missing = [name for name in kinds if name not in columns]
    if missing:
        raise ValueError(f'The metadata column {missing[0]!r} is missing: every row of this '
                         f'collection has {", ".join(kinds)}. Give metadata={{"{missing[0]}": …}}.')


def _values(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, (Tensor, np.ndarray)) else list(values)


def _kind(name: str, values: Any) -> str:
    if isinstance(values, Tensor):
        values = values.numpy()
    if isinstance(values, np.ndarray) and values.dtype.kind in 'iufb':
        return {'i': 'int', 'u': 'int', 'f': 'float', 'b': 'bool'}[values.dtype.kind]
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f'The metadata column {name!r} must be a sequence of values, got '
                        f'{values!r}.')
    found = {_kind_of(value) for value in values}
    if found <= {'int', 'float'} and 'float' in found:
        return 'float'
    if len(found) > 1 or None in found:
        odd = next(value for value in values if _kind_of(value) != _kind_of(next(iter(values))) or
                   _kind_of(value) is None)
        raise TypeError(f'The metadata column {name!r} must hold values of one kind (whole '
                        f'numbers, numbers, truth values or strings), got {odd!r} among them.')
    return str(found.pop()) if found else 'str'


def _kind_of(value: Any) -> str | None:
    if isinstance(value, (bool, np.bool_)):
        return 'bool'
    if isinstance(value, (int, np.integer)):
        return 'int'
    if isinstance(value, (float, np.floating)):
        return 'float'
    return 'str' if isinstance(value, str) else None


def _converted(name: str, kind: str, values: list[Any], wanted: str) -> list[Any]:
    if values and (kind, wanted) != ('int', 'float'):
        raise ValueError(f'The metadata column {name!r} holds {wanted}, got {kind} '
                         f'({values[0]!r}): convert it.')
    return values


def _check_values(name: str, kind: str, values: list[Any]) -> None:
    for row, value in enumerate(values):
        value = values[row] = _PYTHON[kind](value)
        if kind == 'int' and not -2 ** 63 <= value < 2 ** 63:
            raise ValueError(f'The metadata column {name!r} holds {value}, which does not fit 64 '
                             'bits: keep it as a string.')
        if kind == 'float' and not math.isfinite(value):
            raise ValueError(f'The metadata column {name!r} holds {value} in row {row}: Milvus '
                             'takes finite numbers only.')
        if kind == 'str':
            size = len(value.encode('utf-8', 'surrogateescape'))
            if size > MOST_BYTES:
                raise ValueError(f'The metadata column {name!r} holds a string of {size:,} bytes '
                                 f'in row {row}, and Milvus takes {MOST_BYTES:,}: shorten it.')
            if not value.isascii():
                _check_text(name, row, value)


def _check_text(name: str, row: int, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'The metadata column {name!r} holds {value!r} in row {row}, which is no '
                         'valid text: Milvus takes UTF-8 only.') from error

"""The rows of a Milvus index in a file, and back."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gallery.string_column import StringColumn
from . import files
from .base import as_ids
from .milvus_rows import read_rows
from .milvus_store import Store

_FORMAT = 'retrieval.MilvusIndex'
_VERSION = '1'
_DTYPES = {'int': torch.int64, 'float': torch.float64, 'bool': torch.bool}


@dataclass
class Content:
    """Rows in their order.

    Args:
        vectors: ``(N, D)`` float32.
        ids: N strings.
        metadata: columns of N values by name.
    """

    vectors: Tensor
    ids: list[str]
    metadata: dict[str, Sequence[Any]]


def write(path: str | PathLike, store: Store, settings: dict[str, Any]) -> None:
    """Write all rows and the settings of an index to one file."""
    store.rows()
    kinds = {} if store.layout is None else dict(store.layout.columns)
    ids: list[str] = []
    columns: dict[str, list[Any]] = {}
    if store.own is None or store.layout is None:
        vectors = np.zeros((0, 0), dtype=np.float32)
    else:
        vectors, ids, columns = read_rows(store.connection, store.own, store.layout)
    tensors = {'rows': torch.from_numpy(vectors)}
    _put(tensors, 'ids', 'str', ids)
    for number, (name, kind) in enumerate(kinds.items()):
        _put(tensors, f'metadata.{number}', kind, columns[name])
    header = {'format': _FORMAT, 'version': _VERSION, 'settings': json.dumps(settings),
              'columns': json.dumps(kinds)}
    files.write(path, tensors, header)


def _put(tensors: dict[str, Tensor], name: str, kind: str, values: list[Any]) -> None:
    if kind == 'str':
        column = StringColumn.from_strings(values)
        tensors[f'{name}.bytes'], tensors[f'{name}.offsets'] = column.data, column.offsets
    else:
        tensors[name] = torch.tensor(values, dtype=_DTYPES[kind])


def read(path: str | PathLike) -> tuple[Content, dict[str, Any]]:
    """The rows and the settings that :func:`write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no Milvus index, or is damaged.
    """
    tensors, header = files.read(path, _FORMAT)
    if header.get('version') != _VERSION:
        raise ValueError(f'{str(path)!r} has version {header.get("version")} of the format, this '
                         f'package reads {_VERSION}.')
    try:
        rows = tensors['rows']
        ids = as_ids(StringColumn(tensors['ids.bytes'], tensors['ids.offsets']), len(rows))
        metadata = {name: _take(tensors, f'metadata.{number}', kind) for number, (name, kind) in
                    enumerate(json.loads(header['columns']).items())}
        settings = json.loads(header['settings'])
    except (KeyError, ValueError) as error:
        raise ValueError(f'{str(path)!r} is damaged: {error}') from error
    return Content(rows, ids, metadata), settings


def _take(tensors: dict[str, Tensor], name: str, kind: str) -> Sequence[Any]:
    if kind == 'str':
        return list(StringColumn(tensors[f'{name}.bytes'], tensors[f'{name}.offsets']))
    return tensors[name].tolist()

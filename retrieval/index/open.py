"""Opening the file of an index without knowing its type."""
from __future__ import annotations

import os
from typing import Any

from ..files import kind_of_file
from ..mapped_file import map_file
from ..registry import INDEXES, unknown_name
from ..tensor_file import read_header
from .base import Index


def index_type(path: str | os.PathLike[str]) -> str | None:
    """The name of the type of the index that a file holds; None where it holds none.

    Example:
        >>> index_type('no/such.index') is None
        True
    """
    if not os.path.isfile(path) or 'safetensors' not in kind_of_file(path):
        return None
    header, _ = read_header(map_file(path), os.fspath(path))
    metadata = header.get('__metadata__')
    name = metadata.get('format') if isinstance(metadata, dict) else None
    if not isinstance(name, str) or name.startswith('retrieval-'):
        return None
    return name.removeprefix('retrieval.')


def open_index(path: str | os.PathLike[str], **options: Any) -> Index:
    """Read an index of any registered type from what its ``save`` wrote.

    Args:
        path: the file.
        options: of the type's ``load``, such as ``device``; those that it does not take are left
            out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no index, one of a type that is not registered, or is damaged.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from .exact import ExactIndex
        >>> index = ExactIndex()
        >>> index.add(torch.eye(2), ['a', 'b'])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(f'{folder}/x.index')
        ...     list(open_index(f'{folder}/x.index').ids)
        ['a', 'b']
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'There is no index {os.fspath(path)!r}.')
    name = index_type(path)
    if name is None:
        raise ValueError(f'{os.fspath(path)!r} holds no index: it seems to be '
                         f'{kind_of_file(path)}. Build one with tools/build_index.py.')
    kind = INDEXES.get(name)
    if kind is None:
        raise ValueError(unknown_name('type of index', name, INDEXES.module_dict))
    return kind.load(path, **{key: value for key, value in options.items()
                              if key in kind.load_options and value is not None})

"""Embeddings that another model made, with the table that goes with them, as a gallery."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import same_length
from ..files import kind_of_file
from ..foreign_files import refuse_oversized, refuse_special
from ..labels import as_written
from ..registry import unknown_name
from .column_file import read_table
from .columns import as_number
from .gallery import Gallery
from .open import parts_of, readable


def import_gallery(vectors: str | os.PathLike[str], table: str | os.PathLike[str] | None = None,
                   id: str | None = None, label: str | None = None, embedding: str | None = None,
                   numbers: Iterable[str] = ()) -> Gallery:
    """Embeddings out of a file, and what a table says of each of their rows.

    Text in a table is what is written: a column is whole numbers where every entry is written as
    one, and else text. Parquet has types of its own.

    Args:
        vectors: ``(N, D)`` numbers: an array (``.npy``), one of several with ids, labels and
            further columns (``.npz``, a dict of ``torch.save``, safetensors), or a table (Parquet)
            with a column of lists.
        table: a CSV, TSV or Parquet file with N rows in the order of the embeddings. The columns
            that are neither ids nor labels become metadata.
        id, label: the columns of ids and labels; by default what the file of the embeddings calls
            so, else none.
        embedding: how the file calls the embeddings, where that is not clear.
        numbers: columns of text that are to be read as fractions, an empty entry as NaN.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, a column is missing or no number, or the lengths
            differ.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f'{folder}/emb.npy', np.eye(2, dtype='float32'))
        ...     _ = Path(f'{folder}/items.csv').write_text('sku,brand\\nA1,Fiat\\nA2,Seat\\n')
        ...     gallery = import_gallery(f'{folder}/emb.npy', f'{folder}/items.csv', 'sku', 'brand')
        >>> list(gallery.ids), gallery.label_names
        (['A1', 'A2'], ['Fiat', 'Seat'])
    """
    parts = _parts(Path(os.path.expanduser(os.fspath(vectors))), embedding)
    rows = len(parts['embeddings'])
    columns: dict[str, Any] = dict(parts.pop('metadata', {}))
    if table is not None:
        read = read_table(table)
        for name, values in read.items():
            same_length(f'The column {name!r} of {os.fspath(table)!r}', values, rows, 'embeddings')
        columns |= read
    named = {part: name for part, name in (('ids', id), ('labels', label)) if name is not None}
    for part, name in named.items():
        if name not in columns:
            raise ValueError(unknown_name('column', name, columns))
        parts[part] = columns[name]
        if part == 'labels':
            parts['label_names'] = None
    for name in named.values():
        columns.pop(name, None)
    for name in numbers:
        if name not in columns:
            raise ValueError(unknown_name('column', name, columns))
        columns[name] = np.array([_number(value, name) for value in columns[name]])
    if parts.get('ids') is not None:
        parts['ids'] = [str(value) for value in parts['ids']]
    if isinstance(parts.get('labels'), list):
        parts['labels'] = as_written(map(str, parts['labels']))
    return Gallery(**parts, metadata={name: _typed(values) for name, values in columns.items()},
                   source=dict(imported=Path(vectors).name))


def _parts(path: Path, embedding: str | None) -> dict[str, Any]:
    """Embeddings, and as far as they are there ids, labels, label names and metadata."""
    if not path.exists():
        raise FileNotFoundError(f'There is no file {str(path)!r} with embeddings.')
    refuse_special(path)
    kind = kind_of_file(path)
    if 'Parquet' in kind:
        loaded: Mapping[str, Any] = read_table(path)
        lists = [name for name, values in loaded.items()
                 if len(values) and isinstance(values[0], (list, tuple, np.ndarray))]
        name = embedding or (lists[0] if len(lists) == 1 else None)
        if name not in lists:
            raise ValueError(f'{str(path)!r} has {len(lists)} columns of lists of numbers '
                             f'({", ".join(map(repr, lists)) or "none"}): say which holds the '
                             'embeddings with --embedding.')
        with readable(path):
            rows = np.array([np.asarray(row, dtype=np.float32) for row in loaded[str(name)]])
        return dict(embeddings=rows, metadata={
            key: values for key, values in loaded.items() if key != name})
    if 'safetensors' in kind:
        from safetensors.torch import load
        refuse_oversized(path)
        with readable(path):
            loaded = load(path.read_bytes())
        if 'manifest' in loaded or 'checksums' in loaded:
            raise ValueError(f'{str(path)!r} is a gallery already.')
    elif '(.npz)' in kind or 'torch.save' in kind or 'pickle' in kind:
        refuse_oversized(path)
        with readable(path):
            loaded = _loaded(path, kind)
    else:
        gallery = Gallery.load(path)
        return dict(embeddings=gallery.embeddings)
    if not isinstance(loaded, Mapping):
        return dict(embeddings=loaded)
    if embedding is not None:
        if embedding not in loaded:
            raise ValueError(unknown_name(f'part of {str(path)!r}', embedding, loaded))
        loaded = {**{key: value for key, value in loaded.items() if key != embedding},
                  'embeddings': loaded[embedding]}
    parts = parts_of(loaded, path)
    length = len(parts['embeddings'])
    taken = {id(value) for value in parts.values()}
    metadata = {str(key): values.tolist() if getattr(values, 'dtype', None) is not None and
                getattr(values.dtype, 'kind', '') in 'US' else values
                for key, values in loaded.items() if id(values) not in taken
                and getattr(values, 'ndim', 1) == 1 and hasattr(values, '__len__')
                and not isinstance(values, (str, bytes)) and len(values) == length}
    for part in ('ids', 'labels', 'label_names'):  # strings that tolist made from an array
        metadata = {key: values for key, values in metadata.items()
                    if part not in parts or list(map(str, values)) != list(map(str, parts[part]))}
    return dict(parts, metadata=metadata)


def _loaded(path: Path, kind: str) -> Any:
    import torch

    if '(.npz)' in kind:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    return torch.load(path, map_location='cpu', weights_only=True)


def _typed(values: Any) -> Any:
    """A column as it is written, where it is text; an array of its own, where it is one."""
    if isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values):
        return as_written(values)
    return values.copy() if isinstance(values, np.ndarray) else values


def _number(value: Any, name: str) -> float:
    number = as_number(value) if isinstance(value, str) else float(value)
    if number is None and str(value).strip():
        raise ValueError(f'The column {name!r} is to be read as numbers, and holds {value!r}.')
    return float('nan') if number is None else number

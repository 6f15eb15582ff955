"""Labels, cameras, sequences and ids out of files: one value for each row of embeddings."""
from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import some_of
from ..files import kind_of_file
from ..foreign_files import refuse_oversized, refuse_special
from ..labels import as_written, written
from ..registry import unknown_name
from .gallery import Gallery

# what others call a column, by what is wanted
_NAMES = {
    'labels': ('labels', 'label', 'targets', 'target', 'gt_labels', 'gt_label', 'classes', 'class',
               'y'),
    'cameras': ('cameras', 'camera'),
    'sequences': ('sequences', 'sequence'),
    'ids': ('ids', 'id', 'paths', 'path', 'img_paths', 'image_paths', 'filenames', 'names'),
}
_TABLES = ('.csv', '.tsv', '.tab')


def read_column(path: str | os.PathLike[str], what: str = 'labels') -> Any:
    """The values ``(N,)`` of a file, whole numbers or strings.

    Text is UTF-8; a value is what is written, and a column is whole numbers only where every
    entry is written as one (:mod:`retrieval.labels`).

    Args:
        path: an array (``.npy``, ``.npz``), a file of ``torch.save`` (a tensor or list, or a dict
            of them), a text file with one value a line, a table (CSV or Parquet) or a gallery. Of
            what has several columns, ``path:column``, or one that is called as what is wanted.
        what: ``'labels'``, ``'cameras'``, ``'sequences'`` or ``'ids'``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, which is named; it has no such column, or several;
            a value is missing, or the text is no UTF-8.
        ImportError: Parquet is read by pyarrow, which is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f'{folder}/t.csv').write_text('path,brand\\na.png,Fiat\\nb.png,Seat\\n')
        ...     read_column(f'{folder}/t.csv:brand')
        ['Fiat', 'Seat']
    """
    given, wanted = os.path.expanduser(os.fspath(path)), None
    if not os.path.exists(given) and ':' in given:
        given, wanted = given.rsplit(':', 1)
    file = Path(given)
    if not file.exists():
        raise FileNotFoundError(f'There are no {what} at {given!r}.')
    refuse_special(file)
    if file.is_file():
        refuse_oversized(file)
    try:
        found = _read(file, kind_of_file(file), what, wanted)
        if isinstance(found, Mapping):
            return _one_of(found, file, what, wanted)
    except (ImportError, RefusedColumnError):
        raise
    except Exception as error:  # not in the words of a library, whose advice may be unsafe
        raise _refused(file, what, 'it is damaged, or holds objects') from error
    if wanted is not None:
        raise _refused(file, what, f'it has no columns, such as {wanted!r}')
    return found


def read_table(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The columns of a table by name: of a CSV file lists of text, of a Parquet file arrays.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table.
        ImportError: Parquet is read by pyarrow, which is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f'{folder}/t.csv').write_text('id,price\\na,1.50\\n')
        ...     read_table(f'{folder}/t.csv')
        {'id': ['a'], 'price': ['1.50']}
    """
    file = Path(os.path.expanduser(os.fspath(path)))
    if not file.exists():
        raise FileNotFoundError(f'There is no table {str(file)!r}.')
    refuse_special(file)
    kind = kind_of_file(file)
    try:
        if 'Parquet' in kind:
            return dict(_read(file, kind, 'a table', None))
        if kind.startswith(('a table (CSV)', 'a text file')) and 'UTF-16' not in kind:
            return _of_table(file, _decoded(file, 'a table'), 'a table', '')
    except (ImportError, RefusedColumnError):
        raise
    except Exception as error:  # not in the words of a library
        raise _refused(file, 'a table', 'it is damaged, or holds objects') from error
    raise _refused(file, 'a table', 'a table is a CSV or Parquet file')


class RefusedColumnError(ValueError):
    """A file that holds no column as it is wanted."""


def _refused(file: Path, what: str, reason: str) -> RefusedColumnError:
    return RefusedColumnError(
        f'{str(file)!r} cannot be read as {what}: it seems to be {kind_of_file(file)}, and '
        f'{reason}. Give an array (.npy, .npz), a file of torch.save, a text file with one value a '
        'line, a gallery, or a column of a table (CSV, Parquet) as TABLE.csv:COLUMN.')


def _read(file: Path, kind: str, what: str, wanted: str | None) -> Any:
    """The values, or columns by name."""
    if '(.npy)' in kind:
        return np.load(file, allow_pickle=False)
    if '(.npz)' in kind:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if 'torch.save' in kind or 'pickle' in kind:
        loaded = torch.load(file, map_location='cpu', weights_only=True)
        if isinstance(loaded, (Mapping, Tensor, np.ndarray, list, tuple)):
            return loaded
        raise _refused(file, what, f'it holds a {type(loaded).__name__}')
    if 'safetensors' in kind:
        return _of_gallery(Gallery.load(file), what, wanted)
    if 'Parquet' in kind:
        import pandas as pd

        table = pd.read_parquet(file)
        return {str(name): table[name].to_numpy() for name in table.columns}
    if not kind.startswith(('a table (CSV)', 'a text file', 'an empty file')) or 'UTF-16' in kind:
        raise _refused(file, what, 'that holds no values of rows')
    text = _decoded(file, what)
    if wanted is not None or file.suffix.lower() in _TABLES:
        return _of_table(file, text, what, wanted)
    return _values(file, _lines(text), what)


def _of_gallery(gallery: Gallery, what: str, wanted: str | None) -> Any:
    names = [wanted] if wanted else ['label' if what == 'labels' else 'id' if what == 'ids' else
                                     what.removesuffix('s')]
    columns: dict[str, Any] = dict(gallery.metadata)
    if gallery.identified:
        columns.setdefault('id', gallery.ids)
    if gallery.labels is not None:
        columns.setdefault('label', gallery.labels if gallery.label_names is None else [
            gallery.label_name(row) for row in range(len(gallery))])
    return {name: values for name, values in columns.items() if name in names} or columns


def _decoded(file: Path, what: str) -> str:
    """Text in UTF-8. In ids the bytes of a file name that is no UTF-8 are kept."""
    data = file.read_bytes()
    try:
        return data.decode('utf-8-sig', 'surrogateescape' if what == 'ids' else 'strict')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise _refused(file, what, f'line {line} is not in UTF-8, so save it in UTF-8') from error


def _lines(text: str) -> list[str]:
    """The lines, of which the empty ones at the end do not count."""
    lines = text.replace('\r\n', '\n').replace('\r', '\n').split('\n')
    while lines and not written(lines[-1]):
        lines.pop()
    return lines


def _of_table(file: Path, text: str, what: str, wanted: str | None) -> Any:
    """The columns of a table; its values, where it is one column without a name."""
    lines = _lines(text)
    first = lines[0] if lines else ''
    separator = max('\t,;', key=first.count)
    if wanted is None and not first.count(separator) and written(first) not in _NAMES[what]:
        return _values(file, lines, what)
    try:
        header, *rows = csv.reader([f'{line}\n' for line in lines], delimiter=separator,
                                   skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise _refused(file, what, f'no sound table ({error})') from error
    for number, row in enumerate(rows, 1):
        if len(row) > len(header):
            raise _refused(file, what, f'row {number} has more cells than the header has columns')
        row += [''] * (len(header) - len(row))
    return {written(name): [row[place] for row in rows] for place, name in enumerate(header)}


def _one_of(columns: Mapping[Any, Any], file: Path, what: str, wanted: str | None) -> Any:
    """The wanted column, the one that is called as what is wanted, or the only one."""
    names = [str(name) for name in columns]
    if wanted is not None and wanted not in columns:
        raise RefusedColumnError(unknown_name(f'column of {str(file)!r}', wanted, names))
    if wanted is None:
        known = [name for name in _NAMES[what] if name in columns]
        if not known and len(names) != 1:
            raise _refused(file, what, f'it has several columns, {some_of(names, 6)}: write which '
                           f'of them, as {file}:{names[0] if names else "COLUMN"}')
        wanted = known[0] if known else names[0]
    values = columns[wanted]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return _values(file, values, what, 'row')
    if isinstance(values, np.ndarray) and values.dtype.kind in 'Mm':
        return values.astype(str)
    return values


def _values(file: Path, texts: list[str], what: str,
            place: str = 'line') -> list[int] | list[str]:
    """Texts as they are written."""
    names = [written(text) for text in texts]
    if what == 'ids':
        return [name for name in names if name]
    for number, name in enumerate(names, 1):
        if name.lower() in ('', 'nan'):
            raise _refused(file, what, f'{place} {number} has no value ({name!r})')
    return as_written(names)

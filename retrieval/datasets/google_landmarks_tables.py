"""The CSV files of Google Landmarks v2, read by columns: some have millions of rows."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .layout import malformed

ID_LENGTH = 16  # characters
_HEXADECIMAL = np.isin(np.arange(256), np.frombuffer(b'0123456789abcdef', np.uint8))


def read_table(path: str, tree: str, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of a CSV file, as text, but ``landmark_id`` as int64.

    Raises:
        ValueError: a column is missing, the file is no CSV in UTF-8, or a landmark is no integer.
    """
    header = _header(path, tree)
    missing = [name for name in columns if name not in header]
    if missing:
        raise malformed(path, tree, f'it has no column {", ".join(missing)}; there are '
                        f'{", ".join(header)}.')
    kinds = {name: 'int64' if name == 'landmark_id' else str for name in columns}
    try:
        return pd.read_csv(path, usecols=list(columns), dtype=kinds, na_filter=False,
                           encoding='utf-8-sig')
    except (ValueError, OverflowError) as error:
        raise malformed(path, tree, f'its rows are not as expected ({error}).') from error


def _header(path: str, tree: str) -> list[str]:
    try:
        return [str(name) for name in pd.read_csv(path, nrows=0, encoding='utf-8-sig').columns]
    except ValueError as error:
        raise malformed(path, tree, f'it is no CSV file in UTF-8 ({error}).') from error


def read_training(path: str, tree: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``(N,)`` bytes and landmarks ``(N,)`` int64 of a list in either of the two forms.

    ``train.csv`` has a row for each image, ``train_clean.csv`` one for each landmark, with its
    images between spaces.

    Raises:
        ValueError: it has neither form.
    """
    if 'images' not in _header(path, tree):
        table = read_table(path, tree, ('id', 'landmark_id'))
        return read_ids(table['id'], path, tree), table['landmark_id'].to_numpy()
    table = read_table(path, tree, ('landmark_id', 'images'))
    counts, ids = split_ids(table['images'], path, tree)
    return ids, np.repeat(table['landmark_id'].to_numpy(), counts)


def split_ids(column: pd.Series, path: str, tree: str) -> tuple[np.ndarray, np.ndarray]:
    """How many ids each cell lists ``(N,)``, and all of them ``(M,)`` bytes, one after another.

    Raises:
        ValueError: a cell lists none, or an id is malformed.
    """
    lists = [cell.split() for cell in column.tolist()]
    counts = np.array([len(names) for names in lists], dtype=np.int64)
    if not counts.all():
        raise malformed(path, tree, f'{(counts == 0).sum()} of its rows list no image.')
    names = pd.Series([name for names in lists for name in names], dtype=object)
    return counts, read_ids(names, path, tree)


def read_ids(column: pd.Series, path: str, tree: str) -> np.ndarray:
    """Ids as ``(N,)`` bytes.

    Raises:
        ValueError: there is none, or one that has other than 16 hexadecimal characters.
    """
    texts = column.to_numpy(dtype=object)
    if not len(texts):
        raise malformed(path, tree, 'it lists no image.')
    try:
        ids = texts.astype('S')
        wrong = np.ones(len(ids), dtype=bool)
        if ids.dtype.itemsize == ID_LENGTH:
            wrong = ~_HEXADECIMAL[ids.view(np.uint8).reshape(-1, ID_LENGTH)].all(axis=1)
    except UnicodeEncodeError as error:
        raise malformed(path, tree, f'an id is no ASCII text ({error}).') from error
    if wrong.any():
        at = next(row for row in np.flatnonzero(wrong) if len(texts[row]) != ID_LENGTH or
                  ids.dtype.itemsize == ID_LENGTH)
        raise malformed(path, tree, f'an id has {ID_LENGTH} characters from 0 to f, but the '
                        f'{at + 1}. is {texts[at][:40]!r}.')
    return ids


def rows_of(wanted: np.ndarray, listed: np.ndarray, path: str, tree: str) -> np.ndarray:
    """The row of each of the ``wanted`` ids ``(M,)`` in the ``listed`` ``(N,)``, -1 for none.

    Args:
        path: the file that lists, for the error.

    Raises:
        ValueError: an id is listed twice.
    """
    index = pd.Index(_numbers(listed))
    if not index.is_unique:
        twice = listed[index.duplicated()][0].decode('ascii')
        raise malformed(path, tree, f'the id {twice} stands in it more than once.')
    return index.get_indexer(pd.Index(_numbers(wanted))).astype(np.int64)


def _numbers(ids: np.ndarray) -> np.ndarray:
    """Ids of 16 hexadecimal characters as uint64, which compare faster than text."""
    values = np.zeros(256, dtype=np.uint8)
    values[np.frombuffer(b'0123456789abcdef', np.uint8)] = np.arange(16)
    digits = values[ids.view(np.uint8).reshape(-1, ID_LENGTH)]
    pairs = digits[:, ::2] << 4 | digits[:, 1::2]
    return np.ascontiguousarray(pairs).view('>u8').reshape(-1).astype(np.uint64)

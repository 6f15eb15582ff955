"""The contract that every index keeps.

The ids of an index's rows, and the row of an id.

Which gallery an index was built over.
"""
from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ranking import RangeNeighbors, RowSets
from ..structures import Neighbors
from ..tensor_file import StringColumn

Exclude = Sequence[Any]
Filter = Any


@dataclass(frozen=True)
class Capabilities:
    """What an index can do.

    Args:
        exact: the results are those of an exhaustive search, ties included.
        removal: rows can be removed by id.
        filters: ``filter`` and ``exclude`` are honoured without losing results.
        range_search: every row above a threshold can be asked for.
        training: it must see a sample of the vectors before the first rows are added.
        expressions: rows have metadata, and a filter may be an expression over them, a string.
        persistent: the rows outlive the process, and ``replace`` replaces those of an earlier one.
    """

    exact: bool = False
    removal: bool = False
    filters: bool = False
    range_search: bool = False
    training: bool = False
    expressions: bool = False
    persistent: bool = False


class Index(ABC):
    """Vectors under unique string ids, searched by similarity; larger is more similar.

    A row's number is its place in :attr:`ids`: rows stand in the order in which they were added,
    and those behind a removed row move up. Every change is made whole or, where it is refused,
    not at all.
    """

    capabilities = Capabilities()
    #: of the gallery that the rows are, where the index was built over one; see ``gallery_digest``.
    gallery_digest: str | None = None
    #: whether a retriever puts the index on its own device, unless the config says otherwise.
    follows_device = False

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """The ids ``(N,)``, in the order of the rows."""

    @property
    @abstractmethod
    def width(self) -> int | None:
        """The number of columns of the vectors, D; None while none were ever added."""

    @abstractmethod
    def add(self, embeddings: Any, ids: Iterable[Any]) -> None:
        """Append vectors.

        Args:
            embeddings: ``(n, D)`` floats.
            ids: n unique ids; whatever they are, they are kept as strings.

        Raises:
            TypeError: the vectors are no floats.
            ValueError: an id repeats or is in the index already, the numbers of vectors and ids
                differ, or the vectors have another width or hold NaN or infinity.
        """

    def replace(self, embeddings: Any, ids: Iterable[Any],
                metadata: Mapping[str, Any] | None = None) -> None:
        """Make these the rows; a persistent index leaves its old ones until the new ones are in.

        Args:
            embeddings: ``(n, D)`` floats.
            ids: n unique ids.
            metadata: columns of n values by name, where the index has metadata (``expressions``).

        Raises:
            TypeError, ValueError: as :meth:`add`; the index has no metadata, or is not persistent
                and holds rows.
        """
        if metadata is not None:
            raise ValueError(f'A {type(self).__name__} keeps no metadata: leave them out.')
        if len(self):
            raise ValueError(f'The {type(self).__name__} holds {len(self)} rows: build a new one.')
        self.add(embeddings, ids)

    @abstractmethod
    def remove(self, ids: Iterable[Any]) -> None:
        """Remove the rows of these ids.

        Raises:
            KeyError: an id is not in the index; some of those are listed.
            ValueError: an id is given twice.
        """

    @abstractmethod
    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        """The ``k`` most similar rows for every query.

        Args:
            queries: ``(Q, D)`` floats.
            k: how many, at least 1; more than there are gives what there are.
            exclude: for every query an id, a list of ids or None: what it must not find. Ids that
                the index does not hold are no error.
            filter: ``(N,)`` bool over the rows, or a callable from an id to bool: what may be
                found at all.

        Returns:
            Neighbors whose width is the largest number of results that a query has.

        Raises:
            ValueError: the index is empty, k is below 1, the queries are not finite or have
                another width, or ``exclude`` or ``filter`` have another length.
            TypeError: k is no integer, or the filter holds no booleans.
        """

    @abstractmethod
    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        """Every row whose similarity is at least ``threshold``; the arguments are as in search."""

    @abstractmethod
    def save(self, path: str | PathLike) -> None:
        """Write the index to one file: under a temporary name first, then renamed."""

    @classmethod
    @abstractmethod
    def load(cls, path: str | PathLike) -> Index:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no such index, or is damaged.
        """

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows, N."""

    def __contains__(self, item: Any) -> bool:
        return str(item) in self.ids

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} rows of width {self.width})'


def as_ids(ids: Iterable[Any], count: int | None = None) -> list[str]:
    """``ids`` as unique strings.

    Raises:
        TypeError: it is one string, or no sequence.
        ValueError: one repeats, or there are not ``count``.
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f'ids must be a sequence of ids, got {ids!r}: write [{ids!r}] for one.')
    if isinstance(ids, (Tensor, np.ndarray)):
        ids = ids.tolist()
    names = [str(one) for one in ids]
    if count is not None and len(names) != count:
        raise ValueError(f'There are {count} embeddings but {len(names)} ids: give one each.')
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f'ids must be unique, but {twice!r} is given more than once.')
    return names


def some_of(names: Sequence[str], how_many: int = 3) -> str:
    """A few of the names, for a message."""
    listed = ', '.join(map(repr, names[:how_many]))
    return listed + (f', … ({len(names)} in all)' if len(names) > how_many else '')


def excluded_rows(exclude: Exclude | None, row_of: Callable[[str], int | None], num_queries: int,
                  num_rows: int) -> RowSets | None:
    """The rows that ``exclude`` names for every query; ids that are not there name none.

    Raises:
        TypeError: it is one string.
        ValueError: it has another length than there are queries.
    """
    if exclude is None:
        return None
    lists = [[row for row in map(row_of, names) if row is not None]
             for names in exclusions(exclude, num_queries)]
    if all(len(rows) <= 1 for rows in lists):
        alone = [rows[0] if rows else -1 for rows in lists]
        return RowSets.from_rows(torch.tensor(alone, dtype=torch.int64), num_rows)
    return RowSets.from_lists(lists, num_rows)


def exclusions(exclude: Exclude, num_queries: int) -> list[list[str]]:
    """The ids that every query must not find.

    Raises:
        TypeError: ``exclude`` is one string.
        ValueError: it has another length than there are queries.
    """
    if isinstance(exclude, (str, bytes)):
        raise TypeError(f'exclude must be a sequence with one entry for each query, got {exclude!r}'
                        f': write [{exclude!r}].')
    if len(exclude) != num_queries:
        raise ValueError(f'exclude has {len(exclude)} entries for {num_queries} queries: give an '
                         'id, a list of ids or None for each.')
    return [_names(item) for item in exclude]


def _names(item: Any) -> list[str]:
    if item is None:
        return []
    if isinstance(item, (list, tuple, set, frozenset, np.ndarray)):
        return [str(one) for one in item]
    return [str(item)]


def filter_mask(chosen: Filter | None, ids: Sequence[str]) -> Tensor | None:
    """``filter`` as a bool tensor ``(N,)``: it is one, or a callable from an id to bool.

    Raises:
        TypeError: it is neither.
        ValueError: it has another length than there are rows.
    """
    if chosen is None:
        return None
    if callable(chosen) and not isinstance(chosen, Tensor):
        return torch.tensor([bool(chosen(name)) for name in ids], dtype=torch.bool)
    try:
        mask = torch.as_tensor(chosen)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError('filter must be booleans (N,) or a callable from an id to bool, got '
                        f'{type(chosen).__name__}.') from error
    if mask.dtype != torch.bool:
        raise TypeError(f'filter must hold booleans, got {mask.dtype}.')
    if mask.shape != (len(ids),):
        raise ValueError(f'filter must have one entry for each of {len(ids)} rows, got '
                         f'{tuple(mask.shape)}.')
    return mask


class RowIds:
    """Unique strings in the order of the rows.

    Those that were read from a file stay packed, and the table from id to row is made when the
    first id is looked up, so that opening a large index takes no time for either.

    Args:
        names: the ids; unique.
    """

    def __init__(self, names: list[str] | StringColumn | None = None) -> None:
        self.names: list[str] | StringColumn = [] if names is None else names
        self._rows: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def row(self, name: str) -> int | None:
        """The row of an id, or None."""
        return self._table().get(name)

    def _table(self) -> dict[str, int]:
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.names)}
        return self._rows

    def new(self, ids: Iterable[Any], count: int) -> list[str]:
        """``count`` ids as strings, none of which is here.

        Raises:
            TypeError, ValueError: as in :meth:`Index.add`.
        """
        names = as_ids(ids, count)
        table = self._table() if len(self) else {}
        known = [name for name in names if name in table]
        if known:
            raise ValueError(f'Already in the index: {some_of(known)}. Remove them first.')
        return names

    def append(self, names: Sequence[str]) -> None:
        """Add rows; earlier results go on naming the same ids."""
        table, start = self._table(), len(self)
        if not isinstance(self.names, list):
            self.names = list(self.names)
        table.update(zip(names, range(start, start + len(names)), strict=True))
        self.names.extend(names)

    def rows(self, ids: Iterable[Any]) -> list[int]:
        """The rows of ids.

        Raises:
            KeyError: one is not here.
            TypeError, ValueError: as in :meth:`Index.remove`.
        """
        names = as_ids(ids)
        table = self._table() if names else {}
        unknown = [name for name in names if name not in table]
        if unknown:
            raise KeyError(f'Not in the index: {some_of(unknown)}. Nothing was removed.')
        return [table[name] for name in names]

    def drop(self, rows: Iterable[int]) -> None:
        """Remove rows; those behind move up."""
        gone = set(rows)
        self.names = [name for row, name in enumerate(self.names) if row not in gone]
        self._rows = None

    def column(self) -> StringColumn:
        """The ids packed for a file."""
        if isinstance(self.names, StringColumn):
            return self.names
        return StringColumn.from_strings(self.names)


_BLOCK = 2 ** 16


def gallery_digest(embeddings: Any, ids: Iterable[str]) -> str:
    """A digest of a gallery's ids and embeddings, for :attr:`Index.gallery_digest`.

    Args:
        embeddings: ``(N, D)``; compared as float32.
        ids: N strings.
    """
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(embeddings), _BLOCK):
        block = torch.as_tensor(embeddings[start:start + _BLOCK]).to('cpu', torch.float32)
        digest.update(block.contiguous().numpy().data)
    for name in ids:
        digest.update(f'{len(name)}:'.encode())
        digest.update(name.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def check_gallery(index: Any, embeddings: Any, ids: Iterable[str], path: Any) -> None:
    """Refuse an index that was built over another gallery than this one.

    Raises:
        ValueError: it was, or it does not say over which.
    """
    again = (f'Build it again with `python tools/build_index.py GALLERY {path}`, or leave `path` '
             'out to build it at each start.')
    if index.gallery_digest is None:
        raise ValueError(f'The index {str(path)!r} does not say over which gallery it was built. '
                         f'{again}')
    if len(index) != len(embeddings) or index.gallery_digest != gallery_digest(embeddings, ids):
        raise ValueError(f'The index {str(path)!r} ({len(index)} rows of width {index.width}) '
                         'belongs to another gallery than this one '
                         f'({len(embeddings)} rows of width {embeddings.shape[1]}): its ids or '
                         f'embeddings differ. {again}')

"""The ids of an index's rows, and the row of an id."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..gallery.string_column import StringColumn
from .base import as_ids, some_of


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

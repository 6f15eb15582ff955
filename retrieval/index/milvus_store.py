"""The rows of one index in Milvus: opened, written, removed, and replaced in one step."""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from . import milvus_collection as collections
from .milvus_collection import Layout
from .milvus_columns import Columns
from .milvus_connection import Connection, MilvusError, MilvusUnavailable
from .milvus_rows import RowTable, batches, read_table, row_lists

_FLUSH_ROWS = 1024  # the embedded Milvus searches rows faster once they are in its files


class Store:
    """What an index holds in Milvus, and what this process knows of it.

    Args:
        connection: to Milvus.
        name: of the index in the database.
        layout: what a new collection is made of; the width and, where they are not declared, the
            columns are those of the first rows.
        declared: whether the columns are.
        batch_size: the most rows of one insertion.
    """

    def __init__(self, connection: Connection, name: str, layout: Layout, declared: bool,
                 batch_size: int) -> None:
        self.connection, self.name, self.batch_size = connection, name, batch_size
        self.wanted, self.declared = layout, declared
        self.refresh()
        self._loose = 0  # rows that the embedded Milvus has not yet put into its files

    def refresh(self) -> None:
        """Forget what is known, so that it is read again when it is needed."""
        self.own: str | None = None  # the collection that the name leads to
        self.layout: Layout | None = None
        self._table: RowTable | None = None

    def forget_rows(self) -> None:
        """Read the rows again when they are needed."""
        self._table = None

    def rows(self) -> RowTable:
        """The rows in their order.

        Raises:
            ValueError: the collection was made with other settings.
        """
        if self._table is None:
            self.own = self.own or collections.find(self.connection, self.name)
            if self.own is not None:
                self.layout = self._checked(collections.read_layout(self.connection, self.own))
                self.connection.call('load_collection', self.own)
                self._table = read_table(self.connection, self.own)
            else:
                self._table = RowTable()
        return self._table

    def _checked(self, layout: Layout) -> Layout:
        wanted = {'similarity': (self.wanted.metric, layout.metric),
                  'index_params': (self.wanted.index_type, layout.index_type)}
        if self.declared:
            wanted['metadata'] = (str(dict(self.wanted.columns)), str(dict(layout.columns)))
        for name, (here, there) in wanted.items():
            if here != there:
                raise ValueError(
                    f'The collection {self.name!r} at {self.connection.uri} has {there} for '
                    f'`{name}`, and this index wants {here}: give what it was made with, or '
                    'another `collection`.')
        return layout

    def new_layout(self, width: int, columns: Columns) -> Layout:
        """What a collection of such rows is made of."""
        return Layout(width, self.wanted.metric, {name: kind for name, (kind, _) in
                                                  columns.items()},
                      self.wanted.id_length, self.wanted.index_type, self.wanted.index_params)

    def write(self, vectors: np.ndarray, names: list[str], columns: Columns) -> None:
        """Append new rows and replace the content of those that are there."""
        table = self.rows()
        if not names:
            return
        if self.own is None:
            layout = self.new_layout(vectors.shape[1], columns)
            self.own, self.layout = collections.claim(self.connection, self.name, layout), layout
        collections.unseal(self.connection, self.name, self.own)
        serials, serial = [], table.next_serial
        for name in names:
            row = table.row_of.get(name)
            serials.append(serial if row is None else table.serials[row])
            serial += row is None
        self._send(self.own, table, vectors, names, serials, columns)

    def _send(self, own: str, table: RowTable, vectors: np.ndarray, names: list[str],
              serials: list[int], columns: Columns) -> None:
        """Write by id, batch by batch: a batch that is sent again doubles nothing."""
        written = 0
        try:
            for batch in batches(vectors, names, serials, columns, self.batch_size):
                self.connection.call('upsert', own, batch)
                end = written + len(batch)
                table.append(names[written:end], serials[written:end])
                written = end
        except (MilvusError, ValueError) as error:
            self.forget_rows()
            raise _partly(error, written, len(names), (
                f'Of {len(names):,} rows the first {written:,} are in the collection for certain; '
                f'of the next {self.batch_size:,} some may be. `upsert` with the same arguments '
                'writes the rest and doubles nothing.')) from error
        self._loose += written
        if self.connection.embedded and self._loose >= _FLUSH_ROWS:
            self.connection.call('flush', own)
            self._loose = 0

    def remove(self, names: list[str]) -> None:
        """Remove rows that are there."""
        table = self.rows()
        if not names or self.own is None:
            return
        collections.unseal(self.connection, self.name, self.own)
        removed = 0
        try:
            for expression, count in row_lists(self.serials(names)):
                self.connection.call('delete', self.own, filter=expression,
                                     consistency_level='Strong')
                removed += count
        except (MilvusError, ValueError) as error:
            self.forget_rows()
            raise _partly(error, removed, len(names), (
                f'Of {len(names):,} rows the first {removed:,} are removed for certain; remove '
                'those that are still in `ids`.')) from error
        table.remove(names)

    def serials(self, names: Sequence[str]) -> list[int]:
        """The serial numbers of rows that are there."""
        table = self.rows()
        return [table.serials[table.row_of[name]] for name in names]

    def replace(self, vectors: np.ndarray, names: list[str], columns: Columns, kind: str,
                overwrite: bool) -> None:
        """Write the rows into a collection beside the old one, lead the name to it, and only then
        drop the old one.

        Args:
            kind: ``gallery``, which another gallery replaces, or ``copy``.
            overwrite: replace also what is no gallery.

        Raises:
            ValueError: that is not allowed, and there is such a collection.
        """
        layout = self.new_layout(vectors.shape[1], columns)
        digest = collections.digest(layout, vectors, names, columns)
        self.refresh()
        old = collections.find(self.connection, self.name)
        if old and collections.is_sealed(self.connection, self.name, old, digest) and (
                self._count(old) == len(names)):
            self.connection.call('load_collection', old)
            self.own, self.layout, self._table = old, layout, RowTable(enumerate(names))
            return
        if old and not overwrite and not collections.is_gallery(self.name, old):
            raise ValueError(
                f'The collection {self.name!r} at {self.connection.uri} holds rows that were added '
                'to it, and a gallery would replace them: give another `collection`, or '
                'overwrite=True.')
        for left in collections.abandoned(self.connection, self.name):
            collections.drop(self.connection, self.name, left)
        own = self._built(layout, vectors, names, columns, kind)
        collections.seal(self.connection, self.name, own, digest)
        collections.point(self.connection, self.name, own)
        if old:
            collections.drop(self.connection, self.name, old)
        self.own, self.layout, self._table = own, layout, RowTable(enumerate(names))

    def _count(self, own: str) -> int:
        return self.connection.call('query', own, filter='', output_fields=['count(*)'],
                                    consistency_level='Strong')[0]['count(*)']

    def _built(self, layout: Layout, vectors: np.ndarray, names: list[str], columns: Columns,
               kind: str) -> str:
        """A new collection of these rows, all of them."""
        own = collections.create(self.connection, self.name, kind, layout)
        try:
            self._send(own, RowTable(), vectors, names, list(range(len(names))), columns)
            if (count := self._count(own)) != len(names):
                raise MilvusError(f'Milvus counts {count:,} of {len(names):,} rows.')
        except MilvusError as error:
            with suppress(MilvusError, ValueError):
                self.connection.call('drop_collection', own)
            raise _partly(error.__cause__ or error, 0, len(names),
                          'The new rows are not all in Milvus; the index holds what it held '
                          'before.') from error
        return own


def _partly(error: BaseException, done: int, total: int, message: str) -> MilvusError:
    """The error of a change that was made in part."""
    kind = MilvusUnavailable if isinstance(error, MilvusUnavailable) else MilvusError
    return kind(f'{message} {error}', done, total)

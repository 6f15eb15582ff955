"""The rows of a Milvus index: which there are, and how they are written, removed and replaced."""
from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import unique_names
from ...distributed import Meeting, rank, shard
from ...gallery.fingerprint import Fingerprint, FingerprintError
from ...string_column import StringColumn
from ...tensor_file import Container, Format, write_container
from ..base import RowIds
from . import collection as collections
from .collection import EMBEDDING, ID, ROW, Columns, Layout
from .connection import Connection, MilvusError, MilvusUnavailable
from .vectors import packed, unpacked

MESSAGE_BYTES = 16 * 2 ** 20  # of one request or answer; a server takes 64 MiB by default
_PAGE_ROWS = 16_384  # of a query's answer
_LIST_ROWS = 8_192  # of a list in an expression
_LIST_BYTES = 2 ** 20  # of such a list of ids
_FLUSH_ROWS = 1024  # the embedded Milvus searches rows faster once they are in its files


class RowTable:
    """The ids of the rows in their order, each with the serial number that is stored with it.

    Serial numbers rise in the order of adding and have gaps where rows were removed; a row's
    number is its place among them. Two processes that add at the same time may give the same
    serial numbers to different ids: rows are told apart by their ids, and ordered by them there.

    Args:
        rows: pairs of serial number and id.
    """

    def __init__(self, rows: Iterable[tuple[int, str]] = ()) -> None:
        ordered = sorted(rows)
        self.ids = RowIds([name for _, name in ordered])
        self.serials = [serial for serial, _ in ordered]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def next_serial(self) -> int:
        """The serial number of the next row."""
        return self.serials[-1] + 1 if self.serials else 0

    @property
    def last(self) -> list[str]:
        """The ids of the highest serial number."""
        start = len(self) - sum(1 for _ in takewhile(self.serials[-1:].__contains__,
                                                     reversed(self.serials)))
        return list(self.ids.names[start:])

    def append(self, names: Sequence[str], serials: Sequence[int], new: bool = False) -> None:
        """Note rows; where not all are ``new``, those that are there stay where they are."""
        if not new:
            pairs = [(name, serial) for name, serial in zip(names, serials, strict=True)
                     if self.ids.row(name) is None]
            names, serials = [name for name, _ in pairs], [serial for _, serial in pairs]
        self.ids.append(names)
        self.serials += serials

    def drop(self, rows: Iterable[int]) -> None:
        """Forget rows; those behind move up."""
        gone = set(rows)
        self.serials = [one for row, one in enumerate(self.serials) if row not in gone]
        self.ids.drop(gone)


def read_table(connection: Connection, own: str) -> RowTable:
    """The rows of a collection, as they are now."""
    size = 50_000 if connection.embedded else _PAGE_ROWS
    return RowTable((one[ROW], one[ID]) for page in _pages(connection, own, [ID, ROW], size)
                    for one in page)


def _pages(connection: Connection, own: str, fields: list[str], size: int, start: int = 0,
           stop: int | None = None) -> Iterator[list[dict[str, Any]]]:
    """All rows in their order, or those of serial numbers from ``start`` to ``stop``, at most
    ``size`` at once.

    A page is a range of serial numbers, so that no row is met twice or missed while others are
    added; an empty one is the end, or a gap where rows were removed. Only the first waits until
    what every process has written can be read.
    """
    level = 'Strong'
    while stop is None or start < stop:
        end = start + size if stop is None else min(start + size, stop)
        page = connection.call('query', own, filter=f'{ROW} >= {start} and {ROW} < {end}',
                               output_fields=fields, consistency_level=level)
        level = 'Session'
        if page:
            yield sorted(page, key=lambda one: (one[ROW], one[ID]))
        elif stop is None and not connection.call(
                'query', own, filter=f'{ROW} >= {start}', output_fields=[ROW], limit=1,
                consistency_level=level):
            return
        start += size


def read_rows(connection: Connection, own: str,
              layout: Layout) -> tuple[np.ndarray, list[str], dict[str, list[Any]]]:
    """The vectors ``(N, D)`` float32, ids and metadata columns of a collection, in its order."""
    fields = [ID, ROW, EMBEDDING, *layout.columns]
    size = max(1, min(_PAGE_ROWS, MESSAGE_BYTES // (4 * layout.width + 256)))
    vectors, ids = [np.zeros((0, layout.width), dtype=np.float32)], []
    columns: dict[str, list[Any]] = {name: [] for name in layout.columns}
    for page in _pages(connection, own, fields, size):
        vectors.append(unpacked([one[EMBEDDING] for one in page], layout.dtype))
        ids += [one[ID] for one in page]
        for name, values in columns.items():
            values += [one[name] for one in page]
    return np.concatenate(vectors), ids, columns


def read_metadata(connection: Connection, own: str, fields: list[str], names: Sequence[str],
                  level: str = 'Session') -> list[dict[str, Any]]:
    """The metadata columns ``fields`` of the rows of these ids, in their order.

    Raises:
        KeyError: another process has removed one.
    """
    found = {one[ID]: {field: one[field] for field in fields}
             for one in _read(connection, own, names, fields, _LIST_ROWS, level)}
    return [found[name] for name in names]


def read_vectors(connection: Connection, own: str, names: Sequence[str], layout: Layout,
                 level: str = 'Session') -> np.ndarray:
    """The vectors ``(n, D)`` float32 of the rows of these ids, in their order.

    Rows that another process has removed meanwhile are NaN.
    """
    place = {name: number for number, name in enumerate(names)}
    vectors = np.full((len(names), layout.width), np.nan, dtype=np.float32)
    size = max(1, MESSAGE_BYTES // (4 * layout.width + 64))
    for one in _read(connection, own, names, [EMBEDDING], min(size, _LIST_ROWS), level):
        vectors[place[one[ID]]] = unpacked([one[EMBEDDING]], layout.dtype)[0]
    return vectors


def _read(connection: Connection, own: str, names: Sequence[str], fields: list[str], size: int,
          level: str) -> Iterator[dict[str, Any]]:
    for part in id_lists(names, size):
        yield from connection.call('query', own, filter=as_ids(part), output_fields=[ID, *fields],
                                   consistency_level=level)
        level = 'Session'


def batches(vectors: np.ndarray, names: list[str], serials: Sequence[int], columns: Columns,
            batch_size: int, dtype: str = 'float32') -> Iterator[list[dict[str, Any]]]:
    """The rows as Milvus takes them, in batches of at most ``batch_size`` rows and a quarter of
    what a server takes in one message.
    """
    fields = [ID, ROW, EMBEDDING, *columns]
    weights = np.full(len(names), 4 * vectors.shape[1] + 32 + 8 * len(columns))
    for texts in [names, *(values for kind, values in columns.values() if kind == 'str')]:
        weights += np.fromiter(map(_most_bytes, texts), np.int64, len(names))
    edges, start = np.concatenate([[0], np.cumsum(weights)]), 0
    while start < len(names):
        end = int(np.searchsorted(edges, edges[start] + MESSAGE_BYTES, side='right')) - 1
        part = slice(start, min(max(end, start + 1), start + batch_size))
        yield [dict(zip(fields, one, strict=True)) for one in zip(
            names[part], serials[part], packed(vectors[part], dtype),
            *(values[part] for _, values in columns.values()), strict=True)]
        start = part.stop


def _most_bytes(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)


def id_lists(names: Sequence[str], size: int = _LIST_ROWS) -> Iterator[Sequence[str]]:
    """The ids in parts of at most ``size``, each below a megabyte."""
    part: list[str] = []
    weight = 0
    for name in names:
        weight += 2 * len(name) + 4
        if part and (len(part) == size or weight > _LIST_BYTES):
            yield part
            part, weight = [], 2 * len(name) + 4
        part.append(name)
    if part:
        yield part


def as_ids(names: Sequence[str], sign: str = 'in') -> str:
    """The expression that names rows by their ids."""
    return f'{ID} {sign} [{",".join(json.dumps(name, ensure_ascii=False) for name in names)}]'


def allowed_rows(mask: Sequence[bool], table: RowTable) -> list[str]:
    """Expressions of which each row that the mask allows meets exactly one, and no other row any.

    They name rows by serial number, which is short, and by ids where two have the same number.
    """
    alone = len(set(table.serials)) == len(table)
    keys: Sequence[Any] = table.serials if alone else table.ids.names
    refused = [key for key, here in zip(keys, mask, strict=True) if not here]
    if not refused:
        return ['']
    kept = refused if (few := len(refused) <= _LIST_ROWS) else [
        key for key, here in zip(keys, mask, strict=True) if here]
    sign = 'not in' if few else 'in'
    if alone:
        return [f'{ROW} {sign} [{",".join(map(str, kept[start:start + _LIST_ROWS]))}]'
                for start in range(0, len(kept), _LIST_ROWS)]
    if few:
        return [' and '.join(as_ids(part, sign) for part in id_lists(kept))]
    return [as_ids(part, sign) for part in id_lists(kept)]


class Store:
    """The rows of an index in Milvus, and what this process knows of them.

    Args:
        connection: to Milvus.
        name: of the index in the database.
        layout: what a new collection is made of; the width and, where they are not declared, the
            columns are those of the first rows.
        declared: whether the columns are.
        batch_size: the most rows of one insertion.
        consistency: the level of searches and of what decides whether rows have changed.
    """

    def __init__(self, connection: Connection, name: str, layout: Layout, declared: bool,
                 batch_size: int, consistency: str = 'Session') -> None:
        self.connection, self.name, self.batch_size = connection, name, batch_size
        self.consistency = consistency
        self.wanted, self.declared = layout, declared
        self._reading = threading.RLock()  # one reads the rows, for all searches that want them
        self.refresh()
        self._loose = 0  # rows that the embedded Milvus has not yet put into its files

    def refresh(self) -> None:
        """Forget what is known, so that it is read again when it is needed."""
        self.own: str | None = None  # the collection that the name leads to
        self.layout: Layout | None = None
        self._table: RowTable | None = None

    def forget_rows(self) -> None:
        """Read the rows again when they are needed."""
        with self._reading:
            self._table = None

    def rows(self) -> RowTable:
        """The rows in their order.

        Raises:
            ValueError: the collection was made with other settings.
        """
        with self._reading:
            if self._table is None:
                self._open()
                if self.own is not None:
                    self.connection.call('load_collection', self.own)
                    self._table = read_table(self.connection, self.own)
                else:
                    self._table = RowTable()
            return self._table

    def _open(self) -> None:
        """Know the collection that the name leads to, without its rows."""
        with self._reading:
            if self._table is None:
                self.own = self.own or collections.find(self.connection, self.name)
                if self.own is not None:
                    self.layout = self._checked(collections.read_layout(self.connection, self.own))

    def is_current(self) -> bool:
        """False where the rows are others than those that were read."""
        table = self._table
        if table is None or self.own is None or not len(table):
            return False
        if collections.find(self.connection, self.name) != self.own:
            return False
        if self._count(self.own, self.consistency) != len(table):
            return False
        last = table.last
        end = self.connection.call('query', self.own, filter=f'{ROW} >= {table.serials[-1]}',
                                   limit=len(last) + 1, output_fields=[ID],
                                   consistency_level='Session')
        return sorted(one[ID] for one in end) == sorted(last)

    def _checked(self, layout: Layout) -> Layout:
        wanted = {'similarity': (self.wanted.metric, layout.metric),
                  'index_params': (self.wanted.index_type, layout.index_type),
                  'dtype': (self.wanted.dtype, layout.dtype)}
        if self.wanted.partition_key is not None:
            wanted['partition_key'] = (self.wanted.partition_key, str(layout.partition_key))
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
        """The layout of a collection of such rows."""
        kinds = {name: kind for name, (kind, _) in columns.items()}
        collections.check_partition_key(self.wanted.partition_key, kinds)
        return replace(self.wanted, width=width, columns=kinds)

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the model that made the rows, or is to make them where there are none."""
        self._open()
        return self.wanted.fingerprint if self.layout is None else self.layout.fingerprint

    def _check_model(self) -> None:
        assert self.layout is not None
        different = self.layout.fingerprint.differences(self.wanted.fingerprint)
        if different:
            raise FingerprintError(
                f'The collection {self.name!r} at {self.connection.uri} holds embeddings of '
                f'another model: {" and ".join(different)} differ, so their similarities would '
                'mean nothing. Use that model, another `collection`, or `replace`.')

    def write(self, vectors: np.ndarray, names: list[str], columns: Columns,
              new: bool = False) -> None:
        """Append new rows and replace the content of those that are there, where not all are
        ``new``.
        """
        table = self.rows()
        if not names:
            return
        if self.own is None:
            layout = self.new_layout(vectors.shape[1], columns)
            self.own, self.layout = collections.claim(self.connection, self.name, layout), layout
        self._check_model()
        collections.unseal(self.connection, self.name, self.own)
        serial = table.next_serial
        serials: Sequence[int] = range(serial, serial + len(names))
        if not new:
            serials = []
            for name in names:
                row = table.ids.row(name)
                serials.append(serial if row is None else table.serials[row])
                serial += row is None
        self._send(self.own, table, vectors, names, serials, columns, new)

    def _send(self, own: str, table: RowTable, vectors: np.ndarray, names: list[str],
              serials: Sequence[int], columns: Columns, new: bool = True) -> None:
        """Write batch by batch. What is sent again is written by id, and doubles nothing; what is
        new is inserted, since a server that looks for what it replaces writes and searches slower.
        """
        method = 'insert' if new else 'upsert'
        written = 0
        try:
            for batch in batches(vectors, names, serials, columns, self.batch_size,
                                 self.wanted.dtype):
                self.connection.call(method, own, batch, again='upsert')
                end = written + len(batch)
                table.append(names[written:end], serials[written:end], new)
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

    def remove(self, rows: list[int]) -> None:
        """Remove rows by number."""
        table = self.rows()
        if not rows or self.own is None:
            return
        collections.unseal(self.connection, self.name, self.own)
        removed = 0
        try:
            for part in id_lists([table.ids.names[row] for row in rows]):
                self.connection.call('delete', self.own, filter=as_ids(part))
                removed += len(part)
            self._count(self.own)  # waits: Milvus 2.3 does not tell the time of a removal
        except (MilvusError, ValueError) as error:
            self.forget_rows()
            raise _partly(error, removed, len(rows), (
                f'Of {len(rows):,} rows the first {removed:,} are removed for certain; remove '
                'those that are still in `ids`.')) from error
        table.drop(rows)

    def replace(self, vectors: np.ndarray, names: list[str], columns: Columns, kind: str,
                overwrite: bool, alone: Callable[[], AbstractContextManager[None]],
                together: bool = False, keep: bool = False) -> None:
        """Write the rows into a collection beside the old one, lead the name to it, and only then
        drop the old one. What a killed process has written of the same rows is gone on with, and
        rows that are kept are led to as they are.

        Args:
            kind: ``gallery``, which another gallery replaces, or ``copy``.
            overwrite: drop also what is no gallery.
            alone: holds searches off, for the moment of the change from the old to the new ones.
            together: every process of a distributed run calls it with the same rows, and each
                writes its share.
            keep: keep the old one, in the place of what was kept before.

        Raises:
            ValueError: that is not allowed, and there is such a collection; or another process
                has failed.
        """
        layout = self.new_layout(vectors.shape[1], columns)
        digest = collections.digest(layout, vectors, names, columns)
        meeting = Meeting() if together else None

        def first(action: Callable[[], Any]) -> Any:
            result, failure = None, None
            if meeting is None or rank() == 0:
                try:
                    result = action()
                except Exception as error:
                    failure = error
            if meeting is None and failure is not None:
                raise failure
            if meeting is not None:
                meeting.agree(failure)
            return result if meeting is None else meeting.from_first(result)

        own, there = first(lambda: self._target(layout, digest, len(names), kind, overwrite, keep))
        if there == 'kept':
            first(lambda: self._lead_to(own, alone, keep))
        elif there != 'all':
            share = shard(len(names)) if together else range(len(names))
            failure: Exception | None = None
            try:
                self._fill(own, share, vectors, names, columns, new=there == 'none')
            except Exception as error:
                failure = error
            if meeting is not None:
                meeting.agree(failure)
            elif failure is not None:
                raise failure
            first(lambda: self._finish(own, digest, len(names), alone, keep))
        if together or there == 'all':
            self.connection.call('load_collection', own)
        with alone():
            self.own, self.layout, self._table = own, layout, RowTable(enumerate(names))

    def _target(self, layout: Layout, digest: str, count: int, kind: str, overwrite: bool,
                keep: bool) -> tuple[str, str]:
        """The collection for these rows, and which of them are in it: all, some or none; or
        ``kept``, where all are in one that is kept.
        """
        old = collections.find(self.connection, self.name)
        if old and self._holds(old, digest, count):
            return old, 'all'
        kept = collections.kept(self.connection, self.name)
        same = next((own for own in kept if self._holds(own, digest, count)), None)
        for left in ([] if keep or old is None else [old]) + [one for one in kept if one != same]:
            if not overwrite and not collections.is_gallery(self.name, left):
                which = 'keeps' if left in kept else 'holds'
                raise ValueError(
                    f'The collection {self.name!r} at {self.connection.uri} {which} rows that were '
                    'added to it, and a gallery would replace them: give another `collection`, or '
                    'overwrite=True.')
        if same:
            return same, 'kept'
        begun = collections.unfinished(self.connection, self.name, kind, digest)
        for left in collections.abandoned(self.connection, self.name):
            if left != begun:
                collections.drop(self.connection, self.name, left)
        if begun:
            return begun, 'some'
        return collections.create(self.connection, self.name, kind, layout, digest), 'none'

    def _fill(self, own: str, share: range, vectors: np.ndarray, names: list[str],
              columns: Columns, new: bool) -> None:
        """Write a share of the rows into a collection, but for those that it has already."""
        part = slice(share.start, share.stop)
        rows: Sequence[int] = share
        vectors, names = vectors[part], names[part]
        columns = {name: (kind, values[part]) for name, (kind, values) in columns.items()}
        if not new:
            there = {one[ROW] for page in _pages(self.connection, own, [ROW, ID], _PAGE_ROWS,
                                                 share.start, share.stop) for one in page}
            left = [place for place, row in enumerate(share) if row not in there]
            rows, vectors = [share[place] for place in left], vectors[left]
            names = [names[place] for place in left]
            columns = {name: (kind, [values[place] for place in left])
                       for name, (kind, values) in columns.items()}
        try:
            self._send(own, RowTable(), vectors, names, rows, columns, new)
        except MilvusError as error:
            raise _partly(error.__cause__ or error, 0, error.total,
                          'The new rows are not all in Milvus; the index holds what it held '
                          'before, and the same call goes on.') from error

    def _holds(self, own: str, digest: str, count: int) -> bool:
        return (collections.is_sealed(self.connection, self.name, own, digest)
                and self._count(own) == count)

    def _finish(self, own: str, digest: str, count: int,
                alone: Callable[[], AbstractContextManager[None]], keep: bool) -> None:
        """Make a collection the one of the name, where it has all its rows."""
        if (found := self._count(own)) != count:
            with suppress(MilvusError, ValueError):
                self.connection.call('drop_collection', own)
            raise MilvusError('The new rows are not all in Milvus; the index holds what it held '
                              f'before. Milvus counts {found:,} of {count:,} rows.', 0, count)
        collections.seal(self.connection, self.name, own, digest)
        self._lead_to(own, alone, keep)

    def _lead_to(self, own: str, alone: Callable[[], AbstractContextManager[None]],
                 keep: bool) -> None:
        """Make a whole collection the one of the name. Each step leaves the name at a whole one:
        what stays is noted before, and of what goes only the one that it leads to goes after.
        """
        old = collections.find(self.connection, self.name)
        if keep and old and old != own:
            collections.keep(self.connection, self.name, old)
        gone = [one for one in collections.kept(self.connection, self.name) if one != own]
        with alone():
            self.refresh()  # in case that what follows fails
            for one in gone:
                collections.drop(self.connection, self.name, one)
            collections.point(self.connection, self.name, own)
            if old and old != own and not keep:
                collections.drop(self.connection, self.name, old)

    def kept(self) -> tuple[int, Fingerprint] | None:
        """How many rows are kept, and of which model they are; None where none are."""
        found = collections.kept(self.connection, self.name)
        return (self._count(found[0]),
                collections.read_layout(self.connection, found[0]).fingerprint) if found else None

    def undo(self, alone: Callable[[], AbstractContextManager[None]]) -> None:
        """Lead the name back to the rows that are kept, and keep those that it led to.

        Raises:
            ValueError: none are kept, or they were made with other settings.
        """
        found = collections.kept(self.connection, self.name)
        if not found:
            raise ValueError(f'The collection {self.name!r} at {self.connection.uri} keeps no rows '
                             'from before: `replace` keeps them where the index was built with '
                             'keep=True.')
        own, old = found[0], collections.find(self.connection, self.name)
        self._checked(collections.read_layout(self.connection, own))
        self.connection.call('load_collection', own)
        if old:
            collections.keep(self.connection, self.name, old)
        with alone():
            self.refresh()
            collections.point(self.connection, self.name, own)

    def drop_kept(self) -> None:
        """Drop the rows that are kept."""
        for own in collections.kept(self.connection, self.name):
            collections.drop(self.connection, self.name, own)

    def _count(self, own: str, level: str = 'Strong') -> int:
        return self.connection.call('query', own, filter='', output_fields=['count(*)'],
                                    consistency_level=level)[0]['count(*)']


def _partly(error: BaseException, done: int, total: int, message: str) -> MilvusError:
    """The error of a change that was made in part."""
    kind = MilvusUnavailable if isinstance(error, MilvusUnavailable) else MilvusError
    return kind(f'{message} {error}', done, total)


_FORMAT = Format('retrieval.MilvusIndex', 2, 'Save the index again.')
_DTYPES = {'int': torch.int64, 'float': torch.float64, 'bool': torch.bool}


@dataclass
class Content:
    """Rows in their order.

    Args:
        vectors: ``(N, D)`` float32.
        ids: N strings.
        metadata: columns of N values by name.
        fingerprint: of the model that made the vectors, as far as it is known.
    """

    vectors: Tensor
    ids: list[str]
    metadata: dict[str, Sequence[Any]]
    fingerprint: Fingerprint


def write(path: str | PathLike[str], store: Store, settings: dict[str, Any]) -> None:
    """Write all rows and the settings of an index to one file."""
    store.rows()
    kinds = {} if store.layout is None else dict(store.layout.columns)
    ids: list[str] = []
    columns: dict[str, list[Any]] = {}
    if store.own is None or store.layout is None:
        vectors = np.zeros((0, 0), dtype=np.float32)
    else:
        vectors, ids, columns = read_rows(store.connection, store.own, store.layout)
    held: dict[str, Any] = {'rows': vectors, 'ids': StringColumn.from_strings(ids)}
    for number, (name, kind) in enumerate(kinds.items()):
        values = columns.get(name, [])
        held[f'metadata.{number}'] = StringColumn.from_strings(values) if kind == 'str' else \
            torch.tensor(values, dtype=_DTYPES[kind])
    write_container(path, _FORMAT, held, dict(settings=settings, columns=list(kinds),
                                              fingerprint=store.fingerprint.as_dict()))


def read(path: str | PathLike[str]) -> tuple[Content, dict[str, Any]]:
    """The rows and the settings that :func:`write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no Milvus index, or is damaged.
    """
    opened = Container(path, _FORMAT)
    rows = opened.tensor('rows')
    metadata: dict[str, Sequence[Any]] = {}
    for number, name in enumerate(opened.manifest['columns']):
        column = opened.column(f'metadata.{number}')
        metadata[name] = column.tolist() if isinstance(column, Tensor) else list(column)
    ids = unique_names(opened.strings('ids'), len(rows))
    fingerprint = Fingerprint.from_dict(opened.manifest.get('fingerprint', {}))
    return Content(rows, ids, metadata, fingerprint), opened.manifest['settings']

"""The rows of a Milvus collection: which there are, and how they get in and out."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .milvus_collection import EMBEDDING, ID, ROW, Layout
from .milvus_columns import Columns
from .milvus_connection import Connection

MESSAGE_BYTES = 16 * 2 ** 20  # of one request or answer; a server takes 64 MiB by default
_PAGE_ROWS = 16_384  # of a query's answer
_LIST_ROWS = 8_192  # of a list in an expression


class RowTable:
    """The ids of the rows in their order, each with the serial number that is stored with it.

    Serial numbers rise in the order of adding and have gaps where rows were removed; a row's
    number is its place among them.

    Args:
        rows: pairs of serial number and id.
    """

    def __init__(self, rows: Iterable[tuple[int, str]] = ()) -> None:
        ordered = sorted(rows)
        self.ids = [name for _, name in ordered]
        self.serials = [serial for serial, _ in ordered]
        self.row_of = {name: row for row, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def next_serial(self) -> int:
        """The serial number of the next row."""
        return self.serials[-1] + 1 if self.serials else 0

    def append(self, names: Sequence[str], serials: Sequence[int]) -> None:
        """Note new rows; those that are there already stay where they are."""
        for name, serial in zip(names, serials, strict=True):
            if name not in self.row_of:
                self.row_of[name] = len(self.ids)
                self.ids.append(name)
                self.serials.append(serial)

    def remove(self, names: Iterable[str]) -> None:
        """Forget rows."""
        gone = {self.row_of[name] for name in names}
        stay = [row for row in range(len(self.ids)) if row not in gone]
        self.ids = [self.ids[row] for row in stay]
        self.serials = [self.serials[row] for row in stay]
        self.row_of = {name: row for row, name in enumerate(self.ids)}


def read_table(connection: Connection, own: str) -> RowTable:
    """The rows of a collection, as they are now."""
    size = 50_000 if connection.embedded else _PAGE_ROWS
    return RowTable((one[ROW], one[ID]) for page in _pages(connection, own, [ID, ROW], size)
                    for one in page)


def _pages(connection: Connection, own: str, fields: list[str],
           size: int) -> Iterator[list[dict[str, Any]]]:
    """All rows in their order, at most ``size`` at once.

    A page is a range of serial numbers, so that no row is met twice or missed while others are
    added; an empty one is the end, or a gap where rows were removed.
    """
    start = 0
    while True:
        page = connection.call('query', own, filter=f'{ROW} >= {start} and {ROW} < {start + size}',
                               output_fields=fields, consistency_level='Strong')
        if page:
            yield sorted(page, key=lambda one: one[ROW])
        elif not connection.call('query', own, filter=f'{ROW} >= {start}', output_fields=[ROW],
                                 limit=1, consistency_level='Strong'):
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
        vectors.append(np.asarray([one[EMBEDDING] for one in page], dtype=np.float32))
        ids += [one[ID] for one in page]
        for name, values in columns.items():
            values += [one[name] for one in page]
    return np.concatenate(vectors), ids, columns


def read_metadata(connection: Connection, own: str, names: list[str],
                  serials: Sequence[int]) -> list[dict[str, Any]]:
    """The metadata columns ``names`` of the rows of these serial numbers, in their order."""
    found = {one[ROW]: {name: one[name] for name in names}
             for one in _read(connection, own, serials, names, _LIST_ROWS)}
    return [found[serial] for serial in serials]


def read_vectors(connection: Connection, own: str, serials: Sequence[int],
                 width: int) -> np.ndarray:
    """The vectors ``(n, width)`` float32 of the rows of these serial numbers, in their order.

    Rows that another process has removed meanwhile are zeros.
    """
    place = {serial: number for number, serial in enumerate(serials)}
    vectors = np.zeros((len(serials), width), dtype=np.float32)
    size = max(1, MESSAGE_BYTES // (4 * width + 64))
    for one in _read(connection, own, serials, [EMBEDDING], min(size, _LIST_ROWS)):
        vectors[place[one[ROW]]] = one[EMBEDDING]
    return vectors


def _read(connection: Connection, own: str, serials: Sequence[int], fields: list[str],
          size: int) -> Iterator[dict[str, Any]]:
    for expression, _ in row_lists(serials, size):
        yield from connection.call('query', own, filter=expression, output_fields=[ROW, *fields],
                                   consistency_level='Strong')


def batches(vectors: np.ndarray, names: list[str], serials: Sequence[int], columns: Columns,
            batch_size: int) -> Iterator[list[dict[str, Any]]]:
    """The rows as Milvus takes them, in batches of at most ``batch_size`` rows and a quarter of
    what a server takes in one message.
    """
    batch: list[dict[str, Any]] = []
    weight = 0
    for row, name in enumerate(names):
        one: dict[str, Any] = {ID: name, ROW: serials[row], EMBEDDING: vectors[row]}
        one.update((column, values[row]) for column, (_, values) in columns.items())
        size = 4 * vectors.shape[1] + 16 + sum(
            len(value.encode()) + 8 if isinstance(value, str) else 8 for value in one.values())
        if batch and (len(batch) == batch_size or weight + size > MESSAGE_BYTES):
            yield batch
            batch, weight = [], 0
        batch.append(one)
        weight += size
    if batch:
        yield batch


def row_lists(serials: Sequence[int], size: int = _LIST_ROWS) -> Iterator[tuple[str, int]]:
    """Expressions that name at most ``size`` rows by serial number, and how many each names."""
    for start in range(0, len(serials), size):
        part = serials[start:start + size]
        yield f'{ROW} in [{",".join(map(str, part))}]', len(part)


def allowed_rows(mask: Sequence[bool], serials: Sequence[int]) -> list[str]:
    """Expressions of which each row that the mask allows meets exactly one, and no other row any.
    """
    refused = [serial for serial, here in zip(serials, mask, strict=True) if not here]
    if not refused:
        return ['']
    if len(refused) <= _LIST_ROWS:
        return [f'{ROW} not in [{",".join(map(str, refused))}]']
    allowed = [serial for serial, here in zip(serials, mask, strict=True) if here]
    return [expression for expression, _ in row_lists(allowed)]

"""What the rows of a k-nearest-neighbour function are called, kept beside their vectors."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..gallery.string_column import StringColumn
from ..structures import as_labels

UNKNOWN = -1  # the label of a row whose class nobody said


class RowNames:
    """Ids and labels of rows, as far as they are known.

    Attributes:
        ids: a unique string for each row, or None where none was given; a row that came without
            one among others that have one is called by its number.
        labels: ``(N,)`` int64, -1 for a row without one; None where none was given.
    """

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] | None = None
        self.labels: Tensor | None = None

    def extended(self, count: int, ids: Iterable[Any] | None = None,
                 labels: Any = None) -> RowNames:
        """These names and those of ``count`` further rows.

        Raises:
            ValueError: there are not ``count`` ids or labels, or an id is there already.
            TypeError: the labels are no integers.
        """
        more_ids = None if ids is None else [str(name) for name in ids]
        more_labels = None if labels is None else as_labels(labels, 'labels').cpu()
        for name, column in (('ids', more_ids), ('labels', more_labels)):
            if column is not None and len(column) != count:
                raise ValueError(f'There are {count} embeddings but {len(column)} {name}: give '
                                 'one for each.')
        joined = RowNames()
        joined.count = self.count + count
        joined.ids = self._joined_ids(more_ids, count)
        if more_labels is not None or self.labels is not None:
            mine = _unlabelled(self.count) if self.labels is None else self.labels
            more = _unlabelled(count) if more_labels is None else more_labels
            joined.labels = torch.cat([mine, more])
        return joined

    def _joined_ids(self, more: list[str] | None, count: int) -> list[str] | None:
        if more is None and self.ids is None:
            return None
        mine = [str(row) for row in range(self.count)] if self.ids is None else self.ids
        if more is None:
            more = [str(row) for row in range(self.count, self.count + count)]
        joined = mine + more
        if len(set(joined)) != len(joined):
            seen: set[str] = set()
            twice = next(name for name in joined
                         if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise ValueError(f'The id {twice!r} is given to two rows: ids must be unique.')
        return joined

    def tensors(self) -> dict[str, Tensor]:
        """The columns that are there, for a file."""
        held: dict[str, Tensor] = {}
        if self.ids is not None:
            column = StringColumn.from_strings(self.ids)
            held.update(ids=column.data, id_offsets=column.offsets)
        if self.labels is not None:
            held['labels'] = self.labels
        return held

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], count: int) -> RowNames:
        """What :meth:`tensors` wrote, for ``count`` rows.

        Raises:
            ValueError: the columns have another length.
        """
        ids = StringColumn(tensors['ids'], tensors['id_offsets']) if 'ids' in tensors else None
        return cls().extended(count, ids, tensors.get('labels'))


def _unlabelled(count: int) -> Tensor:
    return torch.full((count,), UNKNOWN, dtype=torch.int64)

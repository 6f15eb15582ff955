"""The rows of an index that several servers search, and that others may change meanwhile."""
from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..index import MilvusIndex
from ..retrievers.prototype import IndexGallery


class RowsChangedError(RuntimeError):
    """Rows were added or removed while one was looking."""


class SharedRows:
    """The rows of a MilvusIndex at one moment, with their labels and metadata as Milvus has them.

    Nothing is known here that another server over the same collection would not see.

    Args:
        index: a view of the index; see :meth:`MilvusIndex.view`.

    Raises:
        ValueError: it is empty.
    """

    identified = True
    label_names = None

    def __init__(self, index: MilvusIndex) -> None:
        self._alone = IndexGallery(index)
        self.index, self.ids, self.dim = index, index.ids, self._alone.dim
        self.serials = np.array(index.serials, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.serials)

    @property
    def embeddings(self) -> Any:
        """There are none. Raises ValueError."""
        return self._alone.embeddings

    def is_current(self) -> bool:
        """True where these are the rows as they are in Milvus."""
        return self.index.ids is self.ids and self.index.is_current()

    def check(self) -> None:
        """Raise RowsChangedError where the index has read its rows anew."""
        if self.index.ids is not self.ids:
            raise RowsChangedError('Rows were added or removed.')

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        """The columns of all rows, read when they are first asked for."""
        try:
            rows = self.index.metadata_of(self.ids)
        except KeyError as error:
            raise RowsChangedError('Rows were removed.') from error
        self.check()
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}

    @property
    def metadata(self) -> dict[str, Any]:
        """The columns without the label."""
        return {name: values for name, values in self._columns.items()
                if name not in ('label', 'label_name')}

    @property
    def labels(self) -> torch.Tensor | None:
        """A number ``(N,)`` int64 for each different label, or None."""
        named = self._columns.get('label_name') or self._columns.get('label')
        return None if named is None else torch.from_numpy(
            np.unique(named, return_inverse=True)[1].astype(np.int64))

    def label_name(self, row: int) -> Any:
        """The name of a row's label, or the label itself."""
        named = self._columns.get('label_name') or self._columns.get('label')
        return None if named is None else str(named[row])

    def describe(self, row: int) -> dict[str, Any]:
        """The metadata of a row."""
        return {name: values[row] for name, values in self.metadata.items()}

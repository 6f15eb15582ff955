"""The gallery: what a prototype becomes, the features that queries are searched in."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..structures import as_labels
from .fingerprint import Fingerprint
from .string_column import StringColumn

Column = StringColumn | Tensor


class Gallery:
    """Embeddings, and what is known of each.

    Args:
        embeddings: ``(N, D)`` floating point, finite, at least one row; kept as float32.
        ids: a unique string for each row. Without it the rows are numbered and :attr:`identified`
            is False: no query is then taken for one of them.
        labels: classes, ``(N,)`` integers, or None.
        label_names: the name of class i at place i, or None.
        metadata: further columns of N strings or numbers by name.
        fingerprint: which encoder and pipeline made it.
        source: how it was made: ``config`` (its text), ``config_file``, ``checkpoint``,
            ``versions``; plain JSON.
        skipped: images that could not be read, id by reason.

    Raises:
        ValueError: it is empty, non-finite, or a column has another length; an id occurs twice.
        TypeError: the embeddings are no array or tensor of floating-point numbers.
    """

    def __init__(self, embeddings: Tensor | np.ndarray, ids: Iterable[str] | None = None,
                 labels: Any = None, label_names: Sequence[str] | None = None,
                 metadata: Mapping[str, Any] | None = None,
                 fingerprint: Fingerprint | None = None, source: Mapping[str, Any] | None = None,
                 skipped: Mapping[str, str] | None = None) -> None:
        self.embeddings = _checked_embeddings(embeddings)
        count = len(self.embeddings)
        self.identified = ids is not None
        self.ids = _string_column(map(str, range(count)) if ids is None else ids)
        _check_length('ids', self.ids, count)
        self._rows: dict[str, int] | None = None
        self.labels = None if labels is None else as_labels(labels, 'gallery labels')
        if self.labels is not None:
            _check_length('labels', self.labels, count)
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.metadata = {name: _column(values) for name, values in (metadata or {}).items()}
        for name, column in self.metadata.items():
            _check_length(f'metadata column {name!r}', column, count)
        self.fingerprint = fingerprint or Fingerprint()
        self.source: dict[str, Any] = dict(source or {})
        self.skipped: dict[str, str] = dict(skipped or {})
        if self.identified:
            self._check_unique()

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        return f'Gallery({len(self)} x {self.dim}, labels={self.labels is not None})'

    @property
    def dim(self) -> int:
        """The width D of the embeddings."""
        return self.embeddings.shape[1]

    @property
    def rows(self) -> dict[str, int]:
        """The row of every id."""
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.ids)}
        return self._rows

    def label_name(self, row: int) -> str | None:
        """The name of a row's class, its number where there are no names, None without labels."""
        if self.labels is None:
            return None
        label = int(self.labels[row])
        if self.label_names is not None and 0 <= label < len(self.label_names):
            return self.label_names[label]
        return str(label)

    def describe(self, row: int) -> dict[str, Any]:
        """The metadata of one row, plain Python values by column."""
        return {name: column[row] if isinstance(column, StringColumn) else column[row].item()
                for name, column in self.metadata.items()}

    def save(self, path: str | os.PathLike) -> None:
        """Write the gallery as one safetensors file, under a temporary name and then renamed."""
        from .storage import save_gallery
        save_gallery(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Gallery:
        """Open a gallery, or a saved tensor ``(N, D)`` (``.pth``, ``.pt``, ``.npy``) as one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        from .storage import load_gallery
        return load_gallery(path)

    def _check_unique(self) -> None:
        if len(self.rows) == len(self):
            return
        seen: set[str] = set()
        twice = next(name for name in self.ids if name in seen or seen.add(name))  # type: ignore
        raise ValueError(f'The id {twice!r} occurs twice in the gallery. An id stands for one '
                         'picture: give each row an id (`sample_id`) of its own.')


def _checked_embeddings(embeddings: Any) -> Tensor:
    if isinstance(embeddings, np.ndarray):
        embeddings = torch.from_numpy(np.ascontiguousarray(embeddings))
    if not isinstance(embeddings, Tensor) or not embeddings.is_floating_point():
        kind = embeddings.dtype if isinstance(embeddings, Tensor) else type(embeddings).__name__
        raise TypeError(f'A gallery wants embeddings (N, D) of floating-point numbers, got {kind}.')
    if embeddings.ndim != 2:
        raise ValueError('A gallery wants embeddings of shape (N, D), got '
                         f'{tuple(embeddings.shape)}.')
    if embeddings.numel() == 0:
        raise ValueError(f'The gallery is empty (shape {tuple(embeddings.shape)}): there is '
                         'nothing to search in. Give a prototype with at least one image.')
    embeddings = embeddings.detach().to(torch.float32)
    finite = torch.isfinite(embeddings).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten()
        raise ValueError(f'{len(bad)} of {len(embeddings)} gallery embeddings are not finite '
                         f'(NaN or infinite), the first in row {int(bad[0])}. Encode the gallery '
                         'again with a model whose weights and inputs are finite.')
    return embeddings


def _string_column(values: Iterable[str]) -> StringColumn:
    if isinstance(values, StringColumn):
        return values
    return StringColumn.from_strings(str(value) for value in values)


def _column(values: Any) -> Column:
    if isinstance(values, (StringColumn, Tensor)):
        return values
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind in 'iufb':
        return torch.from_numpy(np.ascontiguousarray(array))
    return _string_column('' if value is None else str(value) for value in values)


def _check_length(name: str, column: Any, count: int) -> None:
    if len(column) != count:
        raise ValueError(f'The gallery has {count} embeddings but {len(column)} {name}: give one '
                         'for each row.')

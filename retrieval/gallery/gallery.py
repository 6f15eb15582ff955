"""The gallery: what a prototype becomes, the features that queries are searched in."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..structures import as_labels
from . import changes
from .checks import check_length, checked_embeddings, checked_shape
from .codec import ArrayVectors, Vectors
from .columns import Column, LazyColumns, column, string_column, value_at
from .fingerprint import Fingerprint
from .string_column import StringColumn


class Gallery:
    """Embeddings, and what is known of each.

    A gallery that was opened from a file reads, checks and decodes a part when it is first
    asked for.

    Args:
        embeddings: ``(N, D)`` floating point, finite, at least one row; used as float32. Or
            :class:`Vectors`, which keep them as float16 or int8.
        ids: a unique string for each row. Without it the rows are numbered and :attr:`identified`
            is False: no query is then taken for one of them.
        labels: classes, ``(N,)`` integers, or None.
        label_names: the name of class i at place i, or None.
        metadata: further columns of N strings or numbers by name.
        fingerprint: which encoder and pipeline made it.
        source: how it was made: ``config`` (its text), ``config_file``, ``checkpoint``,
            ``versions``; plain JSON.
        skipped: images that could not be read, id by reason.
        similarity: the name of the similarity that the embeddings are meant for, or None.

    Raises:
        ValueError: it is empty, non-finite, or a column has another length; an id occurs twice.
        TypeError: the embeddings are no array or tensor of floating-point numbers.
    """

    def __init__(self, embeddings: Tensor | np.ndarray | Vectors, ids: Iterable[str] | None = None,
                 labels: Any = None, label_names: Sequence[str] | None = None,
                 metadata: Mapping[str, Any] | None = None,
                 fingerprint: Fingerprint | None = None, source: Mapping[str, Any] | None = None,
                 skipped: Mapping[str, str] | None = None, similarity: str | None = None) -> None:
        if isinstance(embeddings, Vectors):
            self.vectors = embeddings
            self._shape = checked_shape(embeddings.shape)
        else:
            self.embeddings = checked_embeddings(embeddings)
            self._shape = checked_shape(self.embeddings.shape)
        count = len(self)
        self._later: Mapping[str, Callable[[], Any]] = {}
        self._files: tuple[Any, ...] = ()
        self.identified = ids is not None
        if ids is not None:
            self.ids = string_column(ids)
            check_length('ids', self.ids, count)
        self.labels = None if labels is None else as_labels(labels, 'gallery labels')
        if self.labels is not None:
            check_length('labels', self.labels, count)
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.metadata: Mapping[str, Column] = {
            name: column(values) for name, values in (metadata or {}).items()}
        for name, values in self.metadata.items():
            check_length(f'metadata column {name!r}', values, count)
        self._set_facts(fingerprint, source, skipped, similarity)
        if self.identified:
            self._check_unique()

    def _set_facts(self, fingerprint: Fingerprint | None, source: Mapping[str, Any] | None,
                   skipped: Mapping[str, str] | None, similarity: str | None) -> None:
        self.fingerprint = fingerprint or Fingerprint()
        self.source: dict[str, Any] = dict(source or {})
        self.skipped: dict[str, str] = dict(skipped or {})
        self.similarity = similarity

    @classmethod
    def opened(cls, vectors: Vectors, later: Mapping[str, Callable[[], Any]],
               metadata: Mapping[str, Callable[[], Column]], files: Iterable[Any],
               **facts: Any) -> Gallery:
        """A gallery whose columns are read when they are first asked for.

        Args:
            vectors: the embeddings.
            later: what reads ``ids``, ``labels`` and ``label_names``, each where there are any.
            metadata: what reads each metadata column.
            files: what was opened, each with ``verify()``.
            facts: fingerprint, source, skipped and similarity.
        """
        gallery = cls.__new__(cls)
        gallery.vectors, gallery._shape = vectors, checked_shape(vectors.shape)
        gallery._later, gallery._files = later, tuple(files)
        gallery.identified = 'ids' in later
        gallery.metadata = LazyColumns(metadata)
        gallery._set_facts(*(facts.get(name) for name in (
            'fingerprint', 'source', 'skipped', 'similarity')))
        return gallery

    # What it holds -----------------------------------------------------------------------------

    @cached_property
    def vectors(self) -> Vectors:
        """The embeddings as they are stored."""
        return ArrayVectors(self.embeddings.cpu().contiguous().numpy())

    @cached_property
    def embeddings(self) -> Tensor:
        """``(N, D)`` float32; of a float32 file a view, else decoded when first asked for."""
        return torch.from_numpy(self.vectors.decoded())

    @cached_property
    def ids(self) -> StringColumn:
        """The id of every row."""
        if self.identified:
            return self._later['ids']()
        return StringColumn.from_strings(map(str, range(len(self))))

    @cached_property
    def labels(self) -> Tensor | None:
        """The class of every row, ``(N,)`` int64, or None."""
        return self._later['labels']() if 'labels' in self._later else None

    @cached_property
    def label_names(self) -> list[str] | None:
        """The name of class i at place i, or None."""
        return list(self._later['label_names']()) if 'label_names' in self._later else None

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of every id."""
        return {name: row for row, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return self._shape[0]

    def __repr__(self) -> str:
        labelled = 'labels' in self._later or self.labels is not None
        return f'Gallery({len(self)} x {self.dim}, {self.dtype}, labels={labelled})'

    @property
    def dim(self) -> int:
        """The width D of the embeddings."""
        return self._shape[1]

    @property
    def dtype(self) -> str:
        """How the embeddings are stored: ``'float32'``, ``'float16'`` or ``'int8'``."""
        return self.__dict__['vectors'].dtype if 'vectors' in self.__dict__ else 'float32'

    @property
    def normalised(self) -> bool:
        """Whether every embedding has length 1, up to the rounding of :attr:`dtype`."""
        return self.vectors.normalised

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
        return {name: value_at(values, row) for name, values in self.metadata.items()}

    def find(self, ids: Iterable[Any]) -> np.ndarray:
        """The rows of some ids, ``(n,)`` int64, in their order.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; the gallery does not hold one.
            TypeError: ``ids`` is one string.
        """
        return changes.find(self, ids)

    # Files -------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike, dtype: str | None = None) -> None:
        """Write the gallery as one safetensors file, under a temporary name and then renamed.

        Args:
            path: the file.
            dtype: ``'float32'``, ``'float16'`` (half the size) or ``'int8'`` (a quarter, with a
                scale for each row); by default as it is stored already.

        Raises:
            ValueError: the dtype is another one, or a value is too large for float16.
            OSError: it cannot be written, such as on a full disk; what was there before stays.
        """
        from .gallery_file import save_gallery
        save_gallery(self, path, dtype)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Gallery:
        """Open a gallery file or store, or saved vectors ``(N, D)`` as one.

        Vectors may be a tensor (``.pth``, ``.pt``; also what mmpretrain's ``dump_prototype``
        wrote), an array (``.npy``), or either with ids and labels in a dict or ``.npz``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        from .reading import load_gallery
        return load_gallery(path)

    def verify(self) -> None:
        """Read everything, and compare it with its checksums and with each other.

        Raises:
            DamagedError: a ``ValueError`` that names the file, the tensor and the bytes.
            ValueError: the parts are as they were written, and do not fit each other.
        """
        for opened in self._files:
            opened.verify()
        if self.identified:
            self._check_unique()
        for name in ('ids', 'labels'):
            if getattr(self, name) is not None:
                check_length(name, getattr(self, name), len(self))
        for name, values in self.metadata.items():
            check_length(f'metadata column {name!r}', values, len(self))

    # Changes: each a new gallery, in memory ----------------------------------------------------

    def subset(self, rows: Any) -> Gallery:
        """The rows with these numbers, or those where a mask ``(N,)`` is True, in that order.

        Raises:
            IndexError: there is no such row.
            ValueError: none is left, one is named twice, or the mask has another length.
        """
        return changes.subset(self, rows)

    def filter(self, keep: Any = None, **columns: Any) -> Gallery:
        """The rows that pass a test.

        Args:
            keep: a mask ``(N,)`` bool, or a function of a row's description (``id``, ``label``
                by name, and its metadata) to bool.
            columns: a value, or a list of values, that a metadata column, ``id`` or ``label``
                must have.

        Raises:
            ValueError: there is no such column, or no row is left.
        """
        return changes.filtered(self, keep, columns)

    def split(self, by: Any) -> dict[Any, Gallery]:
        """A gallery for each value of a column.

        Args:
            by: a metadata column, ``'label'`` (by name), or a value for each row ``(N,)``.

        Raises:
            ValueError: there is no such column, or it has another length.
        """
        return changes.split(self, by)

    def chunks(self, rows: int) -> Iterator[Gallery]:
        """The gallery in parts of so many rows, in turn."""
        return (self.subset(np.arange(start, min(start + rows, len(self))))
                for start in range(0, len(self), rows))

    def add(self, other: Gallery) -> Gallery:
        """The rows of both. Raises ValueError as :meth:`merge` does."""
        return changes.merge([self, other])

    @staticmethod
    def merge(galleries: Sequence[Gallery]) -> Gallery:
        """The rows of several galleries after one another; labels are matched by their names.

        Raises:
            FingerprintError: a ``ValueError``; they were made by different models or pipelines.
            ValueError: an id stands in two of them, they have different widths or columns, or
                only some have ids, labels or label names.
        """
        return changes.merge(galleries)

    def update(self, other: Gallery) -> Gallery:
        """The rows of ``other`` in place of those with the same ids.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in this gallery.
            ValueError: as for :meth:`merge`.
        """
        return changes.update(self, other)

    def remove(self, ids: Iterable[Any]) -> Gallery:
        """The rows without those of some ids.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in this gallery.
            ValueError: an id is given twice, or no row is left.
        """
        return changes.remove(self, ids)

    def _check_unique(self) -> None:
        twice = self.ids.first_repeated()
        if twice is not None:
            raise ValueError(f'The id {twice!r} occurs twice in the gallery. An id stands for one '
                             'picture: give each row an id (`sample_id`) of its own.')

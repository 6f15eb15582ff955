"""The gallery: embeddings that queries are searched in, and what is known of each."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import same_length, some_of, unique_names
from ..labels import names_in, written
from ..registry import unknown_name
from ..string_column import StringColumn
from ..structures import as_labels
from ..tensor_file import Container
from . import columns
from .columns import Column, LazyColumns, column, string_column, value_at
from .file import Contents, write_gallery_file
from .filters import parse_filter
from .fingerprint import Fingerprint, FingerprintError
from .open import open_path, readable
from .vectors import ArrayVectors, JoinedVectors, Vectors, checked_embeddings, checked_shape


class UnknownIdError(KeyError, ValueError):
    """Ids that a gallery does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])


class Gallery:
    """Embeddings, and what is known of each.

    A gallery that was opened from a file reads, checks and decodes a part when it is first
    asked for.

    Args:
        embeddings: ``(N, D)`` floating point, finite, at least one row; used as float32. Or
            :class:`Vectors`, which keep them as float16 or int8.
        ids: a unique string for each row. Without it the rows are numbered and :attr:`identified`
            is False: no query is then taken for one of them.
        labels: classes, ``(N,)`` integers or names, or None.
        label_names: the name of class i at place i, or None; of names, all of them in their
            order, unless they are given.
        metadata: further columns of N strings or numbers by name.
        fingerprint: which encoder and pipeline made it.
        source: how it was made: ``config`` (its text, for reading), ``settings`` (the part of it
            that a search needs, as JSON text), ``config_file``, ``checkpoint``, ``versions``; plain
            JSON.
        skipped: images that could not be read, id by reason.
        similarity: the name of the similarity that the embeddings are meant for, or None.

    Raises:
        ValueError: it is empty, non-finite, or a column has another length; an id occurs twice.
        TypeError: the embeddings are no array or tensor of floating-point numbers.

    Example:
        >>> gallery = Gallery(np.eye(3), ids='abc', labels=[0, 1, 1], label_names=['cat', 'dog'])
        >>> gallery.add(Gallery(np.ones((1, 3)), 'd', [0], ['dog'])).split('label')
        {'cat': Gallery(1 x 3, float32, labels=True), 'dog': Gallery(3 x 3, float32, labels=True)}
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
            self._embeddings = checked_embeddings(embeddings)
            self._shape = checked_shape(self._embeddings.shape)
        self._later: Mapping[str, Callable[[], Any]] = {}
        self._files: tuple[Container, ...] = ()
        self.identified = ids is not None
        if ids is not None:
            self.ids = string_column(ids)
        self.label_names = None if label_names is None else [str(name) for name in label_names]
        self.labels = None if labels is None else self._numbered(labels)
        self.metadata: Mapping[str, Column] = {
            name: column(values) for name, values in (metadata or {}).items()}
        self._set_facts(fingerprint, source, skipped, similarity)
        self._check_columns()

    def _set_facts(self, fingerprint: Fingerprint | None, source: Mapping[str, Any] | None,
                   skipped: Mapping[str, str] | None, similarity: str | None) -> None:
        self.fingerprint = fingerprint or Fingerprint()
        self.source: dict[str, Any] = dict(source or {})
        self.skipped: dict[str, str] = dict(skipped or {})
        self.similarity = similarity

    def _numbered(self, labels: Any) -> Tensor:
        """Labels as numbers; where they are names, by their places in :attr:`label_names`."""
        names = names_in(labels, 'gallery labels')
        if names is None:
            return as_labels(labels, 'gallery labels')
        if self.label_names is None:
            self.label_names = sorted(set(names))
        number = {written(name): label for label, name in enumerate(self.label_names)}
        for row, name in enumerate(names):
            if name not in number:
                raise ValueError(f'The label {name!r} of row {row} is none of label_names, '
                                 f'{some_of(self.label_names)}: leave them out, or name all.')
        return torch.tensor([number[name] for name in names], dtype=torch.int64)

    def _check_columns(self) -> None:
        """Raise ValueError where a column has another length, or an id occurs twice."""
        same_length('labels', self.labels, len(self), 'embeddings')
        for name, values in self.metadata.items():
            same_length(f'metadata column {name!r}', values, len(self), 'embeddings')
        if not self.identified:
            return
        same_length('ids', self.ids, len(self), 'embeddings')
        twice = self.ids.first_repeated()
        if twice is not None:
            raise ValueError(f'The id {twice!r} occurs twice in the gallery. An id stands for one '
                             'picture: give each row an id (`sample_id`) of its own.')

    @classmethod
    def opened(cls, contents: Contents) -> Gallery:
        """A gallery in files, whose columns are read when they are first asked for."""
        gallery = cls.__new__(cls)
        gallery.vectors, gallery._shape = contents.vectors, checked_shape(contents.vectors.shape)
        gallery._later, gallery._files = contents.columns, contents.files
        gallery.identified = 'ids' in contents.columns
        gallery.metadata = LazyColumns(contents.metadata)
        gallery._set_facts(*(contents.facts[name] for name in (
            'fingerprint', 'source', 'skipped', 'similarity')))
        return gallery

    # What it holds -----------------------------------------------------------------------------

    @cached_property
    def vectors(self) -> Vectors:
        """The embeddings as they are stored."""
        return ArrayVectors(self._embeddings.cpu().contiguous().numpy())

    @property
    def embeddings(self) -> Tensor:
        """``(N, D)`` float32; of a float32 file a view, else decoded when first asked for.

        Raises:
            DamagedError: a ``ValueError``; the file is damaged, or was cut short while it is open.
        """
        for opened in self._files:
            opened.check_size()
        return self._embeddings

    @embeddings.setter
    def embeddings(self, rows: Tensor) -> None:
        self._embeddings = rows

    @cached_property
    def _embeddings(self) -> Tensor:
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
        """True where every embedding has length 1, up to the rounding of :attr:`dtype`."""
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
        names = unique_names(ids)
        rows = self.ids.find(names)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise unknown_ids([names[place] for place in missing], self.ids)
        return rows

    # Files -------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], dtype: str | None = None) -> str:
        """Write the gallery as one safetensors file, under a temporary name and then renamed.

        Args:
            path: the file.
            dtype: ``'float32'``, ``'float16'`` (half the size) or ``'int8'`` (a quarter, with a
                scale for each row); by default as it is stored already.

        Returns:
            The file's checksum.

        Raises:
            ValueError: the dtype is another one, or a value is too large for float16.
            OSError: it cannot be written, such as on a full disk; what was there before stays.
        """
        names = self.label_names
        held = dict(ids=self.ids if self.identified else None, labels=self.labels,
                    label_names=None if names is None else StringColumn.from_strings(names))
        return write_gallery_file(path, self.dtype if dtype is None else dtype, self.vectors,
                                  held, self.metadata, self._facts())

    @classmethod
    def load(cls, path: str | os.PathLike[str], copy: bool = False) -> Gallery:
        """Open a gallery file or store, or saved vectors ``(N, D)`` as one.

        Vectors may be a tensor (``.pth``, ``.pt``; also what mmpretrain's ``dump_prototype``
        wrote), an array (``.npy``), or either with ids and labels in a dict or ``.npz``.

        Args:
            path: the file, or the folder of a store.
            copy: read everything now instead of mapping it. What then happens to the files, such as
                being overwritten in place, does not matter, as a server wants it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or holds something else.
        """
        found = open_path(path, copy)
        if isinstance(found, Contents):
            return cls.opened(found)
        with readable(path):
            return cls(**found)

    def verify(self) -> None:
        """Read everything, and compare it with its checksums and with each other.

        Raises:
            DamagedError: a ``ValueError`` that names the file, the tensor and the bytes.
            ValueError: the parts are as they were written, and do not fit each other.
        """
        for opened in self._files:
            opened.verify()
        self._check_columns()

    # Changes: each a new gallery, in memory ----------------------------------------------------

    def subset(self, rows: Any) -> Gallery:
        """The rows with these numbers, or those where a mask ``(N,)`` is True, in that order.

        Raises:
            IndexError: there is no such row.
            ValueError: none is left, one is named twice, or the mask has another length.
        """
        chosen = _row_numbers(rows, len(self))
        if not len(chosen):
            raise ValueError('No row is left, and a gallery cannot be empty.')
        return Gallery(self.vectors.take(chosen),
                       self.ids.take(chosen) if self.identified else None,
                       **with_rows(self._columns(), chosen))

    def _facts(self) -> dict[str, Any]:
        return dict(fingerprint=self.fingerprint, source=self.source, skipped=self.skipped,
                    similarity=self.similarity)

    def _columns(self) -> dict[str, Any]:
        return dict(self._facts(), labels=self.labels, label_names=self.label_names,
                    metadata=self.metadata)

    def filter(self, keep: Any = None, **wanted: Any) -> Gallery:
        """The rows that pass a test.

        Args:
            keep: a filter as text (:mod:`retrieval.gallery.filters`), a mask ``(N,)`` bool, or a
                function of a row's description (``id``, ``label`` by name, and its metadata) to
                bool.
            wanted: a value, or a list of values, that a metadata column, ``id`` or ``label``
                must have.

        Raises:
            ValueError: there is no such column, or no row is left.
        """
        mask = np.ones(len(self), dtype=bool)
        for name, values in wanted.items():
            try:
                mask &= columns.equal_to(self._named_column(name), values)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from error
        if isinstance(keep, str):
            keep = self.where(keep)
        if callable(keep):
            keep = np.fromiter((bool(keep(dict(self.describe(row), id=self.ids[row],
                                               label=self.label_name(row))))
                                for row in range(len(self))), dtype=bool, count=len(self))
        if keep is not None:
            given = np.asarray(keep)
            if given.dtype != bool or given.shape != mask.shape:
                raise ValueError(f'keep must be a function or a mask ({len(self)},) of booleans, '
                                 f'got {given.dtype} of shape {given.shape}.')
            mask &= given
        return self.subset(mask)

    def where(self, text: str) -> np.ndarray:
        """The rows that a filter as text lets through, ``(N,)`` bool, as ``filter=`` of an index
        takes it; see :mod:`retrieval.gallery.filters`.

        Raises:
            ValueError: it cannot be read, names no column, or compares one with what is none of
                its type.

        Example:
            >>> gallery = Gallery(np.eye(3), metadata=dict(price=[5, 30, 12], brand=list('aba')))
            >>> gallery.where('price<20 and brand in (a, c)').tolist()
            [True, False, True]
        """
        return parse_filter(text).mask(self._named_column)

    def _named_column(self, name: str) -> Column:
        """The column of that name; ``id``, and ``label`` by the names of the classes."""
        if name in self.metadata:
            return self.metadata[name]
        if name == 'id':
            return self.ids
        if name == 'label' and self.labels is not None:
            if self.label_names is None:
                return self.labels
            names = self.label_names
            return string_column(names[label] if 0 <= label < len(names) else label
                                 for label in self.labels.tolist())
        valid = [*self.metadata, 'id', *(['label'] if self.labels is not None else [])]
        raise ValueError(unknown_name('column of the gallery', name, valid))

    def split(self, by: Any) -> dict[Any, Gallery]:
        """A gallery for each value of a column.

        Args:
            by: a metadata column, ``'label'`` (by name), or a value for each row ``(N,)``.

        Raises:
            ValueError: there is no such column, or it has another length.
        """
        values = self._named_column(by) if isinstance(by, str) else by
        listed = values.tolist() if isinstance(values, (Tensor, np.ndarray)) else list(values)
        if len(listed) != len(self):
            raise ValueError(f'There are {len(listed)} values to split {len(self)} rows by: give '
                             'one for each row.')
        rows: dict[Any, list[int]] = {}
        for row, value in enumerate(listed):
            rows.setdefault(value, []).append(row)
        return {value: self.subset(of_it) for value, of_it in rows.items()}

    def chunks(self, rows: int) -> Iterator[Gallery]:
        """The gallery in parts of so many rows, in turn."""
        return (self.subset(np.arange(start, min(start + rows, len(self))))
                for start in range(0, len(self), rows))

    def add(self, other: Gallery) -> Gallery:
        """The rows of both. Raises ValueError as :meth:`merge` does."""
        return Gallery.merge([self, other])

    @staticmethod
    def merge(galleries: Sequence[Gallery]) -> Gallery:
        """The rows of several galleries after one another; labels are matched by their names.

        Raises:
            FingerprintError: a ``ValueError``; they were made by different models or pipelines.
            ValueError: an id stands in two of them, they have different widths or columns, or
                only some have ids, labels or label names.
        """
        galleries = list(galleries)
        if not galleries:
            raise ValueError('There is no gallery to merge: give at least one.')
        if len({gallery.identified for gallery in galleries}) == 2:
            raise ValueError('Some of the galleries have ids and some have not: give all rows ids.')
        ids = None
        if galleries[0].identified:
            ids = StringColumn.joined([gallery.ids for gallery in galleries])
        return Gallery(JoinedVectors([(gallery.vectors, None) for gallery in galleries]), ids,
                       **together(galleries))

    def update(self, other: Gallery) -> Gallery:
        """The rows of ``other`` in place of those with the same ids.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in this gallery.
            ValueError: as for :meth:`merge`.
        """
        check_identified(self)
        check_identified(other)
        # of the rows of both after one another, those of `other` in the places of the replaced ones
        place = np.arange(len(self))
        place[self.find(other.ids)] = len(self) + np.arange(len(other))
        vectors = JoinedVectors([(self.vectors, None), (other.vectors, None)]).take(place)
        both = together([self, other])
        return Gallery(vectors, self.ids, **{**with_rows(both, place), 'skipped': self.skipped})

    def remove(self, ids: Iterable[Any]) -> Gallery:
        """The rows without those of some ids.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in this gallery.
            ValueError: an id is given twice, or no row is left.
        """
        check_identified(self)
        stay = np.ones(len(self), dtype=bool)
        stay[self.find(ids)] = False
        return self.subset(stay)


def unknown_ids(names: Sequence[str], held: Sequence[str]) -> UnknownIdError:
    """The error for ids that are not among those that are held."""
    example = f' Its ids look like {held[0]!r}.' if len(held) else ''
    return UnknownIdError(f'The gallery does not hold {some_of(names)}; nothing was '
                          f'changed.{example}')


def check_identified(gallery: Gallery) -> None:
    """Raise ValueError where a gallery's rows have no ids."""
    if not gallery.identified:
        raise ValueError('The gallery has no ids, so that a row cannot be named: give '
                         'Gallery(embeddings, ids=…), or choose rows by number with subset.')


def with_rows(arguments: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Arguments of a gallery, of whose labels and metadata only these rows are left."""
    labels = arguments['labels']
    return dict(arguments, labels=None if labels is None else columns.take(labels, rows),
                metadata={name: columns.take(values, rows)
                          for name, values in arguments['metadata'].items()})


def together(galleries: Sequence[Gallery]) -> dict[str, Any]:
    """The arguments, but embeddings and ids, of a gallery with the rows of several in turn.

    Labels are matched by their names. A fingerprint or similarity that one gallery does not know
    is taken from another.

    Raises:
        FingerprintError: a ``ValueError``; they were made by different models or pipelines.
        ValueError: they have different widths, similarities or columns, or only some have labels
            or label names.
    """
    fingerprint, similarity = _agreed(galleries)
    labels, names = _joined_labels(galleries)
    first = galleries[0]
    for other in galleries[1:]:
        differing = sorted(set(first.metadata) ^ set(other.metadata))
        if differing:
            raise ValueError('The galleries have different metadata columns: '
                             f'{some_of(differing)} stand only in one. Give all the same columns.')
    return dict(
        labels=labels, label_names=names, fingerprint=fingerprint, source=first.source,
        metadata={name: columns.joined([gallery.metadata[name] for gallery in galleries], name)
                  for name in first.metadata},
        skipped={name: why for gallery in galleries for name, why in gallery.skipped.items()},
        similarity=similarity)


def _agreed(galleries: Sequence[Gallery]) -> tuple[Fingerprint, str | None]:
    """The fingerprint and similarity of rows that are put together."""
    fingerprint, similarity = galleries[0].fingerprint, galleries[0].similarity
    for other in galleries[1:]:
        if other.dim != galleries[0].dim:
            raise ValueError(f'One gallery has embeddings of width {galleries[0].dim} and another '
                             f'of width {other.dim}: both must come from one encoder.')
        different = fingerprint.differences(other.fingerprint)
        if different:
            raise FingerprintError(
                f'The galleries were made by different models or pipelines: '
                f'{" and ".join(different)} differ, so their embeddings cannot stand in one '
                'gallery. Encode all images with one model.')
        if similarity and other.similarity and similarity != other.similarity:
            raise ValueError(f'One gallery is meant for {similarity} and another for '
                             f'{other.similarity}.')
        fingerprint = fingerprint.completed(other.fingerprint)
        similarity = similarity or other.similarity
    return fingerprint, similarity


def _joined_labels(galleries: Sequence[Gallery]) -> tuple[Tensor | None, list[str] | None]:
    """The labels of all rows, and their names: those of the first gallery, then new ones."""
    labels, names = [g.labels for g in galleries], [g.label_names for g in galleries]
    for what, given in (('labels', labels), ('label names', names)):
        if any(value is None for value in given) and any(value is not None for value in given):
            raise ValueError(f'Some of the galleries have {what} and some have not: give all of '
                             'them, or none.')
    if labels[0] is None or names[0] is None:
        joined = None if labels[0] is None else torch.cat([part.cpu() for part in labels])  # type: ignore
        return joined, names[0]
    every = list(names[0])
    number: dict[str, int] = {}
    for label, name in enumerate(every):
        number.setdefault(name, label)
    parts = []
    for place, (own, texts) in enumerate(zip(labels, names, strict=True)):
        for name in texts or ():
            if name not in number:
                number[name] = len(every)
                every.append(name)
        new = range(len(every)) if place == 0 else [number[name] for name in texts or ()]
        parts.append(torch.from_numpy(_renumbered(own.cpu().numpy(), new)))  # type: ignore
    return torch.cat(parts), every


def _renumbered(labels: np.ndarray, number: Sequence[int]) -> np.ndarray:
    if len(labels) and not 0 <= labels.min() <= labels.max() < max(len(number), 1):
        raise ValueError(f'A label goes from {labels.min()} to {labels.max()}, and there are '
                         f'{len(number)} label names: give each class a name.')
    return np.array(number, dtype=np.int64)[labels]


def _row_numbers(rows: Any, count: int) -> np.ndarray:
    array = rows.cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    if array.dtype == bool:
        if array.shape != (count,):
            raise ValueError(f'A mask must have one entry for each of {count} rows, got the shape '
                             f'{array.shape}.')
        return np.flatnonzero(array)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in 'iu'):
        raise ValueError('rows must be row numbers (n,) or a mask (N,) of booleans, got '
                         f'{array.dtype} of shape {array.shape}.')
    chosen = array.astype(np.int64)
    if len(chosen) and not -count <= chosen.min() <= chosen.max() < count:
        raise IndexError(f'The gallery has {count} rows; the rows asked for go from '
                         f'{chosen.min()} to {chosen.max()}.')
    chosen = np.where(chosen < 0, chosen + count, chosen)
    if len(np.unique(chosen)) != len(chosen):
        raise ValueError('A row is asked for twice, and an id stands for one row.')
    return chosen

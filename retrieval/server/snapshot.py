"""One state of what is served: a gallery, its index, and the columns that one filters by."""
from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..gallery import Gallery
from ..gallery.filters import parse_filter
from ..labels import whole_number_in
from ..registry import unknown_name
from ..similarity import normalize
from .facts import PictureFacts
from .served import Served
from .shared_index import SharedRows

_DATE = re.compile(r'\d{4}-\d\d(-\d\d([ T].*)?)?')
_MOST_VALUES = 200  # of a facet that are listed
_TEXT_SHARE = 0.5  # a column of more different texts than this names rows, and is no facet


@dataclass
class Column:
    """A column to filter by.

    Args:
        kind: ``'text'``, ``'number'`` or ``'date'``.
        values: one a row: text (dates as ``2024-05-31``, unknown as empty) or numbers.
    """

    kind: str
    values: np.ndarray

    @cached_property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """What is counted (texts, the months of dates, numbers as text), and which of these each
        row has, ``(N,)`` int64.
        """
        values = self.values.astype('<U7') if self.kind == 'date' else self.values
        names, codes = np.unique(values, return_inverse=True)
        return names.astype(str), codes

    def counts(self, rows: np.ndarray | None = None) -> list[dict[str, Any]]:
        """The most frequent values of some rows, or of all, each with its count."""
        names, codes = self.groups
        counts = np.bincount(codes if rows is None else codes[rows], minlength=len(names))
        best = np.argsort(-counts, kind='stable')[:_MOST_VALUES + 1]
        return [dict(value=value, count=count) for value, count in
                zip(names[best].tolist(), counts[best].tolist(), strict=True)
                if count and value][:_MOST_VALUES]

    def passing(self, wanted: Any, name: str) -> np.ndarray:
        """``(N,)`` bool: the rows that a filter lets through.

        Args:
            wanted: a list of values, or ``{min, max}``, of which one may be missing.
            name: of the column, for the message.

        Raises:
            ValueError: it is neither, or the bounds are no numbers.
        """
        if isinstance(wanted, Mapping) and wanted and set(wanted) <= {'min', 'max'}:
            mask = np.ones(len(self.values), dtype=bool)
            for bound, value in wanted.items():
                if value is None:
                    continue
                values = self.values
                if self.kind == 'number':
                    try:
                        edge: Any = float(value)
                    except (TypeError, ValueError):
                        raise ValueError(f'The filter of {name!r} wants a number as {bound}, got '
                                         f'{value!r}.') from None
                else:
                    edge = str(value)  # a date that is cut to a month counts to the month's end
                    values = values.astype(f'<U{len(edge)}') if edge else values
                    mask &= self.values != ''
                mask &= values >= edge if bound == 'min' else values <= edge
            return mask
        if isinstance(wanted, (str, int, float)):
            wanted = [wanted]
        if not isinstance(wanted, Sequence):
            raise ValueError(f'The filter of {name!r} is a list of values or '
                             f'{{"min": …, "max": …}}, got {wanted!r}.')
        texts = list(map(str, wanted))
        if self.kind == 'date':
            found = np.zeros(len(self.values), dtype=bool)
            for text in texts:
                found |= np.char.startswith(self.values.astype(str), text)
            return found
        names, codes = self.groups
        return np.isin(names, texts)[codes]


class Snapshot:
    """What is searched from one change to the next; an answer comes from one of them.

    Args:
        served: the model. A copy of it, which shares the weights, holds the gallery.
        gallery: what is searched; None for the prototype that the model has already.
        handles: the number ``(N,)`` int64 under which each row is known to clients.
        generation: rises with every change.
        root: a folder that ids are shown relative to, or None.
        facts: what is known of the picture files.

    Attributes:
        projection: ``(D, E)`` float32, what embeddings are multiplied by, or None.
        width: of the embeddings before that.
        calibration: of the scores, or None.
    """

    def __init__(self, served: Served, gallery: Any, handles: np.ndarray, generation: int,
                 root: str | None, facts: PictureFacts) -> None:
        self.served, self.projection = served, served.projection
        self.width: int = served.gallery.dim
        self.calibration = None if self.projection is not None else served.calibration
        self.model = copy.copy(served.model)
        if gallery is not None:
            self.model.check_fingerprint = False  # it was, when the gallery was opened
            self.model.prototype = gallery
            self.model.prepare_prototype()
        self.plain = self.model
        if self.model.rerankers:
            self.plain = copy.copy(self.model)
            self.plain.rerankers = []
        self.gallery: Any = self.model.gallery
        if isinstance(served.gallery, SharedRows):
            self.gallery = served.gallery
        self.handles, self.generation, self.root, self.facts = handles, generation, root, facts
        self._columns: tuple[int, dict[str, Column]] = (-1, {})
        self._facets: tuple[Any, list[dict[str, Any]]] = (None, [])

    def __len__(self) -> int:
        return len(self.gallery)

    def vectors(self, rows: Sequence[int]) -> torch.Tensor:
        """The embeddings ``(n, D)`` float32 of rows, on the CPU.

        Raises:
            ValueError: an index alone is served, which gives none back.
        """
        index = getattr(self.gallery, 'index', None)  # of an index alone
        if index is not None:
            found = index.reconstruct(rows).cpu()
            if isinstance(self.gallery, SharedRows):
                self.gallery.check()
            return found
        return self.gallery.embeddings[list(rows)].float().cpu()

    # Names and numbers ---------------------------------------------------------------------------

    @cached_property
    def ids(self) -> list[str]:
        """The ids as the gallery has them."""
        return list(self.gallery.ids)

    @cached_property
    def row_of_handle(self) -> dict[int, int]:
        """The row of the gallery by the number that clients know."""
        return {handle: row for row, handle in enumerate(self.handles.tolist())}

    @cached_property
    def row_of_name(self) -> dict[str, int]:
        """The row of the gallery by the id that clients know."""
        return {self.name(row): row for row in range(len(self))}

    def name(self, row: int) -> str:
        """The id of a row as clients see it, relative to the folder."""
        return shown_name(self.ids[row], self.root)

    # Columns -------------------------------------------------------------------------------------

    @property
    def columns(self) -> dict[str, Column]:
        """The columns to filter by; those from the picture files grow while these are read."""
        version = self.facts.version
        if self._columns[0] != version:
            self._columns = (version, {**self._own_columns, **self._file_columns()})
        return self._columns[1]

    @cached_property
    def _own_columns(self) -> dict[str, Column]:
        """Label, folder and metadata."""
        found: dict[str, Column] = {}
        if self.gallery.labels is not None:
            labels = self.gallery.labels.cpu().numpy()
            first = np.unique(labels, return_index=True)
            names = [self.gallery.label_name(row) or '' for row in first[1].tolist()]
            found['label'] = Column('text', np.array(names)[np.searchsorted(first[0], labels)])
        folders = np.array([os.path.dirname(self.name(row)) for row in range(len(self))])
        if (folders != '').any():
            found['folder'] = Column('text', folders)
        for name, values in self.gallery.metadata.items():
            one = _as_column(values)
            if one is not None:
                found[name] = one
        return found

    def _file_columns(self) -> dict[str, Column]:
        """Date and camera, where pictures say them."""
        found: dict[str, Column] = {}
        known = [self.facts.known(name) for name in self.ids] if self.facts.any else []
        for name, kind in (('date', 'date'), ('camera', 'text')):
            values = np.array([(getattr(fact, name) or '') if fact else '' for fact in known] or '')
            if (values != '').any() and name not in self._own_columns:
                found[name] = Column(kind, values)
        return found

    def facets(self, rows: np.ndarray | None = None) -> list[dict[str, Any]]:
        """The columns with the counts of their values in some rows, or in all."""
        columns = self.columns
        if rows is not None:
            return [dict(name=name, kind=column.kind, values=column.counts(rows))
                    for name, column in columns.items()]
        if self._facets[0] is not columns:
            self._facets = (columns, self.facets(np.arange(len(self))))
        return self._facets[1]

    def mask(self, wanted: Mapping[str, Any] | str) -> np.ndarray | None:
        """``(N,)`` bool: the rows that pass a filter; None where there is none.

        Args:
            wanted: what each column must have, see :meth:`Column.passing`; or a filter as text
                over these columns, the gallery's and ``id`` (:mod:`retrieval.gallery.filters`).

        Raises:
            ValueError: there is no such column, or its filter cannot be read.
        """
        if not wanted:
            return None
        if isinstance(wanted, str):
            return parse_filter(wanted).mask(self._held)
        mask, columns = np.ones(len(self), dtype=bool), self.columns
        for name, values in wanted.items():
            if name not in columns:
                raise ValueError(unknown_name('field to filter by', name, columns))
            mask &= columns[name].passing(values, name)
        return mask


    def _held(self, name: str) -> Any:
        """A column by its name, as a filter as text takes it."""
        if name in self.columns:
            return self.columns[name].values
        if name == 'id':
            return np.array([self.name(row) for row in range(len(self))])
        if name in self.gallery.metadata:  # one that names rows, and is no facet
            return self.gallery.metadata[name]
        raise ValueError(unknown_name('field to filter by', name,
                                      {*self.columns, 'id', *self.gallery.metadata}))


def _as_column(values: Any) -> Column | None:
    """A column of the gallery; None where its values name the rows."""
    if isinstance(values, torch.Tensor):
        values = values.cpu().numpy()
    if isinstance(values, np.ndarray) and values.dtype.kind in 'iufb':
        return Column('number', values)
    texts = np.array(list(map(str, values)))
    filled = [text for text in texts.tolist() if text]
    if filled and all(_DATE.fullmatch(text) for text in filled):
        return Column('date', texts)
    if filled and all(whole_number_in(text) is not None for text in texts.tolist()):
        return Column('number', texts.astype(np.int64))
    if len(set(filled)) > max(50, _TEXT_SHARE * len(texts)):
        return None
    return Column('text', texts)


def shown_name(name: str, root: str | None) -> str:
    """An id as clients see it, relative to a folder that ends in a slash, or None.

    Example:
        >>> shown_name('/a/b/c.png', '/a/')
        'b/c.png'
    """
    if root is not None and name.startswith(root):
        name = name[len(root):]
    if name.isascii():
        return name
    return name.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def display_root(gallery: Any) -> str | None:
    """The folder that all ids of a gallery are in, with a slash; None where they are no paths.

    Example:
        >>> display_root(Gallery(np.eye(2), ['/a/b/c/1.png', '/a/b/d/2.png']))
        '/a/b/'
    """
    ids: Sequence[str] = gallery.ids
    if not len(ids) or not all(name.startswith('/') for name in ids):
        return None
    common = os.path.commonpath({os.path.dirname(name) for name in ids})
    return common.rstrip('/') + '/'


def handles_of(gallery: Any, known: dict[str, int]) -> np.ndarray:
    """The number ``(N,)`` int64 of every row of a gallery; ids that are new get the next ones.

    Example:
        >>> handles_of(Gallery(np.eye(2), 'ba'), {'a': 0}).tolist()
        [1, 0]
    """
    return np.array([known.setdefault(name, len(known)) for name in gallery.ids], dtype=np.int64)


def projected(gallery: Gallery, projection: torch.Tensor) -> Gallery:
    """A gallery whose embeddings are multiplied by a projection ``(D, E)``, at length 1."""
    vectors = normalize(gallery.embeddings @ projection)
    return Gallery(vectors, gallery.ids, gallery.labels, gallery.label_names, gallery.metadata,
                   skipped=gallery.skipped, similarity=gallery.similarity)

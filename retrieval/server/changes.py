"""Rows that clients add, replace and remove: all of a batch or none."""
from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import write_bytes
from ..gallery import Gallery
from ..image_files import EXTENSIONS, open_image
from .service import Query, Service

Item = dict[str, Any]


class NotWritableError(RuntimeError):
    """What is served cannot be changed in this way."""


class ReadOnlyError(NotWritableError):
    """The server changes nothing."""


class Changes:
    """Changes of the folder or the store that a service serves.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._writing = threading.Lock()

    def check_writable(self) -> None:
        """Raise ReadOnlyError where nothing may be changed."""
        if self.service.read_only:
            raise ReadOnlyError('The server was started with --read-only.')

    def _check_one_model(self) -> None:
        if self.service.source.folder is None and self.service.served.mixture is not None:
            raise NotWritableError('Two stores are searched as one, and a row is of one of them: '
                                   'use the new or the old model, and change its store then.')

    def add(self, items: Sequence[Item], replace: bool = False) -> list[str]:
        """Add rows, all or none; when it returns they are on the disk and found by searches.

        Args:
            items: each with ``id``, a ``vector`` or the bytes of a ``picture``, and, where the
                gallery has them, ``label`` and ``metadata``. Into a folder go pictures alone, as
                files of that name.
            replace: rows of the same ids are replaced; else they are refused.

        Returns:
            The ids.

        Raises:
            NotWritableError: it is neither a folder nor a store, or is read-only.
            ValueError: an id is there already, or an item does not fit.
            UnreadableImageError: a picture is none.
        """
        self.check_writable()
        source = self.service.source
        if not items:
            raise ValueError('There is nothing to add: give items, or pictures.')
        ids = [checked_id(item.get('id'), source.folder is not None) for item in items]
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f'The id {twice!r} is given twice.')
        with self._writing:
            if source.folder is not None:
                self._add_files(source.folder, ids, items, replace)
            elif self.service.served.store is not None:
                self._add_rows(ids, items, replace)
            else:
                self._check_one_model()
                raise NotWritableError('Only a folder or a store is changed: serve a folder of '
                                       'pictures, or a store, NAME.gallery.')
            self.service.refresh()
        return ids

    def _add_files(self, folder: str, ids: list[str], items: Sequence[Item],
                   replace: bool) -> None:
        targets = [Path(folder, name) for name in ids]
        for name, target, item in zip(ids, targets, items, strict=True):
            if item.get('picture') is None or item.get('label') or item.get('metadata'):
                raise ValueError('What is added to a folder is a picture: its label is the folder '
                                 'it lies in, and vectors go into a store.')
            if not name.lower().endswith(EXTENSIONS):
                raise ValueError(f'{name!r} has no ending of a picture, such as .jpg.')
            with open_image(name, self.service.uploads.max_pixels, item['picture']) as (image, _):
                image.load()
            if target.exists() and not replace:
                raise ValueError(f'There is a picture {name!r} already: give replace=true.')
        before = [target.read_bytes() if target.exists() else None for target in targets]
        written = 0
        try:
            for target, item in zip(targets, items, strict=True):
                write_bytes(target, item['picture'])
                written += 1
        except OSError:
            for target, data in zip(targets[:written], before, strict=False):
                target.unlink() if data is None else write_bytes(target, data)
            raise

    def _add_rows(self, ids: list[str], items: Sequence[Item], replace: bool) -> None:
        service = self.service
        store, like, snapshot = service.served.store, service.own_gallery, service.current()
        assert store is not None
        # an id as clients see it may stand for one with a folder before it
        names = [snapshot.ids[snapshot.row_of_name[one]] if one in snapshot.row_of_name else one
                 for one in ids]
        there = [one for one, row in zip(ids, like.ids.find(names), strict=True) if row >= 0]
        if there and not replace:
            raise ValueError(f'There is a row {there[0]!r} already: give replace=true.')
        _check_columns(like, items)
        labels: Any = None
        if like.labels is not None:
            labels = [str(item['label']) if like.label_names is not None else item['label']
                      for item in items]
        new = Gallery(self._vectors(items, like.dim), names, labels,
                      metadata={column: [item['metadata'][column] for item in items]
                                for column in like.metadata},
                      fingerprint=like.fingerprint, similarity=like.similarity)
        store.update(new, add_missing=True)
        for name, item in zip(names, items, strict=True):
            if item.get('picture') is not None:
                service.pictures.keep(name, item['picture'])
            else:
                service.pictures.forget(name)

    def _vectors(self, items: Sequence[Item], width: int) -> Tensor:
        """The embeddings ``(n, D)`` of items."""
        uploads = self.service.uploads
        for item in items:
            if (item.get('vector') is None) == (item.get('picture') is None):
                raise ValueError(f'The item {item["id"]!r} wants either a vector or a picture.')
            if item.get('vector') is not None and len(item['vector']) != width:
                raise ValueError(f'The vector of {item["id"]!r} has {len(item["vector"])} numbers, '
                                 f'and the store {width}.')
        paths = [str(uploads.path(uploads.add(item['picture'])[0])) for item in items
                 if item.get('picture') is not None]
        encoded = iter(self.service.encoder.many(paths) if paths else ())
        return torch.stack([torch.tensor(item['vector'], dtype=torch.float32)
                            if item.get('vector') is not None else next(encoded) for item in items])

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows by their ids, all or none; when it returns that is on the disk.

        Raises:
            NotWritableError: it is no store.
            UnknownRowError: there is no such id.
            ValueError: none is named, or all rows would go.
        """
        self.check_writable()
        source = self.service.source
        store = self.service.served.store
        if store is None:
            self._check_one_model()
            raise NotWritableError('Pictures are not deleted by the server: remove the file from '
                                   'the folder, and its row goes.' if source.folder else
                                   'Only a store is changed here: serve NAME.gallery.')
        if not ids:
            raise ValueError('There is nothing to remove: give ids.')
        with self._writing:
            snapshot = self.service.current()
            rows = {self.service.row_of(snapshot, Query(id=name)) for name in ids}
            if len(rows) >= len(snapshot):
                raise ValueError('No row would be left, and a gallery cannot be empty.')
            names = [snapshot.ids[row] for row in rows if row is not None]
            store.remove(names)
            for name in names:
                self.service.pictures.forget(name)
            self.service.refresh()


def _check_columns(like: Gallery, items: Sequence[Item]) -> None:
    """Raise ValueError where items have other labels or columns than a gallery."""
    columns = set(like.metadata)
    for item in items:
        if (item.get('label') is None) != (like.labels is None):
            raise ValueError(f'The item {item["id"]!r} '
                             + ('wants a label, as all rows of the store.' if like.labels is not
                                None else 'has a label, and the store none: leave it out.'))
        if like.labels is not None and like.label_names is None and not isinstance(
                item['label'], int):
            raise ValueError(f'The labels of the store are whole numbers, got {item["label"]!r}.')
        if set(item.get('metadata') or ()) != columns:
            raise ValueError(f'The metadata of {item["id"]!r} must have the columns of the store: '
                             f'{", ".join(sorted(columns)) or "none"}.')


def checked_id(name: Any, is_file: bool) -> str:
    """An id that a client gives a row: no path, so that it never names a file of the server.

    Args:
        name: the id.
        is_file: it is to be the name of a file below the folder; sub-folders are fine.

    Raises:
        ValueError: it is empty, too long, hidden, or leads elsewhere.

    Example:
        >>> checked_id('cats/1.jpg', True)
        'cats/1.jpg'
    """
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
        raise ValueError(f'An id is a printable text of 1 to 200 characters, got {name!r:.220}.')
    parts = name.split('/')
    if '\\' in name or not is_file and len(parts) > 1 or any(
            not part or part.startswith('.') for part in parts):
        raise ValueError(f'{name!r} is no name that can be added: give one without '
                         f'{"hidden or empty parts" if is_file else "slashes and leading dots"}.')
    return name

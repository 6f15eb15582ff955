"""A gallery on disk that grows: shards are added, removed rows are marked, until compacted."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import some_of, unique_names
from ..files import folder_lock, sync_folder
from ..string_column import StringColumn
from .fingerprint import Fingerprint
from .gallery import Gallery, check_identified, together, unknown_ids, with_rows
from .shards import (
    Shard,
    State,
    clean,
    is_foreign,
    is_store,
    open_shard,
    open_shards,
    open_state,
    read_state,
    removed_mask,
    write_removed,
    write_state,
)
from .vectors import check_dtype

MAX_SHARDS = 64


class GalleryStore:
    """A folder with a gallery in shards, which readers may open while one writer changes it.

    Every change is one step: a reader sees the state before it or after it, a process that is
    killed leaves one of both, and what a method has returned from is on the disk. A gallery
    that was loaded stays as it is; load again to see a change.

    Args:
        path: the folder, by convention ``name.gallery``.
        timeout: for how many seconds a change waits for another writer.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = GalleryStore.create(f'{folder}/x.gallery', Gallery(np.eye(2), ids='ab'))
        ...     store.append(Gallery(np.ones((1, 2)), ids='c'))
        ...     store.remove(['a'])
        ...     list(store.load().ids)
        ['b', 'c']
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = 10.0) -> None:
        self.path = Path(path)
        self.timeout = timeout

    @classmethod
    def create(cls, path: str | os.PathLike[str], gallery: Gallery | None = None,
               dtype: str = 'float32', timeout: float = 10.0) -> GalleryStore:
        """Make a store, empty or with its first rows; it appears whole.

        Args:
            path: a folder that is new or empty.
            gallery: the first rows, with ids.
            dtype: how embeddings are stored: ``'float32'``, ``'float16'`` or ``'int8'``.
            timeout: as in the constructor.

        Raises:
            FileExistsError: there is a store already, or a folder with something else.
            ValueError: the dtype is another one, or the gallery has no ids.
        """
        check_dtype(dtype)
        store = cls(path, timeout)
        if store.path.exists() and not store.path.is_dir():
            raise FileExistsError(f'{str(path)!r} is a file; a store is a folder.')
        store.path.mkdir(parents=True, exist_ok=True)
        if is_store(path) or is_foreign(store.path):
            raise FileExistsError(f'The folder {str(path)!r} '
                                  f'{"is a store already" if is_store(path) else "is not empty"}. '
                                  'Give a new folder, or open the store.')
        with folder_lock(store.path, timeout):
            if is_store(path):
                raise FileExistsError(f'Another process just made the store {str(path)!r}.')
            state = State(dtype=dtype)
            clean(store.path, state)
            write_state(store.path, state if gallery is None else store._appended(state, gallery))
            sync_folder(store.path.parent)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], timeout: float = 10.0) -> GalleryStore:
        """The store in a folder. A link is followed once, so that later a store, and not a name, is
        read and changed.

        Raises:
            FileNotFoundError: the folder is no store.
            DamagedError: a ``ValueError``; its manifest is damaged.
        """
        store = cls(os.path.realpath(path), timeout)
        read_state(store.path)
        return store

    def __len__(self) -> int:
        return self.state.rows

    def __repr__(self) -> str:
        state = self.state
        return f'GalleryStore({str(self.path)!r}, {state.rows} rows, {len(state.shards)} shards)'

    @property
    def state(self) -> State:
        """The state on the disk now."""
        return read_state(self.path)

    # Changes -----------------------------------------------------------------------------------

    def append(self, gallery: Gallery) -> None:
        """Add rows behind the others, as a new shard.

        Raises:
            ValueError: an id is in the store already; the gallery has no ids, another width, other
                columns, or (``FingerprintError``) another model or pipeline made it.
            TimeoutError: an ``OSError``; another writer does not end.
            OSError: it cannot be written, such as on a full disk. In each case nothing is changed.
        """
        self._change(lambda state: self._appended(state, gallery))

    def remove(self, ids: Iterable[Any]) -> None:
        """Mark the rows of some ids as removed.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in the store.
            TimeoutError, OSError: as for :meth:`append`.
        """
        names = unique_names(ids)
        self._change(lambda state: self._removed(state, names))

    def update(self, gallery: Gallery, add_missing: bool = False) -> None:
        """Replace the rows of the ids of a gallery; the new ones stand behind all others.

        Args:
            gallery: the new rows.
            add_missing: add those whose ids are not in the store yet, in the same step.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in the store.
            ValueError, TimeoutError, OSError: as for :meth:`append`.
        """
        check_identified(gallery)

        def change(state: State) -> State:
            names = list(gallery.ids)
            if add_missing:
                held = np.zeros(len(names), dtype=bool)
                for rows in self._places(state, gallery.ids):
                    held |= rows >= 0
                names = [names[place] for place in np.flatnonzero(held)]
            return self._appended(self._removed(state, names), gallery, like=state)
        self._change(change)

    def compact(self) -> None:
        """Write the rows that are left as one shard, and delete the others.

        Raises:
            TimeoutError, OSError: as for :meth:`append`; the store is as it was.
        """
        def change(state: State) -> State:
            if not state.rows or (len(state.shards) == 1 and not state.shards[0].removed):
                return state
            shard = self._write_shard(state, Gallery.opened(open_state(self.path, state)))
            return state.with_shards([shard])
        self._change(change)

    def _change(self, change: Callable[[State], State]) -> None:
        with folder_lock(self.path, self.timeout):
            state = read_state(self.path)
            clean(self.path, state)
            try:
                after = change(state)
                if after is not state:
                    write_state(self.path, after)
            finally:
                clean(self.path, read_state(self.path))

    def _appended(self, state: State, gallery: Gallery, like: State | None = None) -> State:
        """The state with a shard more; its rows must fit those of the state, or of ``like``."""
        check_identified(gallery)
        facts: dict[str, Any] = dict(
            dim=gallery.dim, fingerprint=gallery.fingerprint.as_dict(),
            similarity=gallery.similarity, source=gallery.source, skipped=gallery.skipped)
        for rows in self._places(state, gallery.ids):
            if (rows >= 0).any():
                there = [gallery.ids[int(place)] for place in np.flatnonzero(rows >= 0)]
                raise ValueError(f'The store holds {some_of(there)} already; nothing was '
                                 'added. Replace rows with update, or remove them first.')
        old = state if like is None else like
        if old.shards:
            both = together([self._example(old), gallery])
            facts = dict(fingerprint=both['fingerprint'].as_dict(),
                         similarity=both['similarity'], skipped=both['skipped'])
            own = with_rows(both, np.arange(1, len(gallery) + 1))
            gallery = Gallery(gallery.vectors, gallery.ids,
                              **{**own, 'source': gallery.source, 'skipped': gallery.skipped})
        shard = self._write_shard(state, gallery)
        return self._merged(state.with_shards([*state.shards, shard], **facts))

    def _places(self, state: State, names: StringColumn) -> Iterator[np.ndarray]:
        """For each shard the rows of some ids, ``(n,)`` int64, -1 where it does not hold one."""
        for shard in state.shards:
            rows = self._ids(shard).find(names)
            if shard.removed and (rows >= 0).any():
                rows[removed_mask(self.path, shard)[rows] & (rows >= 0)] = -1
            yield rows

    def _ids(self, shard: Shard) -> StringColumn:
        ids: StringColumn = open_shard(self.path, shard).columns['ids']()
        return ids

    def _example(self, state: State) -> Gallery:
        """One row of the store, with its columns, facts and all label names."""
        example = Gallery.opened(open_shard(self.path, state.shards[-1])).subset([0])
        example.fingerprint = Fingerprint.from_dict(state.facts['fingerprint'])
        example.similarity = state.facts['similarity']
        example.source, example.skipped = state.facts['source'], state.facts['skipped']
        return example

    def _merged(self, state: State) -> State:
        """The state; where there are many shards, with the last and smallest ones in one.

        A shard is rewritten with those behind it only when these are as large as it together, so
        that each row is rewritten a number of times that grows with the logarithm of the rows.
        """
        if len(state.shards) <= MAX_SHARDS:
            return state
        live = [shard.live for shard in state.shards]
        first = next(i for i in range(len(live)) if live[i] <= sum(live[i + 1:]))
        tail = Gallery.opened(open_state(self.path, replace(state, shards=state.shards[first:])))
        return state.with_shards([*state.shards[:first], self._write_shard(state, tail)])

    def _write_shard(self, state: State, gallery: Gallery) -> Shard:
        name = f'shard-{state.next_file:06d}.safetensors'
        return Shard(name, len(gallery), gallery.save(self.path / name, state.dtype))

    def _removed(self, state: State, names: list[str]) -> State:
        places = list(self._places(state, StringColumn.from_strings(names)))
        left = np.ones(len(names), dtype=bool)
        for rows in places:
            left &= rows < 0
        if left.any():
            missing = [names[place] for place in np.flatnonzero(left)]
            held = self._ids(state.shards[0]) if state.shards else ()
            raise unknown_ids(missing, held)
        shards, number = [], state.next_file
        for shard, rows in zip(state.shards, places, strict=True):
            if (rows >= 0).any():
                removed = removed_mask(self.path, shard)
                removed[rows[rows >= 0]] = True
                shard = replace(shard, removed=write_removed(self.path, number, removed))
                number += 1
            shards.append(shard)
        return replace(state.with_shards(shards), next_file=number)

    # Reading -----------------------------------------------------------------------------------

    def load(self, copy: bool = False) -> Gallery:
        """The rows as a gallery, read when they are used; with ``copy`` now, into memory.

        Raises:
            ValueError: the store is empty.
            DamagedError: a ``ValueError``; a file of it is damaged or missing.
        """
        return Gallery.opened(open_shards(self.path, copy))

    def export(self, path: str | os.PathLike[str], dtype: str | None = None) -> None:
        """Write the rows as one gallery file; see :meth:`Gallery.save`."""
        self.load().save(path, dtype)

    def verify(self) -> None:
        """Read every file and compare it with its checksums. Raises DamagedError."""
        if len(self):
            self.load().verify()

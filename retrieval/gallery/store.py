"""Shards of a store as one gallery, and a gallery as the next shard of a store.

The state of a gallery store: one manifest, which names the shards and their removed rows.

A store is a folder. ``manifest.json`` is replaced in one step, and it alone says what belongs to
the store; other files are of earlier states, or of a writer that did not come to its end.

A gallery on disk that grows: shards are added, removed rows are marked, until compacted.
"""
from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import LOCK_NAME, folder_lock, sync_folder, write_all, write_atomically
from ..tensor_file import DamagedError, StringColumn, digest
from . import columns
from . import gallery as changes
from .file import open_gallery, save_gallery
from .fingerprint import Fingerprint
from .gallery import Gallery
from .vectors import JoinedVectors, Vectors, check_dtype


def joined(opened: list[Gallery], kept: list[np.ndarray | None],
           facts: Mapping[str, Any]) -> Gallery:
    """Galleries after one another, of each all or some rows, read when they are used.

    Args:
        opened: galleries with the same columns, whose labels mean the same.
        kept: for each the rows that count, or None for all.
        facts: fingerprint, source, skipped and similarity.
    """
    later: dict[str, Callable[[], Any]] = {
        name: partial(_joined_column, opened, kept, name) for name in ('ids', 'labels')
        if name in opened[-1]._later}
    if 'label_names' in opened[-1]._later:
        later['label_names'] = opened[-1]._later['label_names']
    metadata = {name: partial(_joined_column, opened, kept, name, metadata=True)
                for name in opened[-1].metadata}
    parts: list[tuple[Vectors, np.ndarray | None]] = [
        (gallery.vectors, rows) for gallery, rows in zip(opened, kept, strict=True)]
    return Gallery.opened(JoinedVectors(parts), later, metadata,
                          [file for gallery in opened for file in gallery._files], **facts)


def _joined_column(opened: list[Gallery], kept: list[np.ndarray | None], name: str,
                   metadata: bool = False) -> columns.Column:
    parts = [gallery.metadata[name] if metadata else getattr(gallery, name) for gallery in opened]
    return columns.joined([part if rows is None else columns.take(part, rows)
                           for part, rows in zip(parts, kept, strict=True)], name)


def fitted(example: Gallery, gallery: Gallery) -> tuple[Gallery, dict[str, Any]]:
    """A gallery with labels and columns as those of a row before it, and the facts of both."""
    fingerprint, similarity = changes.agreed([example, gallery])
    labels, names = changes.joined_labels([example, gallery])
    own = np.arange(1, len(gallery) + 1)
    metadata = {name: columns.take(columns.joined(parts, name), own)
                for name, parts in changes.joined_metadata([example, gallery]).items()}
    new = Gallery(gallery.vectors, gallery.ids, None if labels is None else labels[1:], names,
                  metadata, fingerprint, gallery.source, gallery.skipped, similarity)
    return new, dict(fingerprint=fingerprint.as_dict(), similarity=similarity,
                     skipped={**example.skipped, **gallery.skipped})


FORMAT = 'retrieval-gallery-store'
FORMAT_VERSION = 1
MANIFEST = 'manifest.json'
_NAMES = r'(shard-\d{6,}\.safetensors|removed-\d{6,}\.bits|manifest\.json)'
_OWN = re.compile(rf'{_NAMES}|\.{_NAMES}\..+')  # the latter while they are written


@dataclass(frozen=True)
class Removed:
    """The file of a bit for each row of a shard, 1 where the row is removed."""

    file: str
    count: int
    checksum: str


@dataclass(frozen=True)
class Shard:
    """A gallery file of the store, and which of its rows were removed."""

    file: str
    rows: int
    checksum: str
    removed: Removed | None = None

    @property
    def live(self) -> int:
        return self.rows - (self.removed.count if self.removed else 0)


@dataclass(frozen=True)
class State:
    """What the manifest says.

    Args:
        dtype: how the embeddings are stored.
        generation: how many changes there have been.
        next_file: the number of the next file that is written.
        shards: in the order of their rows.
        facts: what the rows have in common: ``dim``, ``fingerprint``, ``similarity``,
            ``source``, ``skipped``; empty until there are rows.
    """

    dtype: str = 'float32'
    generation: int = 0
    next_file: int = 0
    shards: tuple[Shard, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(shard.live for shard in self.shards)

    def with_shards(self, shards: list[Shard], **facts: Any) -> State:
        """The next state. Shards without a row fall out."""
        numbers = [int(re.findall(r'\d+', name)[0]) for name in files_of(shards)]
        return replace(self, generation=self.generation + 1,
                       next_file=max([self.next_file, *(n + 1 for n in numbers)]),
                       shards=tuple(shard for shard in shards if shard.live),
                       facts={**self.facts, **facts})


def files_of(shards: Any) -> set[str]:
    """The names of all files of some shards."""
    return {name for shard in shards
            for name in (shard.file, shard.removed.file if shard.removed else None) if name}


def is_store(folder: str | os.PathLike) -> bool:
    """Whether a folder is a gallery store."""
    return (Path(folder) / MANIFEST).is_file()


def read_state(folder: Path) -> State:
    """The present state.

    Raises:
        FileNotFoundError: the folder is no store.
        DamagedError: a ``ValueError``; the manifest is not what was written.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{str(folder)!r} is no gallery store: it has no {MANIFEST}. Make '
                                'one with GalleryStore.create.') from error
    try:
        outer = json.loads(text)
        inner = outer['manifest']
        whole = digest(_encoded(inner)).hex() == outer['checksum'] and text == _written(inner)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise DamagedError(f'{str(path)!r} is damaged: its {len(text)} bytes do not fit their '
                           'checksum. Restore it; the shards beside it are gallery files of their '
                           'own.')
    if inner['format'] != FORMAT or inner['version'] > FORMAT_VERSION:
        raise ValueError(f'{str(path)!r} has version {inner["version"]} of {inner["format"]!r}; '
                         f'this release reads {FORMAT!r} up to {FORMAT_VERSION}.')
    shards = tuple(Shard(**{**one, 'removed': Removed(**one['removed']) if one['removed'] else None
                            }) for one in inner['shards'])
    return State(inner['dtype'], inner['generation'], inner['next_file'], shards, inner['facts'])


def write_state(folder: Path, state: State) -> None:
    """Make ``state`` the present one, in one step."""
    text = _written({**asdict(state), 'format': FORMAT, 'version': FORMAT_VERSION})
    write_atomically(folder / MANIFEST, lambda name: _write_bytes(name, text))


def _encoded(inner: dict[str, Any]) -> bytes:
    return json.dumps(inner, sort_keys=True, indent=1).encode()


def _written(inner: dict[str, Any]) -> bytes:
    return json.dumps(dict(checksum=digest(_encoded(inner)).hex(), manifest=inner), sort_keys=True,
                      indent=1).encode()


def _write_bytes(name: str, data: bytes) -> None:
    with open(name, 'wb', buffering=0) as handle:
        write_all(handle, data)


def removed_mask(folder: Path, shard: Shard) -> np.ndarray:
    """Which rows of a shard are removed, ``(rows,)`` bool. Raises DamagedError."""
    if shard.removed is None:
        return np.zeros(shard.rows, dtype=bool)
    path = folder / shard.removed.file
    bits = path.read_bytes()
    if digest(bits).hex() != shard.removed.checksum:
        raise DamagedError(f'{str(path)!r} is damaged: its {len(bits)} bytes do not fit their '
                           'checksum. Restore the file.')
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=shard.rows).astype(bool)


def write_removed(folder: Path, number: int, mask: np.ndarray) -> Removed:
    """Write which rows of a shard are removed."""
    name, bits = f'removed-{number:06d}.bits', np.packbits(mask).tobytes()
    write_atomically(folder / name, lambda temporary: _write_bytes(temporary, bits))
    return Removed(name, int(mask.sum()), digest(bits).hex())


def clean(folder: Path, state: State) -> None:
    """Delete what does not belong to the state: for the holder of the writer lock."""
    belongs = files_of(state.shards) | {MANIFEST, LOCK_NAME}
    for path in folder.iterdir():
        if path.name not in belongs and _OWN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds anything that no store wrote."""
    return any(path.name != LOCK_NAME and not _OWN.fullmatch(path.name)
               for path in folder.iterdir())


MAX_SHARDS = 64
_READ_ATTEMPTS = 20


class GalleryStore:
    """A folder with a gallery in shards, which readers may open while one writer changes it.

    Every change is one step: a reader sees the state before it or after it, a process that is
    killed leaves one of both, and what a method has returned from is on the disk. A gallery
    that was loaded stays as it is; load again to see a change.

    Args:
        path: the folder, by convention ``name.gallery``.
        timeout: for how many seconds a change waits for another writer.
    """

    def __init__(self, path: str | os.PathLike, timeout: float = 10.0) -> None:
        self.path = Path(path)
        self.timeout = timeout

    @classmethod
    def create(cls, path: str | os.PathLike, gallery: Gallery | None = None,
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
    def open(cls, path: str | os.PathLike, timeout: float = 10.0) -> GalleryStore:
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
        names = changes.as_names(ids)
        self._change(lambda state: self._removed(state, names))

    def update(self, gallery: Gallery) -> None:
        """Replace the rows of the ids of a gallery; the new ones stand behind all others.

        Raises:
            UnknownIdError: a ``KeyError`` and ``ValueError``; an id is not in the store.
            ValueError, TimeoutError, OSError: as for :meth:`append`.
        """
        changes.check_identified([gallery])
        self._change(lambda state: self._appended(
            self._removed(state, list(gallery.ids)), gallery, like=state))

    def compact(self) -> None:
        """Write the rows that are left as one shard, and delete the others.

        Raises:
            TimeoutError, OSError: as for :meth:`append`; the store is as it was.
        """
        def change(state: State) -> State:
            if not state.rows or (len(state.shards) == 1 and not state.shards[0].removed):
                return state
            shard = self._write_shard(state, self._load(state))
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
        changes.check_identified([gallery])
        facts: dict[str, Any] = dict(
            dim=gallery.dim, fingerprint=gallery.fingerprint.as_dict(),
            similarity=gallery.similarity, source=gallery.source, skipped=gallery.skipped)
        for rows in self._places(state, gallery.ids):
            if (rows >= 0).any():
                there = [gallery.ids[int(place)] for place in np.flatnonzero(rows >= 0)]
                raise ValueError(f'The store holds {changes.some_of(there)} already; nothing was '
                                 'added. Replace rows with update, or remove them first.')
        old = state if like is None else like
        if old.shards:
            gallery, facts = fitted(self._example(old), gallery)
        shard = self._write_shard(state, gallery)
        return self._merged(state.with_shards([*state.shards, shard], **facts))

    def _places(self, state: State, names: StringColumn) -> Iterator[np.ndarray]:
        """For each shard the rows of some ids, ``(n,)`` int64, -1 where it does not hold one."""
        for shard in state.shards:
            rows = self._open(shard).ids.find(names)
            if shard.removed and (rows >= 0).any():
                rows[removed_mask(self.path, shard)[rows] & (rows >= 0)] = -1
            yield rows

    def _example(self, state: State) -> Gallery:
        """One row of the store, with its columns, facts and all label names."""
        example = self._open(state.shards[-1]).subset([0])
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
        tail = self._load(replace(state, shards=state.shards[first:]))
        return state.with_shards([*state.shards[:first], self._write_shard(state, tail)])

    def _write_shard(self, state: State, gallery: Gallery) -> Shard:
        name = f'shard-{state.next_file:06d}.safetensors'
        return Shard(name, len(gallery), save_gallery(gallery, self.path / name, state.dtype))

    def _removed(self, state: State, names: list[str]) -> State:
        places = list(self._places(state, StringColumn.from_strings(names)))
        left = np.ones(len(names), dtype=bool)
        for rows in places:
            left &= rows < 0
        if left.any():
            missing = [names[place] for place in np.flatnonzero(left)]
            held = self._open(state.shards[0]).ids if state.shards else ()
            raise changes.unknown_ids(missing, held)
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

    def load(self) -> Gallery:
        """The rows as a gallery, read when they are used.

        Raises:
            ValueError: the store is empty.
            DamagedError: a ``ValueError``; a file of it is damaged or missing.
        """
        for _ in range(_READ_ATTEMPTS):
            state = read_state(self.path)
            try:
                return self._load(state)
            except FileNotFoundError as error:
                missing = error  # a writer compacted meanwhile, if the state is another one now
                if read_state(self.path).generation == state.generation:
                    break
        raise DamagedError(f'The store {str(self.path)!r} lacks the file '
                           f'{missing.filename!r}. Restore it.') from missing

    def export(self, path: str | os.PathLike, dtype: str | None = None) -> None:
        """Write the rows as one gallery file; see :meth:`Gallery.save`."""
        self.load().save(path, dtype)

    def verify(self) -> None:
        """Read every file and compare it with its checksums. Raises DamagedError."""
        if len(self):
            self.load().verify()

    def _load(self, state: State) -> Gallery:
        if not state.shards:
            raise ValueError(f'The store {str(self.path)!r} is empty: append a gallery first.')
        opened = [self._open(shard) for shard in state.shards]
        if len(opened) == 1 and state.shards[0].removed is None:
            return opened[0]
        kept = [np.flatnonzero(~removed_mask(self.path, shard)) if shard.removed else None
                for shard in state.shards]
        facts = dict(state.facts, fingerprint=Fingerprint.from_dict(state.facts['fingerprint']))
        return joined(opened, kept, facts)

    def _open(self, shard: Shard) -> Gallery:
        path = self.path / shard.file
        gallery = open_gallery(path)
        if gallery._files[0].checksum != shard.checksum or len(gallery) != shard.rows:
            raise DamagedError(f'{str(path)!r} is another file than the one that the store wrote. '
                               'Restore it.')
        return gallery

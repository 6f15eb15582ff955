"""The files of a gallery store: shards, their removed rows, and the manifest that names them.

A store is a folder. ``manifest.json`` is replaced in one step, and it alone says what belongs to
the store; other files are of earlier states, or of a writer that did not come to its end.
"""
from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import LOCK_NAME, write_bytes
from ..foreign_files import read_regular
from ..mapped_file import DamagedError, digest
from ..tensor_file import Format
from . import columns
from .file import Contents, open_gallery_file
from .fingerprint import Fingerprint
from .vectors import JoinedVectors

STORE = Format('retrieval-gallery-store', 1, 'Make the store anew from its shards, which are '
               'gallery files of their own.')
MANIFEST = 'manifest.json'
_READ_ATTEMPTS = 20
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
    """The state of a store, as the manifest has it.

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


def files_of(shards: Iterable[Shard]) -> set[str]:
    """The names of all files of some shards."""
    return {name for shard in shards
            for name in (shard.file, shard.removed.file if shard.removed else None) if name}


def is_store(folder: str | os.PathLike[str]) -> bool:
    """True for a folder that is a gallery store."""
    return (Path(folder) / MANIFEST).is_file()


def read_state(folder: Path) -> State:
    """The present state.

    Raises:
        FileNotFoundError: the folder is no store.
        DamagedError: a ``ValueError``; the manifest is not what was written.
        ForeignFileError: a ``ValueError``; it is of another version.
    """
    path = folder / MANIFEST
    try:
        text = read_regular(path)
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
    STORE.check(path, inner['format'], inner['version'])
    shards = tuple(Shard(**{**one, 'removed': Removed(**one['removed']) if one['removed'] else None
                            }) for one in inner['shards'])
    outside = sorted(name for name in files_of(shards) if not _OWN.fullmatch(name))
    if outside:  # a store from elsewhere might name any file
        raise DamagedError(f'{str(path)!r} names the file {outside[0]!r}, which no store writes. '
                           'Restore it.')
    return State(inner['dtype'], inner['generation'], inner['next_file'], shards, inner['facts'])


def write_state(folder: Path, state: State) -> None:
    """Make ``state`` the present one, in one step."""
    write_bytes(folder / MANIFEST, _written({**asdict(state), 'format': STORE.name,
                                             'version': STORE.version}))


def _encoded(inner: dict[str, Any]) -> bytes:
    return json.dumps(inner, sort_keys=True, indent=1).encode()


def _written(inner: dict[str, Any]) -> bytes:
    return json.dumps(dict(checksum=digest(_encoded(inner)).hex(), manifest=inner), sort_keys=True,
                      indent=1).encode()


def removed_mask(folder: Path, shard: Shard) -> np.ndarray:
    """Which rows of a shard are removed, ``(rows,)`` bool. Raises DamagedError."""
    if shard.removed is None:
        return np.zeros(shard.rows, dtype=bool)
    path = folder / shard.removed.file
    bits = read_regular(path)
    if digest(bits).hex() != shard.removed.checksum:
        raise DamagedError(f'{str(path)!r} is damaged: its {len(bits)} bytes do not fit their '
                           'checksum. Restore the file.')
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=shard.rows).astype(bool)


def write_removed(folder: Path, number: int, mask: np.ndarray) -> Removed:
    """Write which rows of a shard are removed, ``(rows,)`` bool."""
    name, bits = f'removed-{number:06d}.bits', np.packbits(mask).tobytes()
    write_bytes(folder / name, bits)
    return Removed(name, int(mask.sum()), digest(bits).hex())


def clean(folder: Path, state: State) -> None:
    """Delete what does not belong to the state: for the holder of the writer lock."""
    belongs = files_of(state.shards) | {MANIFEST, LOCK_NAME}
    for path in folder.iterdir():
        if path.name not in belongs and _OWN.fullmatch(path.name):
            path.unlink(missing_ok=True)


def is_foreign(folder: Path) -> bool:
    """True for a folder that holds anything that no store wrote."""
    return any(path.name != LOCK_NAME and not _OWN.fullmatch(path.name)
               for path in folder.iterdir())


def open_shard(folder: Path, shard: Shard, copy: bool = False) -> Contents:
    """The contents of the file of a shard, removed rows too.

    Raises:
        FileNotFoundError: it is missing.
        DamagedError: a ``ValueError``; it is damaged, or another file.
    """
    contents = open_gallery_file(folder / shard.file, copy)
    if contents.files[0].checksum != shard.checksum or len(contents.vectors) != shard.rows:
        raise DamagedError(f'{str(folder / shard.file)!r} is another file than the one that the '
                           'store wrote. Restore it.')
    return contents


def open_state(folder: Path, state: State, copy: bool = False) -> Contents:
    """The rows of a state, those that are not removed, read when they are used.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: there is no row, or a file is damaged.
    """
    if not state.shards:
        raise ValueError(f'The store {str(folder)!r} is empty: append a gallery first.')
    opened = [open_shard(folder, shard, copy) for shard in state.shards]
    if len(opened) == 1 and state.shards[0].removed is None:
        return opened[0]
    kept = [np.flatnonzero(~removed_mask(folder, shard)) if shard.removed else None
            for shard in state.shards]
    return _joined(opened, kept, dict(
        state.facts, fingerprint=Fingerprint.from_dict(state.facts['fingerprint'])))


def open_shards(folder: Path, copy: bool = False) -> Contents:
    """The rows of a store as it is now; mapped, or copied into memory.

    Raises:
        FileNotFoundError: the folder is no store.
        ValueError: the store is empty.
        DamagedError: a ``ValueError``; a file of it is damaged or missing.
    """
    for _ in range(_READ_ATTEMPTS):
        state = read_state(folder)
        try:
            return open_state(folder, state, copy)
        except FileNotFoundError as error:
            missing = error  # a writer compacted meanwhile, if the state is another one now
            if read_state(folder).generation == state.generation:
                break
    raise DamagedError(f'The store {str(folder)!r} lacks a file: {missing} Restore it.') \
        from missing


def _joined(opened: Sequence[Contents], kept: Sequence[np.ndarray | None],
            facts: Mapping[str, Any]) -> Contents:
    """Contents with the same columns after one another, of each all rows (None) or some."""
    last = opened[-1]

    def reader(readers: list[Callable[[], columns.Column]], name: str) -> Callable[[], Any]:
        return partial(_joined_column, readers, kept, name)

    readers = {name: reader([contents.columns[name] for contents in opened], name)
               for name in ('ids', 'labels') if name in last.columns}
    if 'label_names' in last.columns:
        readers['label_names'] = last.columns['label_names']
    metadata = {name: reader([contents.metadata[name] for contents in opened], name)
                for name in last.metadata}
    vectors = JoinedVectors([(contents.vectors, rows)
                             for contents, rows in zip(opened, kept, strict=True)])
    return Contents(vectors, readers, metadata,
                    tuple(file for contents in opened for file in contents.files), facts)


def _joined_column(readers: Sequence[Callable[[], columns.Column]],
                   kept: Sequence[np.ndarray | None], name: str) -> columns.Column:
    return columns.joined([read() if rows is None else columns.take(read(), rows)
                           for read, rows in zip(readers, kept, strict=True)], name)

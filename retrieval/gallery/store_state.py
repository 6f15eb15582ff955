"""The state of a gallery store: one manifest, which names the shards and their removed rows.

A store is a folder. ``manifest.json`` is replaced in one step, and it alone says what belongs to
the store; other files are of earlier states, or of a writer that did not come to its end.
"""
from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import DamagedError, digest
from .folder_lock import LOCK_NAME
from .storage import write_all, write_atomically

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

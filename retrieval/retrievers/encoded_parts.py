"""Encoded rows in parts: a folder of files that outlives a kill, and putting parts together."""
from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import folder_lock, write_json
from ..gallery import Fingerprint, FingerprintError, Vectors
from ..gallery.vectors import ArrayVectors, JoinedVectors
from ..mapped_file import DamagedError
from ..string_column import StringColumn
from ..tensor_file import Container, ForeignFileError, Format, write_container
from .encode import Encoded

_PART = Format('retrieval-dump-part', 1, 'Start the dump anew with --no-resume.',
               finite=('embeddings',))
_RECORD = 'dump.json'


@dataclass(frozen=True)
class Part:
    """Encoded rows, in a file or in memory.

    Args:
        vectors: their embeddings.
        keys: what each is known by when parts are put together.
        ids: the id of each in the gallery.
        labels: the class of each, 0 where there is none.
        labelled: whether each has a class.
        skipped: images that could not be read, id by reason.
    """

    vectors: Vectors
    keys: StringColumn
    ids: StringColumn
    labels: np.ndarray
    labelled: np.ndarray
    skipped: dict[str, str]

    @classmethod
    def of(cls, encoded: Encoded, keys: Sequence[str]) -> Part:
        """Rows that were encoded, as a part."""
        rows = torch.cat(encoded.embeddings) if encoded.embeddings else torch.zeros(0, 1)
        return cls(ArrayVectors(rows.numpy()), StringColumn.from_strings(keys),
                   StringColumn.from_strings(encoded.ids),
                   np.array([label or 0 for label in encoded.labels], dtype=np.int64),
                   np.array([label is not None for label in encoded.labels], dtype=bool),
                   encoded.skipped)


class PartsFolder:
    """The folder of an unfinished set: files of encoded rows, and a record of what encodes them.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> PartsFolder:
        """The folder beside a gallery that is to be."""
        return cls(f'{os.fspath(path)}.parts')

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder where it is missing, and be the only one who writes into it.

        Raises:
            TimeoutError: an ``OSError``; another process does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.path, 0):
            yield

    def begin(self, fingerprint: Fingerprint, resume: bool, settings: str | None = None,
              refuse: bool = True) -> None:
        """Start, or go on with what is in the folder; inside :meth:`locked`.

        Args:
            fingerprint: of the model and pipeline that encode now.
            resume: whether to go on with what is there; else it is deleted.
            settings: the hash of the encoder's settings, where they count too.
            refuse: whether what another model or pipeline began is an error; else it is deleted.

        Raises:
            FingerprintError: a ``ValueError``; another model or pipeline began.
            DamagedError: a ``ValueError``; the record cannot be read.
        """
        record = self.path / _RECORD
        if record.is_file() and resume:
            try:
                self._check_record(record, fingerprint, settings)
            except (FingerprintError, DamagedError):
                if refuse:
                    raise
                resume = False
        if not (record.is_file() and resume):
            for left in self.path.glob('part-*'):
                left.unlink()
        gallery = self.path.name.removesuffix('.parts')
        for left in [*self.path.glob('.*'), *self.path.parent.glob(f'.{gallery}.????????')]:
            left.unlink()  # what was being written when a process was killed
        write_json(record, dict(fingerprint.as_dict(), settings=settings))

    def _check_record(self, record: Path, fingerprint: Fingerprint, settings: str | None) -> None:
        try:
            held = dict(json.loads(record.read_text()))
            different = Fingerprint.from_dict(held).differences(fingerprint)
        except (ValueError, TypeError) as error:
            raise DamagedError(f'{str(record)!r} is damaged: start the dump anew with '
                               '--no-resume.') from error
        if settings != held.get('settings'):
            different.append("the encoder's settings")
        if different:
            raise FingerprintError(
                f'The unfinished dump in {str(self.path)!r} was begun by another model or '
                f'pipeline: {" and ".join(different)} differ. Go on with that one, or start '
                'anew with --no-resume, which deletes it.')

    def write(self, encoded: Encoded, keys: Sequence[str]) -> None:
        """Write rows as a part.

        Args:
            encoded: the rows.
            keys: what each is known by.
        """
        part = Part.of(encoded, keys)
        columns: dict[str, Any] = dict(embeddings=part.vectors.stored(0, len(part.ids))[0],
                                       labels=part.labels, labelled=part.labelled, keys=part.keys,
                                       ids=part.ids)
        write_container(self.path / f'part-{secrets.token_hex(8)}.safetensors', _PART, columns,
                        dict(skipped=part.skipped))

    def parts(self) -> Iterator[Part]:
        """The parts that are whole; a damaged one is deleted, so that it is encoded again."""
        for path in sorted(self.path.glob('part-*.safetensors')):
            try:
                opened = Container(path, _PART)
                opened.verify()
            except (DamagedError, ForeignFileError):
                path.unlink()
                continue
            arrays = opened.arrays
            yield Part(ArrayVectors(arrays['embeddings']), opened.strings('keys'),
                       opened.strings('ids'), arrays['labels'][:], arrays['labelled'][:],
                       opened.manifest['skipped'])

    def remove(self) -> None:
        """Delete the folder; the record first, without which nothing is resumed from it."""
        if self.path.exists():
            (self.path / _RECORD).unlink(missing_ok=True)
            shutil.rmtree(self.path)


def rows_of(parts: Iterable[Part], row_of: Mapping[str, int]) -> np.ndarray:
    """The rows of a dataset that stand in some parts, ``(n,)`` int64, rising.

    Args:
        row_of: the row of every image by its key.
    """
    rows = {row_of[key] for part in parts for key in part.keys if key in row_of}
    return np.array(sorted(rows), dtype=np.int64)


@dataclass(frozen=True)
class Assembled:
    """The parts put together: rows of the dataset, rising, and what belongs to each."""

    rows: np.ndarray
    vectors: JoinedVectors
    ids: StringColumn
    labels: np.ndarray | None
    skipped: dict[str, str]


def assemble(parts: Sequence[Part], row_of: Mapping[str, int]) -> Assembled:
    """Put parts in the order of the dataset; each image counts once.

    Args:
        parts: what all processes have written.
        row_of: the row of every image by its key; what is not in it is left out.

    Raises:
        ValueError: there is not one row.
    """
    rows = np.array([row_of.get(key, -1) for part in parts for key in part.keys], dtype=np.int64)
    skipped = {name: why for part in parts for name, why in part.skipped.items()}
    _, order = np.unique(rows, return_index=True)
    order = order[rows[order] >= 0]
    if not len(order):
        raise ValueError('The prototype is empty: its dataloader gave no image that could be '
                         f'encoded ({len(skipped)} were skipped as unreadable).')
    edges = np.concatenate([[0], np.cumsum([len(part.keys) for part in parts])])
    part_of = np.searchsorted(edges, order, side='right') - 1
    runs = [(number, np.array([place for place, _ in run], dtype=np.int64) - edges[number])
            for number, run in groupby(zip(order.tolist(), part_of.tolist(), strict=True),
                                       key=lambda pair: pair[1])]
    labelled = np.concatenate([part.labelled for part in parts])[order].all()
    labels = np.concatenate([part.labels for part in parts])[order]
    ids = StringColumn.joined([part.ids for part in parts]).take(order)
    for name in set(skipped) & set(ids):
        del skipped[name]  # it could be read at a later attempt
    vectors = JoinedVectors([(parts[number].vectors, local) for number, local in runs])
    return Assembled(rows[order], vectors, ids, labels if labelled else None, skipped)


def missing_rows(assembled: Assembled, ids: Sequence[str]) -> list[Any]:
    """The images of a dataset that are neither encoded nor skipped."""
    there = np.zeros(len(ids), dtype=bool)
    there[assembled.rows] = True
    return [ids[row] for row in np.flatnonzero(~there).tolist()
            if ids[row] not in assembled.skipped]

"""What an unfinished dump keeps on the disk: files of encoded rows, by the ids of their images."""
from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..gallery import DamagedError, Fingerprint, FingerprintError, StringColumn, Vectors, write_text
from ..gallery.codec import ArrayVectors, JoinedVectors
from ..gallery.container import Container, Entry, ForeignFileError, write_container
from .encoding import Encoded

_KIND = 'retrieval-dump-part'
_RECORD = 'dump.json'


@dataclass(frozen=True)
class Part:
    """A file of encoded rows.

    Args:
        vectors: their embeddings.
        keys: the identity of each in its dataset.
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


class DumpFolder:
    """The folder of an unfinished dump.

    Args:
        path: the folder, beside the gallery that is to be.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def begin(self, fingerprint: Fingerprint, resume: bool) -> None:
        """Make the folder, or go on with what is in it.

        Args:
            fingerprint: of the model and pipeline that encode now.
            resume: whether to go on with an unfinished dump; else it is deleted.

        Raises:
            FingerprintError: a ``ValueError``; another model or pipeline began the dump.
        """
        record = self.path / _RECORD
        if not resume or not record.is_file():
            self.remove()
        else:
            made = Fingerprint.from_dict(self._read_record())
            different = made.differences(fingerprint)
            if different:
                raise FingerprintError(
                    f'The unfinished dump in {str(self.path)!r} was begun by another model or '
                    f'pipeline: {" and ".join(different)} differ. Go on with that one, or start '
                    'anew with --no-resume, which deletes it.')
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob('.*'):
            left.unlink()  # a part that was being written
        write_text(record, json.dumps(fingerprint.as_dict()))

    def _read_record(self) -> dict[str, str | None]:
        try:
            return dict(json.loads((self.path / _RECORD).read_text()))
        except (ValueError, TypeError) as error:
            raise DamagedError(f'{str(self.path / _RECORD)!r} is damaged: start the dump anew with '
                               '--no-resume.') from error

    def write(self, encoded: Encoded, keys: Sequence[str]) -> None:
        """Write rows as a part.

        Args:
            encoded: the rows.
            keys: the identity of each in its dataset.

        Raises:
            ValueError: an embedding is not finite.
        """
        rows = torch.cat(encoded.embeddings) if encoded.embeddings else torch.zeros(0, 1)
        _check_finite(rows, encoded.ids)
        columns = dict(
            embeddings=rows.numpy(),
            labels=np.array([label or 0 for label in encoded.labels], dtype=np.int64),
            labelled=np.array([label is not None for label in encoded.labels], dtype=bool))
        for name, strings in (('keys', keys), ('ids', encoded.ids)):
            column = StringColumn.from_strings(strings)
            columns[f'{name}.bytes'] = column.data.numpy()
            columns[f'{name}.offsets'] = column.offsets.numpy()
        write_container(self.path / f'part-{secrets.token_hex(8)}.safetensors', _KIND, 1,
                        [Entry.of(name, array) for name, array in columns.items()],
                        dict(skipped=encoded.skipped))

    def parts(self) -> Iterator[Part]:
        """The parts that are whole; a damaged one is deleted, so that it is encoded again."""
        for path in sorted(self.path.glob('part-*.safetensors')):
            try:
                opened = Container(path, _KIND)
                opened.verify()
            except (DamagedError, ForeignFileError):
                path.unlink()
                continue
            arrays = opened.arrays
            keys, ids = (StringColumn.from_arrays(arrays[f'{name}.bytes'],
                                                  arrays[f'{name}.offsets'])
                         for name in ('keys', 'ids'))
            yield Part(ArrayVectors(arrays['embeddings']), keys, ids, arrays['labels'][:],
                       arrays['labelled'][:], opened.manifest['skipped'])

    def done(self, row_of: Mapping[str, int]) -> np.ndarray:
        """The rows of the dataset that are encoded, rising.

        Args:
            row_of: the row of every image by its identity.
        """
        rows = {row_of[key] for part in self.parts() for key in part.keys if key in row_of}
        return np.array(sorted(rows), dtype=np.int64)

    def remove(self) -> None:
        """Delete the folder; the record first, without which nothing is resumed from it."""
        if self.path.exists():
            (self.path / _RECORD).unlink(missing_ok=True)
            shutil.rmtree(self.path)


def _check_finite(rows: torch.Tensor, ids: Sequence[str]) -> None:
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f'The embedding of {ids[bad[0]]!r} is not finite (NaN or infinite), as '
                         f'are {len(bad) - 1} more: look for a diverged training, or for an image '
                         'that the encoder cannot take.')


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
        row_of: the row of every image by its identity; what is not in it is left out.

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

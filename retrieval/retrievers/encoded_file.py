"""What an unfinished dump keeps on the disk: files of encoded rows, by the ids of their images.

Dumping a prototype that takes long: on several processes, resumed after a kill.
"""
from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..distributed import Meeting, rank
from ..files import folder_lock, write_text
from ..gallery import Fingerprint, FingerprintError, Gallery, GalleryStore, Vectors
from ..gallery.vectors import ArrayVectors, JoinedVectors, check_dtype
from ..structures import sample_id_of
from ..tensor_file import (
    Container,
    DamagedError,
    ForeignFileError,
    Format,
    StringColumn,
    write_container,
)
from .encode import (
    Encoded,
    batches_of_rows,
    covers_its_dataset,
    encode_batch,
    evaluation_mode,
    label_names_of,
    metadata_of,
    own_share,
    row_batches,
    with_progress,
)
from .prototype import build_loader, is_encoded

_PART = Format('retrieval-dump-part', 1, 'Start the dump anew with --no-resume.',
               finite=('embeddings',))
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder where it is missing, and be the only dump that writes into it.

        Raises:
            TimeoutError: an ``OSError``; another dump does.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.path, 0):
            yield

    def begin(self, fingerprint: Fingerprint, resume: bool) -> None:
        """Start, or go on with what is in the folder; inside :meth:`locked`.

        Args:
            fingerprint: of the model and pipeline that encode now.
            resume: whether to go on with an unfinished dump; else it is deleted.

        Raises:
            FingerprintError: a ``ValueError``; another model or pipeline began the dump.
        """
        record = self.path / _RECORD
        if not resume or not record.is_file():
            for left in self.path.glob('part-*'):
                left.unlink()
        else:
            made = Fingerprint.from_dict(self._read_record())
            different = made.differences(fingerprint)
            if different:
                raise FingerprintError(
                    f'The unfinished dump in {str(self.path)!r} was begun by another model or '
                    f'pipeline: {" and ".join(different)} differ. Go on with that one, or start '
                    'anew with --no-resume, which deletes it.')
        gallery = self.path.name.removesuffix('.parts')
        for left in [*self.path.glob('.*'), *self.path.parent.glob(f'.{gallery}.????????')]:
            left.unlink()  # what was being written when a process was killed
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
        columns: dict[str, Any] = dict(
            embeddings=rows,
            labels=np.array([label or 0 for label in encoded.labels], dtype=np.int64),
            labelled=np.array([label is not None for label in encoded.labels], dtype=bool),
            keys=StringColumn.from_strings(keys), ids=StringColumn.from_strings(encoded.ids))
        write_container(self.path / f'part-{secrets.token_hex(8)}.safetensors', _PART, columns,
                        dict(skipped=encoded.skipped))

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


SHARD_ROWS = 4096


class RefusedElsewhere(Exception):
    """The first process refused to go on, and has said why."""


def dump_in_parts(model: Any, path: str | os.PathLike, dtype: str = 'float32',
                  shard_rows: int = SHARD_ROWS, resume: bool = True, **source: Any) -> None:
    """Encode a retriever's prototype and write it as a gallery that can be given as ``prototype``.

    Each process encodes its share of the batches and writes what it has every ``shard_rows`` rows
    into the folder ``path.parts``, which all processes must see. After a kill the same call
    goes on: an image that is in there by its id is not encoded again. At the end the first process
    puts the parts together, in the order of the dataset. Which images stand in a batch together
    does not depend on the number of processes, nor on kills, so neither do the embeddings.

    Args:
        model: an :class:`ImageToImageRetriever`.
        path: a file ``.safetensors``, or a new store ``.gallery``.
        dtype: ``'float32'``, ``'float16'`` or ``'int8'``.
        shard_rows: how many rows a process holds before it writes them.
        resume: whether to go on with what a killed process left; else it is deleted.
        source: how it was made (``config``, ``checkpoint``), kept with it.

    Raises:
        FingerprintError: a ``ValueError``; another model or pipeline began the dump.
        RefusedElsewhere: on the other processes, when the first raised one of these.
        FileExistsError: there is a store at ``path`` already.
        TimeoutError: an ``OSError``; another dump to the same path is running.
        ValueError: an argument is wrong, there is nothing to encode, or an embedding is not finite.
    """
    check_target(path)
    check_dtype(dtype)
    if isinstance(shard_rows, bool) or not isinstance(shard_rows, int) or shard_rows < 1:
        raise ValueError(f'shard_rows must be a whole number of at least 1, got {shard_rows!r}.')
    prototype = model.prototype
    loader = None
    if is_encoded(prototype):
        loader = prototype if isinstance(prototype, DataLoader) else build_loader(prototype)
    if loader is None or not covers_its_dataset(loader):
        gallery = model.gallery  # nothing to encode, or a sampler of its own
        gallery.source.update(source)
        if rank() == 0:
            write_gallery(gallery, path, dtype)
        return
    folder, meeting = DumpFolder(f'{os.fspath(path)}.parts'), Meeting()
    keys = identities(loader.dataset)
    def begin() -> tuple[Fingerprint, np.ndarray]:
        held.enter_context(folder.locked())
        fingerprint = model.fingerprint(loader.dataset)
        folder.begin(fingerprint, resume)
        return fingerprint, folder.done({key: row for row, key in enumerate(keys)})

    def finish() -> None:
        gallery = _put_together(loader.dataset, folder, keys)
        gallery.fingerprint, gallery.similarity = fingerprint, model.similarity_name
        gallery.source.update(source)
        write_gallery(gallery, path, dtype)
        folder.remove()

    with ExitStack() as held:
        fingerprint, done = _on_first(begin, meeting)
        _encode_rest(model, loader, folder, keys, done, shard_rows)
        meeting.wait()
        _on_first(finish, meeting)


def check_target(path: str | os.PathLike) -> None:
    """Raises ValueError for a name that is no gallery's, FileExistsError for a store."""
    name = os.fspath(path)
    if not name.endswith(('.safetensors', '.gallery')):
        raise ValueError(f'A gallery is written as a safetensors file; got {name!r}. Give a path '
                         'that ends in .safetensors, or in .gallery for a store that can grow.')
    if name.endswith('.gallery') and Path(name).exists():
        raise FileExistsError(f'There is a store at {name!r} already: give a new name, and switch '
                              'to it with tools/compare_galleries.py --switch.')


def write_gallery(gallery: Gallery, path: str | os.PathLike, dtype: str | None = None) -> None:
    """Write a gallery as a file, or as a new store where the name ends in ``.gallery``."""
    check_target(path)
    if os.fspath(path).endswith('.gallery'):
        GalleryStore.create(path, gallery, dtype or gallery.dtype)
    else:
        gallery.save(path, dtype)


def identities(dataset: Any) -> list[str]:
    """The identity of every image of a dataset, without reading it: its sample id where the
    dataset tells it, else its row.

    Raises:
        ValueError: two images have one identity.
    """
    ids = getattr(dataset, 'sample_ids', None)
    if ids is None and callable(getattr(dataset, 'get_data_info', None)):
        ids = [sample_id_of(dataset.get_data_info(row), row) for row in range(len(dataset))]
    names = [str(row) for row in range(len(dataset))] if ids is None else list(map(str, ids))
    if len(set(names)) != len(names):
        raise ValueError('Two images of the dataset have the same id: give each an id '
                         '(`sample_id`) of its own.')
    return names


def _on_first(action: Callable[[], Any], meeting: Meeting) -> Any:
    """What an action on the first process returns, on every process, when it is done there."""
    result, error = None, None
    if rank() == 0:
        try:
            result = action()
        except (ValueError, TypeError, OSError) as raised:
            error = raised
    refused, result = meeting.from_first((error is not None, result))
    if error is not None:
        raise error
    if refused:
        raise RefusedElsewhere
    return result


@torch.no_grad()
def _encode_rest(model: Any, loader: DataLoader, folder: DumpFolder, keys: Sequence[str],
                 done: np.ndarray, shard_rows: int) -> None:
    left = np.ones(len(keys), dtype=bool)
    left[done] = False
    batches = [[row for row in batch if left[row]] for batch in row_batches(loader)]
    mine = own_share([batch for batch in batches if batch])
    encoded = Encoded()
    with evaluation_mode(model):
        for rows, batch in with_progress(batches_of_rows(loader, mine), len(mine),
                                         'Encoding the prototype'):
            encode_batch(model, batch, rows, encoded)
            if len(encoded.rows) >= shard_rows:
                folder.write(encoded, [keys[row] for row in encoded.rows])
                encoded = Encoded()
    if encoded.rows or encoded.skipped:
        folder.write(encoded, [keys[row] for row in encoded.rows])


def _put_together(dataset: Any, folder: DumpFolder, keys: Sequence[str]) -> Gallery:
    whole = assemble(list(folder.parts()), {key: row for row, key in enumerate(keys)})
    missing = missing_rows(whole, keys)
    if missing:
        raise ValueError(f'{len(missing)} images are not in the parts of the dump, the first is '
                         f'{missing[0]!r}: do all processes see the folder {str(folder.path)!r}? '
                         'Run the command again, and it will encode what is missing.')
    return Gallery(
        whole.vectors, whole.ids, whole.labels,
        None if whole.labels is None else label_names_of(dataset),
        metadata_of(dataset, torch.from_numpy(whole.rows)), skipped=whole.skipped)

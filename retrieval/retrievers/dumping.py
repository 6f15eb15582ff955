"""Dumping a prototype that takes long: on several processes, resumed after a kill."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..distributed import Meeting, rank
from ..gallery import Fingerprint, Gallery, GalleryStore
from ..gallery.codec import check_dtype
from ..structures import sample_id_of
from .dump_parts import DumpFolder, assemble, missing_rows
from .encoding import (
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
        fingerprint = model.fingerprint(loader.dataset)
        folder.begin(fingerprint, resume)
        return fingerprint, folder.done({key: row for row, key in enumerate(keys)})

    def finish() -> None:
        gallery = _put_together(loader.dataset, folder, keys)
        gallery.fingerprint, gallery.similarity = fingerprint, model.similarity_name
        gallery.source.update(source)
        write_gallery(gallery, path, dtype)
        folder.remove()

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

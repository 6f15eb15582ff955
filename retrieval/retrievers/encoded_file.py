"""An encoded set in a file: made in parts, resumed after a kill, and encoded only where it changed.

Rows are known by a key, so that what a killed process left, what other processes wrote and what an
older file holds are all the same thing: parts, which are put together in the order of the dataset.
Dumping a prototype, keeping features for training and keeping the images of a searched folder are
its three uses.
"""
from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..checks import first_repeated, whole_number
from ..datasets import labels_of
from ..distributed import Meeting, all_gather_list, rank
from ..encoded_folder import COMPARE, STATE, file_state, relative_id
from ..gallery import Fingerprint, Gallery, GalleryStore
from ..gallery.vectors import check_dtype
from ..progress import progress_bar
from ..registry import unknown_name
from ..string_column import StringColumn
from ..structures import sample_id_of
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
)
from .encoded_parts import Part, PartsFolder, assemble, missing_rows, rows_of
from .prototype import build_loader, is_encoded, settings_hash

SHARD_ROWS = 4096
# What a kill may cost: a share of the time so far, between these numbers of seconds.
_LOST_SHARE, _LOST_SECONDS = 0.02, (1, 60)


class RefusedElsewhere(Exception):
    """The first process refused to go on, and has said why."""


# Uses --------------------------------------------------------------------------------------------


def dump_in_parts(model: Any, path: str | os.PathLike[str], dtype: str = 'float32',
                  shard_rows: int = SHARD_ROWS, resume: bool = True, keep_parts: bool = False,
                  **source: Any) -> None:
    """Encode a retriever's prototype and write it as a gallery that can be given as ``prototype``.

    Each process encodes its share of the batches and writes what it has every ``shard_rows`` rows,
    every few seconds and at an error into the folder ``path.parts``, which all processes must see.
    After a kill the same call goes on: an image that is in there by its id is not encoded again.
    At the end the first process puts the parts together, in the order of the dataset. Which images
    stand in a batch together does not depend on the number of processes, nor on kills, so neither
    do the embeddings.

    Args:
        model: an :class:`ImageToImageRetriever`.
        path: a file ``.safetensors``, or a new store ``.gallery``.
        dtype: ``'float32'``, ``'float16'`` or ``'int8'``.
        shard_rows: how many rows a process holds at most before it writes them.
        resume: whether to go on with what a killed process left; else it is deleted.
        keep_parts: leave the folder, for a caller who is not done before more has been written:
            until it is removed, the same call goes on from it.
        source: how it was made (``config``, ``checkpoint``), kept with it.

    Raises:
        FingerprintError: a ``ValueError``; another model or pipeline began the dump.
        RefusedElsewhere: on the other processes, when the first raised one of these.
        FileExistsError: there is a store at ``path`` already.
        TimeoutError: an ``OSError``; another dump to the same path is running.
        TypeError, ValueError: an argument is wrong, there is nothing to encode, or an embedding is
            not finite.

    Example:
        >>> import tempfile
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> model = ImageToImageRetriever(torch.nn.Flatten(), prototype=torch.eye(3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dump_in_parts(model, f'{folder}/g.safetensors', checkpoint='epoch_9.pth')
        ...     Gallery.load(f'{folder}/g.safetensors').source['checkpoint']
        'epoch_9.pth'
    """
    check_target(path)
    check_dtype(dtype)
    whole_number('shard_rows', shard_rows)
    prototype = model.prototype
    loader = None
    if is_encoded(prototype):
        loader = prototype if isinstance(prototype, DataLoader) else build_loader(prototype)
    if loader is None or not covers_its_dataset(loader):
        model.dump_prototype(path, dtype, **source)  # nothing to encode, or a sampler of its own
        return
    dataset, folder, meeting = loader.dataset, PartsFolder.of(path), Meeting()
    keys = identities(dataset)
    row_of = {key: row for row, key in enumerate(keys)}

    def begin() -> tuple[Fingerprint, np.ndarray]:
        held.enter_context(folder.locked())
        fingerprint = model.fingerprint(dataset)
        folder.begin(fingerprint, resume)
        return fingerprint, rows_of(folder.parts(), row_of)

    def finish() -> None:
        gallery = _put_together(dataset, list(folder.parts()), keys, folder)[0]
        gallery.fingerprint, gallery.similarity = fingerprint, model.similarity_name
        gallery.source.update(source)
        write_gallery(gallery, path, dtype)
        if not keep_parts:
            folder.remove()

    def write(encoded: Encoded) -> bool:
        folder.write(encoded, [keys[row] for row in encoded.rows])
        return True

    with ExitStack() as held:
        fingerprint, done = _on_first(begin, meeting)
        left = set(range(len(keys))).difference(done.tolist())
        batches = [[row for row in batch if row in left] for batch in row_batches(loader)]
        rest = _encode_rows(model, loader, [batch for batch in batches if batch], write,
                            shard_rows, 'Encoding the prototype')
        if rest.rows or rest.skipped:
            write(rest)
        meeting.wait()
        _on_first(finish, meeting)


class CacheReport(NamedTuple):
    """Where the rows of a kept set came from.

    Args:
        kept: rows that were taken from the file, or from what a run that was stopped left.
        new: images that were in neither.
        changed: images whose file changed since.
        removed: rows whose image is gone.
        skipped: images that cannot be read, by reason.
        written: whether the file did not hold all this, and was to be written anew.
    """

    kept: int
    new: int
    changed: int
    removed: int
    skipped: dict[str, str]
    written: bool

    @property
    def encoded(self) -> int:
        """How many rows are not from the file."""
        return self.new + self.changed


def cached_gallery(model: Any, loader: DataLoader[Any], path: str | os.PathLike[str],
                   compare: str = 'stat', root: str | None = None, resume: bool = True,
                   shard_rows: int = 1024, must_write: bool = False, progress: str | None = None,
                   so_far: Callable[[Gallery], object] | None = None,
                   beside: Iterable[str | os.PathLike[str]] = (),
                   counts: Mapping[str, int] | None = None) -> tuple[Gallery, CacheReport]:
    """The gallery of a dataset, from a file as far as that still holds, which is then renewed.

    A row is taken from the file where the encoder with all its settings, the preprocessing and the
    pipeline are the same, and the image has the same id and the same content; labels and metadata
    are always the dataset's. A file that is damaged or of another model counts as empty. Whatever
    ends a call, what it had encoded is kept in ``path.parts``, and counts too; of what a kill cuts
    off, the last seconds are missing.

    Args:
        model: an :class:`ImageToImageRetriever`.
        loader: goes through a dataset once; the images' identities are read without decoding.
        path: where the gallery is kept; it is written whole or not at all.
        compare: what stands for the content of a file: ``'stat'``, its size and the time of its
            last change, or ``'content'``, the SHA-256 of its bytes.
        root: a folder: the ids of images in it are kept relative to it, so that it may be moved,
            or named otherwise, together with the file.
        resume: whether to use what is there; else everything is encoded.
        shard_rows: how many rows a process holds at most before it writes them.
        must_write: raise where nothing can be written; else that is logged, and the gallery is
            returned all the same.
        progress: the title of a progress bar.
        so_far: is called with the gallery of what there is already, at the beginning and when more
            was written. What it raises ends the call, with what is encoded kept.
        beside: files of other datasets, from which rows are taken likewise where they fit.
        counts: by id; what has the highest is encoded first. The rows are in the dataset's order.

    Returns:
        The gallery, with today's ids and without the column of contents, and where its rows are
        from.

    Raises:
        OSError: with ``must_write``, the file or a part cannot be written.
        ValueError: no image can be encoded, two have one identity, or an embedding is not finite.
        RefusedElsewhere: on the other processes, when the first raised one of these.

    Example:
        >>> import tempfile
        >>> from mmengine.dataset import pseudo_collate
        >>> from retrieval.datasets import ImageList
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> encoder = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> model, black = ImageToImageRetriever(encoder), np.zeros((4, 4, 3), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for images in ([black], [black, black + 9]):
        ...         dataset = ImageList(images, pipeline=[dict(type='PackInputs')])
        ...         loader = DataLoader(dataset, collate_fn=pseudo_collate)
        ...         print(cached_gallery(model, loader, f'{folder}/g.safetensors')[1][:2])
        (0, 1)
        (1, 1)
    """
    if compare not in COMPARE:
        raise ValueError(unknown_name('comparison of files', compare, COMPARE))
    dataset, folder, meeting = loader.dataset, PartsFolder.of(path), Meeting()
    names = identities(dataset)
    kept_names = [relative_id(name, root) for name in names]
    states = [file_state(file, compare) for file in files_of(dataset)]
    keys = list(map(_key, kept_names, states))
    row_of = {key: row for row, key in enumerate(keys)}
    fingerprint, settings = model.fingerprint(dataset), settings_hash(model.image_encoder)
    old = _usable(path, fingerprint, settings) if resume else None
    others = [_usable(file, fingerprint, settings, say=False) for file in beside]
    in_file = [_as_part(kept, dataset, kept_names) for kept in (old, *others) if kept is not None]

    def give_up(target: Any, error: OSError) -> None:
        if must_write:
            raise error
        print_log(f'What is encoded could not be kept in {str(target)!r}: {error}', 'current',
                  logging.WARNING)

    def begin() -> tuple[bool, np.ndarray]:
        """If parts are written, and the rows that are there already."""
        done = rows_of(in_file, row_of)
        if len(done) == len(keys) and not folder.path.exists():
            return False, done
        try:
            held.enter_context(folder.locked())
            folder.begin(fingerprint, resume and fingerprint.pipeline is not None, settings,
                         refuse=False)
        except OSError as error:
            give_up(folder.path, error)
            return False, done
        return True, rows_of([*in_file, *folder.parts()], row_of)

    def write_part(encoded: Encoded) -> bool:
        try:
            folder.write(encoded, [keys[row] for row in encoded.rows])
        except OSError as error:
            give_up(folder.path, error)
            return False
        tell()
        return True

    def tell() -> None:
        parts = [*in_file, *(folder.parts() if in_parts else ())]
        if so_far is not None and len(rows_of(parts, row_of)):
            so_far(_put_together(dataset, parts, keys, folder, names, whole=False)[0])

    def write_file() -> None:
        try:
            if report.written:
                contents = {**gallery.metadata, STATE: [states[row] for row in rows]}
                Gallery(gallery.vectors, [kept_names[row] for row in rows], gallery.labels,
                        gallery.label_names, contents, fingerprint, dict(encoder=settings),
                        gallery.skipped, gallery.similarity).save(path)
            if in_parts:
                folder.remove()
        except OSError as error:
            give_up(path, error)

    with ExitStack() as held:
        in_parts, done = _on_first(begin, meeting)
        tell()
        left = np.setdiff1d(np.arange(len(keys)), done).tolist()
        if counts:
            left.sort(key=lambda row: -counts.get(names[row], 0))
        size = loader.batch_size or 1
        batches = [left[start:start + size] for start in range(0, len(left), size)]
        rest = _encode_rows(model, loader, batches, write_part if in_parts else None, shard_rows,
                            progress)
        meeting.wait()
        unwritten = [Part.of(rest, [keys[row] for row in rest.rows])] \
            if rest.rows or rest.skipped else []
        parts = [*in_file, *(folder.parts() if in_parts else ()), *all_gather_list(unwritten)]
        gallery, rows = _put_together(dataset, parts, keys, folder, names)
        gallery.fingerprint, gallery.similarity = fingerprint, model.similarity_name
        report = _report(old, kept_names, keys, done, rows, gallery.skipped)
        meeting.wait()
        _on_first(write_file, meeting)
    return gallery, report


def cache_features(model: Any, dataloader: Mapping[str, Any], path: str | os.PathLike[str],
                   part: str = 'pooling', anew: bool = False,
                   beside: Iterable[str | os.PathLike[str]] = ()) -> tuple[Gallery, bool]:
    """The features of a data set, from a file as far as that fits, else extracted and written.

    The file fits while encoder (up to ``part``), preprocessing and pipeline are the same; images
    that are new or whose file changed are extracted, see :func:`cached_gallery`.

    Args:
        model: a retriever with an :class:`ImageEncoder`; its weights stay as they are.
        dataloader: the config of a dataloader; every image is encoded once, in order.
        path: where the features are kept, ``.safetensors``.
        part: ``'pooling'`` or ``'projection'``, see :meth:`ImageEncoder.up_to`.
        anew: extract, whatever is there.
        beside: files of other data sets, for the images that both have.

    Returns:
        The features, ids and labels as a gallery, and whether the file was written now.

    Raises:
        TypeError: the encoder is another one.
        ValueError: there is no image, or a feature is not finite.
        OSError: the file cannot be written.
    """
    features, report = cached_gallery(model.up_to(part), build_loader(dataloader), path,
                                      resume=not anew, must_write=True,
                                      progress='Extracting features', beside=beside)
    return features, report.written


# Gallery files -----------------------------------------------------------------------------------


def check_target(path: str | os.PathLike[str]) -> None:
    """Raises ValueError for a name that is no gallery's, FileExistsError for a store.

    Example:
        >>> check_target('new.safetensors')
    """
    name = os.fspath(path)
    if not name.endswith(('.safetensors', '.gallery')):
        raise ValueError(f'A gallery is written as a safetensors file; got {name!r}. Give a path '
                         'that ends in .safetensors, or in .gallery for a store that can grow.')
    if name.endswith('.gallery') and Path(name).exists():
        raise FileExistsError(f'There is a store at {name!r} already: give a new name, and switch '
                              'to it with tools/compare_galleries.py --switch.')


def write_gallery(gallery: Gallery, path: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Write a gallery as a file, or as a new store where the name ends in ``.gallery``.

    Args:
        gallery: the gallery.
        path: see :func:`check_target`, which raises.
        dtype: ``'float32'``, ``'float16'`` or ``'int8'``; by default as it is stored.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_gallery(Gallery(np.eye(3), 'abc'), f'{folder}/g.gallery', 'float16')
        ...     GalleryStore.open(f'{folder}/g.gallery').load()
        Gallery(3 x 3, float16, labels=False)
    """
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
    twice = first_repeated(names)
    if twice is not None:
        raise ValueError(f'Two images of the dataset have the same id {twice!r}: give each an id '
                         '(`sample_id`) of its own.')
    return names


# What stands for the content of an image, and an older file as a part ----------------------------


def files_of(dataset: Any) -> Iterator[str | None]:
    """The file of every image of a dataset; None where there is none, or it does not tell."""
    tells = callable(getattr(dataset, 'get_data_info', None))
    for row in range(len(dataset)):
        yield dataset.get_data_info(row).get('img_path') if tells else None


def _key(name: str, state: str) -> str:
    return f'{name}\n{state}'


def _usable(path: str | os.PathLike[str], fingerprint: Fingerprint, settings: str,
            say: bool = True) -> Gallery | None:
    """The gallery in a file, where it is whole and was made by the same model and pipeline.

    Args:
        say: whether it is said that a file is not used, and why.
    """
    if not Path(path).is_file():
        return None
    try:
        gallery = Gallery.load(path)
        if (gallery.fingerprint == fingerprint and fingerprint.pipeline
                and gallery.source.get('encoder') == settings and STATE in gallery.metadata):
            gallery.verify()
            return gallery
        reason = 'another model or pipeline made it'
    except (ValueError, OSError) as error:
        reason = str(error)
    if say:
        print_log(f'{str(path)!r} is not used, all is encoded again: {reason}', 'current',
                  logging.WARNING)
    return None


def _as_part(kept: Gallery, dataset: Any, kept_names: Sequence[str]) -> Part:
    """A kept gallery as a part, with the labels that the dataset gives its images today."""
    today = labels_of(dataset)
    if today is None:
        labels = np.zeros(len(kept), dtype=np.int64) if kept.labels is None else kept.labels.numpy()
    else:
        row_of = {name: row for row, name in enumerate(kept_names)}
        labels = today[[row_of.get(name, 0) for name in kept.ids]]  # of images that are gone, any
    known = today is not None or kept.labels is not None
    keys = StringColumn.from_strings(map(_key, kept.ids, map(str, kept.metadata[STATE])))
    return Part(kept.vectors, keys, kept.ids, labels, np.full(len(kept), known), {})


def _report(old: Gallery | None, kept_names: Sequence[str], keys: Sequence[str],
            done: np.ndarray, rows: np.ndarray, skipped: Mapping[str, str]) -> CacheReport:
    """The report on an older file's rows.

    Args:
        done: rows of the dataset that were there before.
        rows: those that there are now.
    """
    known = {} if old is None else dict(zip(old.ids, map(str, old.metadata[STATE]), strict=True))
    encoded = np.setdiff1d(rows, done).tolist()
    changed = sum(kept_names[row] in known for row in encoded)
    same = old is not None and old.skipped == skipped and [
        _key(name, state) for name, state in known.items()] == [keys[row] for row in rows]
    return CacheReport(len(rows) - len(encoded), len(encoded) - changed, changed,
                       len(set(known).difference(kept_names)), dict(skipped), not same)


# Encoding and putting together -------------------------------------------------------------------


def _on_first(action: Callable[[], Any], meeting: Meeting) -> Any:
    """The result of an action on the first process, on every process, when it is done there."""
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
def _encode_rows(model: Any, loader: DataLoader[Any], batches: Sequence[list[int]],
                 write: Callable[[Encoded], bool] | None, shard_rows: int,
                 progress: str | None) -> Encoded:
    """Encode this process's share of some batches, and write what there is every so many rows, now
    and then, and where anything ends it.

    Args:
        batches: rows of the loader's dataset.
        write: writes what is encoded and says whether it could; after a failure, as with None,
            the rest stays in memory.

    Returns:
        The rows that are not written.
    """
    mine, encoded = own_share(batches), Encoded()
    if not mine:
        return encoded
    start = written = time.monotonic()
    with evaluation_mode(model), progress_bar(progress, sum(map(len, mine))) as bar:
        try:
            for rows, batch in batches_of_rows(loader, mine):
                encode_batch(model, batch, rows, encoded)
                bar.update(len(rows))
                now = time.monotonic()
                due = now - written > min(max(_LOST_SECONDS[0], (now - start) * _LOST_SHARE),
                                          _LOST_SECONDS[1])
                if write is not None and encoded.rows and (due or len(encoded.rows) >= shard_rows):
                    written = now
                    if write(encoded):
                        encoded = Encoded()
                    else:
                        write = None
        except BaseException as ended:  # Ctrl-C too
            if write is not None:
                with suppress(OSError):  # what ended it is the error to show
                    if encoded.rows:
                        write(encoded)
                    if isinstance(ended, KeyboardInterrupt):
                        ended.args = ('What was encoded is kept, and the same call goes on.',)
            raise
    return encoded


def _put_together(dataset: Any, parts: Sequence[Part], keys: Sequence[str], folder: PartsFolder,
                  names: Sequence[str] | None = None,
                  whole: bool = True) -> tuple[Gallery, np.ndarray]:
    """The gallery of a dataset from parts, and the rows of the dataset that are in it.

    Args:
        keys: of the images of the dataset.
        names: their ids; by default as they stand in the parts.
        whole: whether all images must be there.
    """
    found = assemble(parts, {key: row for row, key in enumerate(keys)})
    missing = missing_rows(found, keys if names is None else names)
    if missing and whole:
        raise ValueError(f'{len(missing)} images are not in the parts of the dump, the first is '
                         f'{missing[0]!r}: do all processes see the folder {str(folder.path)!r}? '
                         'Run the command again, and it will encode what is missing.')
    ids, skipped = found.ids, found.skipped
    if names is not None:  # the parts may hold other ids, of a folder that was moved
        ids = StringColumn.from_strings(names).take(found.rows)
        skipped = {name: skipped[name] for name in names if name in skipped}
        for name in set(skipped) & set(ids):
            del skipped[name]
    return Gallery(
        found.vectors, ids, found.labels,
        None if found.labels is None else label_names_of(dataset),
        metadata_of(dataset, torch.from_numpy(found.rows)), skipped=skipped), found.rows

"""Keeping an encoded prototype in a file, and encoding only what changed."""
from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..datasets import RetrievalDataset
from ..gallery import Gallery, hash_settings
from ..registry import unknown_name
from ..retrievers import NothingEncodedError, encode
from .prototypes import file_of

STATE = 'file_state'  # the column that says which content of a file was encoded
_ROOT = '<folder>'
COMPARE = ('stat', 'content')


class CacheReport(NamedTuple):
    """What was done.

    Args:
        kept: rows that were taken from the file.
        new: images that were not in it.
        changed: images whose file changed since.
        removed: rows whose image is gone.
        skipped: images that cannot be read, by reason.
    """

    kept: int
    new: int
    changed: int
    removed: int
    skipped: dict[str, str]

    @property
    def encoded(self) -> int:
        """How many images were encoded."""
        return self.new + self.changed - len(self.skipped)


def cached_gallery(model: Any, dataset: Any, path: str | os.PathLike, compare: str = 'stat',
                   batch_size: int = 32, num_workers: int = 0, progress: str | None = None,
                   root: str | None = None) -> tuple[Gallery, CacheReport]:
    """The gallery of a dataset, from a file as far as that still holds, which is then renewed.

    A row is taken from the file where model, preprocessing and pipeline are the same (by the
    gallery's fingerprint), and the image has the same id and the same content. A file that is
    damaged or of another model counts as empty, and is replaced.

    Args:
        model: a retriever.
        dataset: of this package: its images have identities that can be read without decoding.
        path: where the gallery is kept; it is written whole or not at all.
        compare: what stands for the content of a file: ``'stat'``, its size and the time of its
            last change, or ``'content'``, the SHA-256 of its bytes.
        batch_size, num_workers: of the encoding.
        progress: the title of a progress bar.
        root: a folder: the ids of images in it are kept relative to it, so that it may be moved,
            or named otherwise, together with the file.

    Raises:
        TypeError: the dataset is a foreign one.
        ValueError: no image can be encoded.
    """
    if compare not in COMPARE:
        raise ValueError(unknown_name('comparison of files', compare, COMPARE))
    if not isinstance(dataset, RetrievalDataset):
        raise TypeError('prototype_cache wants a dataset of this package, whose images have '
                        f'identities; {type(dataset).__name__} has none that can be compared.')
    maker = dict(fingerprint=model.fingerprint(dataset).as_dict(), encoder=settings_hash(model))
    ids = dataset.sample_ids
    states = [file_state(file_of(name), compare) for name in ids]
    old = _usable(path, maker)
    known = _known_rows(old, root)
    wanted = [row for row, (name, state) in enumerate(zip(ids, states, strict=True))
              if known.get(name, (0, None))[1] != state]
    made, skipped = _encoded(model, dataset, wanted, batch_size, num_workers, progress)
    gallery = _assembled(dataset, ids, known, old, made, skipped)
    gallery.fingerprint = model.fingerprint(dataset)
    changed = sum(ids[row] in known for row in wanted)
    report = CacheReport(len(ids) - len(wanted), len(wanted) - changed, changed,
                         len(set(known) - set(ids)), skipped)
    if wanted or report.removed or old is None:
        _write(gallery, dict(zip(ids, states, strict=True)), maker['encoder'], path, root)
    return gallery, report


def file_state(path: str | None, compare: str = 'stat') -> str:
    """What stands for the content of a file; empty where there is none, as of an array, whose
    identity is its content already.
    """
    if path is None:
        return ''
    try:
        if compare == 'content':
            with open(path, 'rb') as opened:
                return f'sha256 {hashlib.file_digest(opened, "sha256").hexdigest()}' \
                    if hasattr(hashlib, 'file_digest') else \
                    f'sha256 {hashlib.sha256(opened.read()).hexdigest()}'
        status = os.stat(path)
        return f'{status.st_size} bytes at {status.st_mtime_ns}'
    except OSError:
        return 'unreadable'


def settings_hash(model: Any) -> str:
    """A digest of the encoder's parts and their plain settings.

    The fingerprint's hash of the weights does not see a pooling or a norm that has none.
    """
    parts = {name: [type(part).__qualname__, {
        key: value for key, value in vars(part).items()
        if not key.startswith('_') and key != 'training' and isinstance(
            value, (bool, int, float, str, tuple, type(None)))}]
        for name, part in model.image_encoder.named_modules()}
    return hash_settings(parts)


def _usable(path: str | os.PathLike, maker: dict[str, Any]) -> Gallery | None:
    """The gallery in the file, where it was made by the same model and pipeline."""
    if not Path(path).is_file():
        return None
    try:
        gallery = Gallery.load(path)
        made = dict(fingerprint=gallery.fingerprint.as_dict(),
                    encoder=gallery.source.get('encoder'))
        if made == maker and made['fingerprint']['pipeline'] and STATE in gallery.metadata:
            return gallery
        reason = 'another model or pipeline made it'
    except (ValueError, OSError) as error:
        reason = str(error)
    print_log(f'The cache {str(path)!r} is not used, all is encoded again: {reason}', 'current',
              logging.WARNING)
    return None


def _known_rows(gallery: Gallery | None, root: str | None) -> dict[str, tuple[int, str]]:
    """Row and content of every id in the file."""
    if gallery is None:
        return {}
    states = gallery.metadata[STATE]
    return {_absolute(name, root): (row, str(states[row]))
            for row, name in enumerate(gallery.ids)}


def _relative(name: str, root: str | None) -> str:
    """An id as it is kept: below ``root`` without it, any other as it is."""
    if root is None or not name.startswith(os.path.join(root, '')):
        return name
    return os.path.join(_ROOT, name[len(os.path.join(root, '')):])


def _absolute(name: str, root: str | None) -> str:
    if root is None or not name.startswith(os.path.join(_ROOT, '')):
        return name
    return os.path.join(root, name[len(os.path.join(_ROOT, '')):])


def _encoded(model: Any, dataset: Any, rows: Sequence[int], batch_size: int, num_workers: int,
             progress: str | None) -> tuple[Gallery | None, dict[str, str]]:
    """The gallery of some rows, None where none of them can be read."""
    if not rows:
        return None, {}
    subset = dataset if len(rows) == len(dataset) else dataset.get_subset(list(rows))
    loader: DataLoader = DataLoader(subset, batch_size=batch_size, num_workers=num_workers,
                                    collate_fn=pseudo_collate)
    try:
        made = encode(model, loader, progress)
    except NothingEncodedError as error:  # none of these, but there may be old ones
        return None, error.skipped
    return made, dict(made.skipped)


def _assembled(dataset: Any, ids: Sequence[str], known: dict[str, tuple[int, str]],
               old: Gallery | None, made: Gallery | None, skipped: dict[str, str]) -> Gallery:
    """The gallery in the order of the dataset, from what was kept and what was made."""
    fresh = {} if made is None else dict(made.rows)
    names = [name for name in ids if name not in skipped and (name in fresh or name in known)]
    if not names:
        raise ValueError(f'The prototype is empty: none of its {len(ids)} images can be read.')
    source = next(gallery for gallery in (made, old) if gallery is not None)
    embeddings = torch.empty(len(names), source.dim)
    for gallery, rows_of in ((old, {name: row for name, (row, _) in known.items()}),
                             (made, fresh)):
        if gallery is None:
            continue
        places = [place for place, name in enumerate(names)
                  if name in rows_of and (gallery is made or name not in fresh)]
        embeddings[places] = gallery.embeddings[[rows_of[names[place]] for place in places]]
    row_of = {name: row for row, name in enumerate(ids)}
    rows = [row_of[name] for name in names]
    labels = dataset.labels
    return Gallery(embeddings, ids=names, labels=None if labels is None else labels[rows],
                   label_names=None if labels is None else dataset.label_names,
                   metadata={name: [values[row] for row in rows]
                             for name, values in dataset.metadata.items()}, skipped=skipped)


def _write(gallery: Gallery, states: dict[str, str], encoder: str,
           path: str | os.PathLike, root: str | None) -> None:
    """Write the gallery with the contents that it was made of; without, where that fails.

    A full disk or a folder that cannot be written to is no reason not to search.
    """
    names = [_relative(name, root) for name in gallery.ids]
    kept = Gallery(gallery.embeddings, ids=names, labels=gallery.labels,
                   label_names=gallery.label_names, fingerprint=gallery.fingerprint,
                   metadata={**gallery.metadata, STATE: [states[name] for name in gallery.ids]},
                   skipped=gallery.skipped, source=dict(encoder=encoder))
    try:
        kept.save(path)
    except OSError as error:
        print_log(f'The encoded prototype could not be kept in {str(path)!r}: {error}', 'current',
                  logging.WARNING)


def cache_beside(folder: str | os.PathLike, name: str = 'default') -> Path:
    """Where the encoded images of a folder are kept.

    In the hidden folder ``.retrieval`` in it, or, where that cannot be written to, in the user's
    cache (``$XDG_CACHE_HOME``, else ``~/.cache``) under a digest of the folder's path.

    Args:
        folder: of images.
        name: of the model; each has a file of its own.
    """
    root = Path(folder).resolve()
    beside = root / '.retrieval'
    if os.access(beside if beside.is_dir() else root, os.W_OK | os.X_OK):
        return beside / f'{name}.safetensors'
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    digest = hashlib.sha256(str(root).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    return Path(home) / 'retrieval' / f'{root.name}-{digest}-{name}.safetensors'

"""Opening whatever may be given as a gallery: files of today and earlier, and of others.

A name that leads to the gallery in use, and is switched to another in one step.
"""
from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import sync_folder
from ..tensor_file import DamagedError, ForeignFileError, StringColumn, map_file, read_header
from .file import FORMAT, open_gallery
from .fingerprint import Fingerprint
from .gallery import Gallery
from .store import is_store

# what others call the parts of a file that holds more than one
_NAMES = {
    'embeddings': ('embeddings', 'embedding', 'features', 'feats', 'feat', 'vectors', 'prototype',
                   'prototype_vecs', 'prototypes'),
    'ids': ('ids', 'id', 'paths', 'img_paths', 'image_paths', 'filenames', 'names'),
    'labels': ('labels', 'label', 'targets', 'gt_label', 'gt_labels', 'y'),
    'label_names': ('label_names', 'classes', 'class_names'),
}


def is_gallery(path: str | os.PathLike) -> bool:
    """Whether there is a gallery file or a gallery store at ``path``, and no folder of images."""
    return Path(path).is_file() or is_store(path)


def load_gallery(path: str | os.PathLike) -> Gallery:
    """Open what is at ``path`` as a gallery; see :meth:`Gallery.load`."""
    path = Path(path)
    if path.is_dir():
        from .store import GalleryStore
        return GalleryStore.open(path).load()
    if not path.is_file():
        raise FileNotFoundError(f'There is no gallery at {str(path)!r}. Write one with '
                                '`python tools/dump_prototype.py CONFIG CHECKPOINT OUT.safetensors`'
                                ', or give the path of a saved tensor (N, D).')
    kind = _kind(path)
    if kind == 'safetensors':
        return _load_safetensors(path)
    if kind == 'numpy':
        return Gallery(_readable(path, lambda: np.load(path, allow_pickle=False)))
    if kind == 'npz':
        return _from_parts(_readable(path, lambda: _arrays_of(path)), path)
    loaded = _readable(path, lambda: torch.load(path, map_location='cpu', weights_only=True))
    return Gallery(loaded) if isinstance(loaded, Tensor) else _from_parts(loaded, path)


def _kind(path: Path) -> str:
    """What a file is by its name; of a link, by the name of the file that it leads to."""
    suffix = path.suffix if not path.is_symlink() else Path(os.path.realpath(path)).suffix
    return {'.safetensors': 'safetensors', '.npy': 'numpy', '.npz': 'npz'}.get(suffix, 'torch')


def _readable(path: Path, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; whatever a library underneath says, the error names the file."""
    try:
        return read()
    except (FileNotFoundError, DamagedError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f'{str(path)!r} cannot be read as a gallery: it is damaged or something '
                         f'else ({error}). Dump the prototype again.') from error


def _arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def _from_parts(loaded: Any, path: Path) -> Gallery:
    """A gallery of a dict of embeddings and, where it has them, ids, labels and label names.

    Raises:
        ValueError: it is no such dict.
    """
    found: dict[str, Any] = {}
    if isinstance(loaded, Mapping):
        found = {part: loaded[name] for part, names in _NAMES.items()
                 for name in reversed(names) if name in loaded}
        if 'embeddings' not in found and len(loaded) == 1:
            found['embeddings'] = next(iter(loaded.values()))
    embeddings = found.get('embeddings')
    if not isinstance(embeddings, (Tensor, np.ndarray)):
        what = f'a {type(loaded).__name__}'
        if isinstance(loaded, Mapping):
            what += f' with the keys {", ".join(map(repr, list(loaded)[:5]))}'
        raise ValueError(f'{str(path)!r} holds {what}, and a prototype must be a tensor (N, D), or '
                         'a dict with it as "embeddings" and, where there are any, "ids" and '
                         '"labels". Is it a checkpoint? Dump the prototype with '
                         '`tools/dump_prototype.py`.')
    return _readable(path, lambda: _assembled(found))


def _assembled(found: Mapping[str, Any]) -> Gallery:
    labels, names = found.get('labels'), found.get('label_names')
    if labels is not None and _are_texts(labels):
        texts = list(map(str, labels))
        names = sorted(set(texts)) if names is None else list(map(str, names))
        number = {name: label for label, name in enumerate(names)}
        labels = [number[text] for text in texts]
    ids = found.get('ids')
    return Gallery(found['embeddings'],
                   ids=None if ids is None else ids.tolist() if hasattr(ids, 'tolist') else ids,
                   labels=labels, label_names=names)


def _are_texts(labels: Any) -> bool:
    return not isinstance(labels, Tensor) and np.asarray(labels).dtype.kind in 'US'


def _load_safetensors(path: Path) -> Gallery:
    try:
        return open_gallery(path)
    except ForeignFileError:
        return _load_without_checksums(path)


def _load_without_checksums(path: Path) -> Gallery:
    """A gallery of version 1 of the format, which had no checksums."""
    from safetensors.torch import load_file

    header, _ = read_header(map_file(path), str(path))
    if 'manifest' not in header or 'embeddings' not in header:
        raise ValueError(f'{str(path)!r} is a safetensors file but no gallery (it holds '
                         f'{", ".join(sorted(set(header) - {"__metadata__"})[:5])}). Dump the '
                         'prototype with `tools/dump_prototype.py`.')
    tensors = _readable(path, lambda: load_file(path))
    manifest = _readable(path, lambda: json.loads(tensors['manifest'].numpy().tobytes()))
    if not isinstance(manifest, dict) or (manifest.get('format'), manifest.get('version')) != (
            FORMAT, 1):
        raise ValueError(f'{str(path)!r} is damaged, or no gallery: it has no checksums, and is '
                         'none of version 1 of the format, which had none. Dump the prototype '
                         'again.')
    return _readable(path, lambda: _assemble(tensors, manifest))


def _assemble(tensors: dict[str, Tensor], manifest: dict[str, Any]) -> Gallery:
    names = _take(tensors, 'label_names')
    metadata = {name: _take(tensors, f'metadata.{number}')
                for number, name in enumerate(manifest['columns'])}
    ids = _take(tensors, 'ids') if manifest['identified'] else None
    return Gallery(
        tensors['embeddings'], ids=ids,
        labels=tensors.get('labels'), label_names=None if names is None else list(names),
        metadata=metadata, fingerprint=Fingerprint.from_dict(manifest['fingerprint']),
        source=manifest['source'], skipped=manifest['skipped'])


def _take(tensors: dict[str, Tensor], name: str) -> Any:
    if f'{name}.bytes' in tensors:
        return StringColumn(tensors[f'{name}.bytes'], tensors[f'{name}.offsets'])
    return tensors.get(name)


def switch(link: str | os.PathLike, target: str | os.PathLike) -> Path | None:
    """Let a name lead to another gallery, a file or a store.

    The name is a symbolic link, so that it can be given wherever a gallery's path can. Whoever
    opens it gets the old gallery or the new one; what is open already stays as it is.

    Args:
        link: the name; it is made where it does not exist.
        target: the gallery.

    Returns:
        Where it led before, or None.

    Raises:
        FileNotFoundError: there is nothing at ``target``.
        FileExistsError: ``link`` is a file or folder itself.
        ValueError: the target is the link.
    """
    link, target = Path(link), Path(target)
    if not target.exists():
        raise FileNotFoundError(f'There is no gallery at {str(target)!r} to switch to.')
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f'{str(link)!r} is a gallery itself, and no link to one: move it to '
                              'another name, and switch the link to that first.')
    if target.parent.resolve() / target.name == link.parent.resolve() / link.name:
        raise ValueError(f'{str(link)!r} cannot lead to itself.')
    before = Path(os.path.realpath(link)) if link.is_symlink() else None
    link.parent.mkdir(parents=True, exist_ok=True)
    # relative, so that the folder with both can be moved
    leads_to = os.path.relpath(target.parent.resolve() / target.name, link.parent.resolve())
    with tempfile.TemporaryDirectory(dir=link.parent, prefix=f'.{link.name}.') as folder:
        temporary = os.path.join(folder, link.name)
        os.symlink(leads_to, temporary)
        os.replace(temporary, link)
    sync_folder(link.parent)
    return before

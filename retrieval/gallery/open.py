"""Opening whatever may be given as a gallery: files of this and earlier releases, stores, and
vectors that others saved; and a name that leads to the gallery in use and can be switched.
"""
from __future__ import annotations

import json
import math
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..files import kind_of_file, sync_folder
from ..foreign_files import available_memory, refuse_oversized, refuse_special, unpacked
from ..mapped_file import DamagedError, map_file
from ..string_column import StringColumn
from ..tensor_file import GALLERY_FILE, read_header
from .file import Contents, open_gallery_file
from .fingerprint import Fingerprint
from .shards import is_store, open_shards

# what others call the parts of a file that holds more than one
_NAMES = {
    'embeddings': ('embeddings', 'embedding', 'features', 'feats', 'feat', 'vectors', 'prototype',
                   'prototype_vecs', 'prototypes'),
    'ids': ('ids', 'id', 'paths', 'img_paths', 'image_paths', 'filenames', 'names'),
    'labels': ('labels', 'label', 'targets', 'gt_label', 'gt_labels', 'y'),
    'label_names': ('label_names', 'classes', 'class_names'),
}


def is_gallery(path: str | os.PathLike[str]) -> bool:
    """True where there is a gallery at ``path``: a file, a store, or in a bundle; and no folder of
    images.

    Example:
        >>> is_gallery('no/such/file')
        False
    """
    return Path(path).is_file() or is_store(path) or in_bundle(path) is not None


def in_bundle(path: str | os.PathLike[str]) -> Path | None:
    """The gallery file in the folder or the ``.zip`` of a bundle, None where there is none.

    Example:
        >>> in_bundle('no/such/folder') is None
        True
    """
    names = ('gallery.safetensors', 'config.json')
    if os.path.isfile(path) and zipfile.is_zipfile(path):  # and so is what numpy or torch saved
        with zipfile.ZipFile(path) as archive:
            if not set(names) <= set(archive.namelist()):
                return None
        return unpacked(path, names) / names[0]
    file = Path(path) / names[0]
    return file if file.is_file() and file.with_name(names[1]).is_file() else None


def open_path(path: str | os.PathLike[str], copy: bool = False) -> Contents | dict[str, Any]:
    """Open ``path``: the contents of a gallery, or arguments of :class:`Gallery`.

    Args:
        path: a file, a store, or a bundle with a gallery.
        copy: read a gallery into memory now, instead of mapping it.

    Raises:
        FileNotFoundError: there is no such file, or the folder is no store.
        ValueError: it is damaged, or something else.
    """
    path = in_bundle(path) or Path(path)
    refuse_special(path)
    if path.is_dir():
        return open_shards(Path(os.path.realpath(path)), copy)
    if not path.is_file():
        raise FileNotFoundError(f'There is no gallery at {str(path)!r}. Write one with '
                                '`python tools/dump_prototype.py CONFIG CHECKPOINT OUT.safetensors`'
                                ', or give the path of a saved tensor (N, D).')
    kind = kind_of_file(path)  # by its bytes, whatever it is called
    if 'safetensors' in kind or Path(os.path.realpath(path)).suffix == '.safetensors':
        return _open_safetensors(path, copy)
    refuse_oversized(path)
    with readable(path):
        if 'NumPy' in kind:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return dict(embeddings=loaded)
            with loaded:
                loaded = dict(loaded)
        elif 'torch.save' in kind or 'pickle' in kind:
            with path.open('rb') as file:
                loaded = torch.load(file, map_location='cpu', weights_only=True)
            if isinstance(loaded, Tensor):
                loaded = {'embeddings': loaded}
        else:
            raise ValueError('nothing that holds embeddings')
    return parts_of(loaded, path)


@contextmanager
def readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, whatever a library underneath says, the error is a ValueError that names the file."""
    try:
        yield
    except (FileNotFoundError, DamagedError, MemoryError):
        raise
    except Exception as error:
        # torch's own text advises to load without its restriction, which nobody should follow
        named = re.search(r'Unsupported global: GLOBAL (\S+)', str(error))
        reason = (f'it names {named[1]}, and objects other than tensors could run code' if named
                  else 'it is damaged or something else' if 'weights_only' in str(error)
                  else f'it is damaged or something else: {error}')
        raise ValueError(
            f'{os.fspath(path)!r} cannot be read as a gallery: it seems to be '
            f'{kind_of_file(path)} ({reason}). Give a gallery that `tools/dump_prototype.py` wrote '
            '(.safetensors or a store), or a tensor or array (N, D) (.pth, .npy, .npz).'
            ) from error


def parts_of(loaded: Any, path: Path) -> dict[str, Any]:
    """The embeddings of a dict and, where it has them, ids, labels and label names.

    Raises:
        ValueError: it is no such dict.
    """
    found: dict[str, Any] = {}
    if isinstance(loaded, Mapping):
        found = {part: loaded[name] for part, names in _NAMES.items()
                 for name in reversed(names) if name in loaded}
        if 'embeddings' not in found and len(loaded) == 1:
            found['embeddings'] = next(iter(loaded.values()))
    if not isinstance(found.get('embeddings'), (Tensor, np.ndarray)):
        what = f'a {type(loaded).__name__}'
        if isinstance(loaded, Mapping):
            what += f' with the keys {", ".join(map(repr, list(loaded)[:5]))}'
        raise ValueError(f'{str(path)!r} holds {what}, and a prototype must be a tensor (N, D), or '
                         'a dict with it as "embeddings" and, where there are any, "ids" and '
                         '"labels". Is it a checkpoint? Dump the prototype with '
                         '`tools/dump_prototype.py`.')
    # a tensor may repeat one row without a byte for the others
    if 4 * math.prod(found['embeddings'].shape) > available_memory():
        raise ValueError(f'{str(path)!r} holds embeddings of shape '
                         f'{tuple(found["embeddings"].shape)}, more than the free memory does.')
    with readable(path):
        for part in ('ids', 'label_names'):
            if hasattr(found.get(part), 'tolist'):
                found[part] = found[part].tolist()
    return found


def _open_safetensors(path: Path, copy: bool) -> Contents | dict[str, Any]:
    header, _ = read_header(map_file(path), str(path))
    if 'checksums' in header:
        return open_gallery_file(path, copy)
    if 'manifest' not in header or 'embeddings' not in header:
        raise ValueError(f'{str(path)!r} is a safetensors file but no gallery (it holds '
                         f'{", ".join(sorted(set(header) - {"__metadata__"})[:5])}). Dump the '
                         'prototype with `tools/dump_prototype.py`.')
    return _version_1(path)


def _version_1(path: Path) -> dict[str, Any]:
    """The contents of a file of version 1 of the format, which had no checksums."""
    from safetensors.torch import load

    def column(name: str) -> Any:
        if f'{name}.bytes' in tensors:
            return StringColumn(tensors[f'{name}.bytes'], tensors[f'{name}.offsets'])
        return tensors.get(name)

    with readable(path):
        tensors = load(path.read_bytes())  # its load_file would map the file
        manifest = json.loads(tensors['manifest'].numpy().tobytes())
    if not isinstance(manifest, dict) or (manifest.get('format'), manifest.get('version')) != (
            GALLERY_FILE.name, 1):
        raise ValueError(f'{str(path)!r} is damaged, or no gallery: it has no checksums, and is '
                         'none of version 1 of the format, which had none. Dump the prototype '
                         'again.')
    with readable(path):
        return dict(
            embeddings=tensors['embeddings'], ids=column('ids') if manifest['identified'] else None,
            labels=tensors.get('labels'), label_names=column('label_names'),
            metadata={name: column(f'metadata.{number}')
                      for number, name in enumerate(manifest['columns'])},
            fingerprint=Fingerprint.from_dict(manifest['fingerprint']),
            source=manifest['source'], skipped=manifest['skipped'])


def switch(link: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path | None:
    """Let a name lead to another gallery, a file or a store.

    The name is a symbolic link, so that it can be given wherever a gallery's path can. Whoever
    opens it gets the old gallery or the new one; what is open already stays as it is.

    Args:
        link: the name; it is made where it does not exist.
        target: the gallery.

    Returns:
        The gallery that it led to before, or None.

    Raises:
        FileNotFoundError: there is nothing at ``target``.
        FileExistsError: ``link`` is a file or folder itself.
        ValueError: the target is the link.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f'{folder}/v1.npy', np.eye(2))
        ...     switch(f'{folder}/current', f'{folder}/v1.npy')
        ...     os.readlink(f'{folder}/current')
        'v1.npy'
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

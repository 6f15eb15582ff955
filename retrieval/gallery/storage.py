"""Reading and writing galleries.

One safetensors file: the embeddings, the labels and every numeric column as tensors, every column
of strings as bytes and offsets, and a manifest (JSON, as bytes, since a safetensors header may not
pass 100 MB).
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .fingerprint import Fingerprint
from .gallery import Column, Gallery
from .string_column import StringColumn

FORMAT = 'retrieval-gallery'
FORMAT_VERSION = 1


def write_atomically(path: str | os.PathLike, write: Callable[[str], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, sync, and rename: a reader sees the
    old file or the new one, never half of one. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.', delete=False) as handle:
        temporary = handle.name
    try:
        write(temporary)
        with open(temporary, 'rb') as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # a temporary file is private, the result need not be
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically; see :func:`write_atomically`."""
    write_atomically(path, lambda name: Path(name).write_text(text, encoding='utf-8'))


def _versions() -> dict[str, str]:
    import mmengine

    from ..version import __version__
    return {'retrieval': __version__, 'torch': str(torch.__version__),
            'mmengine': str(mmengine.__version__), 'numpy': np.__version__}


def save_gallery(gallery: Gallery, path: str | os.PathLike) -> None:
    """Write ``gallery`` to ``path``; see :meth:`Gallery.save`."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {'embeddings': gallery.embeddings.cpu().contiguous()}
    manifest: dict[str, Any] = {
        'format': FORMAT, 'version': FORMAT_VERSION, 'identified': gallery.identified,
        'fingerprint': gallery.fingerprint.as_dict(), 'skipped': gallery.skipped,
        'source': {**gallery.source, 'versions': _versions()}, 'columns': list(gallery.metadata)}
    if gallery.identified:
        _put(tensors, 'ids', gallery.ids)
    if gallery.labels is not None:
        tensors['labels'] = gallery.labels.cpu().contiguous()
    if gallery.label_names is not None:
        _put(tensors, 'label_names', StringColumn.from_strings(gallery.label_names))
    for number, column in enumerate(gallery.metadata.values()):
        _put(tensors, f'metadata.{number}', column)
    text = json.dumps(manifest).encode()
    tensors['manifest'] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    header = {'format': FORMAT, 'version': str(FORMAT_VERSION)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def _put(tensors: dict[str, Tensor], name: str, column: Column) -> None:
    if isinstance(column, StringColumn):
        tensors[f'{name}.bytes'], tensors[f'{name}.offsets'] = column.data, column.offsets
    else:
        tensors[name] = column.cpu().contiguous()


def load_gallery(path: str | os.PathLike) -> Gallery:
    """Open the gallery or the saved tensor at ``path``; see :meth:`Gallery.load`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no gallery at {str(path)!r}. Write one with '
                                '`python tools/dump_prototype.py CONFIG CHECKPOINT OUT.safetensors`'
                                ', or give the path of a saved tensor (N, D).')
    if path.suffix == '.safetensors':
        return _load_safetensors(path)
    if path.suffix == '.npy':
        return Gallery(_readable(path, lambda: np.load(path, allow_pickle=False)))
    return Gallery(_load_tensor(path))


def _readable(path: Path, read: Callable[[], Any]) -> Any:
    """What ``read`` returns; whatever a library underneath says, the error names the file."""
    try:
        return read()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f'{str(path)!r} cannot be read as a gallery: it is damaged or something '
                         f'else ({error}). Dump the prototype again.') from error


def _load_tensor(path: Path) -> Tensor:
    loaded = _readable(path, lambda: torch.load(path, map_location='cpu', weights_only=True))
    if not isinstance(loaded, Tensor):
        raise ValueError(f'{str(path)!r} holds a {type(loaded).__name__}, and a prototype must be '
                         'a tensor (N, D). Is it a checkpoint? Dump the prototype with '
                         '`tools/dump_prototype.py`.')
    return loaded


def _load_safetensors(path: Path) -> Gallery:
    from safetensors.torch import load_file

    tensors = _readable(path, lambda: load_file(path))
    if 'manifest' not in tensors or 'embeddings' not in tensors:
        raise ValueError(f'{str(path)!r} is a safetensors file but no gallery (it holds '
                         f'{", ".join(sorted(tensors)[:5])}). Dump the prototype with '
                         '`tools/dump_prototype.py`.')
    manifest = _readable(path, lambda: json.loads(tensors['manifest'].numpy().tobytes()))
    if manifest.get('format') != FORMAT or manifest.get('version', 0) > FORMAT_VERSION:
        raise ValueError(f'{str(path)!r} has format {manifest.get("format")!r} version '
                         f'{manifest.get("version")}; this release reads {FORMAT!r} up to version '
                         f'{FORMAT_VERSION}.')
    return _readable(path, lambda: _assemble(tensors, manifest))


def _assemble(tensors: dict[str, Tensor], manifest: dict[str, Any]) -> Gallery:
    names = _take(tensors, 'label_names')
    metadata = {name: _take(tensors, f'metadata.{number}')
                for number, name in enumerate(manifest['columns'])}
    ids = _take(tensors, 'ids') if manifest['identified'] else None
    return Gallery(
        tensors['embeddings'], ids=ids,
        labels=tensors.get('labels'), label_names=None if names is None else list(names),
        metadata=metadata, fingerprint=Fingerprint(**manifest['fingerprint']),
        source=manifest['source'], skipped=manifest['skipped'])


def _take(tensors: dict[str, Tensor], name: str) -> Any:
    if f'{name}.bytes' in tensors:
        return StringColumn(tensors[f'{name}.bytes'], tensors[f'{name}.offsets'])
    return tensors.get(name)

"""The gallery file: embeddings, ids, labels and metadata columns as one file with checksums."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..tensor_file import DTYPES, Container, Entry, StringColumn, write_container
from .columns import Column
from .fingerprint import Fingerprint
from .gallery import Gallery
from .vectors import ArrayVectors, Vectors, check_dtype

FORMAT = 'retrieval-gallery'
FORMAT_VERSION = 2


def library_versions() -> dict[str, str]:
    """The versions of what makes and writes embeddings."""
    import mmengine

    from .. import __version__
    return {'retrieval': __version__, 'torch': str(torch.__version__),
            'mmengine': str(mmengine.__version__), 'numpy': np.__version__}


def save_gallery(gallery: Gallery, path: str | os.PathLike, dtype: str | None = None) -> str:
    """Write ``gallery`` to ``path``, see :meth:`Gallery.save`; returns the file's checksum."""
    dtype = gallery.dtype if dtype is None else check_dtype(dtype)
    entries = _vector_entries(gallery.vectors, dtype)
    if gallery.identified:
        entries += _column_entries('ids', gallery.ids)
    if gallery.labels is not None:
        entries += _column_entries('labels', gallery.labels)
    if gallery.label_names is not None:
        entries += _column_entries('label_names', StringColumn.from_strings(gallery.label_names))
    for number, values in enumerate(gallery.metadata.values()):
        entries += _column_entries(f'metadata.{number}', values)
    manifest = dict(
        format=FORMAT, version=FORMAT_VERSION, rows=len(gallery), dim=gallery.dim, dtype=dtype,
        similarity=gallery.similarity, normalised=gallery.normalised,
        identified=gallery.identified, fingerprint=gallery.fingerprint.as_dict(),
        columns=list(gallery.metadata), skipped=gallery.skipped,
        source={**gallery.source, 'versions': library_versions()})
    return write_container(path, FORMAT, FORMAT_VERSION, entries, manifest)


def _vector_entries(vectors: Vectors, dtype: str) -> list[Entry]:
    def data() -> Iterable[np.ndarray]:
        return (rows for rows, _ in vectors.chunks(dtype))

    def scales() -> Iterable[np.ndarray]:
        return (scale for _, scale in vectors.chunks(dtype) if scale is not None)

    entries = [Entry('embeddings', dtype, vectors.shape, data)]
    if dtype == 'int8':
        entries.append(Entry('embeddings.scale', 'float32', (len(vectors),), scales))
    return entries


def _column_entries(name: str, values: Column) -> list[Entry]:
    if isinstance(values, StringColumn):
        return [Entry.of(f'{name}.bytes', values.data.numpy()),
                Entry.of(f'{name}.offsets', values.offsets.numpy())]
    tensor = values.detach().cpu().contiguous()
    if str(tensor.dtype).removeprefix('torch.') not in DTYPES.values():
        tensor = tensor.float()  # bfloat16 and the like, which NumPy does not have
    return [Entry.of(name, tensor.numpy())]


def open_gallery(path: str | os.PathLike) -> Gallery:
    """The gallery in a file that :func:`save_gallery` wrote; nothing of its rows is read yet.

    Raises:
        DamagedError: a ``ValueError``; its header or manifest is damaged, or it is cut off.
        ForeignFileError: a ``ValueError``; it is a safetensors file of another kind.
    """
    opened = Container(path, FORMAT)
    if opened.version > FORMAT_VERSION:
        raise ValueError(f'{opened.path!r} has version {opened.version} of the gallery format; '
                         f'this release reads up to {FORMAT_VERSION}. Install a newer release.')
    manifest, arrays = opened.manifest, opened.arrays
    later: dict[str, Callable[[], Any]] = {
        name: partial(read_column, opened, name) for name in ('ids', 'labels', 'label_names')
        if name in arrays or f'{name}.bytes' in arrays}
    metadata = {name: partial(read_column, opened, f'metadata.{number}')
                for number, name in enumerate(manifest['columns'])}
    vectors = ArrayVectors(arrays['embeddings'], arrays.get('embeddings.scale'),
                           manifest['normalised'])
    return Gallery.opened(
        vectors, later, metadata, [opened], source=manifest['source'],
        fingerprint=Fingerprint.from_dict(manifest['fingerprint']), skipped=manifest['skipped'],
        similarity=manifest['similarity'])


def read_column(opened: Container, name: str) -> Column:
    """A column of an open file: strings decoded when asked for, numbers as a tensor."""
    arrays = opened.arrays
    if f'{name}.bytes' in arrays:
        return StringColumn.from_arrays(arrays[f'{name}.bytes'], arrays[f'{name}.offsets'])
    values: Tensor = torch.from_numpy(arrays[name][:])
    return values

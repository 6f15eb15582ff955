"""The gallery file: embeddings, ids, labels and metadata columns in one checked container."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..tensor_file import GALLERY_FILE, Container, Pieces, write_container
from .columns import Column
from .fingerprint import Fingerprint
from .vectors import ArrayVectors, Vectors, check_dtype


@dataclass
class Contents:
    """The contents of an open gallery file or store; a column is read when its reader is called.

    Args:
        vectors: the embeddings.
        columns: what reads ``ids``, ``labels`` and ``label_names``, where there are any.
        metadata: what reads each metadata column.
        files: what was opened.
        facts: ``fingerprint``, ``source``, ``skipped`` and ``similarity``.
    """

    vectors: Vectors
    columns: Mapping[str, Callable[[], Any]]
    metadata: Mapping[str, Callable[[], Column]]
    files: tuple[Container, ...]
    facts: Mapping[str, Any]


def write_gallery_file(path: str | os.PathLike[str], dtype: str, vectors: Vectors,
                       columns: Mapping[str, Column | None], metadata: Mapping[str, Column],
                       facts: Mapping[str, Any]) -> str:
    """Write a gallery; its vectors are encoded some thousand rows at a time.

    Args:
        path: the file.
        dtype: how embeddings are stored: ``'float32'``, ``'float16'`` or ``'int8'``.
        vectors: the embeddings.
        columns: ``ids``, ``labels`` and ``label_names``, None where there are none.
        metadata: further columns.
        facts: ``fingerprint``, ``source``, ``skipped`` and ``similarity``.

    Returns:
        The file's checksum.

    Raises:
        ValueError: the dtype is another one, or a value is too large for it.
        OSError: it cannot be written; what was there before stays.
    """
    check_dtype(dtype)

    def data() -> Iterable[np.ndarray]:
        return (rows for rows, _ in vectors.chunks(dtype))

    def scales() -> Iterable[np.ndarray]:
        return (scale for _, scale in vectors.chunks(dtype) if scale is not None)

    held: dict[str, Any] = {'embeddings': Pieces(dtype, vectors.shape, data)}
    if dtype == 'int8':
        held['embeddings.scale'] = Pieces('float32', (len(vectors),), scales)
    held.update((name, values) for name, values in columns.items() if values is not None)
    held.update((f'metadata.{number}', values) for number, values in enumerate(metadata.values()))
    manifest = dict(
        format=GALLERY_FILE.name, version=GALLERY_FILE.version, rows=len(vectors),
        dim=vectors.shape[1], dtype=dtype, similarity=facts['similarity'],
        normalised=vectors.normalised, identified=columns['ids'] is not None,
        fingerprint=facts['fingerprint'].as_dict(), columns=list(metadata),
        skipped=facts['skipped'], source={**facts['source'], 'versions': _library_versions()})
    return write_container(path, GALLERY_FILE, held, manifest)


def _library_versions() -> dict[str, str]:
    import mmengine
    import torch

    from .. import __version__
    return {'retrieval': __version__, 'torch': str(torch.__version__),
            'mmengine': str(mmengine.__version__), 'numpy': np.__version__}


def open_gallery_file(path: str | os.PathLike[str], copy: bool = False) -> Contents:
    """The contents of a file of :func:`write_gallery_file`; nothing of its rows is read yet, unless
    it is to be copied into memory.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: a ``ValueError``; its header or manifest is damaged, or it is cut off.
        ForeignFileError: a ``ValueError``; it is of another kind or version.
    """
    opened = Container(path, GALLERY_FILE, copy)
    manifest = opened.manifest
    readers: dict[str, Callable[[], Any]] = {
        name: partial(opened.column, name) for name in ('ids', 'labels', 'label_names')
        if name in opened}
    metadata = {name: partial(opened.column, f'metadata.{number}')
                for number, name in enumerate(manifest['columns'])}
    vectors = ArrayVectors(opened.arrays['embeddings'], opened.arrays.get('embeddings.scale'),
                           manifest['normalised'])
    facts = dict(fingerprint=Fingerprint.from_dict(manifest['fingerprint']),
                 source=manifest['source'], skipped=manifest['skipped'],
                 similarity=manifest['similarity'])
    return Contents(vectors, readers, metadata, (opened,), facts)

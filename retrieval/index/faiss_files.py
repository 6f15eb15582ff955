"""The file of a FaissIndex: a checksummed container around what faiss writes.

faiss's reader trusts its input: damaged bytes can make it ask for all the memory or crash. So it
is only given bytes whose checksum was compared.
"""
from __future__ import annotations

import json
import shutil
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..gallery.string_column import StringColumn
from . import faiss_lists, files
from .faiss_engine import read_engine
from .kept_vectors import KeptVectors
from .row_ids import RowIds

if TYPE_CHECKING:
    from .faiss_index import FaissIndex

FORMAT = 'retrieval.FaissIndex'
VERSION = '1'


def save(index: FaissIndex, path: Path) -> None:
    """Write ``index``; see :meth:`FaissIndex.save`."""
    store, engine = index.store, index.store.engine
    ids = store.ids.column()
    tensors: dict[str, Tensor] = {'ids': ids.data, 'id_offsets': ids.offsets,
                                  'slots': torch.from_numpy(store.slots)}
    header = {'format': FORMAT, 'version': VERSION, 'settings': json.dumps(index.settings()),
              'codec': store.codec, 'next': str(store.next_slot),
              'longest': repr(store.longest), 'gallery': index.gallery_digest or ''}
    lists: Path | None = None
    if engine is not None:
        if store.lists_on_disk and len(index):
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors['list_sizes'] = torch.from_numpy(faiss_lists.sizes_of([engine.core]))
            lists = faiss_lists.save_lists(engine.core, lambda slots: slots, path)
            header['lists'] = lists.name
            with engine.without_lists():
                tensors['faiss'] = torch.from_numpy(engine.bytes())
        else:
            tensors['faiss'] = torch.from_numpy(engine.bytes())
    if store.kept is not None:
        tensors['vectors'] = store.kept.rows
    files.write(path, tensors, header)
    faiss_lists.drop_other_lists(path, lists)


def load(cls: type[FaissIndex], path: Path, device: Any, on_disk: str | PathLike | None,
         verify: bool) -> FaissIndex:
    """Read an index; see :meth:`FaissIndex.load`."""
    tensors, header = files.read(path, FORMAT)
    if header.get('version') != VERSION:
        raise ValueError(f'{str(path)!r} has version {header.get("version")} of the format, '
                         f'this package reads {VERSION}.')
    try:
        index = cls(**json.loads(header['settings']), on_disk=on_disk, device=device)
        _fill(index, tensors, header)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{str(path)!r} is damaged, or not for this installation: {error}') \
            from error
    if 'lists' in header:
        _open_lists(index, path.with_name(header['lists']), tensors['list_sizes'].numpy(), verify)
    elif index.store.on_disk is not None and index.store.engine is not None:
        _move_lists(index)
    return index


def _fill(index: FaissIndex, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Put what a file holds into a new index."""
    ids = StringColumn(tensors['ids'], tensors['id_offsets'])
    slots = tensors['slots'].numpy()
    if len(slots) != len(ids) or bool((np.diff(slots) <= 0).any()):
        raise ValueError('the rows do not fit the ids')
    store = index.store
    if store.kept is not None:
        store.kept = KeptVectors(index.similarity.name, index.rescore_dtype, tensors['vectors'])
        if len(store.kept.rows) != len(ids):
            raise ValueError('the kept vectors do not fit the ids')
    engine = None
    if 'faiss' in tensors:
        engine = read_engine(tensors['faiss'], index.similarity.name)
        if 'lists' not in header and len(engine) < len(ids):
            raise ValueError('the vectors do not fit the ids')
    store.restore(RowIds(ids), slots, engine, codec=header['codec'],
                  next_slot=int(header['next']), longest=float(header['longest']))
    index.search_parameters = {}
    index.gallery_digest = header['gallery'] or None


def _open_lists(index: FaissIndex, file: Path, sizes: np.ndarray, verify: bool) -> None:
    """Map the lists of a file, or of a copy that may change."""
    store, engine = index.store, index.store.engine
    assert engine is not None
    faiss_lists.check_lists(file, int(sizes.sum()) * (engine.core.code_size + 8), verify)
    if store.on_disk is None:
        faiss_lists.map_lists(engine.core, file, sizes, writable=False)
        store.sealed = True
    else:
        copy = store.working_file()
        shutil.copyfile(file, copy)
        faiss_lists.map_lists(engine.core, copy, sizes, writable=True)
    engine.set_total(int(sizes.sum()))


def _move_lists(index: FaissIndex) -> None:
    """Move lists that were read into memory to a file of their own."""
    engine = index.store.engine
    assert engine is not None
    file, sizes = index.store.working_file(), faiss_lists.sizes_of([engine.core])
    faiss_lists.write_lists([(engine.core, lambda slots: slots)], str(file))
    faiss_lists.map_lists(engine.core, file, sizes, writable=True)

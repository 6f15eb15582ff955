"""The file of a FaissIndex: a checksummed container around what faiss writes.

faiss's reader trusts its input: damaged bytes can make it ask for all the memory or crash. So it
is only given bytes whose checksum was compared.

Several indexes with one training as one.
"""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...tensor_file import StringColumn
from .. import files
from ..base import RowIds
from . import lists as faiss_lists
from .engine import read_engine
from .lists import Renumber
from .search import KeptVectors

if TYPE_CHECKING:
    from .index import FaissIndex

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


def merge(cls: type[FaissIndex], given: Iterable[Any],
          on_disk: str | PathLike | None) -> FaissIndex:
    """See :meth:`FaissIndex.merge`."""
    if isinstance(given, (str, bytes, PathLike, cls)):
        raise TypeError(f'merge wants a sequence of indexes or files, got {given!r}.')
    parts = [part if isinstance(part, cls) else cls.load(part) for part in given]
    if not parts:
        raise ValueError('There is nothing to merge: give at least one index.')
    _check_alike(parts)
    names = RowIds()
    for part in parts:
        names.append(names.new(part.ids, len(part)))
    merged = parts[0].empty_copy(on_disk)
    engine = merged.store.engine
    assert engine is not None
    if engine.given:
        _join(merged, parts, names)
    else:
        for part in parts:
            if len(part):
                merged.take(part.store.vectors(), list(part.ids))
    return merged


def _check_alike(parts: list[FaissIndex]) -> None:
    """Refuse parts that do not share similarity, factory and training. Raises ValueError."""
    first = parts[0]
    for number, part in enumerate(parts[1:], start=1):
        for what, own, other in (
                ('factory', first.factory, part.factory),
                ('similarity', first.similarity.name, part.similarity.name),
                ('width', first.width, part.width),
                ('rescore', (first.rescore, first.rescore_dtype),
                 (part.rescore, part.rescore_dtype))):
            if own != other:
                raise ValueError(f'Indexes can be merged that are made alike; part {number} has '
                                 f'{what} {other!r}, part 0 has {own!r}.')
        if part.store.codec != first.store.codec:
            raise ValueError(f'Part {number} was trained apart from part 0, so that its codes mean '
                             'something else: fill every shard from empty_copy() of one trained '
                             'index, or from one saved file.')


def _join(merged: FaissIndex, parts: list[FaissIndex], names: RowIds) -> None:
    """Copy the lists of the parts, under the numbers of the rows in the result."""
    store, engine = merged.store, merged.store.engine
    assert engine is not None
    plain = faiss_lists.plain_lists(engine.core)
    sources, slots, start = [], [], 0
    for part in parts:
        assert part.store.engine is not None
        if plain:
            sources.append((part.store.engine.core, _renumbering(part.store.slots, start)))
            slots.append(np.arange(start, start + len(part)))
            start += len(part)
        else:  # packed blocks, which only faiss can put together, under numbers with gaps
            copied = part.store.engine.copy()  # it is emptied
            engine.core.merge_from(copied.core, start)
            slots.append(part.store.slots + start)
            start += part.store.next_slot
        if store.kept is not None and part.store.kept is not None and len(part):
            store.kept.add(part.store.kept.rows)
    if store.on_disk is not None:
        file = store.working_file()
        faiss_lists.write_lists(sources, str(file))
        faiss_lists.map_lists(engine.core, file,
                              faiss_lists.sizes_of([core for core, _ in sources]), writable=True)
    else:
        faiss_lists.join_lists(engine.core, sources)
    engine.set_total(len(names))
    store.restore(names, np.concatenate(slots), engine, store.codec, next_slot=start,
                  longest=max(part.store.longest for part in parts))


def _renumbering(slots: np.ndarray, start: int) -> Renumber:
    return lambda found: np.searchsorted(slots, found) + start

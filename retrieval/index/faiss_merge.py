"""Several indexes with one training as one."""
from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from . import faiss_lists
from .faiss_lists import Renumber
from .row_ids import RowIds

if TYPE_CHECKING:
    from .faiss_index import FaissIndex


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

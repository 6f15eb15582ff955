"""The rows of a FaissIndex: in memory, in a file, and of several indexes as one.

faiss's reader trusts its input: damaged bytes can make it ask for all the memory or crash. So it
is only given bytes whose checksums were compared.
"""
from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...string_column import StringColumn
from ...tensor_file import Container, Format, write_container
from ..base import RowIds
from . import lists as faiss_lists
from .engine import FaissEngine, read_engine
from .lists import Renumber
from .search import KeptVectors

FORMAT = Format('retrieval.FaissIndex', 2, 'Build it again with tools/build_index.py.')


class FaissStore:
    """Rows in the order in which they were added, over an engine that numbers them by slot.

    Args:
        similarity: the name of the similarity.
        kept: vectors that are kept beside the engine, or None.
        on_disk: a folder for the inverted lists, or None to hold them in memory.
        max_removed: the share of hidden rows above which the engine is built anew.
    """

    def __init__(self, similarity: str, kept: KeptVectors | None,
                 on_disk: str | PathLike[str] | None, max_removed: float) -> None:
        self.similarity, self.kept, self.max_removed = similarity, kept, max_removed
        self.on_disk = None if on_disk is None else Path(on_disk)
        self.ids = RowIds()
        self.engine: FaissEngine | None = None
        self.codec = ''  # digest of the trained, empty engine
        self.next_slot = 0
        self.longest = 0.0  # length of the longest vector there ever was
        self.sealed = False  # the lists are mapped from a saved file, which must not change
        self._slots = np.zeros(0, dtype=np.int64)  # capacity >= N

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def slots(self) -> np.ndarray:
        """The slot of every row, ``(N,)`` int64 rising."""
        return self._slots[:len(self)]

    @property
    def removed(self) -> int:
        """How many removed rows the engine still holds."""
        return 0 if self.engine is None else len(self.engine) - len(self)

    @property
    def lists_on_disk(self) -> bool:
        """True where the inverted lists stand in a file of their own."""
        return self.on_disk is not None or self.sealed

    def attach(self, engine: FaissEngine, codec: str) -> None:
        """Use an engine that is trained and holds nothing."""
        if self.on_disk is not None:
            faiss_lists.map_lists(engine.core, self.working_file(),
                                  np.zeros(engine.core.nlist), writable=True)
        self.engine, self.codec = engine, codec

    def working_file(self) -> Path:
        """A new file for lists that change; it is removed with this object."""
        assert self.on_disk is not None
        file = faiss_lists.new_file(self.on_disk)
        weakref.finalize(self, file.unlink, missing_ok=True)
        return file

    def take_over(self, ids: RowIds, slots: np.ndarray, engine: FaissEngine | None, codec: str,
                next_slot: int, longest: float) -> None:
        """Take over rows that the engine and the kept vectors hold already."""
        self.ids, self._slots, self.engine = ids, slots, engine
        self.codec, self.next_slot, self.longest = codec, next_slot, longest

    def check_lists(self) -> None:
        """Raise DamagedError where lists are mapped from a file that was cut short meanwhile."""
        if self.engine is not None and self.lists_on_disk:
            faiss_lists.check_mapped(self.engine.core)

    def check_writable(self) -> None:
        """Refuse a change of lists that are mapped from a saved file. Raises ValueError."""
        self.check_lists()
        if self.sealed:
            raise ValueError('This index cannot be changed: its inverted lists are mapped from a '
                             'saved file. Load it with on_disk=FOLDER, which works on a copy.')

    def append(self, vectors: Tensor, names: list[str]) -> None:
        """Add prepared vectors ``(n, D)`` under ids that are new."""
        self._insert(vectors, len(self))
        if self.kept is not None:
            self.kept.add(vectors)
        self.longest = max(self.longest, float(vectors.norm(dim=1).max()))
        self.ids.append(names)

    def _insert(self, vectors: Tensor, count: int) -> None:
        """Hand vectors to the engine, and number them from row ``count`` on."""
        assert self.engine is not None
        first = self.next_slot if self.engine.given else len(self.engine)
        self.engine.add(vectors, first)
        need = count + len(vectors)
        if len(self._slots) < need:
            larger = np.zeros(max(need, 3 * count // 2, 1024), dtype=np.int64)
            larger[:count] = self._slots[:count]
            self._slots = larger
        self._slots[count:need] = np.arange(first, first + len(vectors))
        self.next_slot = first + len(vectors)

    def remove(self, rows: list[int]) -> None:
        """Remove rows; the engine is built anew where it hides too many by then."""
        assert self.engine is not None
        gone = np.array(sorted(rows), dtype=np.int64)
        taken = self.engine.remove(self.slots[gone])
        stay = np.delete(np.arange(len(self)), gone)
        self._slots = np.arange(len(stay)) if taken and self.engine.shifts else self.slots[stay]
        self.ids.drop(rows)
        if self.kept is not None:
            self.kept.keep(stay)
        if not len(self):
            self.engine.reset()
            self.next_slot = 0
        elif self.removed > self.max_removed * len(self.engine):
            with suppress(ValueError):  # what cannot be built anew goes on hiding its rows
                self.compact()

    def compact(self) -> None:
        """Build the engine anew without what was removed.

        Raises:
            ValueError: no vectors are kept, and the codes give none back.
        """
        if not self.removed or self.engine is None:
            return
        vectors, before = self.vectors(), self.engine
        self.engine = FaissEngine(before.emptied(), self.similarity)
        try:
            self._insert(vectors, 0)
        except ValueError:  # an NSG graph of too few rows
            self.engine = before
            raise

    def vectors(self) -> Tensor:
        """The prepared vectors ``(N, D)`` float32: those that are kept, else what the codes give.
        """
        assert self.engine is not None
        if self.kept is not None:
            return self.kept.floats(slice(None))
        return torch.from_numpy(self.engine.reconstruct(self.slots))

    def reconstruct(self, rows: Sequence[int]) -> Tensor:
        """The prepared vectors ``(n, D)`` float32 of some rows; see :meth:`vectors`."""
        assert self.engine is not None
        if self.kept is not None:
            return self.kept.floats(np.asarray(rows, dtype=np.int64))
        return torch.from_numpy(self.engine.reconstruct(self.slots[list(rows)]))

    # Files -------------------------------------------------------------------------------------

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the rows and some facts; lists on disk to a second file, whose name is among them.
        """
        self.check_lists()
        columns: dict[str, Any] = {'ids': self.ids.column(), 'slots': self.slots}
        lists: Path | None = None
        if self.engine is not None and self.lists_on_disk and len(self):
            path.parent.mkdir(parents=True, exist_ok=True)
            columns['list_sizes'] = faiss_lists.sizes_of([self.engine.core])
            lists = faiss_lists.save_lists(self.engine.core, lambda slots: slots, path)
            with self.engine.without_lists():
                columns['faiss'] = self.engine.bytes()
        elif self.engine is not None:
            columns['faiss'] = self.engine.bytes()
        if self.kept is not None:
            columns['vectors'] = self.kept.rows
        write_container(path, FORMAT, columns, dict(
            facts, codec=self.codec, next=self.next_slot, longest=self.longest,
            lists=None if lists is None else lists.name))
        faiss_lists.drop_other_lists(path, lists)

    def read(self, opened: Container) -> None:
        """Take over the rows of a file whose checksums were compared, but lists of their own.

        Raises:
            ValueError: its parts do not fit each other, or this faiss cannot read it.
        """
        held = opened.strings('ids')  # copied, so that the file may change once it is read
        ids = StringColumn(held.data.clone(), held.offsets.clone())
        slots = opened.tensor('slots').numpy().copy()
        manifest = opened.manifest
        if len(slots) != len(ids) or bool((np.diff(slots) <= 0).any()):
            raise ValueError('the rows do not fit the ids')
        if self.kept is not None:
            self.kept = KeptVectors(self.similarity, self.kept.dtype,
                                    opened.tensor('vectors').clone())
            if len(self.kept.rows) != len(ids):
                raise ValueError('the kept vectors do not fit the ids')
        engine = None
        if 'faiss' in opened:
            engine = read_engine(opened.tensor('faiss'), self.similarity)
            if manifest['lists'] is None and len(engine) < len(ids):
                raise ValueError('the vectors do not fit the ids')
        self.take_over(RowIds(ids), slots, engine, manifest['codec'], manifest['next'],
                       manifest['longest'])

    def read_lists(self, opened: Container, verify: bool) -> None:
        """Map the lists of a file's second file, or of a copy that may change.

        Lists that were read into memory move to a file where :attr:`on_disk` wants that.

        Raises:
            FileNotFoundError: the second file is missing.
            ValueError: it is damaged.
        """
        if self.engine is None:
            return
        core = self.engine.core
        if opened.manifest['lists'] is None:
            if self.on_disk is not None:
                file, sizes = self.working_file(), faiss_lists.sizes_of([core])
                faiss_lists.write_lists([(core, lambda slots: slots)], str(file))
                faiss_lists.map_lists(core, file, sizes, writable=True)
            return
        name = opened.manifest['lists']
        if Path(name).name != name:  # a file from elsewhere might name any other
            raise ValueError(f'it names the file {name!r}, which is not beside it')
        file = Path(opened.path).with_name(name)
        sizes = opened.tensor('list_sizes').numpy()
        faiss_lists.check_lists(file, int(sizes.sum()) * (core.code_size + 8), verify)
        if self.on_disk is None:
            self.sealed = True
        else:
            file = Path(shutil.copyfile(file, self.working_file()))
        faiss_lists.map_lists(core, file, sizes, writable=not self.sealed)
        self.engine.set_total(int(sizes.sum()))

    # Several as one ----------------------------------------------------------------------------

    def join(self, parts: Sequence[FaissStore]) -> None:
        """Fill this empty store with the rows of others that share its training.

        Raises:
            ValueError: an id is in two of them.
        """
        names = RowIds()
        for part in parts:
            names.append(names.new(part.ids.names, len(part)))
        assert self.engine is not None
        if self.engine.given:
            self._join_lists(parts, names)
            return
        for part in parts:
            if len(part):
                self.append(part.vectors(), list(part.ids.names))

    def _join_lists(self, parts: Sequence[FaissStore], names: RowIds) -> None:
        """Copy the lists of the parts, under the numbers of the rows in the result."""
        engine = self.engine
        assert engine is not None
        plain = faiss_lists.plain_lists(engine.core)
        sources: list[tuple[Any, Renumber]] = []
        slots, start = [], 0
        for part in parts:
            assert part.engine is not None
            if plain:
                sources.append((part.engine.core, _renumbering(part.slots, start)))
                slots.append(np.arange(start, start + len(part)))
                start += len(part)
            else:  # packed blocks, which only faiss can put together, under numbers with gaps
                copied = part.engine.copy()  # it is emptied
                engine.core.merge_from(copied.core, start)
                slots.append(part.slots + start)
                start += part.next_slot
            if self.kept is not None and part.kept is not None and len(part):
                self.kept.add(part.kept.rows)
        if self.on_disk is not None:
            file = self.working_file()
            faiss_lists.write_lists(sources, str(file))
            faiss_lists.map_lists(engine.core, file,
                                  faiss_lists.sizes_of([core for core, _ in sources]),
                                  writable=True)
        else:
            faiss_lists.join_lists(engine.core, sources)
        engine.set_total(len(names))
        self.take_over(names, np.concatenate(slots), engine, self.codec, next_slot=start,
                       longest=max(part.longest for part in parts))


def _renumbering(slots: np.ndarray, start: int) -> Renumber:
    return lambda found: np.searchsorted(slots, found) + start

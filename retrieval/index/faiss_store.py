"""The rows of a FaissIndex: their ids, their vectors in faiss, and which slot is which row."""
from __future__ import annotations

import weakref
from contextlib import suppress
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import faiss_lists
from .faiss_engine import FaissEngine
from .kept_vectors import KeptVectors
from .row_ids import RowIds


class FaissStore:
    """Rows in the order in which they were added, over an engine that numbers them by slot.

    Args:
        similarity: the name of the similarity.
        kept: vectors that are kept beside the engine, or None.
        on_disk: a folder for the inverted lists, or None to hold them in memory.
        max_removed: the share of hidden rows above which the engine is built anew.
    """

    def __init__(self, similarity: str, kept: KeptVectors | None,
                 on_disk: str | PathLike | None, max_removed: float) -> None:
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
        """Whether the inverted lists stand in a file of their own."""
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

    def restore(self, ids: RowIds, slots: np.ndarray, engine: FaissEngine | None, codec: str,
                next_slot: int, longest: float) -> None:
        """Take over rows that the engine and the kept vectors hold already."""
        self.ids, self._slots, self.engine = ids, slots, engine
        self.codec, self.next_slot, self.longest = codec, next_slot, longest

    def check_writable(self) -> None:
        """Refuse a change of lists that are mapped from a saved file. Raises ValueError."""
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

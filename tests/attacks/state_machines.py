"""Galleries, stores and indexes as state machines: any order of changes, against plain dicts."""
from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from retrieval.gallery import Gallery, GalleryStore
from retrieval.index import ExactIndex, FaissIndex

from ..gallery.examples import example, rows_of
from ..index.contract import ORACLES
from ..index.test_contract import trained
from .attack import Tally, attack
from .damaged_files import _memory

STEPS = 12
NAMES = [f'n{number}' for number in range(14)]
SEEDS = st.integers(0, 10 ** 6)
SOME = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True)


class Stores(RuleBasedStateMachine):
    """A store on the disk, a gallery in memory, and a dict of what both must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix='retrieval-attack-', dir=_memory()))
        self.store = GalleryStore.create(self.folder / 'x.gallery')
        self.gallery: Gallery | None = None
        self.rows: dict[str, Any] = {}

    def teardown(self) -> None:
        """Away with the folder."""
        shutil.rmtree(self.folder)

    def make(self, ids: list[str], seed: int) -> Gallery:
        """Rows with these ids."""
        return example(len(ids), ids=ids, seed=seed)

    @rule(ids=SOME, seed=SEEDS)
    def append(self, ids: list[str], seed: int) -> None:
        """Refused as a whole where one is there."""
        new = self.make(ids, seed)
        if set(ids) & set(self.rows):
            for change in (lambda: self.store.append(new), lambda: self.gallery.add(new)):
                try:
                    change()
                except ValueError:
                    continue
                raise AssertionError('an id came twice')
            return
        self.store.append(new)
        self.gallery = new if self.gallery is None else self.gallery.add(new)
        self.rows.update(rows_of(new))

    @rule(ids=SOME)
    def remove(self, ids: list[str]) -> None:
        """Refused as a whole where one is not there."""
        if not set(ids) <= set(self.rows):
            for change in (lambda: self.store.remove(ids),
                           lambda: self.gallery and self.gallery.remove(ids)):
                try:
                    change()
                except ValueError:
                    continue
                assert self.gallery is None, 'what is not there was removed'
            return
        self.store.remove(ids)
        rows = {name: row for name, row in self.rows.items() if name not in ids}
        self.gallery = self.gallery.remove(ids) if rows and self.gallery else None
        self.rows = rows

    @rule(ids=SOME, seed=SEEDS, missing=st.booleans())
    def update(self, ids: list[str], seed: int, missing: bool) -> None:
        """In the store the new rows stand behind the others."""
        if not missing:
            ids = [name for name in ids if name in self.rows]
        if not ids:
            return
        new = self.make(ids, seed)
        self.store.update(new, add_missing=missing)
        if missing or self.gallery is None:
            rest = [name for name in self.rows if name not in ids]
            kept = self.gallery.remove([name for name in ids if name in self.rows]) \
                if rest and self.gallery else None
            self.gallery = new if kept is None else kept.add(new)
        else:
            self.gallery = self.gallery.update(new)
        self.rows = {**{name: row for name, row in self.rows.items() if name not in ids},
                     **rows_of(new)}

    @rule()
    def compact(self) -> None:
        """Changes nothing that is seen."""
        self.store.compact()

    @precondition(lambda self: self.rows)
    @rule(how=st.sampled_from(['file', 'export', 'copy', 'half']))
    def save_and_load(self, how: str) -> None:
        """A file holds what the store holds."""
        path = self.folder / 'g.safetensors'
        if how == 'export':
            self.store.export(path)
        else:
            assert self.gallery is not None
            self.gallery.save(path, 'float16' if how == 'half' else None)
        again = Gallery.load(path, copy=how == 'copy')
        again.verify()
        if how == 'half':
            assert list(again.ids) == list(self.gallery.ids)
        else:
            assert rows_of(again) == self.rows

    @precondition(lambda self: self.rows)
    @rule(camera=st.integers(0, 1))
    def where(self, camera: int) -> None:
        """A filter finds what a loop finds."""
        assert self.gallery is not None
        for gallery in (self.gallery, self.store.load()):
            mask = gallery.where(f'camera == {camera}')
            assert {name for name, one in zip(gallery.ids, mask, strict=True) if one} == {
                name for name, row in self.rows.items() if row[2]['camera'] == camera}

    @invariant()
    def equal(self) -> None:
        """The store, the gallery and the dict hold the same."""
        assert len(self.store) == len(self.rows)
        if self.rows:
            assert self.gallery is not None
            assert rows_of(self.store.load()) == self.rows == rows_of(self.gallery)


def _indexes(kind: str) -> tuple[Callable[[], Any], str, bool]:
    return {
        'exact': (ExactIndex, 'cosine_similarity', True),
        'exact, Euclidean': (lambda: ExactIndex('euclidean'), 'euclidean', True),
        'flat': (FaissIndex, 'cosine_similarity', True),
        'graph': (lambda: FaissIndex('HNSW32', search_parameters=dict(efSearch=300)),
                  'cosine_similarity', False),
        'lists': (lambda: trained('IVF8,Flat', search_parameters=dict(nprobe=8)),
                  'cosine_similarity', True)}[kind]


class Indexes(RuleBasedStateMachine):
    """An index, and a dict of what it must hold."""

    kinds = itertools.cycle(['exact', 'flat', 'graph', 'lists', 'exact, Euclidean'])

    def __init__(self) -> None:
        super().__init__()
        make, self.similarity, self.exact = _indexes(next(self.kinds))
        self.index, self.held = make(), dict[str, np.ndarray]()
        self.folder = Path(tempfile.mkdtemp(prefix='retrieval-attack-', dir=_memory()))

    def teardown(self) -> None:
        """Away with the folder."""
        shutil.rmtree(self.folder)

    @rule(ids=SOME, seed=SEEDS)
    def add(self, ids: list[str], seed: int) -> None:
        """Refused as a whole where one is there."""
        vectors = np.random.default_rng(seed).normal(size=(len(ids), 6)) + 0.3
        if set(ids) & set(self.held):
            try:
                self.index.add(vectors, ids)
            except ValueError:
                return
            raise AssertionError('an id came twice')
        self.index.add(vectors, ids)
        self.held.update(zip(ids, vectors, strict=True))

    @rule(ids=SOME)
    def remove(self, ids: list[str]) -> None:
        """Refused as a whole where one is not there."""
        if not set(ids) <= set(self.held):
            try:
                self.index.remove(ids)
            except (KeyError, ValueError):
                return
            raise AssertionError('what is not there was removed')
        self.index.remove(ids)
        for name in ids:
            del self.held[name]

    @rule()
    def save_and_load(self) -> None:
        """It goes on as what was read."""
        self.index.save(self.folder / 'index')
        self.index = type(self.index).load(self.folder / 'index')

    @precondition(lambda self: self.held)
    @rule(seed=SEEDS, k=st.integers(1, 20), gone=SOME, keep=st.sets(st.sampled_from(NAMES)))
    def search(self, seed: int, k: int, gone: list[str], keep: set[str]) -> None:
        """What is found is what a loop finds."""
        query = np.random.default_rng(seed).normal(size=(1, 6)) + 0.3
        ids = list(self.held)
        scores = ORACLES[self.similarity](query, np.stack(list(self.held.values())))[0]
        allowed = [row for row in np.argsort(-scores, kind='stable')
                   if ids[row] not in gone and ids[row] in keep]
        found = self.index.search(query, k, exclude=[gone], filter=lambda name: name in keep)
        wanted = [ids[row] for row in allowed][:k]
        if self.exact:
            assert found.ids[0] == wanted
        assert set(found.ids[0]) <= {ids[row] for row in allowed}
        assert len(found.ids[0]) == len(wanted)

    @precondition(lambda self: self.held)
    @rule(seed=SEEDS, at=st.floats(0, 1))
    def within(self, seed: int, at: float) -> None:
        """A range search finds what reaches the threshold."""
        query = np.random.default_rng(seed).normal(size=(1, 6)) + 0.3
        ids = list(self.held)
        scores = np.sort(ORACLES[self.similarity](query, np.stack(list(self.held.values())))[0])
        gaps = np.concatenate([[scores[0] - 1], (scores[1:] + scores[:-1]) / 2])
        threshold = gaps[int(at * (len(gaps) - 1))]
        if np.abs(scores - threshold).min() < 1e-4:
            return  # rounding decides
        found = self.index.range_search(query, float(threshold))
        if self.exact:
            assert len(found.ids[0]) == int((scores >= threshold).sum())
        assert set(found.ids[0]) <= set(ids)

    @invariant()
    def equal(self) -> None:
        """Rows stand in the order in which they came."""
        assert list(self.index.ids) == list(self.held)


def _attack(tally: Tally, machine: type[RuleBasedStateMachine]) -> None:
    while tally.goes_on():
        count = min(25, tally.least - tally.done)
        limits = settings(max_examples=count, stateful_step_count=STEPS, deadline=None,
                          database=None, suppress_health_check=list(HealthCheck),
                          report_multiple_bugs=False, print_blob=False)
        own = type(machine.__name__, (machine,), {})
        seeded_machine = seeded(f'{tally.seed} {tally.done}')(own)
        try:
            run_state_machine_as_test(seeded_machine, settings=limits)
        except BaseException as error:
            notes = ' '.join(getattr(error, '__notes__', []))
            tally.failures.append(f'{type(error).__name__}: {error} {notes}'[:1500])
            if not isinstance(error, Exception):
                raise
        tally.done += count
    tally.notes.append(f'of up to {STEPS} steps')


@attack('state machines: galleries and stores', 600, 0.06, 'examples')
def stores(tally: Tally) -> None:
    """Additions, updates, removals, compaction, files, filters, in any order."""
    _attack(tally, Stores)


@attack('state machines: indexes', 600, 0.04, 'examples')
def indexes(tally: Tally) -> None:
    """Additions, removals, files, searches, in any order."""
    _attack(tally, Indexes)



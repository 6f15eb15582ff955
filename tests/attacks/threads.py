"""Threads that search an index while another changes it: each answer is of one state."""
from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from retrieval.index import ExactIndex, FaissIndex

from ..index.contract import ORACLES
from .attack import Tally, attack

WIDTH, ROWS, K = 8, 240, 5
GROUPS = 12  # rows are added and removed by groups of these; the first is never removed


def _faiss(factory: str, **options: Any) -> Callable[[], Any]:
    def make() -> Any:
        index = FaissIndex(factory, **options)
        if index.capabilities.training:
            index.train(np.random.default_rng(9).normal(size=(3000, WIDTH)) + 0.3)
        return index
    return make


KINDS: dict[str, tuple[Callable[[], Any], float]] = {  # and the recall that is asked for
    'ExactIndex': (ExactIndex, 1),
    'ExactIndex, Euclidean': (lambda: ExactIndex('euclidean'), 1),
    'FaissIndex Flat': (_faiss('Flat'), 1),
    'FaissIndex HNSW': (_faiss('HNSW32', search_parameters=dict(efSearch=300)), 0.97),
    'FaissIndex IVF': (_faiss('IVF8,Flat', search_parameters=dict(nprobe=8)), 1),
    'FaissIndex IVF-PQ rescored': (_faiss(
        'IVF4,PQ4', search_parameters=dict(nprobe=4), rescore=True, rescore_factor=20,
        rescore_dtype='float32'), 0.9),
}


@contextlib.contextmanager
def embedded_milvus() -> Iterator[Any]:
    """An empty index in an embedded Milvus."""
    from retrieval.index import MilvusIndex
    with tempfile.TemporaryDirectory(prefix='retrieval-attack-') as folder:
        index = MilvusIndex(f'{folder}/rows.db', 'rows')
        try:
            yield index
        finally:
            index.close()


class Searched:
    """An index, the states that it has been in, and the threads at it."""

    def __init__(self, index: Any, recall: float, seed: int) -> None:
        self.index, self.recall, self.seed = index, recall, seed
        self.vectors = np.random.default_rng(seed).normal(size=(ROWS, WIDTH)) + 0.3
        self.names = [f'row {row}' for row in range(ROWS)]
        self.group = np.arange(ROWS) % GROUPS
        self.held = self.group == 0
        self.states = [self.held]      # the last is the one that is, or is coming
        self.settled = 0               # up to which state all changes have returned
        self.wrong: list[str] = []
        self.stop = threading.Event()
        self.answers, self.hits, self.asked = [0] * 8, [0] * 8, [0] * 8
        index.add(self.vectors[self.held], [self.names[row] for row in np.flatnonzero(self.held)])

    def change(self) -> None:
        """Add or remove groups until the end."""
        rng = np.random.default_rng(self.seed + 1)
        try:
            while not self.stop.is_set():
                chosen = rng.random(GROUPS) < 0.3
                chosen[0] = False
                of = chosen[self.group]
                after = self.held.copy()
                add = rng.random() < 0.5
                rows = np.flatnonzero(of & ~self.held if add else of & self.held)
                if not len(rows):
                    continue
                after[rows] = add
                self.states.append(after)
                if add:
                    self.index.add(self.vectors[rows], [self.names[row] for row in rows])
                else:
                    self.index.remove([self.names[row] for row in rows])
                self.held, self.settled = after, len(self.states) - 1
        except BaseException as error:
            self.wrong.append(f'a change: {type(error).__name__}: {error}')

    def search(self, thread: int) -> None:
        """Ask until the end, and compare each answer with the states that there were."""
        rng = np.random.default_rng(self.seed + 10 + thread)
        oracle = ORACLES[self.index.similarity.name]
        try:
            while not self.stop.is_set() and not self.wrong:
                queries = self.vectors[rng.integers(0, ROWS, 2)] + rng.normal(size=(2, WIDTH)) / 20
                first = self.settled
                found = self.index.search(queries, K).ids
                last = len(self.states)
                scores = oracle(queries, self.vectors)
                best = 0.0
                for state in self.states[first:last]:
                    masked = np.where(state, scores, -np.inf)
                    least = np.sort(masked, axis=1)[:, -K] - 1e-6  # rounding decides among such
                    of_it = all(len(set(line)) == K and all(state[int(name[4:])] for name in line)
                                for line in found)
                    if of_it:
                        best = max(best, float(np.mean([
                            masked[query, int(name[4:])] >= least[query]
                            for query, line in enumerate(found) for name in line])))
                if best < (1 if self.recall == 1 else 0.2):
                    self.wrong.append(f'{found} is of none of {last - first} states')
                self.answers[thread] += 1
                self.hits[thread] += round(best * 2 * K)
                self.asked[thread] += 2 * K
        except BaseException as error:
            self.wrong.append(f'a search: {type(error).__name__}: {error}')

    def run(self, seconds: float, threads: int = 3) -> int:
        """The number of answers; what was wrong is in :attr:`wrong`."""
        working = [threading.Thread(target=self.change, daemon=True)] + [
            threading.Thread(target=self.search, args=(number,), daemon=True)
            for number in range(threads)]
        for one in working:
            one.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.wrong:
            time.sleep(min(0.2, max(0, end - time.monotonic())))
        self.stop.set()
        for one in working:
            one.join(60)
            if one.is_alive():
                self.wrong.append('a thread has not ended in 60 s')
        if sum(self.hits) < self.recall * sum(self.asked):
            self.wrong.append(f'recall {sum(self.hits) / sum(self.asked):.3f} < {self.recall}')
        return sum(self.answers)


def _attack(tally: Tally, index: Any, recall: float) -> None:
    searched = Searched(index, recall, tally.seed)
    tally.done = searched.run(tally.seconds)
    tally.failures += searched.wrong
    tally.notes.append(f'{len(searched.states) - 1:,} changes')


def _register(name: str, make: Callable[[], Any], recall: float) -> None:
    attack(f'threads at {name}', 200, 0.02, 'answers')(
        lambda tally: _attack(tally, make(), recall))


for _name, (_make, _recall) in KINDS.items():
    _register(_name, _make, _recall)


@attack('threads at MilvusIndex, embedded', 50, 0.02, 'answers')
def milvus(tally: Tally) -> None:
    """The same at an embedded Milvus."""
    with embedded_milvus() as index:
        _attack(tally, index, 1)

"""Choosing an index: candidates for a gallery, tried against exact search, within a budget."""
from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ranking import prepared_rows
from ..similarity import SIMILARITIES
from .base import Index
from .exact import ExactIndex
from .faiss.factory import knobs, plain_factory, trial
from .faiss.index import FaissIndex
from .faiss.search import KeptVectors

_ROWS_A_LIST = 20  # fewer train no centroid well
_MANY_LISTS = 1024  # from here on a graph finds the nearest lists faster than comparing them all
_STEPS = {'nprobe': 1, 'efSearch': 16, 'search_L': 16}
_HIGHEST = {'nprobe': 2 ** 12, 'efSearch': 1024, 'search_L': 1024}
_RESCORED = (4, 16)  # candidates a result
_LEAST_SECONDS = 0.2  # of repeats of one measurement
_SINGLE = 100  # queries that are timed alone
_ENOUGH = 0.9995  # a recall that more effort need not raise
_HALVINGS = 3
_PATIENCE, _GAIN = 2, 0.001  # so many settings together must find so much more
_ROWS_AT_ONCE = 4096  # that are added between two looks at the clock
_ROUNDS, _POINTS = 10, 256  # of faiss's k-means for lists: iterations, and rows a centroid


@dataclass(frozen=True)
class Candidate:
    """An index to try: how it is made, and the settings that it is searched with in turn.

    Args:
        options: arguments of ``FaissIndex``.
        factors: how many candidates a result are rescored, in turn, each ``dict(rescore_factor=…)``
            or faiss's ``dict(k_factor_rf=…)``; an empty dict where none are.
        settings: each a dict of search parameters, from fast to thorough.
    """

    options: dict[str, Any]
    factors: tuple[dict[str, Any], ...] = field(default=({},))
    settings: tuple[dict[str, Any], ...] = field(default=({},))

    def name(self, factor: Mapping[str, Any] | None = None) -> str:
        """The factory, and how many candidates are rescored."""
        return self.options['factory'] + ''.join(
            f' rescored x{count}' for count in (factor or {}).values())


def candidates(rows: int, width: int, similarity: str,
               factories: Sequence[str] | None = None) -> list[Candidate]:
    """Candidates for a gallery ``(rows, width)``.

    Args:
        similarity: what they must search by.
        factories: only these; by default graphs, inverted lists and codes that fit the size.

    Raises:
        ValueError: one of the given factories is none.
    """
    if factories:
        return [candidate for factory in factories
                for candidate in _of(plain_factory(factory), rows, similarity, _is_coarse(factory))]
    return [candidate for factory, coarse in _defaults(rows, width)
            if _is_known(factory, similarity)
            for candidate in _of(factory, rows, similarity, coarse)]


def held_out(rows: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the rows that become queries, and of those that stay in the gallery, rising."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return order[:count].sort().values, order[count:].sort().values


@dataclass
class Trial:
    """The measured recall and speed of one index with one setting; or why it could not be built.

    Args:
        index: its config.
        name: what it is called in tables and pictures.
        recall: the share of the exact ``k`` results that it found.
        queries_per_second: of all queries together.
        latency_ms: of a query alone, the median.
        memory_mb: 10⁶ bytes of codes, links, centroids and kept vectors, without the ids.
        build_seconds: training and adding.
        error: why there is nothing else, or None.
    """

    index: dict[str, Any]
    name: str
    recall: float = 0.0
    queries_per_second: float = 0.0
    latency_ms: float = float('inf')
    memory_mb: float = float('inf')
    build_seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Budget:
    """The bounds that an index must reach: each of those that are given."""

    recall: float | None = None
    latency_ms: float | None = None
    memory_mb: float | None = None

    def shortfall(self, one: Trial) -> float:
        """By what share a trial misses the budget, 0 where it meets it."""
        missing = 0.0
        if self.recall is not None:
            missing += max(0.0, self.recall - one.recall) / self.recall
        if self.latency_ms is not None:
            missing += max(0.0, one.latency_ms / self.latency_ms - 1)
        if self.memory_mb is not None:
            missing += max(0.0, one.memory_mb / self.memory_mb - 1)
        return missing

    def choose(self, trials: Sequence[Trial]) -> tuple[Trial | None, Trial | None]:
        """The best trial that meets the budget, and the one that comes nearest.

        With a recall to reach the one that answers most queries a second is best; else the one
        that finds most.
        """
        sound = [one for one in trials if one.error is None]
        if not sound:
            return None, None
        nearest = min(sound, key=self.shortfall)
        meeting = [one for one in sound if self.shortfall(one) == 0]
        if not meeting:
            return None, nearest
        if self.recall is not None:
            return max(meeting, key=lambda one: one.queries_per_second), nearest
        return max(meeting, key=lambda one: (round(one.recall, 3), one.queries_per_second)), nearest


@dataclass
class Tuner:
    """Trials over one gallery and one set of queries.

    Args:
        gallery: ``(N, D)`` float32.
        queries: ``(Q, D)`` float32.
        similarity: a name.
        k: how many results are compared.
        exclude: for every query the id of a row that it must not find, or None; rows are numbered.
        seed: of the training samples.
        train_size: rows to train on at most; None for the default.
        deadline: the time by ``time.perf_counter`` after which nothing more is built or measured;
            None for none. A training that has begun is ended.
    """

    gallery: Tensor
    queries: Tensor
    similarity: str
    k: int
    exclude: Sequence[Any] | None = None
    seed: int = 0
    train_size: int | None = None
    deadline: float | None = None
    _exact: ExactIndex = field(init=False)
    _rate: float = field(init=False, default=math.inf)  # multiplications and additions a second
    _last: np.ndarray = field(init=False)
    _vectors: KeptVectors = field(init=False)

    def __post_init__(self) -> None:
        self._exact = ExactIndex(self.similarity)
        self._exact.add(self.gallery, range(len(self.gallery)))
        found = self._exact.search(self.queries, self.k, exclude=self.exclude)
        self.k = found.indices.shape[1]
        scores = found.scores.numpy()
        self._last = np.where(found.valid.numpy(), scores, np.inf).min(axis=1)
        self._counts = found.lengths.numpy()
        chosen = SIMILARITIES[self.similarity]
        self._vectors = KeptVectors(self.similarity, 'float32',
                                    prepared_rows(self.gallery, chosen))
        self._prepared = prepared_rows(self.queries, chosen).numpy()

    def exact(self) -> Trial:
        """The trial of exact search."""
        one = self._measured(self._exact, Trial(dict(type='retrieval.ExactIndex'), 'exact'))
        self._rate = 2 * self.gallery.numel() * one.queries_per_second
        return one

    def seconds_left(self) -> float:
        """How long until the deadline; infinity without one."""
        return math.inf if self.deadline is None else self.deadline - time.perf_counter()

    def training_seconds(self, candidate: Candidate) -> float:
        """A guess at how long the lists of an index take to train, from the pace of exact search.
        """
        found = re.search(r'IVF(\d+)', candidate.options['factory'])
        if found is None:
            return 0.0
        lists, (rows, width) = int(found[1]), self.gallery.shape
        rows = min(rows, _POINTS * lists, self.train_size or rows)
        return 2 * rows * lists * width * _ROUNDS / self._rate

    def trials(self, candidate: Candidate, enough: float | None = None) -> Iterator[Trial]:
        """Build a candidate and measure its settings; a failure is a trial with an error.

        Args:
            enough: a recall from which on more thorough settings are left out.
        """
        try:
            start = time.perf_counter()
            index = FaissIndex(**candidate.options, similarity=self.similarity, seed=self.seed,
                               train_size=self.train_size)
            if self.training_seconds(candidate) > self.seconds_left():
                raise TimeoutError
            index.train(self.gallery)
            for first in range(0, len(self.gallery), _ROWS_AT_ONCE):
                if self.seconds_left() < 0:
                    raise TimeoutError
                rows = self.gallery[first:first + _ROWS_AT_ONCE]
                index.add(rows, range(first, first + len(rows)))
            seconds = time.perf_counter() - start
            for factor in candidate.factors:
                best = 0.0
                for one in self._settings(index, candidate, factor, seconds, enough):
                    best = max(best, one.recall)
                    yield one
                if enough is not None and best >= enough:
                    break  # to rescore more is only slower
        except TimeoutError:
            yield Trial(dict(type='retrieval.FaissIndex', **candidate.options), candidate.name(),
                        error='building it does not end within the time limit')
        except (ValueError, RuntimeError, MemoryError) as error:
            yield Trial(dict(type='retrieval.FaissIndex', **candidate.options), candidate.name(),
                        error=str(error))

    def _settings(self, index: FaissIndex, candidate: Candidate, factor: dict[str, Any],
                  seconds: float, enough: float | None) -> Iterator[Trial]:
        """The trials of one index, until they find enough, or more effort finds no more."""
        size = index.nbytes / 1e6

        def measured(setting: dict[str, Any]) -> Trial:
            config, parameters = dict(type='retrieval.FaissIndex', **candidate.options), {**setting}
            if 'rescore_factor' in factor:
                config['rescore_factor'] = index.rescore_factor = factor['rescore_factor']
            else:
                parameters.update(factor)
            index.search_parameters = parameters
            if parameters:
                config['search_parameters'] = parameters
            return self._measured(index, Trial(config, candidate.name(factor),
                                               build_seconds=seconds), size)

        seen = [0.0]
        for number, setting in enumerate(candidate.settings):
            if self.seconds_left() < 0:
                return
            one = measured(setting)
            yield one
            if one.recall >= (_ENOUGH if enough is None else min(enough, _ENOUGH)):
                if enough is not None and number:
                    yield from _between(candidate.settings[number - 1], setting, enough, measured)
                return
            seen.append(one.recall)
            # it grows ever more slowly: what is not reached at the last pace never is
            behind = len(candidate.settings) - number - 1
            if enough is not None and number and \
                    one.recall + behind * max(0.0, seen[-1] - seen[-2]) < enough:
                return
            if len(seen) > _PATIENCE and max(seen[-_PATIENCE:]) - seen[-1 - _PATIENCE] < _GAIN:
                return

    def _measured(self, index: Index, one: Trial, size: float | None = None) -> Trial:
        found = index.search(self.queries, self.k, exclude=self.exclude)
        one.recall = self.recall(found.indices)
        batch = _seconds(lambda: index.search(self.queries, self.k, exclude=self.exclude))
        one.queries_per_second = len(self.queries) / batch
        alone = []
        for number in range(min(_SINGLE, len(self.queries))):
            query = self.queries[number:number + 1]
            left_out = None if self.exclude is None else [self.exclude[number]]
            start = time.perf_counter()
            index.search(query, self.k, exclude=left_out)
            alone.append(time.perf_counter() - start)
        one.latency_ms = 1e3 * statistics.median(alone)
        one.memory_mb = self._exact.nbytes / 1e6 if size is None else size
        return one

    def recall(self, rows: Tensor) -> float:
        """The mean share of the exact results among ``rows (Q, k)``; a row that ties with the
        last exact result counts as one.
        """
        scores = self._vectors.scores(self._prepared, rows.numpy())
        slack = 1e-5 * np.maximum(1, np.abs(self._last))
        hits = (scores >= (self._last - slack)[:, None]).sum(axis=1)
        known = self._counts > 0
        return float((np.minimum(hits, self._counts)[known] / self._counts[known]).mean())


def _between(fails: dict[str, Any], meets: dict[str, Any], enough: float,
             measured: Callable[[dict[str, Any]], Trial]) -> Iterator[Trial]:
    """Trials that halve the gap between a setting that finds too little and one that does not."""
    name, low, high = next(iter(meets)), *(one[next(iter(meets))] for one in (fails, meets))
    for _ in range(_HALVINGS):
        middle = (low + high) // 2
        if middle in (low, high):
            return
        one = measured({name: middle})
        yield one
        low, high = (low, middle) if one.recall >= enough else (middle, high)


def _seconds(run: Callable[[], Any]) -> float:
    """The median time of a call, over at least three calls or 0.2 seconds."""
    taken: list[float] = []
    while len(taken) < 3 and sum(taken) < 10 or sum(taken) < _LEAST_SECONDS:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _is_known(factory: str, similarity: str) -> bool:
    """True where this release of faiss builds it."""
    try:
        trial(factory, similarity)
    except ValueError:
        return False
    return True


def _defaults(rows: int, width: int) -> Iterator[tuple[str, bool]]:
    """Factories, and whether their codes are so coarse that candidates should be rescored.

    Those that are built fast come first, for a limit on the time.
    """
    yield 'Flat', False
    yield 'SQ8', False
    fast = _divisor(width, width // 2)
    yield f'PQ{fast}x4fs', True
    for lists in _list_counts(rows):
        yield f'IVF{lists},Flat', False
        if lists >= _MANY_LISTS:
            yield f'IVF{lists}_HNSW32,Flat', False
        yield f'IVF{lists},SQfp16', False
        yield f'IVF{lists},SQ8', False
        yield f'IVF{lists},PQ{_divisor(width, width // 4)}', True
        yield f'IVF{lists},PQ{fast}x4fs', True
        yield f'IVF{lists},RaBitQ', True
    for links in (16, 32):
        yield f'HNSW{links}', False
    yield 'HNSW32_SQ8', False


def _list_counts(rows: int) -> list[int]:
    """Powers of two around 1 and 4 times the root, with enough rows a list to train them."""
    most = rows // _ROWS_A_LIST
    around = {2 ** round(math.log2(max(1, factor * math.sqrt(rows)))) for factor in (1, 4)}
    return sorted(count for count in around if 4 <= count <= most)


def _divisor(width: int, near: int) -> int:
    """The largest divisor of the width up to ``near``, for a product quantizer."""
    return max(part for part in range(1, max(1, near) + 1) if width % part == 0)


def _is_coarse(factory: str) -> bool:
    return any(word in factory for word in ('PQ', 'RaBitQ', 'RQ', 'LSQ', 'LSH')) and \
        'RFlat' not in factory and 'Refine' not in factory


def _of(factory: str, rows: int, similarity: str, coarse: bool) -> Iterator[Candidate]:
    index = trial(factory, similarity)
    valid = knobs(index)
    name = next((name for name in _STEPS if name in valid), None)
    settings: tuple[dict[str, Any], ...] = ({},)
    if name is not None:
        highest = min(_HIGHEST[name], max(1, rows))
        if name == 'nprobe':
            highest = min(highest, valid['nprobe'].owner.nlist)
        settings = tuple({name: value} for value in _doubling(_STEPS[name], highest))
    refined = tuple(dict(k_factor_rf=factor) for factor in _RESCORED)
    if 'LSH' not in factory:
        yield Candidate(dict(factory=factory), refined if 'k_factor_rf' in valid else ({},),
                        settings)
    if coarse:
        yield Candidate(dict(factory=factory, rescore=True),
                        tuple(dict(rescore_factor=factor) for factor in _RESCORED), settings)


def _doubling(first: int, last: int) -> list[int]:
    values = [first]
    while values[-1] * 2 < last:
        values.append(values[-1] * 2)
    return values if values[-1] >= last else [*values, last]

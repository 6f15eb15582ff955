"""One faiss index under numbers of our own: how each type is trained, adds, removes and searches.

A *slot* is the number under which faiss knows a vector. Where faiss keeps the numbers that it is
given (inverted lists), slots never change; where it counts positions, those behind a removed one
move up; where it cannot remove, slots of removed vectors stay and must not be found.
"""
from __future__ import annotations

import hashlib
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...similarity import SIMILARITIES, squares_of_pairs
from .factory import build, chain, knobs, load_faiss, reason, rows_needed, set_seed, skip_polysemous
from .lists import detached, plain_lists

_BLOCK = 2 ** 16  # rows that are added or reconstructed together
_WIDER = 4  # how much more of the lists each further effort looks at
_NSG_ROWS = 101  # faiss builds no smaller neighbour graph
_TRAINING_ROWS = 2 ** 16  # at least, where there are so many and no number is given
_ROWS_OF_EACH = 64  # centroid, where that are more
_MOST_ON_GPU = 2048  # results, and lists, that a GPU index looks at


class FaissEngine:
    """A faiss index, trained or not.

    Args:
        index: what faiss's factory or reader returned.
        similarity: the name of ours that its distances stand for.
    """

    def __init__(self, index: Any, similarity: str) -> None:
        self.similarity = similarity
        self._selects = True
        self._bind(index)

    def _bind(self, index: Any) -> None:
        faiss = load_faiss()
        self.index = index  # owns the parts
        self.parts = chain(index)
        self.core = self.parts[-1]
        self.knobs = knobs(index)
        self.l2 = self.core.metric_type == faiss.METRIC_L2
        self.lists = isinstance(self.core, faiss.IndexIVF)
        self.refines = any(isinstance(part, faiss.IndexRefine) for part in self.parts)
        self.graph = hasattr(self.core, 'storage')
        self.exact = len(self.parts) == 1 and isinstance(self.core, faiss.IndexFlat)
        self.given = self.lists and not self.refines
        self.shifts = not (self.lists or self.graph or self.refines)

    def __len__(self) -> int:
        """How many vectors faiss holds, removed ones that are still there included."""
        return self.index.ntotal

    @property
    def trained(self) -> bool:
        """True where it is trained, or needs no training."""
        return self.index.is_trained

    def add(self, vectors: Tensor, first: int) -> None:
        """Add prepared vectors ``(n, D)`` in slots from ``first`` on."""
        faiss = load_faiss()
        rows = np.ascontiguousarray(vectors.numpy())
        if isinstance(self.core, faiss.IndexNSG):
            self._grow_graph(rows)
            return
        for start in range(0, len(rows), _BLOCK):
            block = rows[start:start + _BLOCK]
            if self.given:
                slots = np.arange(first + start, first + start + len(block))
                self.index.add_with_ids(block, slots)
            else:
                self.index.add(block)

    def _grow_graph(self, rows: np.ndarray) -> None:
        """faiss builds such a graph once, so it is built anew with everything."""
        if len(self) + len(rows) < _NSG_ROWS:
            raise ValueError(f'faiss builds an NSG graph over at least {_NSG_ROWS} rows; there '
                             f'would be {len(self) + len(rows)}. Add them together, or use HNSW32.')
        if len(self):
            rows = np.concatenate([self.reconstruct(np.arange(len(self))), rows])
        larger = self.emptied()
        larger.add(rows)
        self._bind(larger)

    def remove(self, slots: np.ndarray) -> bool:
        """Take the vectors in these slots out; False where faiss cannot, and nothing was done."""
        if not (self.given or self.shifts):
            return False
        faiss = load_faiss()
        before = len(self)
        try:
            self.index.remove_ids(faiss.IDSelectorBatch(slots))
        except RuntimeError:
            if len(self) != before:
                raise
            self.shifts = False
            return False
        return True

    def reset(self) -> None:
        """Forget the vectors, and stay trained."""
        self.index.reset()

    def copy(self) -> FaissEngine:
        """A copy with all its vectors."""
        return FaissEngine(load_faiss().deserialize_index(self.bytes()), self.similarity)

    def set_total(self, count: int) -> None:
        """Say how many vectors there are, after lists were put in."""
        for part in self.parts:
            part.ntotal = count

    def candidates(self, queries: np.ndarray, fetch: int, chosen: Any,
                   effort: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest vectors that faiss finds.

        Args:
            queries: prepared, ``(Q, D)`` float32.
            fetch: how many for each.
            chosen: an ``IDSelector`` of slots, or None. A type that cannot select ignores it.
            effort: 0 for the search parameters as they are set, more for more of the index.

        Returns:
            Keys ``(Q, fetch)``, larger for nearer, and slots; -1 where there are no more.
        """
        chosen = chosen if self._selects else None
        try:
            return self._find(queries, fetch, chosen, effort)
        except (RuntimeError, TypeError) as error:
            if chosen is None:
                raise RuntimeError(f'faiss failed to search: {reason(error)}') from error
        self._selects = False
        return self._find(queries, fetch, None, effort)

    def _find(self, queries: np.ndarray, fetch: int, chosen: Any,
              effort: int) -> tuple[np.ndarray, np.ndarray]:
        if effort and self.exhausted(effort):
            raw, slots = self._scan(self.index, queries, fetch, chosen)
        elif chosen is None and not effort:
            raw, slots = _plain_search(self.index, queries, fetch)
        else:
            settings = _parameters(self.parts, chosen, _WIDER ** effort)
            raw, slots = _plain_search(self.index, queries, fetch, params=settings)
        return (-raw if self.l2 else raw), slots

    def exhausted(self, effort: int) -> bool:
        """True where this effort looks at every vector, so that more would find nothing else."""
        if self.lists:
            return self.core.nprobe * _WIDER ** effort >= self.core.nlist and effort > 0
        return effort > 0 or not self.graph

    def _scan(self, index: Any, queries: np.ndarray, fetch: int,
              chosen: Any) -> tuple[np.ndarray, np.ndarray]:
        """Every vector compared, by whatever holds the codes of all of them."""
        faiss = load_faiss()
        index = faiss.downcast_index(index)
        if isinstance(index, faiss.IndexPreTransform):
            for number in range(index.chain.size()):
                queries = faiss.downcast_VectorTransform(index.chain.at(number)).apply(queries)
            return self._scan(index.index, queries, fetch, chosen)
        if isinstance(index, faiss.IndexRefine):
            return self._scan(index.refine_index, queries, fetch, chosen)
        if hasattr(index, 'storage'):
            return self._scan(index.storage, queries, fetch, chosen)
        if isinstance(index, faiss.IndexIVF):
            settings = faiss.SearchParametersIVF(sel=chosen, nprobe=index.nlist, max_codes=0)
            return _plain_search(index, queries, fetch, params=settings)
        if chosen is None:
            return _plain_search(index, queries, fetch)
        return _plain_search(index, queries, fetch, params=faiss.SearchParameters(sel=chosen))

    def exact_keys(self, queries: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The keys of these slots ``(Q, C)``, each computed alone, so that equal vectors tie and
        no query depends on the others that it is searched with; only where :attr:`exact`.
        """
        faiss = load_faiss()
        queries, slots = np.ascontiguousarray(queries), np.ascontiguousarray(slots)
        if self.l2:  # in float64: faiss's sums in float32 lose what whole numbers need
            return -self._exact_squares(queries, slots)
        keys = np.empty(slots.shape, dtype=np.float32)
        self.core.compute_distance_subset(
            len(queries), faiss.swig_ptr(queries), slots.shape[1], faiss.swig_ptr(keys),
            faiss.swig_ptr(slots))
        return keys

    def _exact_squares(self, queries: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The squared distances ``(Q, C)`` float64 of these slots; infinite where one is -1."""
        squares = np.empty(slots.shape)
        step = max(1, _BLOCK // max(1, slots.shape[1]))
        for start in range(0, len(slots), step):
            block = slots[start:start + step]
            rows = self.core.reconstruct_batch(np.maximum(block, 0).ravel())
            rows = rows.reshape(*block.shape, -1)
            squares[start:start + step] = np.where(
                block < 0, np.inf, squares_of_pairs(queries[start:start + step, None], rows))
        return squares

    def similarities(self, keys: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """The similarities that keys ``(Q, C)`` of prepared queries ``(Q, D)`` stand for."""
        if not self.l2:
            return SIMILARITIES[self.similarity].clipped(keys)
        found = SIMILARITIES[self.similarity].from_squared_distances(-keys)
        if self.similarity == 'cosine_similarity':
            found[~queries.any(axis=1)] = 0  # a query that is zero is at distance 1 of all
        return found

    def reconstruct(self, slots: np.ndarray) -> np.ndarray:
        """The vectors in these slots as the codes give them, ``(n, D)`` float32.

        Raises:
            ValueError: this type keeps nothing that a vector could be read from.
        """
        faiss = load_faiss()
        source = next((part.refine_index for part in self.parts
                       if isinstance(part, faiss.IndexRefine)), self.index)
        by_number = self.lists and not self.refines
        if by_number and not plain_lists(self.core):  # faiss may crash
            raise ValueError('faiss cannot give the vectors of this factory back. Keep them with '
                             'rescore=True.')
        try:
            if by_number:
                self.core.set_direct_map_type(faiss.DirectMap.Hashtable)
            blocks = [source.reconstruct_batch(slots[start:start + _BLOCK])
                      for start in range(0, len(slots), _BLOCK)]
        except RuntimeError as error:
            raise ValueError('faiss cannot give the vectors of this factory back: '
                             f'{reason(error)}. Keep them with rescore=True.') from error
        finally:
            if by_number:
                self.core.set_direct_map_type(faiss.DirectMap.NoMap)
        return np.concatenate(blocks) if blocks else np.zeros((0, self.index.d), np.float32)

    def emptied(self) -> Any:
        """A faiss index with the same training and no vectors."""
        faiss = load_faiss()
        with self.without_lists():
            copy = faiss.deserialize_index(self.bytes())
        copy.reset()
        return copy

    def without_lists(self) -> Any:
        """A context in which the inverted lists are taken out, where they are plain ones."""
        return detached(self.parts, self.lists and plain_lists(self.core))

    def bytes(self) -> np.ndarray:
        """The index as faiss writes it, ``(B,)`` uint8. Raises ValueError where it cannot."""
        try:
            return load_faiss().serialize_index(self.index)
        except RuntimeError as error:
            raise ValueError(f'faiss cannot write an index of this factory: {reason(error)}') \
                from error

    def size(self) -> int:
        """How many bytes :meth:`bytes` would return, without holding them."""
        faiss, count = load_faiss(), 0

        def write(part: bytes) -> None:
            nonlocal count
            count += len(part)

        faiss.write_index(self.index, faiss.PyCallbackIOWriter(write))
        return count

    def codec(self) -> str:
        """A digest of an empty index: equal for those that were trained alike."""
        return hashlib.blake2b(self.bytes().tobytes(), digest_size=16).hexdigest()


def trained_engine(factory: str, similarity: str, vectors: Tensor, size: int | None, seed: int,
                   polysemous: bool) -> FaissEngine:
    """An empty engine, trained on a sample of prepared vectors ``(n, D)``.

    Args:
        factory: faiss's factory string.
        similarity: a name of ours.
        vectors: what there is to train on.
        size: how many rows to train on at most; None for 64 for each centroid, at least 65,536.
        seed: of the draw of the sample, and of faiss's clustering.
        polysemous: train product quantizers for the search parameter ``ht``.

    Raises:
        ValueError: the factory does not fit the width, or there are too few rows.
    """
    index = build(factory, vectors.shape[1], similarity)
    set_seed(index, seed)
    if not polysemous:
        skip_polysemous(index)
    if not index.is_trained:
        need = rows_needed(index)
        size = max(_TRAINING_ROWS, _ROWS_OF_EACH * need) if size is None else size
        if len(vectors) > size:  # rows drawn without repeats, in the order in which they stand
            order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
            vectors = vectors[order[:size].sort().values]
        if len(vectors) < need:
            raise ValueError(f'The factory {factory!r} needs at least {need} rows to train on, got '
                             f'{len(vectors)}: add more together, call train() with more, or use a '
                             'smaller factory.')
        try:
            index.train(vectors.numpy())
        except RuntimeError as error:
            raise ValueError(f'faiss could not train {factory!r} on {len(vectors)} rows: '
                             f'{reason(error)}') from error
    return FaissEngine(index, similarity)


def read_engine(data: Tensor, similarity: str) -> FaissEngine:
    """The engine of bytes whose checksum has been compared.

    Raises:
        ValueError: another release of faiss wrote them, and this one cannot read them.
    """
    faiss = load_faiss()
    view, at = memoryview(data.numpy().data), 0

    def read(count: int) -> bytes:
        nonlocal at
        part = bytes(view[at:at + count])
        at += len(part)
        return part

    try:
        return FaissEngine(faiss.read_index(faiss.PyCallbackIOReader(read)), similarity)
    except RuntimeError as error:
        raise ValueError(f'this faiss ({faiss.__version__}) cannot read it: {reason(error)}') \
            from error


def checked_device(device: Any) -> str | None:
    """The device as a string, None for the CPU.

    Raises:
        ValueError: it is a GPU and this faiss has none, or it is no device that faiss knows.
    """
    name = 'cpu' if device is None else str(device)
    kind, _, number = name.partition(':')
    if kind == 'cpu':
        return None
    if kind != 'cuda' or (number and not number.isdigit()):
        raise ValueError(f"The device of a FaissIndex is 'cpu', 'cuda' or 'cuda:1', got {name!r}.")
    faiss = load_faiss()
    with_gpus = hasattr(faiss, 'StandardGpuResources')
    there = faiss.get_num_gpus() if with_gpus else 0
    if int(number or 0) >= there:
        why = f'sees {there} GPUs' if with_gpus else 'is built without GPUs'
        raise ValueError(f'device={name!r} needs faiss-gpu and that GPU, but this faiss '
                         f'({faiss.__version__}) {why}. Install faiss-gpu in place of faiss-cpu, '
                         'or leave the device out.')
    return name


class GpuMirror:
    """The engine's index, copied to a GPU as it is now.

    The CPU's stays the one that is changed and saved. It also answers what a GPU index cannot:
    selections, more than 2048 results, and searches that look at more than the parameters say.

    Args:
        engine: what is copied.
        device: ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: faiss has no GPU form of this type.
    """

    def __init__(self, engine: FaissEngine, device: str) -> None:
        faiss = load_faiss()
        self._resources = faiss.StandardGpuResources()
        self._lock = threading.Lock()
        number = int(device.partition(':')[2] or 0)
        try:
            self._index = faiss.index_cpu_to_gpu(self._resources, number, engine.index)
        except RuntimeError as error:
            raise ValueError(f'faiss cannot move this factory to {device!r}: {reason(error)}. '
                             'Leave the device out.') from error
        self._l2 = engine.l2
        self._lists = engine.core.nprobe if engine.lists else 0

    def serves(self, fetch: int, chosen: Any, effort: int) -> bool:
        """True where such a search is one for the GPU."""
        return chosen is None and not effort and max(fetch, self._lists) <= _MOST_ON_GPU

    def candidates(self, queries: np.ndarray, fetch: int, chosen: Any,
                   effort: int) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`FaissEngine.candidates`."""
        with self._lock:  # what a GPU index works in serves one search at a time
            raw, slots = self._index.search(queries, fetch)
        return (-raw if self._l2 else raw), slots


def _plain_search(index: Any, queries: np.ndarray, fetch: int,
                 **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """faiss's own search of arrays, which takes ``params``.

    ``faiss.contrib.torch_utils``, which pytorch-metric-learning imports, replaces the method of
    every index by one that does not.
    """
    search = getattr(index, 'search_numpy', index.search)
    return search(queries, fetch, **options)


def _parameters(parts: list[Any], chosen: Any, wider: int) -> Any:
    """faiss's search parameters: those that are set, with a selector, over ``wider`` as many
    lists.
    """
    faiss = load_faiss()
    part, inner = parts[0], parts[1:]
    if isinstance(part, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_parameters(inner, chosen, wider))
    if isinstance(part, faiss.IndexRefine):
        return faiss.IndexRefineSearchParameters(
            k_factor=part.k_factor, base_index_params=_parameters(inner, chosen, wider))
    if isinstance(part, faiss.IndexIVF):
        lists = dict(sel=chosen, nprobe=min(part.nlist, part.nprobe * wider),
                     max_codes=part.max_codes * wider)
        if isinstance(part, faiss.IndexIVFPQ):
            return faiss.IVFPQSearchParameters(polysemous_ht=part.polysemous_ht, **lists)
        return faiss.SearchParametersIVF(**lists)
    if isinstance(part, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=chosen, efSearch=part.hnsw.efSearch)
    return faiss.SearchParameters(sel=chosen)

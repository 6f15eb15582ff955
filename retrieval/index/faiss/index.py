"""The index of any of faiss's factory types."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import real_number, whole_number
from ...ranking import RangeNeighbors, as_vectors, prepared_rows
from ...ranking.range_search import checked_threshold
from ...registry import INDEXES
from ...similarity import SIMILARITIES, SimilarityFn
from ...structures import Neighbors
from ...tensor_file import Container
from ..base import (
    Capabilities,
    Exclude,
    Filter,
    Found,
    Index,
    as_range,
    grow_to_threshold,
    named_similarity,
)
from ..lock import changes, reads
from .engine import FaissEngine, GpuMirror, checked_device, trained_engine
from .factory import checked_parameters, knobs, load_faiss, plain_factory, trial
from .lists import plain_lists
from .search import FaissSearch, KeptVectors, Scope, check_half
from .store import FORMAT, FaissStore


@INDEXES.register_module()
class FaissIndex(Index):
    """An index of faiss under our ids, filters and scores.

    Args:
        factory: faiss's factory string: ``Flat``, ``HNSW32``, ``IVF4096,PQ32``,
            ``OPQ16,IVF256,PQ16``, ``IVF1024,RaBitQ,RFlat``, ``SQ8`` … ``IDMap`` is not needed.
        similarity: ``cosine_similarity``, ``inner_product`` or ``euclidean``.
        search_parameters: by faiss's names: ``nprobe``, ``efSearch``, ``k_factor_rf`` …
        train_size: how many rows of the first that are added, or of those given to
            :meth:`train`, are drawn to train on; by default 64 for each centroid, at least 65,536.
        seed: of the draw and of faiss's clustering.
        rescore: keep the vectors, and score candidates exactly by them.
        rescore_factor: how many times as many candidates as results are scored.
        rescore_dtype: how the vectors are kept, ``float16`` or ``float32``.
        on_disk: a folder in which the inverted lists are kept in a file while the index is open,
            instead of in memory; for ``IVF`` factories.
        device: ``cuda`` or ``cuda:N`` to search on a GPU with faiss-gpu.
        max_removed: types that cannot remove hide what was removed; from this share on they are
            built anew from the vectors that are left (1 for never; see :meth:`compact`).

    Where a search finds fewer results than there are, because few lists were looked at or few
    rows pass the filter, it looks further, at last at everything: an approximate index may miss
    neighbours, and never returns fewer.

    Raises:
        ValueError: faiss knows no such factory, or an argument is out of range.
        TypeError: an argument is of a wrong type.
        ImportError: faiss is not installed.

    Example:
        >>> index = FaissIndex('HNSW8', 'euclidean')
        >>> index.add(torch.eye(3), ['x', 'y', 'z'])
        >>> index.search(torch.tensor([[1., 0.5, 0.]]), k=2, exclude=['x']).ids
        [['y', 'z']]
    """

    load_options = ('device', 'search_parameters', 'on_disk', 'verify', 'factory')

    def __init__(self, factory: str = 'Flat',
                 similarity: str | SimilarityFn = 'cosine_similarity',
                 search_parameters: Mapping[str, Any] | None = None,
                 train_size: int | None = None, seed: int = 0, rescore: bool = False,
                 rescore_factor: float = 4, rescore_dtype: str = 'float16',
                 on_disk: str | PathLike[str] | None = None, device: Any = None,
                 max_removed: float = 0.5) -> None:
        self.factory = plain_factory(factory)
        super().__init__(named_similarity(similarity, 'FaissIndex'))
        self.device = checked_device(device)
        self.train_size = None if train_size is None else whole_number('train_size', train_size)
        self.seed = int(seed)
        self.rescore, self.rescore_dtype = bool(rescore), rescore_dtype
        self.rescore_factor = real_number('rescore_factor', rescore_factor, 1)
        kept = KeptVectors(self.similarity.name, rescore_dtype) if rescore else None
        self.store = FaissStore(self.similarity.name, kept, on_disk,
                                real_number('max_removed', max_removed, 0))
        index = trial(self.factory, self.similarity.name)
        self.capabilities = _checked_capabilities(
            index, self.factory, self.similarity.name, self.rescore, on_disk is not None)
        self._parameters = checked_parameters(search_parameters, knobs(index), self.factory)
        self._mirror: GpuMirror | None = None

    @property
    def ids(self) -> Sequence[str]:
        return self.store.ids.names

    @property
    def width(self) -> int | None:
        return None if self.store.engine is None else self.store.engine.index.d

    @property
    def trained(self) -> bool:
        """True where rows can be added without training."""
        engine = self.store.engine
        return not self.capabilities.training if engine is None else engine.trained

    @property
    def removed(self) -> int:
        """How many removed rows faiss still holds, hidden, until :meth:`compact`."""
        return self.store.removed

    @property
    def nbytes(self) -> int:
        """Bytes of what is searched: codes, links, centroids and kept vectors, without the ids."""
        kept = self.store.kept
        return (0 if self.store.engine is None else self.store.engine.size()) + (
            0 if kept is None else kept.rows.nbytes)

    def __len__(self) -> int:
        return len(self.store)

    @reads
    def __contains__(self, item: Any) -> bool:
        return self.store.ids.row(str(item)) is not None

    @property
    def search_parameters(self) -> dict[str, Any]:
        """The parameters of the search; setting some leaves the others as they are.

        Raises:
            TypeError, ValueError: there is no such parameter, or a value is out of range.
        """
        return dict(self._parameters)

    @search_parameters.setter
    @changes
    def search_parameters(self, values: Mapping[str, Any]) -> None:
        engine = self.store.engine
        index = trial(self.factory, self.similarity.name) if engine is None else engine.index
        checked = checked_parameters(values, knobs(index), self.factory)
        if checked.get('ht') and 'ht' not in self._parameters:
            raise ValueError('The search parameter ht needs a training for it: give it when the '
                             'index is made, search_parameters=dict(ht=…).')
        self._parameters.update(checked)
        self._apply_parameters()

    def _apply_parameters(self) -> None:
        if self.store.engine is not None:
            for name, value in self._parameters.items():
                knob = self.store.engine.knobs[name]
                setattr(knob.owner, knob.attribute, value)
        self._mirror = None

    @changes
    def train(self, embeddings: Any) -> None:
        """Train on a sample of these vectors, before any are added.

        Args:
            embeddings: ``(n, D)`` floats; of more than ``train_size`` a sample is drawn.

        Raises:
            ValueError: there are rows already, or too few to train on.
        """
        if len(self):
            raise ValueError(f'The index holds {len(self)} rows, which are coded by the present '
                             'training: make a new index to train anew.')
        self._start(self._prepared(as_vectors(embeddings, 'embeddings', self.width)))

    def _start(self, vectors: Tensor) -> None:
        """Make the engine for these prepared vectors, and train it where it needs that."""
        engine = trained_engine(self.factory, self.similarity.name, vectors, self.train_size,
                                self.seed, polysemous='ht' in self._parameters)
        self.store.attach(engine, engine.codec())
        self._apply_parameters()

    def _prepared(self, vectors: Tensor) -> Tensor:
        """The vectors as faiss gets them: for cosine of length 1."""
        vectors = vectors.cpu()
        if self.similarity.name == 'euclidean':
            prepared_rows(vectors, SIMILARITIES['inner_product'])  # refuses what overflows
        return prepared_rows(vectors, self.similarity).contiguous()

    @changes
    def add(self, embeddings: Any, ids: Iterable[Any]) -> None:
        vectors = as_vectors(embeddings, 'embeddings', self.width)
        names = self.store.ids.new(ids, len(vectors))
        if not names:
            return
        self.store.check_writable()
        vectors = self._prepared(vectors)
        if self.store.kept is not None:
            self.store.kept.check(vectors)
        if self.store.engine is None or not self.store.engine.trained:
            self._start(vectors)
        self._check_range(vectors)
        self.take(vectors, names)

    @changes
    def take(self, vectors: Tensor, names: list[str]) -> None:
        """Add vectors ``(n, D)`` that are prepared already, under ids that are new."""
        self.store.append(vectors, names)
        self.gallery_digest = None
        self._apply_parameters()

    def _check_range(self, vectors: Tensor) -> None:
        """Refuse vectors that this factory would rank wrongly. Raises ValueError."""
        assert self.store.engine is not None
        if 'fp16' in self.factory:
            check_half(vectors, f'which the factory {self.factory!r}')
        if self.store.engine.l2 and self.similarity.name == 'cosine_similarity':
            zero = (vectors == 0).all(dim=1)
            if bool(zero.any()):
                raise ValueError(f'The factory {self.factory!r} searches by distance, which ranks '
                                 'by cosine unless a vector is zero, and row '
                                 f'{int(zero.nonzero()[0, 0])} is. Leave it out, or use another '
                                 'factory.')

    @changes
    def remove(self, ids: Iterable[Any]) -> None:
        rows = self.store.ids.rows(ids)
        if not rows:
            return
        self.store.check_writable()
        self.store.remove(rows)
        self.gallery_digest = None
        self._apply_parameters()

    @changes
    def compact(self) -> None:
        """Build the index anew, with the same training, without what was removed.

        The vectors are those that are kept for ``rescore``, else what the codes give back.

        Raises:
            ValueError: the codes of this factory give nothing back.
        """
        self.store.compact()
        self._apply_parameters()

    @reads
    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        k = whole_number('k', k)
        search = self._searching(queries, exclude, filter)
        scores, rows = search.best(min(k, int(search.scope.available.max(initial=0))))
        width = int((rows >= 0).sum(axis=1).max(initial=0))
        return Neighbors(torch.from_numpy(np.ascontiguousarray(scores[:, :width])),
                         torch.from_numpy(np.ascontiguousarray(rows[:, :width])), self.ids)

    @reads
    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        """Every row of similarity ``threshold`` or more that the search parameters let it see."""
        threshold = checked_threshold(threshold, self.similarity)
        search = self._searching(queries, exclude, filter)

        def best(some: np.ndarray, k: int) -> Found:
            scores, rows = search.of(some).best(k, complete=False)
            return rows, scores

        most = int(search.scope.available.max(initial=0))
        return as_range(grow_to_threshold(best, len(search.queries), most, threshold), self.ids)

    def _searching(self, queries: Any, exclude: Exclude | None,
                   chosen: Filter | None) -> FaissSearch:
        """The search of these queries among what they may find."""
        vectors = self._prepared(self.as_queries(queries)).numpy()
        store = self.store
        store.check_lists()
        assert store.engine is not None
        mask = store.ids.allowed(chosen)
        scope = Scope(store.slots, None if mask is None else mask.cpu().numpy(),
                      store.ids.excluded(exclude, len(vectors)), len(vectors))
        if self.device is not None and self._mirror is None:
            self._mirror = GpuMirror(store.engine, self.device)
        return FaissSearch(store.engine, vectors, scope, store.longest, store.kept,
                           self.rescore_factor, self._mirror)

    @changes  # the lists are taken out for a moment
    def empty_copy(self, on_disk: str | PathLike[str] | None = None) -> FaissIndex:
        """An index with the same training and settings and no rows, to fill another shard with.

        Raises:
            ValueError: it is not trained yet.
        """
        engine = self.store.engine
        if engine is None or not engine.trained:
            raise ValueError('The index is not trained yet: call train() first.')
        copy = FaissIndex(**self.settings(), on_disk=on_disk, device=self.device)
        copy.store.attach(FaissEngine(engine.emptied(), self.similarity.name), self.store.codec)
        copy._apply_parameters()
        return copy

    @changes  # faiss notes where rows are while it looks
    def reconstruct(self, rows: Sequence[int]) -> Tensor:
        return self.store.reconstruct(rows)

    def settings(self) -> dict[str, Any]:
        """The arguments that make such an index, less where it runs."""
        names = ('factory', 'search_parameters', 'train_size', 'seed', 'rescore',
                 'rescore_factor', 'rescore_dtype')
        return dict({name: getattr(self, name) for name in names},
                    similarity=self.similarity.name, max_removed=self.store.max_removed)

    @classmethod
    def merge(cls, parts: Iterable[FaissIndex | str | PathLike[str]],
              on_disk: str | PathLike[str] | None = None) -> FaissIndex:
        """One index with the rows of several, in their order, that share one training.

        Args:
            parts: indexes or their files, made by :meth:`empty_copy` of one trained index.
            on_disk: a folder for the inverted lists of the result; they then never are in memory
                together.

        Raises:
            ValueError: there are none, they were trained apart, or an id is in two of them.
        """
        if isinstance(parts, (str, bytes, PathLike, FaissIndex)):
            raise TypeError(f'merge wants a sequence of indexes or files, got {parts!r}.')
        indexes = [part if isinstance(part, FaissIndex) else cls.load(part)
                   for part in parts]
        if not indexes:
            raise ValueError('There is nothing to merge: give at least one index.')
        with ExitStack() as held:
            for part in sorted(indexes, key=id):  # in one order, for two merges at once
                held.enter_context(part.lock.write())
            _check_alike(indexes)
            merged = indexes[0].empty_copy(on_disk)
            merged.store.join([part.store for part in indexes])
        merged._apply_parameters()
        return merged

    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to one file; lists that are kept on disk to a second one beside it."""
        # lists on disk are taken out for a moment
        held = self.lock.write() if self.store.lists_on_disk else self.lock.read()
        with held:
            self.store.save(Path(path), dict(settings=self.settings(), gallery=self.gallery_digest))

    @classmethod
    def load(cls, path: str | PathLike[str], device: Any = None,
             search_parameters: Mapping[str, Any] | None = None,
             on_disk: str | PathLike[str] | None = None, verify: bool = True,
             factory: str | None = None) -> FaissIndex:
        """Read what :meth:`save` wrote, after its checksum was compared.

        Args:
            path: the file.
            device: as for the class.
            search_parameters: other values than were saved.
            on_disk: a folder for the inverted lists. Lists that were saved in a file of their
                own are mapped where they are, and the index cannot be changed, unless a folder is
                given, into which they are copied.
            verify: False to map lists of their own file without reading it through first; the
                index file is always checked.
            factory: what the index must be made of, where that matters.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no such index, or is damaged.
        """
        opened = Container(path, FORMAT)
        opened.verify()
        try:
            index = cls(**opened.manifest['settings'], on_disk=on_disk, device=device)
            index.store.read(opened)
            index.search_parameters = {}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{str(path)!r} is damaged, or not for this installation: {error}') \
                from error
        index.store.read_lists(opened, verify)
        index.gallery_digest = opened.manifest['gallery']
        if factory is not None and plain_factory(factory) != index.factory:
            raise ValueError(f'{str(path)!r} holds the factory {index.factory!r}, not '
                             f'{factory!r}.')
        if search_parameters is not None:
            index.search_parameters = search_parameters
        return index


def _checked_capabilities(index: Any, factory: str, similarity: str, rescore: bool,
                         on_disk: bool) -> Capabilities:
    """The capabilities of an index of this factory.

    Args:
        index: an empty index of it, of any width.

    Raises:
        ValueError: the factory cannot be used as it is asked for.
    """
    engine = FaissEngine(index, similarity)
    if isinstance(engine.core, load_faiss().IndexLSH) and not rescore:
        raise ValueError(f'The factory {factory!r} counts differing bits, which are no similarity: '
                         'use it with rescore=True.')
    if on_disk and not (engine.given and plain_lists(engine.core)):
        raise ValueError(f'on_disk keeps plain inverted lists in a file, and {factory!r} has none: '
                         "use an IVF factory without 'fs' and without refinement (rescore=True "
                         "refines), such as 'IVF4096,PQ32'.")
    return Capabilities(exact=engine.exact, training=not engine.trained)


def _check_alike(parts: Sequence[FaissIndex]) -> None:
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

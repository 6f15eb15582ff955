"""k-nearest-neighbour functions: ``knn(query, k, reference, ref_includes_query)``.

Each can be given its reference, or keep one, with what its rows are called.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..checks import first_repeated, same_length, whole_number
from ..ranking import as_vectors, topk
from ..string_column import StringColumn
from ..structures import as_labels
from ..tensor_file import Container, Format, write_container
from . import faiss_engine
from .flat_index import FlatIndex

UNKNOWN = -1  # the label of a row whose class nobody said
_NOTHING = ('There is nothing to search in yet: give a reference, or call `train` first '
            '(`train_knn` of an InferenceModel).')
_NO_INDEX = 'The indexer is not trained yet: call `train_indexer` (`train_index`) first.'
_SCORES = 2 ** 24  # held at once, where no batch size says otherwise


class RowNames:
    """Ids and labels of rows, as far as they are known.

    Attributes:
        ids: a unique string for each row, or None where none was given; a row that came without
            one among others that have one is called by its number.
        labels: ``(N,)`` int64, -1 for a row without one; None where none was given.
    """

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[str] | None = None
        self.labels: Tensor | None = None

    def extended(self, count: int, ids: Iterable[Any] | None = None,
                 labels: Any = None) -> RowNames:
        """These names and those of ``count`` further rows.

        Raises:
            ValueError: there are not ``count`` ids or labels, or an id is there already.
            TypeError: the labels are no integers.
        """
        more_ids = None if ids is None else [str(name) for name in ids]
        more_labels = None if labels is None else as_labels(labels, 'labels').cpu()
        same_length('ids', more_ids, count, 'embeddings')
        same_length('labels', more_labels, count, 'embeddings')
        joined = RowNames()
        joined.count = self.count + count
        joined.ids = self._joined_ids(more_ids, count)
        if more_labels is not None or self.labels is not None:
            mine = _unlabelled(self.count) if self.labels is None else self.labels
            more = _unlabelled(count) if more_labels is None else more_labels
            joined.labels = torch.cat([mine, more])
        return joined

    def _joined_ids(self, more: list[str] | None, count: int) -> list[str] | None:
        if more is None and self.ids is None:
            return None
        mine = [str(row) for row in range(self.count)] if self.ids is None else self.ids
        if more is None:
            more = [str(row) for row in range(self.count, self.count + count)]
        joined = mine + more
        if len(set(joined)) != len(joined):
            raise ValueError(f'The id {first_repeated(joined)!r} is given to two rows: ids must be '
                             'unique.')
        return joined

    def columns(self) -> dict[str, Any]:
        """The columns that are there, for a file."""
        held: dict[str, Any] = {}
        if self.ids is not None:
            held['ids'] = StringColumn.from_strings(self.ids)
        if self.labels is not None:
            held['labels'] = self.labels
        return held

    @classmethod
    def from_file(cls, opened: Container, count: int) -> RowNames:
        """The columns of a file, for ``count`` rows.

        Raises:
            ValueError: they have another length, or are damaged.
        """
        return cls().extended(count, opened.strings('ids') if 'ids' in opened else None,
                              opened.tensor('labels').clone() if 'labels' in opened else None)


def _unlabelled(count: int) -> Tensor:
    return torch.full((count,), UNKNOWN, dtype=torch.int64)


_AGAIN = 'Train the function again, and save it.'
_HELD = Format('retrieval.HeldReference', 2, _AGAIN)


class HeldReference:
    """The embeddings that a function searches when it is called without a reference.

    Attributes:
        reference: ``(N, D)``, or None.
        names: ids and labels of the rows, see :class:`RowNames`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the reference."""
        self._parts: list[Tensor] = []
        self.names = RowNames()

    @property
    def reference(self) -> Tensor | None:
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0] if self._parts else None

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def train(self, embeddings: Any, ids: Iterable[Any] | None = None, labels: Any = None) -> None:
        """Keep embeddings ``(N, D)``, and nothing else; ``ids`` and ``labels`` are one for each."""
        self.reset()
        self.add(embeddings, ids, labels)

    def add(self, embeddings: Any, ids: Iterable[Any] | None = None, labels: Any = None) -> None:
        """Keep further embeddings; see :meth:`train`."""
        width = self._parts[0].shape[1] if self._parts else None
        vectors = as_vectors(embeddings, 'embeddings', width)
        self.names = self.names.extended(len(vectors), ids, labels)
        self._parts.append(vectors.to(self._parts[0].device) if self._parts else vectors)

    def vectors(self, rows: Tensor) -> Tensor:
        """The vectors of these rows, ``(n, D)``."""
        return self.held(None)[rows]

    def held(self, reference: Any) -> Tensor:
        """The reference that is given, else the one that is kept.

        Raises:
            ValueError: there is neither.
        """
        if reference is not None:
            return as_vectors(reference, 'reference')
        self.check_trained()
        return cast(Tensor, self.reference)

    def check_trained(self) -> None:
        """Raise ValueError where there is nothing to search in."""
        if not len(self):
            raise ValueError(_NOTHING)

    def save(self, filename: str | PathLike[str]) -> None:
        """Write the reference, ids and labels to one file with a checksum."""
        held = {'vectors': self.held(None), **self.names.columns()}
        write_container(filename, _HELD, held, {})

    def load(self, filename: str | PathLike[str]) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else.
        """
        opened = Container(filename, _HELD)
        vectors = opened.tensor('vectors').clone()
        self.names = RowNames.from_file(opened, len(vectors))
        self._parts = [vectors]


class CallableKNN(HeldReference):
    """Any ``knn(query, k, reference, ref_includes_query)``, with a reference that is kept.

    Args:
        knn_func: the function.
    """

    def __init__(self, knn_func: Callable[..., tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.knn_func = knn_func

    def __call__(self, query: Tensor, k: int, reference: Any = None,
                 ref_includes_query: bool = False) -> tuple[Tensor, Tensor]:
        """The nearest neighbours; at most as many neighbours as there are are asked for."""
        among = self.held(reference)
        most = len(among) - bool(ref_includes_query)
        return self.knn_func(query, min(k, most), among, ref_includes_query)


_INDEX = Format('retrieval.FaissKNN', 3, _AGAIN)


class FaissKNN:
    """k nearest neighbours: ``knn(query, k, reference, ref_includes_query)``.

    Without ``index_init_fn`` the package's own exact engine searches, by squared Euclidean
    distance, as faiss's ``IndexFlatL2`` gives it. With one, or where :attr:`index` is set to an
    index of faiss, faiss itself does.

    Args:
        reset_before: a call with a reference searches that alone; False adds the reference to
            what is there, as pytorch-metric-learning does.
        reset_after: forget the reference after a call that brought it. A call without one
            searches what :meth:`train`, :meth:`add` or :meth:`load` put there, and resets nothing.
        index_init_fn: ``width -> index of faiss``. An index that needs training is trained on the
            first vectors that it gets.
        gpus: numbers of the GPUs to search on. An index of faiss uses them where faiss was built
            for GPUs; the own engine uses the first.

    Attributes:
        index: what is searched, or None.
        names: ids and labels of the rows, see :class:`RowNames`.

    Raises:
        TypeError: ``gpus`` is no list, or ``index_init_fn`` cannot be called.
        ValueError: ``gpus`` is empty.

    Example:
        >>> rows = torch.tensor([[0.], [1.], [3.]])
        >>> distances, indices = FaissKNN()(rows, 2, rows, ref_includes_query=True)
        >>> distances.tolist(), indices.tolist()
        ([[1.0, 9.0], [1.0, 4.0], [4.0, 9.0]], [[1, 2], [0, 2], [1, 0]])
    """

    def __init__(self, reset_before: bool = True, reset_after: bool = True,
                 index_init_fn: Callable[[int], Any] | None = None,
                 gpus: Sequence[int] | None = None) -> None:
        if gpus is not None and not isinstance(gpus, (list, tuple)):
            raise TypeError(f'gpus must be a list of numbers, got {gpus!r}: write [{gpus!r}].')
        if gpus is not None and not gpus:
            raise ValueError('gpus is an empty list: name at least one GPU, or leave it out.')
        if index_init_fn is not None and not callable(index_init_fn):
            raise TypeError('index_init_fn must be a callable from a width to an index of faiss, '
                            f'such as faiss.IndexFlatIP; got {type(index_init_fn).__name__}.')
        self.reset_before, self.reset_after = reset_before, reset_after
        self.index_init_fn = index_init_fn
        self.gpus = None if gpus is None else list(gpus)
        self.reset()

    def reset(self) -> None:
        """Forget what was indexed."""
        self.index: Any = None
        self.names = RowNames()

    def __len__(self) -> int:
        return 0 if self.index is None else self.index.ntotal

    @torch.no_grad()
    def __call__(self, query: Any, k: int, reference: Any = None,
                 ref_includes_query: bool = False) -> tuple[Tensor, Tensor]:
        """Search.

        Args:
            query: ``(Q, D)`` floats.
            k: how many neighbours; more than there are gives what there are.
            reference: ``(N, D)``, what to search in; None for what was indexed.
            ref_includes_query: query i is row i of the reference, and does not find itself.

        Returns:
            Distances ``(Q, k)`` float32, nearest first, and rows ``(Q, k)`` int64, on the query's
            device.

        Raises:
            ValueError: there is nothing to search in, or fewer rows than queries although the
                reference includes them.
        """
        width = None if self.index is None or reference is not None else self.index.d
        query, k = as_vectors(query, 'query', width), whole_number('k', k)
        first = 0
        if reference is not None:
            if self.reset_before:
                self.reset()
            first = len(self)
            self.add(as_vectors(reference, 'reference', query.shape[1]))
        self.check_trained()
        exclude = None
        if ref_includes_query:
            check_included(len(query), len(self) - first)
            exclude = torch.arange(first, first + len(query))
        distances, indices = self._search(query, k, exclude)
        if reference is not None and self.reset_after:
            self.reset()
        return distances.to(query.device), indices.to(query.device)

    def check_trained(self) -> None:
        """Raise ValueError where there is nothing to search in."""
        if not len(self):
            raise ValueError(_NOTHING)

    def _search(self, query: Tensor, k: int, exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        if isinstance(self.index, FlatIndex):
            return self.index.search(query, k, exclude)
        return faiss_engine.search(self.index, query, k, exclude, self.gpus)

    def train(self, embeddings: Any, ids: Iterable[Any] | None = None, labels: Any = None) -> None:
        """Index embeddings ``(N, D)``, and nothing else.

        Args:
            ids: a unique id for each.
            labels: a class for each, ``(N,)`` integers.
        """
        self.reset()
        self.add(embeddings, ids, labels)

    def add(self, embeddings: Any, ids: Iterable[Any] | None = None, labels: Any = None) -> None:
        """Index further embeddings; see :meth:`train`."""
        width = None if self.index is None else self.index.d
        vectors = as_vectors(embeddings, 'embeddings', width)
        names = self.names
        if names.count < len(self):  # an index that was put there from outside
            names = names.extended(len(self) - names.count)
        names = names.extended(len(vectors), ids, labels)
        index = self._new_index(vectors) if self.index is None else self.index
        if isinstance(index, FlatIndex):
            index.add(vectors)
        else:
            faiss_engine.add(index, vectors)
        self.index, self.names = index, names

    def _new_index(self, vectors: Tensor) -> Any:
        if self.index_init_fn is not None:
            return self.index_init_fn(vectors.shape[1])
        return FlatIndex(vectors.shape[1], self._device(vectors.device))

    def _device(self, default: str | torch.device = 'cpu') -> str | torch.device:
        if self.gpus is None or not torch.cuda.is_available():
            return default
        return torch.device('cuda', self.gpus[0])

    def vectors(self, rows: Tensor) -> Tensor:
        """The vectors of these rows, ``(n, D)`` float32.

        Raises:
            ValueError: the index of faiss cannot give them back.
        """
        if isinstance(self.index, FlatIndex):
            return self.index.vectors(rows)
        return faiss_engine.vectors(self.index, rows)

    def save(self, filename: str | PathLike[str]) -> None:
        """Write index, ids and labels to one file with a checksum, whole or not at all.

        ``faiss.read_index`` reads it as well: ids and labels stand behind what faiss reads.

        Raises:
            ValueError: there is nothing to write.
        """
        if self.index is None:
            raise ValueError('There is no index to save yet: call `train` first.')
        index = self.index
        if isinstance(index, FlatIndex):
            index = faiss_engine.flat(index.vectors(slice(None)))
        columns: dict[str, Tensor] = {}
        if self.names.ids is not None:
            ids = StringColumn.from_strings(self.names.ids)
            columns.update({'ids.bytes': ids.data, 'ids.offsets': ids.offsets})
        if self.names.labels is not None:
            columns['labels'] = self.names.labels
        faiss_engine.write(index, filename, columns)

    def load(self, filename: str | PathLike[str]) -> None:
        """Read what :meth:`save` wrote, or an index that faiss wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else.
        """
        index, columns = faiss_engine.read(filename)
        ids = (StringColumn(columns['ids.bytes'], columns['ids.offsets'])
               if 'ids.bytes' in columns else None)
        names = RowNames().extended(index.ntotal, ids, columns.get('labels'))
        rows = faiss_engine.rows_of_flat(index)
        if rows is not None:
            index = FlatIndex(index.d, self._device())
            index.add(rows)
        self.index, self.names = index, names


def check_included(queries: int, rows: int) -> None:
    """Raise ValueError where the queries cannot be the first rows of what is searched."""
    if queries > rows:
        raise ValueError(f'The reference is said to include the queries, but has {rows} rows for '
                         f'{queries} queries.')
    if rows < 2:
        raise ValueError('The reference holds the query alone: there is nothing else to find.')


class CustomKNN(HeldReference):
    """k nearest neighbours by any distance of pytorch-metric-learning, exactly.

    Args:
        distance: ``(Q, D), (N, D) -> (Q, N)`` with ``is_inverted``: True where larger is nearer.
        batch_size: queries that are compared at once; by default as many as keep the matrix of
            distances small.

    Raises:
        TypeError: the distance cannot be called or does not say whether it is inverted.
        ValueError: ``batch_size`` is below 1.

    Example:
        >>> from pytorch_metric_learning.distances import DotProductSimilarity
        >>> knn = CustomKNN(DotProductSimilarity(normalize_embeddings=False))
        >>> knn(torch.tensor([[2.]]), 2, torch.tensor([[0.], [1.], [3.]]))
        (tensor([[6., 2.]]), tensor([[2, 1]]))
    """

    def __init__(self, distance: Any, batch_size: int | None = None) -> None:
        super().__init__()
        if not callable(distance) or not hasattr(distance, 'is_inverted'):
            raise TypeError('distance must be one of pytorch_metric_learning.distances, such as '
                            f'CosineSimilarity(); got {type(distance).__name__}.')
        self.distance = distance
        self.batch_size = None if batch_size is None else whole_number('batch_size', batch_size)

    @torch.no_grad()
    def __call__(self, query: Any, k: int, reference: Any = None,
                 ref_includes_query: bool = False) -> tuple[Tensor, Tensor]:
        """Search; see :meth:`FaissKNN.__call__`. The distances are those of ``distance``; among
        equal ones the lower row comes first.
        """
        query, k = as_vectors(query, 'query'), whole_number('k', k)
        among = self.held(reference).to(query.device)
        exclude = None
        if ref_includes_query:
            check_included(len(query), len(among))
            exclude = torch.arange(len(query))
        budget = _SCORES if self.batch_size is None else self.batch_size * len(among)
        found = topk(query, among, k, self._similarity, exclude, tile_budget=budget)
        return (found.scores if self.distance.is_inverted else -found.scores), found.indices

    def _similarity(self, query: Tensor, reference: Tensor) -> Tensor:
        distances = self.distance(query, reference)
        return distances if self.distance.is_inverted else -distances


class IndexerFaissKNN(FaissKNN):
    """A :class:`FaissKNN` that is not ready with the exception of older releases."""

    def check_trained(self) -> None:
        """Raise RuntimeError where nothing was indexed."""
        if not len(self):
            raise RuntimeError(_NO_INDEX)


class FaissIndexer:
    """An index with the names of releases before 1.1; results come as ``(indices, distances)``.

    Args:
        index: an index of faiss to go on with, or None.
        emb_dim: the width of the embeddings, where it is known already.

    Example:
        >>> indexer = FaissIndexer()
        >>> indexer.train_index(np.float32([[0.], [1.], [3.]]))
        >>> indices, distances = indexer.search_nn(np.float32([[3.]]), 2)
        >>> indices.tolist(), distances.tolist()
        ([[2, 1]], [[0.0, 4.0]])
    """

    def __init__(self, index: Any = None, emb_dim: int | None = None) -> None:
        self.knn: FaissKNN = IndexerFaissKNN(reset_before=False, reset_after=False)
        self.knn.index = index
        self._emb_dim = emb_dim

    @classmethod
    def of(cls, knn: Any) -> FaissIndexer | None:
        """An indexer of what a :class:`FaissKNN` searches; None for another function.

        Example:
            >>> knn = FaissKNN()
            >>> FaissIndexer.of(knn).knn is knn
            True
        """
        if not isinstance(knn, FaissKNN):
            return None
        indexer = cls()
        indexer.knn = knn
        return indexer

    @property
    def index(self) -> Any:
        """The index that is searched, or None."""
        return self.knn.index

    @index.setter
    def index(self, index: Any) -> None:
        self.knn.reset()
        self.knn.index = index

    @property
    def emb_dim(self) -> int | None:
        """The width of the embeddings, where it is known."""
        return self._emb_dim if self.index is None else self.index.d

    def train_index(self, vectors: Any) -> None:
        """Index vectors ``(N, D)``, and nothing else."""
        self.knn.train(vectors)

    def add_to_index(self, vectors: Any) -> None:
        """Index further vectors."""
        self.knn.add(vectors)

    def search_nn(self, query_batch: Any, k: int) -> tuple[Any, Any]:
        """``(indices, distances)``, ``(Q, k)`` each; arrays where the queries are an array.

        Raises:
            RuntimeError: nothing was indexed.
        """
        distances, indices = self.knn(query_batch, k)
        if isinstance(query_batch, np.ndarray):
            return indices.numpy(), distances.numpy()
        return indices, distances

    def save(self, filename: str | PathLike[str]) -> None:
        """Write the index; see :meth:`FaissKNN.save`."""
        self.knn.save(filename)

    def load(self, filename: str | PathLike[str]) -> None:
        """Read an index; see :meth:`FaissKNN.load`."""
        self.knn.load(filename)


class IndexerKNN:
    """An indexer with the older methods (``train_index``, ``search_nn`` …) as a knn function.

    Args:
        indexer: such an object; it is given arrays, and returns ``(indices, distances)``.
    """

    def __init__(self, indexer: Any) -> None:
        for method in ('train_index', 'search_nn'):
            if not callable(getattr(indexer, method, None)):
                raise TypeError(f'An indexer has the methods train_index and search_nn; '
                                f'{type(indexer).__name__} lacks {method}. A function '
                                'knn(query, k, reference, ref_includes_query) goes to knn_func=.')
        self.indexer = indexer

    def train(self, embeddings: Tensor) -> None:
        """Index embeddings ``(N, D)``."""
        self.indexer.train_index(embeddings.float().cpu().numpy())

    def add(self, embeddings: Tensor) -> None:
        """Index further embeddings."""
        self.indexer.add_to_index(embeddings.float().cpu().numpy())

    def __call__(self, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """``(distances, indices)`` on the query's device."""
        self.check_trained()
        indices, distances = self.indexer.search_nn(query.float().cpu().numpy(), k)
        return (torch.as_tensor(np.asarray(distances)).to(query.device),
                torch.as_tensor(np.asarray(indices)).to(query.device))

    def check_trained(self) -> None:
        """Raise RuntimeError where the indexer has no index, or one that is not trained."""
        index = getattr(self.indexer, 'index', self)
        if index is None or not getattr(index, 'is_trained', True):
            raise RuntimeError(_NO_INDEX)

    def save(self, filename: str | PathLike[str]) -> None:
        """Let the indexer write itself."""
        self.indexer.save(filename)

    def load(self, filename: str | PathLike[str]) -> None:
        """Let the indexer read itself."""
        self.indexer.load(filename)

"""``FaissKNN``, as pytorch-metric-learning has it."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ..ranking import as_vectors
from ..ranking.topk import checked_k
from . import faiss_engine, knn_files
from .flat_index import FlatIndex
from .row_names import RowNames

_KIND = 'retrieval.FaissKNN'


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
        query, k = as_vectors(query, 'query', width), checked_k(k)
        first = 0
        if reference is not None:
            if self.reset_before:
                self.reset()
            first = len(self)
            self.add(as_vectors(reference, 'reference', query.shape[1]))
        if not len(self):
            raise ValueError('There is nothing to search in yet: give a reference, or call '
                             '`train` first (`train_knn` of an InferenceModel).')
        exclude = None
        if ref_includes_query:
            check_included(len(query), len(self) - first)
            exclude = torch.arange(first, first + len(query))
        distances, indices = self._search(query, k, exclude)
        if reference is not None and self.reset_after:
            self.reset()
        return distances.to(query.device), indices.to(query.device)

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

    def save(self, filename: str | PathLike) -> None:
        """Write index, ids and labels to one file with a checksum, whole or not at all.

        Raises:
            ValueError: there is nothing to write.
        """
        if self.index is None:
            raise ValueError('There is no index to save yet: call `train` first.')
        if isinstance(self.index, FlatIndex):
            held = self.index.tensors()
        else:
            held = {'faiss': faiss_engine.as_bytes(self.index)}
        knn_files.write(filename, _KIND, held, self.names)

    def load(self, filename: str | PathLike) -> None:
        """Read what :meth:`save` wrote, or an index that faiss wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else.
        """
        if not knn_files.is_ours(filename):
            self.index = faiss_engine.read(filename)
            self.names = RowNames().extended(self.index.ntotal)
            return
        held, names = knn_files.read(filename, _KIND)
        index: Any
        if 'faiss' in held:
            index = faiss_engine.from_bytes(held['faiss'])
        else:
            index = FlatIndex.from_tensors(held, self._device())
        self.index, self.names = index, RowNames.from_tensors(names, index.ntotal)


def check_included(queries: int, rows: int) -> None:
    """Raise ValueError where the queries cannot be the first rows of what is searched."""
    if queries > rows:
        raise ValueError(f'The reference is said to include the queries, but has {rows} rows for '
                         f'{queries} queries.')
    if rows < 2:
        raise ValueError('The reference holds the query alone: there is nothing else to find.')

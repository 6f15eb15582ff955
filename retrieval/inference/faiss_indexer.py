"""The older ``FaissIndexer`` of pytorch-metric-learning, and old indexers as knn functions."""
from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .knn import FaissKNN


class FaissIndexer:
    """An index with the names of releases before 1.1; results come as ``(indices, distances)``.

    Args:
        index: an index of faiss to go on with, or None.
        emb_dim: the width of the embeddings, where it is known already.
    """

    def __init__(self, index: Any = None, emb_dim: int | None = None) -> None:
        self.knn = FaissKNN(reset_before=False, reset_after=False)
        self.knn.index = index
        self._emb_dim = emb_dim

    @property
    def index(self) -> Any:
        """What is searched, or None."""
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
        """``(indices, distances)``, ``(Q, k)`` each; arrays where the queries are an array."""
        distances, indices = self.knn(query_batch, k)
        if isinstance(query_batch, np.ndarray):
            return indices.numpy(), distances.numpy()
        return indices, distances

    def save(self, filename: str | PathLike) -> None:
        """Write the index; see :meth:`FaissKNN.save`."""
        self.knn.save(filename)

    def load(self, filename: str | PathLike) -> None:
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
        if getattr(self.indexer, 'index', self) is None:
            raise RuntimeError('The indexer is not trained yet: call `train_knn` first.')
        indices, distances = self.indexer.search_nn(query.float().cpu().numpy(), k)
        return (torch.as_tensor(np.asarray(distances)).to(query.device),
                torch.as_tensor(np.asarray(indices)).to(query.device))

    def save(self, filename: str | PathLike) -> None:
        """Let the indexer write itself."""
        self.indexer.save(filename)

    def load(self, filename: str | PathLike) -> None:
        """Let the indexer read itself."""
        self.indexer.load(filename)

"""k-nearest-neighbour functions that are given their reference keep it here."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ..ranking import as_vectors
from . import knn_files
from .row_names import RowNames

_KIND = 'retrieval.HeldReference'


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
        if self.reference is None:
            raise ValueError('There is nothing to search in yet: give a reference, or call '
                             '`train` first (`train_knn` of an InferenceModel).')
        return self.reference

    def save(self, filename: str | PathLike) -> None:
        """Write the reference, ids and labels to one file with a checksum."""
        knn_files.write(filename, _KIND, {'vectors': self.held(None)}, self.names)

    def load(self, filename: str | PathLike) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else.
        """
        held, names = knn_files.read(filename, _KIND)
        self.names = RowNames.from_tensors(names, len(held['vectors']))
        self._parts = [held['vectors']]


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
        """What the function finds; at most as many neighbours as there are are asked for."""
        among = self.held(reference)
        most = len(among) - bool(ref_includes_query)
        return self.knn_func(query, min(k, most), among, ref_includes_query)

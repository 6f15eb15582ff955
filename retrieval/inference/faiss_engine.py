"""Searching an index that faiss made, whatever its kind, for :class:`FaissKNN`."""
from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..foreign_files import refuse_special
from ..index.faiss.factory import load_faiss, reason
from ..ranking import as_vectors

_QUERIES = 8192     # searched at once
_MOST_ON_GPU = 2048  # results that faiss's GPU kernels can give a query


def add(index: Any, vectors: Any) -> None:
    """Add vectors ``(n, D)`` to an index, which is trained on them first where it needs it.

    Raises:
        ValueError: faiss refuses them, as an IVF index does with fewer vectors than lists.
    """
    rows = _array(vectors, 'embeddings', index.d)
    try:
        if not index.is_trained:
            index.train(rows)
        index.add(rows)
    except RuntimeError as error:
        raise ValueError(f'faiss refuses {len(rows)} vectors of width {rows.shape[1]} for a '
                         f'{type(index).__name__}: {reason(error)}') from error


def search(index: Any, queries: Tensor, k: int, exclude: Tensor | None,
           gpus: list[int] | None) -> tuple[Tensor, Tensor]:
    """The nearest rows, as the index measures.

    Args:
        index: of faiss.
        queries: ``(Q, D)``.
        k: how many; more than there are gives what there are.
        exclude: ``(Q,)`` int64, a row that each query must not find.
        gpus: the numbers of the GPUs to search on, where faiss was built for them.

    Returns:
        Distances (or inner products) ``(Q, k)`` float32 and rows ``(Q, k)`` int64 on the CPU. Where
        an approximate index finds fewer for a query, its row ends in -1.
    """
    want = min(k + (exclude is not None), index.ntotal)
    used = _on_gpus(index, want, queries.is_cuda, gpus)
    rows = _array(queries, 'query', index.d)
    parts = [used.search(rows[start:start + _QUERIES], want)
             for start in range(0, len(rows), _QUERIES)]
    distances, indices = (torch.from_numpy(np.concatenate(column)) if column else empty
                          for column, empty in zip(
                              zip(*parts, strict=True) if parts else ([], []),
                              (torch.zeros(0, want), torch.zeros(0, want, dtype=torch.int64)),
                              strict=True))
    if exclude is not None:
        distances, indices = _without(distances, indices, exclude.cpu())
    width = int((indices >= 0).sum(dim=1).max()) if indices.numel() else 0
    return distances[:, :width], indices[:, :width]


def _without(distances: Tensor, indices: Tensor, exclude: Tensor) -> tuple[Tensor, Tensor]:
    """Each row without the one that it must not find, or else without its last."""
    out = indices == exclude[:, None]
    out[:, -1] |= ~out.any(dim=1)
    shape = (len(indices), indices.shape[1] - 1)
    return distances[~out].reshape(shape), indices[~out].reshape(shape)


def _on_gpus(index: Any, k: int, on_gpu: bool, gpus: list[int] | None) -> Any:
    faiss = load_faiss()
    if (not on_gpu and gpus is None) or 'Gpu' in type(index).__name__:
        return index
    available = faiss.get_num_gpus() if hasattr(faiss, 'get_num_gpus') else 0
    if not available or k > _MOST_ON_GPU:
        return index
    if gpus is None:
        return faiss.index_cpu_to_all_gpus(index)
    return faiss.index_cpu_to_gpus_list(index, gpus=list(gpus))


def vectors(index: Any, rows: Tensor) -> Tensor:
    """The vectors of these rows ``(n, D)``, as well as the index can give them back.

    Raises:
        ValueError: it cannot.
    """
    try:
        return torch.from_numpy(np.stack([index.reconstruct(row) for row in rows.tolist()]))
    except RuntimeError as error:
        raise ValueError(f'A {type(index).__name__} cannot give its vectors back: take another '
                         'index_init_fn, or leave it out.') from error


def as_bytes(index: Any) -> Tensor:
    """An index as a tensor of bytes, for a file with a checksum."""
    faiss = load_faiss()
    if 'Gpu' in type(index).__name__:
        index = faiss.index_gpu_to_cpu(index)
    return torch.from_numpy(faiss.serialize_index(index))


def from_bytes(data: Tensor) -> Any:
    """The index that :func:`as_bytes` wrote."""
    return load_faiss().deserialize_index(data.numpy())


def read(path: str | PathLike[str]) -> Any:
    """A file that faiss itself wrote.

    Raises:
        ValueError: faiss cannot read it.
    """
    refuse_special(path)
    try:
        return load_faiss().read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f'{str(path)!r} is no index that can be read: it is damaged, or neither '
                         f'this package nor faiss wrote it.') from error


def _array(values: Any, name: str, width: int) -> np.ndarray:
    return np.ascontiguousarray(as_vectors(values, name, width).cpu().numpy())

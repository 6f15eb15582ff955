"""Searching an index that faiss made, whatever its kind, for :class:`FaissKNN`."""
from __future__ import annotations

import hashlib
import io
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ..files import kind_of_file, write_atomically
from ..foreign_files import open_regular
from ..index.faiss.factory import load_faiss, reason
from ..ranking import as_vectors

_END = b'rows.v3\n'  # what a file with columns behind the index ends in
_AGAIN = 'Train the function again, and save it.'
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


def flat(vectors: Tensor) -> Any:
    """An ``IndexFlatL2`` of vectors ``(N, D)``."""
    index = load_faiss().IndexFlatL2(vectors.shape[1])
    index.add(_array(vectors, 'embeddings', vectors.shape[1]))
    return index


def rows_of_flat(index: Any) -> Tensor | None:
    """The vectors ``(N, D)`` of an ``IndexFlatL2``; None of any other index."""
    faiss = load_faiss()
    if type(index) is not faiss.IndexFlatL2:
        return None
    return torch.as_tensor(index.reconstruct_n(0, index.ntotal)).reshape(-1, index.d)


def write(index: Any, path: str | PathLike[str], columns: dict[str, Tensor]) -> None:
    """Write an index as faiss does, and behind it the columns and a checksum of the whole."""
    faiss = load_faiss()
    if 'Gpu' in type(index).__name__:
        index = faiss.index_gpu_to_cpu(index)
    content = bytes(torch.as_tensor(faiss.serialize_index(index)).numpy())
    behind = save(columns)
    size = len(behind).to_bytes(8, 'little')
    checksum = hashlib.sha256(b''.join((content, behind, size))).digest()
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(
        b''.join((content, behind, size, checksum, _END))))


def read(path: str | PathLike[str]) -> tuple[Any, dict[str, Tensor]]:
    """The index of a file that :func:`write`, or faiss itself, wrote, and the columns behind it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or something else.
    """
    with open_regular(path) as file:
        content = file.read()
    columns: dict[str, Tensor] = {}
    consumed = len(content)
    if content.endswith(_END):
        signed, checksum = content[:-len(_END) - 32], content[-len(_END) - 32:-len(_END)]
        if hashlib.sha256(signed).digest() != checksum:
            raise ValueError(f'{str(path)!r} is damaged. {_AGAIN}')
        consumed = len(signed) - 8 - int.from_bytes(signed[-8:], 'little')
        columns = load(signed[consumed:-8])
    faiss = load_faiss()
    source = io.BytesIO(content)
    try:
        index = faiss.read_index(faiss.PyCallbackIOReader(source.read))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f'{str(path)!r} is no index that can be read: it seems to be '
                         f'{kind_of_file(path)}, is damaged, or neither this package nor faiss '
                         f'wrote it. {_AGAIN}') from error
    if source.tell() != consumed:
        raise ValueError(f'{str(path)!r} is damaged: faiss reads {source.tell()} of its '
                         f'{len(content)} bytes. {_AGAIN}')
    return index, columns


def _array(values: Any, name: str, width: int) -> np.ndarray:
    return np.ascontiguousarray(as_vectors(values, name, width).cpu().numpy())

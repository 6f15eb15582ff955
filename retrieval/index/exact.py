"""Exhaustive search in tiles."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ..checks import unique_names
from ..ranking import (
    PreparedGallery,
    RangeNeighbors,
    as_vectors,
    checked_precision,
    prepared_rows,
    topk,
    within,
)
from ..registry import INDEXES, unknown_name
from ..similarity import SIMILARITIES, SimilarityFn, resolve_similarity
from ..structures import Neighbors
from ..tensor_file import Container, Format, StringColumn, write_container
from .base import Capabilities, Exclude, Filter, Index, as_ids, excluded_rows, filter_mask, some_of

_FORMAT = Format('retrieval.ExactIndex', 2, 'Build it again with tools/build_index.py.')
_DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}
_FIRST_ROWS = 1024


@INDEXES.register_module()
class ExactIndex(Index):
    """Every query is compared with every row; among equal scores the lower row comes first.

    Args:
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        device: where the vectors are kept and searched; the default is the CPU.
        dtype: how they are kept: ``float32``, or ``float16`` or ``bfloat16`` for half the memory.
            Scores are always computed in float32.
        precision: ``float32``; or ``half``, which searches by half-precision products and scores
            again in float32 what they find: the same results, sooner on a GPU, for half as much
            memory more.

    Where the similarity multiplies prepared rows (cosine scales them to length 1), the prepared
    rows are what is kept, so that nothing is held twice.
    """

    capabilities = Capabilities(exact=True, removal=True, filters=True, range_search=True)
    follows_device = True

    def __init__(self, similarity: str | SimilarityFn = 'cosine_similarity',
                 device: str | torch.device | None = None,
                 dtype: str | torch.dtype = 'float32', precision: str = 'float32') -> None:
        self.similarity = resolve_similarity(similarity)
        self.device = torch.device('cpu' if device is None else device)
        self.dtype = _dtype(dtype)
        self.precision = checked_precision(precision, self.similarity)
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._rows: Tensor | None = None  # capacity >= N; rows behind the last are zeros
        self._prepared: PreparedGallery | None = None

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    @property
    def width(self) -> int | None:
        return None if self._rows is None else self._rows.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors, without the ids."""
        return 0 if self._rows is None else self._rows[:len(self)].nbytes

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item: Any) -> bool:
        return str(item) in self._row_of

    def add(self, embeddings: Any, ids: Iterable[Any]) -> None:
        vectors = as_vectors(embeddings, 'embeddings', self.width).to(self.device)
        names = as_ids(ids, len(vectors))
        known = [name for name in names if name in self._row_of]
        if known:
            raise ValueError(f'Already in the index: {some_of(known)}. Remove them first.')
        if not names:
            return
        vectors = prepared_rows(vectors, self.similarity, 'embeddings')
        rows = self._with_room(vectors.shape[1], len(names))
        rows[len(self):len(self) + len(names)] = vectors.to(self.dtype)
        self._rows, self._prepared, self.gallery_digest = rows, None, None
        self._row_of.update(zip(names, range(len(self), len(self) + len(names)), strict=True))
        self._ids.extend(names)

    def _with_room(self, width: int, more: int) -> Tensor:
        """The buffer, enlarged by at least half where ``more`` rows do not fit."""
        need = len(self) + more
        if self._rows is not None and len(self._rows) >= need:
            return self._rows
        room = max(_FIRST_ROWS, need if self._rows is None else max(need, 3 * len(self._rows) // 2))
        rows = torch.zeros((-(-room // 64) * 64, width), dtype=self.dtype, device=self.device)
        if self._rows is not None:
            rows[:len(self)] = self._rows[:len(self)]
        return rows

    def remove(self, ids: Iterable[Any]) -> None:
        names = as_ids(ids)
        unknown = [name for name in names if name not in self._row_of]
        if unknown:
            raise KeyError(f'Not in the index: {some_of(unknown)}. Nothing was removed.')
        if not names or self._rows is None:
            return
        gone = {self._row_of[name] for name in names}
        stay = [row for row in range(len(self)) if row not in gone]
        kept = self._rows[torch.tensor(stay, dtype=torch.int64, device=self.device)]
        rows = torch.zeros((max(_FIRST_ROWS, -(-len(stay) // 64) * 64), self._rows.shape[1]),
                           dtype=self.dtype, device=self.device)
        rows[:len(stay)] = kept
        self._rows, self._prepared, self.gallery_digest = rows, None, None
        self._ids = [self._ids[row] for row in stay]
        self._row_of = {name: row for row, name in enumerate(self._ids)}

    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        vectors, gallery = self._ready(queries)
        sets = excluded_rows(exclude, self._row_of.get, len(vectors), len(self))
        found = topk(vectors, gallery, k, exclude=sets, mask=filter_mask(filter, self._ids))
        return Neighbors(found.scores, found.indices, self._ids)

    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        vectors, gallery = self._ready(queries)
        sets = excluded_rows(exclude, self._row_of.get, len(vectors), len(self))
        found = within(vectors, gallery, threshold, exclude=sets,
                       mask=filter_mask(filter, self._ids))
        found.gallery_ids = self._ids
        return found

    def _ready(self, queries: Any) -> tuple[Tensor, PreparedGallery]:
        if not self._ids or self._rows is None:
            raise ValueError('The index is empty: add embeddings before searching.')
        vectors = as_vectors(queries, 'queries', self.width).to(self.device)
        if self._prepared is None:
            self._prepared = PreparedGallery(self._rows, self.similarity, prepared=True,
                                             count=len(self), precision=self.precision)
        return vectors, self._prepared

    def save(self, path: str | PathLike) -> None:
        """Write the index to one safetensors file.

        A callable similarity is not written: such a file is loaded with ``similarity=`` given.
        """
        named = SIMILARITIES.get(self.similarity.name) is self.similarity
        rows = torch.zeros((0, 0), dtype=self.dtype) if self._rows is None else \
            self._rows[:len(self)]
        write_container(path, _FORMAT, dict(rows=rows, ids=StringColumn.from_strings(self._ids)),
                        dict(similarity=self.similarity.name if named else None,
                             gallery=self.gallery_digest))

    @classmethod
    def load(cls, path: str | PathLike, device: str | torch.device | None = None,
             similarity: SimilarityFn | None = None) -> ExactIndex:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            device: where to keep it.
            similarity: the callable, where the index was built with one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no exact index, is damaged, or needs ``similarity``.
        """
        opened = Container(path, _FORMAT)
        chosen = opened.manifest['similarity'] or similarity
        if not chosen:
            raise ValueError(f'{str(path)!r} was built with a callable similarity: give it again '
                             'as `similarity=`.')
        rows = opened.tensor('rows')
        ids = unique_names(opened.strings('ids'), len(rows))
        index = cls(chosen, device, rows.dtype)
        if rows.shape[1]:
            index._rows = index._with_room(rows.shape[1], len(rows))
            index._rows[:len(rows)] = rows
        index._ids, index._row_of = ids, {name: row for row, name in enumerate(ids)}
        index.gallery_digest = opened.manifest['gallery']
        return index


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    name = str(dtype).removeprefix('torch.')
    if name not in _DTYPES:
        raise ValueError(unknown_name('dtype of an index', name, _DTYPES))
    return _DTYPES[name]

"""The index that compares every query with every row."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ..checks import unique_names
from ..gallery.vectors import encode
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
from ..similarity import SIMILARITIES, SimilarityFn
from ..structures import Neighbors
from ..tensor_file import Container, Format, write_container
from .base import Capabilities, Exclude, Filter, Index, RowIds
from .lock import changes, reads

_FORMAT = Format('retrieval.ExactIndex', 2, 'Build it again with tools/build_index.py.')
_DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16,
           'int8': torch.int8}
_FIRST_ROWS = 1024


@INDEXES.register_module()
class ExactIndex(Index):
    """Every query is compared with every row; among equal scores the lower row comes first.

    Args:
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        device: where the vectors are kept and searched; the default is the CPU.
        dtype: how they are kept: ``float32``; ``float16`` or ``bfloat16`` for half the memory;
            ``int8`` with a scale for each row, for a quarter of it, where the similarity is a
            product. Scores are always computed in float32.
        precision: of the products that searching begins with; what they find is scored again in
            float32, so that the results are float32's. ``half`` takes half precision, for half as
            much memory more; ``auto`` does so for many queries of a large index, on a CPU that was
            measured to be faster with it; ``float32`` never does.

    Where the similarity multiplies prepared rows (cosine scales them to length 1), the prepared
    rows are what is kept, so that nothing is held twice.

    Raises:
        TypeError: the similarity is neither a name nor callable.
        ValueError: a name is unknown, ``half`` or ``int8`` is asked of a similarity that is no
            product, or both together.

    Example:
        >>> index = ExactIndex()
        >>> index.add(torch.eye(3), ['x', 'y', 'z'])
        >>> index.search(torch.tensor([[1., 0.5, 0.]]), k=2).ids
        [['x', 'y']]
    """

    capabilities = Capabilities(exact=True)
    follows_device = True
    load_options = ('device', 'similarity')

    def __init__(self, similarity: str | SimilarityFn = 'cosine_similarity',
                 device: str | torch.device | None = None,
                 dtype: str | torch.dtype = 'float32', precision: str = 'auto') -> None:
        super().__init__(similarity)
        self.device = torch.device('cpu' if device is None else device)
        self.dtype = _dtype(dtype)
        self.precision = checked_precision(precision, self.similarity)
        coded = self.dtype == torch.int8
        if coded and (self.similarity.kind != 'product' or precision == 'half'):
            raise ValueError("dtype='int8' is for cosine_similarity and inner_product, with "
                             f"another precision than 'half'; got {self.similarity.name} with "
                             f"precision={precision!r}.")
        self._ids = RowIds()
        self._rows: Tensor | None = None  # capacity >= N; rows behind the last are zeros
        self._scales: Tensor | None = None  # of the rows of int8, (capacity,)
        self._prepared: PreparedGallery | None = None

    @property
    def ids(self) -> Sequence[str]:
        return self._ids.names

    @property
    def width(self) -> int | None:
        return None if self._rows is None else self._rows.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors, without the ids."""
        return sum(0 if one is None else one[:len(self)].nbytes
                   for one in (self._rows, self._scales))

    def __len__(self) -> int:
        return len(self._ids)

    @reads
    def __contains__(self, item: Any) -> bool:
        return self._ids.row(str(item)) is not None

    @changes
    def add(self, embeddings: Any, ids: Iterable[Any]) -> None:
        vectors = as_vectors(embeddings, 'embeddings', self.width).to(self.device)
        names = self._ids.new(ids, len(vectors))
        if not names:
            return
        vectors = prepared_rows(vectors, self.similarity, 'embeddings')
        rows, scales = self._with_room(vectors.shape[1], len(names))
        new = slice(len(self), len(self) + len(names))
        if scales is None:
            rows[new] = vectors.to(self.dtype)
        else:
            codes, by = encode(vectors.cpu().numpy(), 'int8')
            rows[new], scales[new] = torch.from_numpy(codes), torch.from_numpy(by)
        self._rows, self._scales = rows, scales
        self._prepared, self.gallery_digest = None, None
        self._ids.append(names)

    def _with_room(self, width: int, more: int) -> tuple[Tensor, Tensor | None]:
        """The buffers, enlarged by at least half where ``more`` rows do not fit."""
        need = len(self) + more
        if self._rows is not None and len(self._rows) >= need:
            return self._rows, self._scales
        room = max(_FIRST_ROWS, need if self._rows is None else max(need, 3 * len(self._rows) // 2))
        return self._moved(-(-room // 64) * 64, width, slice(len(self)))

    def _moved(self, room: int, width: int, stay: Any) -> tuple[Tensor, Tensor | None]:
        """Buffers of so many rows that begin with those that stay."""
        rows = torch.zeros((room, width), dtype=self.dtype, device=self.device)
        scales = torch.zeros(room, device=self.device) if self.dtype == torch.int8 else None
        for new, old in ((rows, self._rows), (scales, self._scales)):
            if new is not None and old is not None:
                kept = old[stay]
                new[:len(kept)] = kept
        return rows, scales

    @changes
    def remove(self, ids: Iterable[Any]) -> None:
        gone = set(self._ids.rows(ids))
        if not gone or self._rows is None:
            return
        stay = [row for row in range(len(self)) if row not in gone]
        self._rows, self._scales = self._moved(
            max(_FIRST_ROWS, -(-len(stay) // 64) * 64), self._rows.shape[1],
            torch.tensor(stay, dtype=torch.int64, device=self.device))
        self._prepared, self.gallery_digest = None, None
        self._ids.drop(gone)

    @reads
    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        vectors = self.as_queries(queries).to(self.device)
        found = topk(vectors, self._gallery(), k, mask=self._ids.allowed(filter),
                     exclude=self._ids.excluded(exclude, len(vectors)))
        return Neighbors(found.scores, found.indices, self.ids)

    @reads
    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        vectors = self.as_queries(queries).to(self.device)
        found = within(vectors, self._gallery(), threshold, mask=self._ids.allowed(filter),
                       exclude=self._ids.excluded(exclude, len(vectors)))
        found.gallery_ids = self.ids
        return found

    def _gallery(self) -> PreparedGallery:
        """The rows as the engine wants them, made anew after each change."""
        if self._prepared is None:
            assert self._rows is not None
            self._prepared = PreparedGallery(self._rows, self.similarity, prepared=True,
                                             count=len(self), precision=self.precision,
                                             scales=self._scales)
        return self._prepared

    @reads
    def reconstruct(self, rows: Sequence[int]) -> Tensor:
        assert self._rows is not None
        found = self._rows[list(rows)].float()
        return (found if self._scales is None else found * self._scales[list(rows), None]).cpu()

    @reads
    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to one safetensors file.

        A callable similarity is not written: such a file is loaded with ``similarity=`` given.
        """
        named = SIMILARITIES.get(self.similarity.name) is self.similarity
        rows = torch.zeros((0, 0), dtype=self.dtype) if self._rows is None else \
            self._rows[:len(self)]
        columns: dict[str, Any] = dict(rows=rows, ids=self._ids.column())
        if self._scales is not None:
            columns['scales'] = self._scales[:len(self)]
        write_container(path, _FORMAT, columns,
                        dict(similarity=self.similarity.name if named else None,
                             gallery=self.gallery_digest))

    @classmethod
    def load(cls, path: str | PathLike[str], device: str | torch.device | None = None,
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
            index._rows, index._scales = index._with_room(rows.shape[1], len(rows))
            index._rows[:len(rows)] = rows
            if index._scales is not None:
                index._scales[:len(rows)] = opened.tensor('scales')
        index._ids, index.gallery_digest = RowIds(ids), opened.manifest['gallery']
        return index


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    name = str(dtype).removeprefix('torch.')
    if name not in _DTYPES:
        raise ValueError(unknown_name('dtype of an index', name, _DTYPES))
    return _DTYPES[name]

"""The index of pictures that have several vectors each."""
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import whole_number
from ..ranking import as_vectors
from ..ranking.lists import best_of_lists
from ..registry import INDEXES
from ..similarity import SimilarityFn
from ..structures import Neighbors
from ..tensor_file import Container, Format, write_container
from .base import Capabilities, Exclude, Filter, Index, RowIds, exclusions, named_similarity
from .lock import changes, reads

_FORMAT = Format('retrieval.PartsIndex', 1, 'Build it again.')
_BENEATH = dict(type='retrieval.ExactIndex', dtype='int8')
_FIRST, _GROWTH = 4, 4  # times as many parts as results that are searched first; how they grow


@INDEXES.register_module()
class PartsIndex(Index):
    """Pictures of several vectors each: a part of one may look like the whole of another.

    A row ``(P * D,)`` is P vectors behind one another, the first of the whole picture, as the
    pooling :class:`retrieval.encoders.PartsPooling` makes them. The score of a query and a row is
    the largest cosine of the query's whole with any vector of the row, and of the row's whole with
    any vector of the query: a crop finds the picture that it is from, and a picture the one that
    was pasted into it.

    Args:
        similarity: ``cosine_similarity``.
        parts: P; where a retriever makes the index, by default as many as its encoder makes.
        index: config of the index that holds the vectors; by default exact search over int8.
        device: for an index that takes one.

    Raises:
        ValueError: another similarity, or P is below 1.

    Example:
        >>> index = PartsIndex(parts=2)
        >>> index.add(torch.tensor([[1., 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, .1]]), ['x', 'y'])
        >>> index.search(torch.tensor([[0., 1, 0, 0, 0, 1]]), k=2).ids
        [['x', 'y']]
    """

    follows_device = True
    load_options = ('device',)

    def __init__(self, similarity: str | SimilarityFn = 'cosine_similarity', parts: int = 1,
                 index: Mapping[str, Any] | None = None, device: Any = None) -> None:
        super().__init__(named_similarity(similarity, 'PartsIndex'))
        if self.similarity.name != 'cosine_similarity':
            raise ValueError('A PartsIndex compares parts by their cosine, got similarity='
                             f"{self.similarity.name!r}: write 'cosine_similarity'.")
        self.parts = whole_number('parts', parts)
        self.index_cfg = dict(_BENEATH if index is None else index)
        self._whole, self._rest = (self._beneath(device) for _ in range(2))
        self.capabilities = Capabilities(training=self._whole.capabilities.training)
        self._ids = RowIds()
        self._serials = np.zeros(0, dtype=np.int64)  # under which the vectors of each row are held
        self._next = 0

    def _beneath(self, device: Any) -> Index:
        kind = INDEXES.get(self.index_cfg.get('type', ''))
        if not (isinstance(kind, type) and issubclass(kind, Index)) or issubclass(kind, PartsIndex):
            raise ValueError('index of a PartsIndex is the config of another index, such as '
                             f"dict(type='FaissIndex', factory='SQ8'); got {self.index_cfg}.")
        options = dict(self.index_cfg, similarity=self.similarity.name)
        if kind.follows_device and device is not None:
            options.setdefault('device', device)
        found: Index = INDEXES.build(options)
        if found.capabilities.persistent:
            raise ValueError('The vectors of a PartsIndex are held by an index in memory '
                             f'(ExactIndex, FaissIndex), not by {kind.__name__}.')
        return found

    @property
    def ids(self) -> Sequence[str]:
        return self._ids.names

    @property
    def width(self) -> int | None:
        return None if self._whole.width is None else self.parts * self._whole.width

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors, without the ids."""
        return sum(getattr(one, 'nbytes', 0) for one in (self._whole, self._rest))

    @changes
    def add(self, embeddings: Any, ids: Iterable[Any]) -> None:
        vectors = as_vectors(embeddings, 'embeddings', self.width)
        names = self._ids.new(ids, len(vectors))
        if not names:
            return
        vectors = self._split(vectors)
        serials = np.arange(self._next, self._next + len(names))
        self._whole.add(vectors[:, 0], serials)
        if self.parts > 1:
            try:
                self._rest.add(vectors[:, 1:].flatten(0, 1), self._part_ids(serials))
            except Exception:
                self._whole.remove(serials)
                raise
        self._next += len(names)
        self._serials = np.concatenate([self._serials, serials])
        self._ids.append(names)
        self.gallery_digest = None

    def _split(self, vectors: Tensor) -> Tensor:
        """``(n, P * D) -> (n, P, D)``. Raises ValueError where the width is no multiple of P."""
        if vectors.shape[1] % self.parts:
            raise ValueError(f'Vectors of width {vectors.shape[1]} are not {self.parts} parts of '
                             'one width: set `parts` to what the encoder makes.')
        return vectors.unflatten(1, (self.parts, -1))

    def _part_ids(self, serials: np.ndarray) -> list[int]:
        each = self.parts - 1
        return (serials[:, None] * each + np.arange(each)).ravel().tolist()

    @changes
    def remove(self, ids: Iterable[Any]) -> None:
        gone = self._ids.rows(ids)
        if not gone:
            return
        self._whole.remove(self._serials[gone])
        if self.parts > 1:
            self._rest.remove(self._part_ids(self._serials[gone]))
        self._serials = np.delete(self._serials, gone)
        self._ids.drop(gone)
        self.gallery_digest = None

    @reads
    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        vectors = self._split(self.as_queries(queries))
        k = min(whole_number('k', k), len(self))
        allowed = self._ids.allowed(filter)
        names = None if exclude is None else exclusions(exclude, len(vectors))
        left_out = [np.zeros(0, np.int64)] * len(vectors) if names is None else [
            self._serials[[row for name in row_names
                           if (row := self._ids.row(name)) is not None]] for row_names in names]
        most = len(self) if allowed is None else int(allowed.sum())
        if not len(vectors) or not most:
            return Neighbors(torch.zeros(len(vectors), 0),
                             torch.zeros(len(vectors), 0, dtype=torch.int64), self.ids)
        found = self._whole.search(
            vectors.flatten(0, 1), k, [one.tolist() for one in left_out for _ in range(self.parts)],
            allowed)
        lists: list[tuple[Tensor, ...]] = [
            tuple(one.reshape(len(vectors), -1) for one in found)]
        if self.parts > 1:
            lists.append(self._by_part(vectors[:, 0], k, most, left_out, allowed))
        scores, rows = (torch.cat([one.cpu() for one in side], 1)
                        for side in zip(*lists, strict=True))
        scores, rows = best_of_lists(*_each_once(scores, rows), k)
        width = int((rows >= 0).sum(dim=1).max())
        return Neighbors(scores[:, :width], rows[:, :width], self.ids)

    def _by_part(self, wholes: Tensor, k: int, most: int, left_out: list[np.ndarray],
                 allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """The rows ``(Q, …)`` of the parts that are nearest to the queries' wholes: of so many
        that k different pictures are among them.
        """
        each = self.parts - 1
        mask = None if allowed is None else allowed.repeat_interleave(each)
        leave = [self._part_ids(one) for one in left_out]
        wanted = torch.tensor([min(k, most - len(one)) for one in left_out])
        count, todo = _FIRST * k, torch.arange(len(wholes))
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        while len(todo):
            found = self._rest.search(wholes[todo], min(count, each * len(self)),
                                      [leave[query] for query in todo.tolist()], mask)
            scores, rows = found.scores.cpu(), found.indices.cpu()
            rows = torch.where(rows < 0, rows, rows // each)
            ordered = rows.sort(dim=1).values
            different = (ordered >= 0).sum(1) - (
                (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(1)
            enough = (different >= wanted[todo]) | (count >= each * len(self))
            parts.append((todo[enough], scores[enough], rows[enough]))
            todo, count = todo[~enough], _GROWTH * count
        width = max(rows.shape[1] for _, _, rows in parts)
        scores = torch.full((len(wholes), width), -torch.inf)
        rows = torch.full((len(wholes), width), -1)
        for query, score, row in parts:
            scores[query, :row.shape[1]], rows[query, :row.shape[1]] = score, row
        return scores, rows

    @reads
    def reconstruct(self, rows: Sequence[int]) -> Tensor:
        rows, each = list(rows), self.parts - 1
        found = self._whole.reconstruct(rows)[:, None]
        if each:
            rest = self._rest.reconstruct([row * each + part for row in rows
                                           for part in range(each)])
            found = torch.cat([found, rest.unflatten(0, (len(rows), each))], 1)
        return found.flatten(1)

    def settings(self) -> dict[str, Any]:
        return dict(parts=self.parts, index=self.index_cfg)

    @reads
    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to one file, in which those beneath lie as they write themselves."""
        columns: dict[str, Any] = dict(ids=self._ids.column(), serials=self._serials)
        with tempfile.TemporaryDirectory() as folder:
            for name, one in (('whole', self._whole), ('rest', self._rest)):
                one.save(os.path.join(folder, name))
                columns[name] = np.fromfile(os.path.join(folder, name), np.uint8)
        write_container(path, _FORMAT, columns, dict(
            settings=self.settings(), next=self._next, gallery=self.gallery_digest))

    @classmethod
    def load(cls, path: str | PathLike[str], device: Any = None) -> PartsIndex:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no such index, or is damaged.
        """
        opened = Container(path, _FORMAT)
        opened.verify()
        index = cls(device=device, **opened.manifest['settings'])
        with tempfile.TemporaryDirectory() as folder:
            for name in ('whole', 'rest'):
                file, kind = os.path.join(folder, name), type(index._whole)
                opened.tensor(name).numpy().tofile(file)
                options = dict(device=device) if device is not None and kind.follows_device else {}
                setattr(index, f'_{name}', kind.load(file, **options))
        index._ids = RowIds(list(opened.strings('ids')))
        index._serials = opened.tensor('serials').numpy().copy()
        index._next, index.gallery_digest = opened.manifest['next'], opened.manifest['gallery']
        return index


def _each_once(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Every row of ``(Q, M)`` with its best score; its others become ``-inf`` and -1."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    scores, rows = scores.gather(1, order), rows.gather(1, order)
    order = rows.argsort(dim=1, stable=True)  # the best score of a row stands first among its own
    scores, rows = scores.gather(1, order), rows.gather(1, order)
    again = torch.zeros_like(rows, dtype=torch.bool)
    again[:, 1:] = rows[:, 1:] == rows[:, :-1]
    return scores.masked_fill(again, -torch.inf), rows.masked_fill(again, -1)

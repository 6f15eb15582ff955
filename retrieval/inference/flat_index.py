"""Exhaustive search by squared Euclidean distance, on the package's own ranking engine."""
from __future__ import annotations

import torch
from torch import Tensor

from ..ranking import PreparedGallery, topk

_FIRST_ROWS = 1024
_MULTIPLE = 64     # what the engine fills up to
_CHUNK = 2 ** 22   # numbers worked on at once
_CENTRED = 8192    # rows whose mean is taken
_LONGEST = 8e37    # the squared length above which float32 scores overflow
# Below this share of the squared lengths a difference of products has lost its digits.
_CANCELLED = 2. ** -9


class FlatIndex:
    """Vectors, and the squared Euclidean distances to them.

    The nearest row is the one with the largest ``q · g - |g|² / 2``: an inner product, once every
    row carries ``-|g|² / 2`` behind it and every query a 1. So the rows are held once, as the
    engine wants them: shifted by the mean of the first that came, which changes no distance and
    loses fewer digits. Small distances are computed again from the differences, so that a copy
    of a row is at distance 0.

    Args:
        width: columns of the vectors, D.
        device: where they are kept and searched.
    """

    is_trained = True

    def __init__(self, width: int, device: str | torch.device = 'cpu') -> None:
        self.d = width
        self.device = torch.device(device)
        self.ntotal = 0
        self.centre: Tensor | None = None
        self._rows = torch.zeros(0, width + 1, device=self.device)
        self._prepared: PreparedGallery | None = None

    def add(self, vectors: Tensor) -> None:
        """Append vectors ``(n, D)``, finite float32 as :func:`as_vectors` returns them.

        Raises:
            ValueError: one is too long for distances in float32; none is added then.
        """
        if not len(vectors):
            return
        if self.centre is None:
            self.centre = vectors[:_CENTRED].mean(dim=0).to(self.device)
        try:
            self._put(vectors, self.centre)
        except ValueError:
            if not self.ntotal:
                self.centre = None
            raise

    def _put(self, vectors: Tensor, centre: Tensor) -> None:
        """Write rows behind the last, and count them once all are found to be sound."""
        self._make_room(self.ntotal + len(vectors))
        new = self._rows[self.ntotal:self.ntotal + len(vectors)]
        torch.sub(vectors.to(self.device), centre, out=new[:, :-1])
        squares = _squares(new[:, :-1])
        if not float(squares.max()) <= _LONGEST:
            new.zero_()  # what is behind the last row stays zero
            raise ValueError(f'embeddings: row {int(squares.argmax())} is too long for float32 '
                             'distances: divide the vectors by a constant.')
        new[:, -1] = squares.mul_(-0.5)
        self.ntotal += len(vectors)
        self._prepared = None

    def tensors(self) -> dict[str, Tensor]:
        """The contents of the index, for a file."""
        centre = torch.zeros(self.d) if self.centre is None else self.centre
        return {'rows': self._rows[:self.ntotal, :-1], 'centre': centre}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: str | torch.device) -> FlatIndex:
        """The index of what :meth:`tensors` gave."""
        index = cls(tensors['rows'].shape[1], device)
        index.centre = tensors['centre'].clone().to(device)
        index._put(tensors['rows'], torch.zeros_like(index.centre))
        return index

    def _make_room(self, need: int) -> None:
        if len(self._rows) >= need:
            return
        room = need if not self.ntotal else max(need, 3 * self.ntotal // 2, _FIRST_ROWS)
        room = -(-room // _MULTIPLE) * _MULTIPLE
        rows = torch.zeros(room, self.d + 1, device=self.device)
        rows[:self.ntotal] = self._rows[:self.ntotal]
        self._rows = rows

    def vectors(self, rows: Tensor) -> Tensor:
        """The vectors of these rows, ``(n, D)``, but for the rounding of the shift."""
        shifted = self._rows[rows.to(self.device), :-1]
        return shifted if self.centre is None else shifted + self.centre

    def search(self, queries: Tensor, k: int,
               exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The nearest rows, nearest first, the lower row first among equals.

        Args:
            queries: ``(Q, D)`` finite float32.
            k: how many; more than there are gives what there are.
            exclude: ``(Q,)`` int64, a row that each query must not find.

        Returns:
            Squared distances ``(Q, k)`` float32 and rows ``(Q, k)`` int64.
        """
        queries = queries.to(self.device)
        if self.centre is not None:
            queries = queries - self.centre
        if self._prepared is None:
            filled = -(-self.ntotal // _MULTIPLE) * _MULTIPLE
            self._prepared = PreparedGallery(self._rows[:filled], 'inner_product', prepared=True,
                                             count=self.ntotal)
        augmented = torch.cat([queries, queries.new_ones(len(queries), 1)], dim=1)
        found = topk(augmented, self._prepared, k, exclude=exclude)
        lengths = _squares(queries)[:, None]
        distances = (lengths - 2 * found.scores).clamp_(min=0)
        return self._refined(queries, lengths, distances, found.indices)

    def _refined(self, queries: Tensor, lengths: Tensor, distances: Tensor,
                 rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distances from the differences where products cancelled, in order again."""
        others = self._rows[:, -1][rows] * -2
        query, place = (distances < _CANCELLED * (lengths + others)).nonzero(as_tuple=True)
        if not len(query):
            return distances, rows
        step = max(1, _CHUNK // self.d)
        for start in range(0, len(query), step):
            some, at = query[start:start + step], place[start:start + step]
            distances[some, at] = (queries[some] - self._rows[rows[some, at], :-1]).square().sum(1)
        touched = torch.unique(query)
        ordered, order = torch.sort(rows[touched], dim=1)  # the lower row first among equals
        values, again = torch.sort(distances[touched].gather(1, order), dim=1, stable=True)
        distances[touched], rows[touched] = values, ordered.gather(1, again)
        return distances, rows


def _squares(vectors: Tensor) -> Tensor:
    """The squared length of every row, ``(n,)``; a norm needs no copy of the rows."""
    return torch.linalg.vector_norm(vectors, dim=1).square_()

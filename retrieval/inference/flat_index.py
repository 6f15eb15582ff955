"""Exhaustive search by squared Euclidean distance, on the package's own ranking engine."""
from __future__ import annotations

import torch
from torch import Tensor

from ..ranking import PreparedGallery, topk
from ..similarity import squares_of_pairs

_FIRST_ROWS = 1024
_MULTIPLE = 64     # what the engine fills up to
_CHUNK = 2 ** 22   # numbers worked on at once
_LONGEST = 8e37    # the squared length above which float32 scores overflow
_MORE = 4          # further rows whose distances are computed, beside the k that are wanted
_MOST = 128        # so many results at most are found by float32 products


class FlatIndex:
    """Vectors, and the squared Euclidean distances to them, from the differences in float64: equal
    rows are at 0, and the distances of whole numbers are whole.

    The nearest row is the one with the largest ``q · g - |g|² / 2``: an inner product, once every
    row carries ``-|g|² / 2`` behind it and every query a 1. By products in float32 somewhat more
    rows are found than are wanted. Where the rounding might have kept out a nearer one, the engine
    searches for the query again, by distances in float64.

    Args:
        width: columns of the vectors, D.
        device: where they are kept and searched.
    """

    is_trained = True

    def __init__(self, width: int, device: str | torch.device = 'cpu') -> None:
        self.d = width
        self.device = torch.device(device)
        self.ntotal = 0
        self._rows = torch.zeros(0, width + 1, device=self.device)
        self._longest = 0.0
        self._products: PreparedGallery | None = None
        self._distances: PreparedGallery | None = None

    def add(self, vectors: Tensor) -> None:
        """Append vectors ``(n, D)``, finite float32 as :func:`as_vectors` returns them.

        Raises:
            ValueError: one is too long for distances in float32; none is added then.
        """
        if not len(vectors):
            return
        squares = torch.linalg.vector_norm(vectors, dim=1).square_()
        if not float(squares.max()) <= _LONGEST:
            raise ValueError(f'embeddings: row {int(squares.argmax())} is too long for float32 '
                             'distances: divide the vectors by a constant.')
        self._make_room(self.ntotal + len(vectors))
        new = self._rows[self.ntotal:self.ntotal + len(vectors)]
        new[:, :-1] = vectors
        new[:, -1] = squares.mul_(-0.5)
        self._longest = max(self._longest, float(squares.min()) * -2)
        self.ntotal += len(vectors)
        self._products = self._distances = None

    def _make_room(self, need: int) -> None:
        if len(self._rows) >= need:
            return
        room = need if not self.ntotal else max(need, 3 * self.ntotal // 2, _FIRST_ROWS)
        room = -(-room // _MULTIPLE) * _MULTIPLE
        rows = torch.zeros(room, self.d + 1, device=self.device)
        rows[:self.ntotal] = self._rows[:self.ntotal]
        self._rows = rows

    def vectors(self, rows: Tensor | slice) -> Tensor:
        """The vectors of these rows, ``(n, D)`` float32."""
        return self._rows[:self.ntotal, :-1][rows.to(self.device) if isinstance(rows, Tensor)
                                             else rows]

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
        if k > _MOST:
            return self._by_distances(queries, k, exclude)
        augmented = torch.cat([queries, queries.new_ones(len(queries), 1)], dim=1)
        found = topk(augmented, self._by_products(), k + _MORE, exclude=exclude)
        squares, rows = self._in_order(queries, found.indices)
        doubtful = self._doubtful(queries, squares, found.scores, k)
        squares, rows = squares[:, :k].float(), rows[:, :k]
        if len(doubtful):
            squares[doubtful], rows[doubtful] = self._by_distances(
                queries[doubtful], k, None if exclude is None else exclude[doubtful.cpu()])
        return squares, rows

    def _by_products(self) -> PreparedGallery:
        if self._products is None:
            self._products = PreparedGallery(self._rows[:self._filled()], 'inner_product',
                                             prepared=True, count=self.ntotal)
        return self._products

    def _by_distances(self, queries: Tensor, k: int,
                      exclude: Tensor | None) -> tuple[Tensor, Tensor]:
        if self._distances is None:
            self._distances = PreparedGallery(self._rows[:self._filled(), :-1], 'euclidean',
                                              prepared=True, count=self.ntotal)
        found = topk(queries, self._distances, k, exclude=exclude)
        if k > _MOST:
            return found.scores.double().square_().float(), found.indices
        squares, rows = self._in_order(queries, found.indices)
        return squares.float(), rows

    def _filled(self) -> int:
        return -(-self.ntotal // _MULTIPLE) * _MULTIPLE

    def _in_order(self, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances ``(Q, k)`` float64 of these rows, rising, and the rows in that order;
        the lower row first among equals.
        """
        rows = rows.sort(dim=1).values
        step = max(1, _CHUNK // max(1, rows.shape[1] * self.d))
        squares = torch.cat([
            squares_of_pairs(some[:, None], self.vectors(those))
            for some, those in zip(queries.split(step), rows.split(step), strict=True)])
        squares, order = squares.sort(dim=1, stable=True)
        return squares, rows.gather(1, order)

    def _doubtful(self, queries: Tensor, squares: Tensor, scores: Tensor, k: int) -> Tensor:
        """The queries ``(m,)`` for which a row that was not found might be nearer than the k-th.

        In float32 a product of D + 1 terms is wrong by at most (D + 3) 2^-24 of the product of the
        lengths.
        """
        if scores.shape[1] < k + _MORE or not len(queries):
            return scores.new_zeros(0, dtype=torch.int64)
        own = queries.double().square().sum(1)
        error = (self.d + 3) * 2.0 ** -24 * (own.sqrt() * self._longest ** 0.5 + self._longest)
        kth = (own - squares[:, k - 1]) / 2
        return (kth <= scores[:, -1] + error).nonzero().flatten()

"""Exhaustive search by squared Euclidean distance, on the package's own ranking engine."""
from __future__ import annotations

import torch
from torch import Tensor

from ..ranking import PreparedGallery, prepared_rows, topk
from ..ranking.lists import best_of_lists
from ..similarity import SIMILARITIES, squares_of_pairs

_FIRST_ROWS = 1024
_MULTIPLE = 64   # what the engine fills up to
_CHUNK = 2 ** 20  # numbers worked on at once


class FlatIndex:
    """Vectors, and the squared Euclidean distances to them, each from the differences: a copy of a
    row is at distance 0, and whole numbers are exact.

    Args:
        width: columns of the vectors, D.
        device: where they are kept and searched.
    """

    is_trained = True

    def __init__(self, width: int, device: str | torch.device = 'cpu') -> None:
        self.d = width
        self.device = torch.device(device)
        self.ntotal = 0
        self._rows = torch.zeros(0, width, device=self.device)
        self._prepared: PreparedGallery | None = None

    def add(self, vectors: Tensor) -> None:
        """Append vectors ``(n, D)``, finite float32 as :func:`as_vectors` returns them.

        Raises:
            ValueError: one is too long for squared distances in float32; none is added then.
        """
        if not len(vectors):
            return
        # where products fit float32, squared distances do
        prepared_rows(vectors, SIMILARITIES['inner_product'], 'embeddings')
        self._make_room(self.ntotal + len(vectors))
        self._rows[self.ntotal:self.ntotal + len(vectors)] = vectors.to(self.device)
        self.ntotal += len(vectors)
        self._prepared = None

    def _make_room(self, need: int) -> None:
        if len(self._rows) >= need:
            return
        room = need if not self.ntotal else max(need, 3 * self.ntotal // 2, _FIRST_ROWS)
        room = -(-room // _MULTIPLE) * _MULTIPLE
        rows = torch.zeros(room, self.d, device=self.device)
        rows[:self.ntotal] = self._rows[:self.ntotal]
        self._rows = rows

    def vectors(self, rows: Tensor | slice) -> Tensor:
        """The vectors of these rows, ``(n, D)`` float32."""
        return self._rows[:self.ntotal][rows.to(self.device) if isinstance(rows, Tensor) else rows]

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
        queries = prepared_rows(queries.to(self.device), SIMILARITIES['inner_product'], 'queries')
        if self._prepared is None:
            self._prepared = PreparedGallery(self._rows, 'euclidean', prepared=True,
                                             count=self.ntotal)
        found = topk(queries, self._prepared, k, exclude=exclude)
        distances = torch.empty_like(found.scores)
        step = max(1, _CHUNK // max(1, found.indices.shape[1] * self.d))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            distances[part] = squares_of_pairs(queries[part, None], self._rows[found.indices[part]])
        # float32 tells more squares apart than distances
        scores, rows = best_of_lists(-distances, found.indices)
        return 0 - scores, rows

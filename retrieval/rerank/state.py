"""Where a search stands between one reranker and the next."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..gallery import Gallery
from ..ranking import PreparedGallery, topk
from ..ranking.topk import select
from ..similarity import Similarity
from ..structures import Neighbors
from .cache import once_for


@dataclass(frozen=True)
class SearchState:
    """What is searched for, in what, and what was found.

    Args:
        queries: the vectors that are searched for, ``(Q, D)`` float32.
        gallery: whose embeddings are searched.
        similarity: of queries and embeddings.
        own_rows: ``(Q,)`` int64, the row of the gallery that holds the query itself, which it must
            not find; -1 where there is none.
        k: how many results a query gets.
        found: the results so far, ``(Q, k)``; None where they are those of a search for the queries
            in the gallery, which is made when it is needed.
        engine: ``(queries, k) -> Neighbors``, an index over this gallery that leaves out the own
            rows; exact search where it is None.
        gallery_ids: the id of every row, for the result.
    """

    queries: Tensor
    gallery: Gallery
    similarity: Similarity
    own_rows: Tensor
    k: int
    found: Neighbors | None = None
    engine: Callable[[Tensor, int], Neighbors] | None = None
    gallery_ids: Sequence[str] | None = None

    @property
    def neighbors(self) -> Neighbors:
        """The results at this point."""
        return self.nearest(self.k) if self.found is None else self.found

    def changed(self, **fields: Any) -> SearchState:
        """The state with other fields."""
        return replace(self, **fields)

    def nearest(self, count: int) -> Neighbors:
        """The ``count`` nearest rows of every query, whatever order the last step gave."""
        if self.engine is not None:
            return self.named(*self.engine(self.queries, count))
        gallery = prepared_gallery(self.gallery, self.similarity, self.queries.device)
        return self.named(*topk(self.queries, gallery, count, exclude=self.own_rows))

    def first(self, count: int) -> Neighbors:
        """The first ``count`` rows in the present order; at most k where a step gave another order
        than a search.
        """
        if self.found is None:
            return self.nearest(count)
        return self.named(self.found.scores[:, :count], self.found.indices[:, :count])

    def named(self, scores: Tensor, indices: Tensor) -> Neighbors:
        """Neighbors with the ids of the gallery."""
        return Neighbors(scores, indices, self.gallery_ids)

    def ranked(self, scores: Tensor, rows: Tensor) -> SearchState:
        """The state after a step that gave another order: what :func:`best` returned."""
        width = int((rows >= 0).sum(dim=1).max()) if rows.numel() else 0
        device = self.queries.device
        return self.changed(found=self.named(scores[:, :width].to(device),
                                             rows[:, :width].to(device)))

    def settled(self, found: Neighbors, scores: Tensor, scored: Tensor) -> SearchState:
        """The state where some candidates have new scores and the others keep their order, behind.

        Args:
            found: the candidates, ``(Q, M)``, with the scores that order them.
            scores: their new scores ``(Q, M)``.
            scored: ``(Q, M)`` bool, which of them are meant.

        A candidate without a new score gets its old one, moved as a whole below the lowest new one.
        """
        rest = ~scored & found.valid
        lowest = scores.masked_fill(~scored, torch.inf).amin(dim=1, keepdim=True)
        highest = found.scores.masked_fill(~rest, -torch.inf).amax(dim=1, keepdim=True)
        gap = 1e-6 * lowest.abs().clamp(min=1)
        moved = torch.where(scored.any(dim=1, keepdim=True),
                            lowest - gap - (highest - found.scores), found.scores)
        rows, order = torch.sort(found.indices, dim=1)
        scores = torch.where(scored, scores, moved).gather(1, order)
        scores, columns = best(scores.masked_fill(rows < 0, -torch.inf), self.k)
        return self.ranked(scores, rows.gather(1, columns))


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of ``scores (Q, M)``, -inf for none, and their columns.

    Both are ``(Q, k)``, or ``(Q, M)`` where there are fewer: float32 descending, the lower column
    first among equals.
    """
    return select(scores.float(), min(k, scores.shape[1]))


def prepared_gallery(gallery: Gallery, similarity: Similarity,
                     device: torch.device) -> PreparedGallery:
    """The gallery as exact search wants it, made once."""
    return once_for(gallery, ('prepared', similarity, str(device)),
                    lambda: PreparedGallery(gallery.embeddings.to(device), similarity))

"""Where a search stands between one reranker and the next."""
from __future__ import annotations

from collections.abc import Callable
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
        neighbors: what was found, ``(Q, k)``; the last step's are what the search returns.
        similarity: of queries and embeddings.
        own_rows: ``(Q,)`` int64, the row of the gallery that holds the query itself, which it must
            not find; -1 where there is none.
        engine: ``(queries, k) -> Neighbors``, an index over this gallery that leaves out the own
            rows; exact search where it is None.
        searched: the neighbors are those that a search for these queries in this gallery finds, and
            their scores are similarities.
    """

    queries: Tensor
    gallery: Gallery
    neighbors: Neighbors
    similarity: Similarity
    own_rows: Tensor
    engine: Callable[[Tensor, int], Neighbors] | None = None
    searched: bool = True

    @property
    def k(self) -> int:
        """How many results a query gets."""
        return self.neighbors.indices.shape[1]

    def changed(self, **fields: Any) -> SearchState:
        """The state with other fields."""
        return replace(self, **fields)

    def search(self, k: int) -> Neighbors:
        """The ``k`` nearest rows of every query."""
        if self.engine is not None:
            return self.engine(self.queries, k)
        gallery = prepared_gallery(self.gallery, self.similarity, self.queries.device)
        found = topk(self.queries, gallery, min(k, len(gallery)), exclude=self.own_rows)
        return self.named(found.scores, found.indices)

    def searched_again(self) -> SearchState:
        """The state after a search for its queries in its gallery."""
        state = self.changed(neighbors=self.search(self.k), searched=True)
        return state.changed(neighbors=state.named(*state.neighbors))

    def nearest(self, count: int) -> Neighbors:
        """The ``count`` nearest rows, whatever order the last step gave."""
        return self.first(count) if self.searched else self.search(count)

    def first(self, count: int) -> Neighbors:
        """The first ``count`` rows in the present order.

        Where a search found fewer than that because fewer were asked for, it is made again.
        """
        if self.searched and self.k < min(count, len(self.gallery)):
            return self.search(count)
        return self.named(self.neighbors.scores[:, :count], self.neighbors.indices[:, :count])

    def named(self, scores: Tensor, indices: Tensor) -> Neighbors:
        """Neighbors with the names that the first search gave."""
        return Neighbors(scores, indices, self.neighbors.gallery_ids)

    def ranked(self, scores: Tensor, rows: Tensor) -> SearchState:
        """The state after a step that gave another order: what :func:`best` returned."""
        device = self.neighbors.indices.device
        width = int((rows >= 0).sum(dim=1).max()) if rows.numel() else 0
        neighbors = self.named(scores[:, :width].to(device), rows[:, :width].to(device))
        return self.changed(neighbors=neighbors, searched=False)

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
        return self.ranked(*best(rows, scores, self.k))


def best(rows: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of candidates, the lower row first among equals.

    Args:
        rows: ``(Q, M)`` int64, rising for each query; -1 for none.
        scores: ``(Q, M)``.

    Returns:
        Scores ``(Q, w)`` float32 descending and rows ``(Q, w)``, where w is k or M; short ones end
        in ``-inf`` and -1.
    """
    scores = scores.float().masked_fill(rows < 0, -torch.inf)
    scores, columns = select(scores, min(k, rows.shape[1]))
    return scores, rows.gather(1, columns)


def prepared_gallery(gallery: Gallery, similarity: Similarity,
                     device: torch.device) -> PreparedGallery:
    """The gallery as exact search wants it, made once."""
    return once_for(gallery, ('prepared', similarity, str(device)),
                    lambda: PreparedGallery(gallery.embeddings.to(device), similarity))

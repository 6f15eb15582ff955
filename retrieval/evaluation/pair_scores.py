"""The scores of pairs that match and of pairs that do not, counted; of any number of pairs."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ranking import TILE_BUDGET, PreparedGallery, RowSets, as_vectors, topk
from ..ranking.topk import checked_k
from ..similarity import Similarity, SimilarityFn
from .relations import label_codes

_BINS = 2 ** 21
_HALF = _BINS // 2
_EXACT = 2 ** 22  # up to so many pairs every score is kept
_MAX_QUERIES = 10_000


class PairScores:
    """How many pairs have which score.

    Args:
        scores: ``(M,)`` float64, rising and different.
        matches: ``(M,)`` int64, the matching pairs from this score up to the next.
        others: ``(M,)`` int64, the pairs that do not match.

    The number of pairs that reach one of ``scores`` is exact: either each is the score of a pair,
    or an edge of the bins in which they were counted.
    """

    def __init__(self, scores: np.ndarray, matches: np.ndarray, others: np.ndarray) -> None:
        self.scores, self.matches, self.others = scores, matches, others
        # from the highest score down: what is accepted at this score or above
        self.true_accepts = np.cumsum(matches[::-1])[::-1]
        self.false_accepts = np.cumsum(others[::-1])[::-1]

    @property
    def num_matches(self) -> int:
        """How many pairs match."""
        return int(self.matches.sum())

    @property
    def num_others(self) -> int:
        """How many pairs do not match."""
        return int(self.others.sum())

    def __repr__(self) -> str:
        return f'PairScores({self.num_matches} matches, {self.num_others} others)'


def count_pairs(scores: Any, matches: Any) -> PairScores:
    """Count labelled pairs.

    Args:
        scores: ``(P,)`` finite, larger for more similar.
        matches: ``(P,)`` bool, or 0 and 1.

    Raises:
        ValueError: there is no pair, another number of labels, or a score that is not finite.
        TypeError: the labels are neither booleans nor 0 and 1.
    """
    values, labels = _flat(scores).astype(np.float64), _flat(matches)
    if len(values) != len(labels) or not len(values):
        raise ValueError(f'There are {len(values)} scores and {len(labels)} labels of pairs: give '
                         'one for each, and at least one.')
    if not np.isfinite(values).all():
        raise ValueError('The scores of pairs must be finite.')
    if labels.dtype != bool:
        if not np.isin(labels, (0, 1)).all():
            raise TypeError('matches must hold booleans, or 0 and 1.')
        labels = labels.astype(bool)
    different, place = np.unique(values, return_inverse=True)
    count = len(different)
    return PairScores(different, np.bincount(place[labels], minlength=count),
                      np.bincount(place[~labels], minlength=count))


def _flat(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values).reshape(-1)


def pairs_within(embeddings: Any, labels: Any,
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                 neighbors: int | None = None, max_queries: int | None = _MAX_QUERIES,
                 rows: Any = None, seed: int = 0) -> PairScores:
    """Count the pairs of a set with labels: each row with all others, never with itself.

    Pairs of equal labels match. Scores are computed in tiles, and memory does not grow with the
    number of pairs.

    Args:
        embeddings: ``(N, D)`` floats.
        labels: ``(N,)`` whole numbers or strings.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        neighbors: count only the so many most similar others of each row, as a search returns
            them; None for all.
        max_queries: compare at most so many rows, drawn at random, with all; None for every row.
        rows: compare these rows ``(Q,)`` with all, in the place of a draw.
        seed: of the draw.

    Raises:
        ValueError: there are fewer than two rows, or another number of labels.
    """
    gallery = PreparedGallery(as_vectors(embeddings, 'embeddings'), similarity)
    codes = label_codes(labels)[0]
    if len(codes) != len(gallery) or len(gallery) < 2:
        raise ValueError(f'There are {len(gallery)} embeddings and {len(codes)} labels: give one '
                         'for each, and at least two.')
    chosen = _queries(len(gallery), max_queries, seed) if rows is None else torch.as_tensor(rows)
    if neighbors is not None:
        return _nearest_pairs(gallery, codes, chosen, checked_k(neighbors))
    counter = _Counter()
    vectors, everyone = gallery.own_queries(), RowSets.from_labels(codes[chosen], codes)
    height, width = gallery.tiles(len(chosen), TILE_BUDGET, whole_rows=True)
    for start in range(0, len(chosen), height):
        queries = chosen[start:start + height]
        scores = gallery.scores(vectors[queries])
        matching = torch.zeros_like(scores, dtype=torch.bool)
        matching[everyone.block(start, start + len(queries))] = True
        keep = torch.ones_like(matching)
        keep[torch.arange(len(queries)), queries] = False
        counter.add(scores[keep], matching[keep])
    return counter.counted()


def _queries(count: int, most: int | None, seed: int) -> Tensor:
    if most is None or most >= count:
        return torch.arange(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return torch.sort(order[:most]).values


def _nearest_pairs(gallery: PreparedGallery, codes: Tensor, rows: Tensor,
                   neighbors: int) -> PairScores:
    counter, step = _Counter(), 4096
    vectors = gallery.own_queries()
    for start in range(0, len(rows), step):
        some = rows[start:start + step]
        queries = vectors[some]
        if gallery.centre is not None:  # the engine shifts what it is given
            queries = queries + gallery.centre
        found = topk(queries, gallery, neighbors, exclude=some)
        counter.add(found.scores[found.valid],
                    (codes[found.indices] == codes[some][:, None])[found.valid])
    return counter.counted()


class _Counter:
    """Counts pairs: exactly while they are few, in bins when they become many.

    The edges of the bins are whole multiples of a power of two, so that no rounding moves a score
    over one. Where a score does not fit, two bins become one.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] | None = []
        self._count = 0
        self._exponent: int | None = None
        self._bins = torch.zeros(2, _BINS, dtype=torch.int64)

    def add(self, scores: Tensor, matches: Tensor) -> None:
        if not len(scores):
            return
        self._count += len(scores)
        if self._kept is not None:
            self._kept.append((scores.cpu(), matches.cpu()))
            if self._count <= _EXACT:
                return
            kept, self._kept = self._kept, None
            for part in kept:
                self._put(*part)
            return
        self._put(scores.cpu(), matches.cpu())

    def _put(self, scores: Tensor, matches: Tensor) -> None:
        largest = max(float(scores.abs().max()), 2. ** -60)
        fits = int(math.log2(_HALF)) - math.frexp(largest)[1]  # |score| * 2**fits <= half
        if self._exponent is None:
            self._exponent = fits
        while self._exponent > fits:
            self._coarsen()
        place = torch.floor(scores.double() * 2. ** self._exponent).long() + _HALF
        everyone = torch.bincount(place, minlength=_BINS)
        matching = torch.bincount(place[matches], minlength=_BINS)
        self._bins[0] += matching
        self._bins[1] += everyone - matching

    def _coarsen(self) -> None:
        assert self._exponent is not None
        self._exponent -= 1
        halved = self._bins.reshape(2, _HALF, 2).sum(dim=2)
        self._bins.zero_()
        self._bins[:, _HALF // 2:_HALF // 2 + _HALF] = halved

    def counted(self) -> PairScores:
        if self._kept is not None:
            scores, matches = (torch.cat(column) for column in zip(*self._kept, strict=True))
            return count_pairs(scores, matches)
        held = self._bins.sum(dim=0).nonzero()[:, 0]
        assert self._exponent is not None
        edges = (held - _HALF).double() * 2. ** -self._exponent
        return PairScores(edges.numpy(), self._bins[0, held].numpy(), self._bins[1, held].numpy())

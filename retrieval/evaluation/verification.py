"""Verification: labelled pairs counted by score, results at a threshold, and thresholds for a
wanted result.

A pair is accepted where its score reaches the threshold. TAR, the true accept rate, is the share
of matching pairs that are accepted (recall; 1 - FNMR); FAR, the false accept rate, the share of
the others that are (the false match rate, FMR, of ISO/IEC 19795-1). Precision is the share of
accepted pairs that match, and F1 its harmonic mean with TAR.
"""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checks import real_number, whole_number
from ..progress import counted
from ..ranking import TILE_BUDGET, PreparedGallery, RowSets, as_vectors, topk
from ..similarity import Similarity, SimilarityFn
from .metrics import metric
from .relevance import label_codes
from .task import EvaluationTask, scored_blocks

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

    Example:
        >>> count_pairs([.9, .8, .3], [True, False, True])
        PairScores(2 matches, 1 others)
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

    Example:
        >>> pairs_within([[1., 0.], [.9, .1], [0., 1.]], ['a', 'a', 'b'])
        PairScores(2 matches, 4 others)
    """
    gallery = PreparedGallery(as_vectors(embeddings, 'embeddings'), similarity)
    codes = label_codes(labels)[0]
    if len(codes) != len(gallery) or len(gallery) < 2:
        raise ValueError(f'There are {len(gallery)} embeddings and {len(codes)} labels: give one '
                         'for each, and at least two.')
    if rows is not None:
        chosen = torch.as_tensor(rows)
    elif max_queries is None or max_queries >= len(gallery):
        chosen = torch.arange(len(gallery))
    else:
        order = torch.randperm(len(gallery), generator=torch.Generator().manual_seed(seed))
        chosen = torch.sort(order[:max_queries]).values
    if neighbors is not None:
        return _nearest_pairs(gallery, codes, chosen, whole_number('neighbors', neighbors))
    counter = _Counter()
    vectors, everyone = gallery.own_queries(), RowSets.from_labels(codes[chosen], codes)
    height, width = gallery.tiles(len(chosen), TILE_BUDGET, whole_rows=True)
    starts = range(0, len(chosen), height)
    for start in counted('Ranking', starts, len(starts), 'block'):
        queries = chosen[start:start + height]
        scores = gallery.scores(vectors[queries])
        matching = torch.zeros_like(scores, dtype=torch.bool)
        matching[everyone.block(start, start + len(queries))] = True
        keep = torch.ones_like(matching)
        keep[torch.arange(len(queries)), queries] = False
        counter.add(scores[keep], matching[keep])
    return counter.counted()


def pairs_of(task: EvaluationTask) -> PairScores:
    """Count the pairs of every query with every row that it ranks; relevant rows match.

    Raises:
        ValueError: as :func:`retrieval.evaluation.evaluate` raises it.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> pairs_of(EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 7, 8])))
        PairScores(2 matches, 4 others)
    """
    counter = _Counter()
    for scores, rankable, relevant in scored_blocks(task):
        counter.add(scores[rankable], relevant[rankable])
    return counter.counted()


@metric('FNMR@FMR=R', depth=None)
def false_non_match_rate(task: EvaluationTask, rate: float) -> float:
    """The share of matching pairs that are refused at the lowest threshold at which at most
    ``rate`` of the others are accepted: 1 - TAR@FAR, of all pairs of a query and a row it ranks.

    ISO/IEC 19795-1. Open Metric Learning's ``fnmr@fmr`` takes the rate's quantile of the other
    pairs as threshold, which lies between two of their scores where ours lies on one.

    Raises:
        ValueError: there are no matching pairs, or no others.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 7, 8]))
        >>> false_non_match_rate(task, .1)
        0.0
    """
    pairs = pairs_of(task)
    _check_both(pairs)
    return 1 - results_at(pairs, threshold_at_far(pairs, rate)).tar


def _nearest_pairs(gallery: PreparedGallery, codes: Tensor, rows: Tensor,
                   neighbors: int) -> PairScores:
    counter, step = _Counter(), 4096
    vectors = gallery.own_queries()
    for start in range(0, len(rows), step):
        some = rows[start:start + step]
        found = topk(vectors[some], gallery, neighbors, exclude=some)
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


class PairResults(NamedTuple):
    """The results of a threshold over labelled pairs; a result over no pairs is NaN."""

    threshold: float
    tar: float
    far: float
    precision: float
    f1: float


class RocCurve(NamedTuple):
    """TAR and FAR ``(M,)`` at falling thresholds ``(M,)``; the first accepts nothing."""

    far: np.ndarray
    tar: np.ndarray
    thresholds: np.ndarray


def results_at(pairs: PairScores, threshold: float) -> PairResults:
    """The results at one threshold.

    Example:
        >>> results_at(count_pairs([.9, .8, .3], [True, False, True]), .5)
        PairResults(threshold=0.5, tar=0.5, far=1.0, precision=0.5, f1=0.5)
    """
    place = int(np.searchsorted(pairs.scores, threshold))
    accepted = place < len(pairs.scores)
    true = int(pairs.true_accepts[place]) if accepted else 0
    false = int(pairs.false_accepts[place]) if accepted else 0
    return PairResults(
        float(threshold), _share(true, pairs.num_matches), _share(false, pairs.num_others),
        _share(true, true + false), _share(2 * true, true + false + pairs.num_matches))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float('nan')


def roc_curve(pairs: PairScores) -> RocCurve:
    """The ROC curve.

    Raises:
        ValueError: there are no matching pairs, or no others.

    Example:
        >>> roc_curve(count_pairs([.9, .8, .3], [True, False, True])).tar.tolist()
        [0.0, 0.5, 0.5, 1.0]
    """
    _check_both(pairs)
    return RocCurve(np.concatenate([[0.], pairs.false_accepts[::-1] / pairs.num_others]),
                    np.concatenate([[0.], pairs.true_accepts[::-1] / pairs.num_matches]),
                    np.concatenate([[np.inf], pairs.scores[::-1]]))


def precision_recall_curve(pairs: PairScores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and thresholds ``(M,)`` each, at falling thresholds.

    Example:
        >>> precision_recall_curve(count_pairs([.9, .8, .3], [True, False, True]))[1].tolist()
        [0.5, 0.5, 1.0]
    """
    _check_both(pairs)
    accepted = pairs.true_accepts + pairs.false_accepts
    return ((pairs.true_accepts / accepted)[::-1],
            (pairs.true_accepts / pairs.num_matches)[::-1], pairs.scores[::-1])


def roc_auc(pairs: PairScores) -> float:
    """The area under the ROC curve: the chance that a match scores above another pair, where a
    tie counts a half.

    Example:
        >>> roc_auc(count_pairs([.9, .8, .3], [True, False, True]))
        0.5
    """
    curve = roc_curve(pairs)
    return float((np.diff(curve.far) * (curve.tar[1:] + curve.tar[:-1]) / 2).sum())


def equal_error_rate(pairs: PairScores) -> float:
    """Where FAR and 1 - TAR are equal, interpolated linearly between thresholds.

    Example:
        >>> equal_error_rate(count_pairs([.9, .8, .3, .2], [True, False, True, False]))
        0.5
    """
    curve = roc_curve(pairs)
    gap = curve.far - (1 - curve.tar)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    low, high = gap[after - 1], gap[after]
    share = -low / (high - low)
    return float(curve.far[after - 1] + share * (curve.far[after] - curve.far[after - 1]))


def tar_at_far(pairs: PairScores, rates: Iterable[float] = (1e-4, 1e-3, 1e-2)) -> dict[str, float]:
    """TAR at the lowest threshold whose FAR is at most each rate, by name, as ``TAR@FAR=0.001``.

    A rate below one over the number of pairs that do not match cannot be measured; it counts as
    no false accept at all.

    Example:
        >>> tar_at_far(count_pairs([.9, .8, .3], [True, False, True]), [.01])
        {'TAR@FAR=0.01': 0.5}
    """
    return {f'TAR@FAR={rate:g}': results_at(pairs, threshold_at_far(pairs, rate)).tar
            for rate in rates}


def threshold_at_far(pairs: PairScores, rate: float) -> float:
    """The lowest threshold whose FAR is at most ``rate``; just above all scores where none is.

    Raises:
        ValueError: the rate is outside [0, 1], or every pair matches.

    Example:
        >>> threshold_at_far(count_pairs([.9, .8, .3], [True, False, True]), .01)
        0.9
    """
    real_number('The false accept rate', rate, 0, 1)
    if not pairs.num_others:
        raise ValueError('Every pair matches, so there is no rate of false accepts.')
    allowed = pairs.false_accepts <= rate * pairs.num_others
    if not allowed.any():
        return float(np.nextafter(np.float32(pairs.scores[-1]), np.float32(np.inf)))
    return float(pairs.scores[int(np.argmax(allowed))])


def threshold_at_precision(pairs: PairScores, precision: float) -> float:
    """The threshold with the highest TAR whose precision is at least ``precision``.

    Raises:
        ValueError: the precision is outside [0, 1], no pair matches, or no threshold reaches it.

    Example:
        >>> threshold_at_precision(count_pairs([.9, .8, .3], [True, False, True]), .6)
        0.3
    """
    real_number('The precision', precision, 0, 1)
    if not pairs.num_matches:
        raise ValueError('No pair matches, so there is no precision.')
    accepted = pairs.true_accepts + pairs.false_accepts
    reached = (pairs.true_accepts >= precision * accepted) & (pairs.true_accepts > 0)
    if not reached.any():
        best = float((pairs.true_accepts / accepted).max())
        raise ValueError(f'No threshold reaches a precision of {precision:g}; the highest is '
                         f'{best:.4g}.')
    # of those with as many true accepts, the highest threshold accepts the fewest others
    most = pairs.true_accepts[reached].max()
    return float(pairs.scores[reached & (pairs.true_accepts == most)].max())


def threshold_at_best_f1(pairs: PairScores) -> float:
    """The threshold of the highest F1; the highest one where several have it.

    Raises:
        ValueError: no pair matches.

    Example:
        >>> threshold_at_best_f1(count_pairs([.9, .8, .3], [True, False, True]))
        0.3
    """
    if not pairs.num_matches:
        raise ValueError('No pair matches, so there is no F1.')
    accepted = pairs.true_accepts + pairs.false_accepts
    f1 = 2 * pairs.true_accepts / (accepted + pairs.num_matches)
    return float(pairs.scores[len(f1) - 1 - int(np.argmax(f1[::-1]))])


def _check_both(pairs: PairScores) -> None:
    if not pairs.num_matches or not pairs.num_others:
        raise ValueError(f'A curve needs pairs that match and pairs that do not; there are '
                         f'{pairs.num_matches} and {pairs.num_others}.')

"""Where to cut a ranking without labels: what does not match is known by its number alone."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..checks import real_number
from ..ranking import as_vectors, topk
from ..registry import unknown_name
from ..similarity import Similarity, SimilarityFn, resolve_similarity
from .calibration import OF_BEST, RANKS, TAIL_SHARE, MatchCalibration, tail_means

UNLABELLED_CRITERIA = ('expected', 'no_match', 'coverage')
_TARGETS = {'expected': 1., 'no_match': 0.05, 'coverage': 0.95}
_BOUND = 0.5  # of the first results that hardly match: more than half of the others are below
_LOWEST = 0.05
_FEWEST_BELOW = 10


def calibrate_without_labels(
        embeddings: Any, criterion: str = 'expected', target: float | None = None, *,
        strangers: Any = None, altered: tuple[Any, Any] | None = None,
        similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
        ranks: tuple[int, int] = RANKS, max_queries: int = 2000,
        seed: int = 0) -> MatchCalibration:
    """A calibration of a gallery of which nobody knows what matches.

    The evidence of a result is that of :meth:`MatchCalibration.of_query`. It is read from the
    gallery's rows, each searched among the others: from the tails of their rankings, and then
    from the lower part of their first results, where hardly any matches (Efron, "Large-scale
    simultaneous hypothesis testing: the choice of a null hypothesis", 2004): the first results
    that do not match are distributed as Gumbel's distribution says.

    A share of queries is that of the next one like those that were calibrated on, on average over
    these; of one calibration on n of them it is off by ``sqrt(target * (1 - target) / n)``.
    Without strangers that of ``'no_match'`` is an estimate.

    Args:
        embeddings: ``(N, D)`` floats.
        criterion: ``'expected'``: a result is a match where fewer than ``target`` results that do
            not match are to be expected at its score or above (1, where its probability is
            one eighth); ``'no_match'``: at most a share ``target`` of the queries without a match
            get a result (0.05), by that distribution or by the gallery's rows as if none of them
            had a match, whichever is lower; ``'coverage'``: a share ``target`` of altered
            pictures find the original (0.95), as a search counts it.
        target: in the place of these.
        strangers: ``(M, D)`` embeddings of pictures that are known to have no match in the
            gallery, such as what may be asked. With them ``'no_match'`` is split conformal: its
            rate holds for whatever is exchangeable with them (Vovk et al., "Algorithmic Learning
            in a Random World", 2005; Bates et al., "Testing for outliers with conformal
            p-values", 2023).
        altered: embeddings ``(M, D)`` of altered pictures of the gallery, and which rows ``(M,)``
            they are of; ``'coverage'``, which is split conformal over them, needs it, and for
            the others it is measured.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        ranks: see :class:`MatchCalibration`; more than ``ranks[0]`` matches of a query make it
            stricter.
        max_queries: so many rows, drawn at random, are searched among all.
        seed: of the draw.

    Returns:
        A calibration with ``method='tail'``.

    Raises:
        ValueError: there is no such criterion, too few rows, strangers or altered pictures, or
            fewer of these find their originals at any threshold.

    Example:
        >>> rows = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
        >>> made = calibrate_without_labels(rows, 'no_match', 0.1)
        >>> scores = torch.cosine_similarity(rows[:1], rows[1:]).sort(descending=True).values
        >>> bool(made.of_query(scores).is_match(0.99))
        True
    """
    if criterion not in UNLABELLED_CRITERIA:
        raise ValueError(unknown_name('criterion without labels', criterion, UNLABELLED_CRITERIA))
    target = _TARGETS[criterion] if target is None else target
    target = real_number('target', target, above=0, **({} if criterion == 'expected' else
                                                       dict(below=1)))
    if criterion == 'coverage' and altered is None:
        raise ValueError("criterion='coverage' needs altered pictures of the gallery, whose "
                         'originals are to be found: give altered=(embeddings, rows).')
    resolved = resolve_similarity(similarity)
    gallery = as_vectors(embeddings, 'embeddings')
    rows = torch.randperm(len(gallery), generator=torch.Generator().manual_seed(seed))[:max_queries]

    def searched(queries: Any, own: Any = None) -> np.ndarray:
        """Scores ``(Q, ranks[1])`` of the nearest rows."""
        found = topk(as_vectors(queries, 'queries'), gallery,
                     min(ranks[1], len(gallery) - (own is not None)), resolved, exclude=own)
        return found.scores.double().cpu().numpy()

    nearest = searched(gallery[rows], rows) if strangers is None else searched(strangers)
    slope, offset = _exponential(nearest, ranks)
    tail = MatchCalibration(0., method='tail', slope=slope, offset=offset, ranks=ranks)
    first = tail.evidence(nearest)
    location, scale = _gumbel(first, _BOUND if strangers is None else math.inf)
    slope, offset = slope / scale, (offset - location) / scale
    tail = MatchCalibration(0., method='tail', slope=slope, offset=offset, ranks=ranks)
    measured: dict[str, Any] = dict(criterion=criterion, target=target, queries=len(first),
                                    strangers=strangers is not None)
    threshold = -math.log(target if criterion == 'expected' else -math.log1p(-target))
    if criterion == 'no_match' and (strangers is not None or target * (len(first) + 1) >= 1):
        bound = _conformal(tail.evidence(nearest), 1 - target, 'pictures without a match')
        bound = float(np.nextafter(bound, np.inf))
        # matches only raise the gallery's own first results: what few of these reach is enough
        threshold = bound if strangers is not None else min(threshold, bound)
    if altered is not None:
        vectors, originals = as_vectors(altered[0], 'altered'), torch.as_tensor(altered[1])
        own = resolved.function(vectors, gallery[originals]).diagonal()
        ranked = searched(vectors)
        found, best = tail.evidence(ranked, own.double().cpu().numpy()), tail.evidence(ranked)
        found[(best > 0) & (found < OF_BEST * best)] = -math.inf  # at any threshold
        if criterion == 'coverage':
            threshold = -_conformal(-found, target, 'altered pictures')
            if math.isinf(threshold):
                raise ValueError(f'No threshold lets a share of {target:g} of the altered pictures '
                                 f'find their originals: for {np.isinf(found).mean():.1%} another '
                                 'picture is by far nearer. Ask for less.')
        measured.update(altered=len(found), coverage=float((found >= threshold).mean()))
    return MatchCalibration(threshold, method='tail', similarity=resolved.name, measured=measured,
                            ranks=ranks, slope=slope, offset=offset)


def _exponential(scores: np.ndarray, ranks: tuple[int, int]) -> tuple[float, float]:
    """Slope and offset of evidence, from the tails ``(Q, n)`` of many queries.

    Where a tail is exponential (the generalised Pareto one with shape 0), the scores at ranks r
    fall on a line over log r (Kratz and Resnick, "The QQ-estimator and heavy tails", 1996). One
    slope for all queries, their geometric mean, cuts better than each query's own: 25 results tell
    little of it.
    """
    first, last = ranks[0], min(ranks[1], scores.shape[1])
    means = tail_means(scores, ranks)
    evidence = -np.log(np.arange(first, last) + 0.5)  # of the scores at these ranks
    apart = evidence - evidence.mean()
    spreads = (scores[:, first:last] - means[:, None]) @ apart / (apart @ apart)
    # equal scores have no tail: whatever is above them is beyond it
    least = 1e-9 * np.maximum(1, np.abs(means))
    slope = float(np.exp(-np.log(np.maximum(spreads, least)).mean()))
    return slope, float(evidence.mean()) - slope * (1 - TAIL_SHARE) * float(means.mean())


def _gumbel(first: np.ndarray, bound: float) -> tuple[float, float]:
    """Location and scale of the Gumbel distribution that a sample has up to a bound.

    What is above ``location + bound * scale`` may be anything, and as much: of the distribution
    it is known which share is below, and the values there are fitted to their quantiles.
    """
    values, location, scale = np.sort(first), 0., 1.
    for _ in range(30):
        below = values[values <= location + bound * scale]
        if len(below) < _FEWEST_BELOW:
            break
        all_of_them = min(len(values), len(below) / math.exp(-math.exp(-bound)))
        shares = (np.arange(len(below)) + 0.5) / all_of_them
        kept = shares >= _LOWEST  # the lowest are few, and far from a line
        wanted = -np.log(-np.log(shares[kept]))
        apart = wanted - wanted.mean()
        slope = max(float(below[kept] @ apart / (apart @ apart)), 0.1)  # of rows all alike
        location = (location + float(below[kept].mean()) - slope * float(wanted.mean())) / 2
        scale = (scale + slope) / 2
    return location, scale


def _conformal(values: np.ndarray, share: float, what: str) -> float:
    """A bound that the next value stays below, or at, with at least a probability."""
    place = math.ceil((len(values) + 1) * share - 1e-9)
    if place > len(values):
        raise ValueError(f'{len(values)} {what} are too few for a share of {share:g}: give '
                         f'{math.ceil(share / (1 - share) - 1e-9)} at least, or ask for less.')
    return float(np.sort(values)[place - 1])

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
from .calibration import RANKS, MatchCalibration, tail_lines

UNLABELLED_CRITERIA = ('expected', 'no_match', 'coverage')
_TARGETS = {'expected': 1., 'no_match': 0.05, 'coverage': 0.95}
_BOUND = 1.5  # of the first results that hardly match: four fifths of those that do not are below
_LOWEST = 0.05
_FEWEST_BELOW = 10


def calibrate_without_labels(
        embeddings: Any, criterion: str = 'expected', target: float | None = None, *,
        strangers: Any = None, altered: tuple[Any, Any] | None = None,
        similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
        ranks: tuple[int, int] = RANKS, max_queries: int = 2000,
        seed: int = 0) -> MatchCalibration:
    """A calibration of a gallery of which nobody knows what matches.

    The evidence of a result is that of :meth:`MatchCalibration.of_query`. The first results that
    do not match have an evidence that falls as Gumbel's distribution says, where the tail is
    exponential; in real galleries it is a little wider or narrower, and moved. Both are read from
    the gallery's rows, each searched among the others: from the lower part of their first
    results, where hardly any matches (Efron, "Large-scale simultaneous hypothesis testing: the
    choice of a null hypothesis", 2004).

    Args:
        embeddings: ``(N, D)`` floats.
        criterion: ``'expected'``: a result is a match where fewer than ``target`` results that do
            not match are to be expected at its score or above (1, where its probability is one
            half); ``'no_match'``: at most a share ``target`` of the queries without a match get
            a result (0.05); ``'coverage'``: a share ``target`` of altered pictures find the
            original (0.95).
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
        ValueError: there is no such criterion, or too few rows, strangers or altered pictures.

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

    def evidence(scores: np.ndarray, of: np.ndarray) -> np.ndarray:
        slope, offset = tail_lines(scores, ranks)
        return slope * of + offset
    nearest = searched(gallery[rows], rows) if strangers is None else searched(strangers)
    first = evidence(nearest, nearest[:, 0])
    location, scale = _gumbel(first, _BOUND if strangers is None else math.inf)
    measured: dict[str, Any] = dict(criterion=criterion, target=target, queries=len(first),
                                    strangers=strangers is not None)
    threshold = -math.log(target if criterion == 'expected' else -math.log1p(-target))
    if strangers is not None and criterion == 'no_match':
        bound = _conformal((first - location) / scale, 1 - target, 'pictures without a match')
        threshold = float(np.nextafter(bound, np.inf))
    if altered is not None:
        vectors, originals = as_vectors(altered[0], 'altered'), torch.as_tensor(altered[1])
        own = resolved.function(vectors, gallery[originals]).diagonal()
        found = (evidence(searched(vectors, originals), own.double().cpu().numpy())
                 - location) / scale
        if criterion == 'coverage':
            threshold = -_conformal(-found, target, 'altered pictures')
        measured.update(altered=len(found), coverage=float((found >= threshold).mean()))
    return MatchCalibration(threshold, method='tail', similarity=resolved.name, measured=measured,
                            ranks=ranks, location=location, scale=scale)


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

"""Figures of verification at a threshold, and thresholds for a wanted figure.

A pair is accepted where its score reaches the threshold. TAR, the true accept rate, is the share
of matching pairs that are accepted (recall; 1 - FNMR); FAR, the false accept rate, the share of
the others that are (the false match rate, FMR, of ISO/IEC 19795-1). Precision is the share of
accepted pairs that match, and F1 its harmonic mean with TAR.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .pair_scores import PairScores


class PairFigures(NamedTuple):
    """What a threshold does to labelled pairs; a figure over no pairs is NaN."""

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


def figures_at(pairs: PairScores, threshold: float) -> PairFigures:
    """The figures at one threshold."""
    place = int(np.searchsorted(pairs.scores, threshold))
    accepted = place < len(pairs.scores)
    true = int(pairs.true_accepts[place]) if accepted else 0
    false = int(pairs.false_accepts[place]) if accepted else 0
    return PairFigures(
        float(threshold), _share(true, pairs.num_matches), _share(false, pairs.num_others),
        _share(true, true + false), _share(2 * true, true + false + pairs.num_matches))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float('nan')


def roc_curve(pairs: PairScores) -> RocCurve:
    """The ROC curve.

    Raises:
        ValueError: there are no matching pairs, or no others.
    """
    _check_both(pairs)
    return RocCurve(np.concatenate([[0.], pairs.false_accepts[::-1] / pairs.num_others]),
                    np.concatenate([[0.], pairs.true_accepts[::-1] / pairs.num_matches]),
                    np.concatenate([[np.inf], pairs.scores[::-1]]))


def precision_recall_curve(pairs: PairScores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and thresholds ``(M,)`` each, at falling thresholds."""
    _check_both(pairs)
    accepted = pairs.true_accepts + pairs.false_accepts
    return ((pairs.true_accepts / accepted)[::-1],
            (pairs.true_accepts / pairs.num_matches)[::-1], pairs.scores[::-1])


def roc_auc(pairs: PairScores) -> float:
    """The area under the ROC curve: the chance that a match scores above another pair, where a
    tie counts a half.
    """
    curve = roc_curve(pairs)
    return float((np.diff(curve.far) * (curve.tar[1:] + curve.tar[:-1]) / 2).sum())


def equal_error_rate(pairs: PairScores) -> float:
    """Where FAR and 1 - TAR are equal, interpolated linearly between thresholds."""
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
    """
    return {f'TAR@FAR={rate:g}': figures_at(pairs, threshold_at_far(pairs, rate)).tar
            for rate in rates}


def threshold_at_far(pairs: PairScores, rate: float) -> float:
    """The lowest threshold whose FAR is at most ``rate``; just above all scores where none is.

    Raises:
        ValueError: the rate is outside [0, 1], or every pair matches.
    """
    _check_share(rate, 'The false accept rate')
    if not pairs.num_others:
        raise ValueError('Every pair matches, so there is no rate of false accepts.')
    return _lowest(pairs, pairs.false_accepts <= rate * pairs.num_others)


def threshold_at_precision(pairs: PairScores, precision: float) -> float:
    """The threshold with the highest TAR whose precision is at least ``precision``.

    Raises:
        ValueError: the precision is outside [0, 1], no pair matches, or no threshold reaches it.
    """
    _check_share(precision, 'The precision')
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
    """
    if not pairs.num_matches:
        raise ValueError('No pair matches, so there is no F1.')
    accepted = pairs.true_accepts + pairs.false_accepts
    f1 = 2 * pairs.true_accepts / (accepted + pairs.num_matches)
    return float(pairs.scores[len(f1) - 1 - int(np.argmax(f1[::-1]))])


def _lowest(pairs: PairScores, allowed: np.ndarray) -> float:
    """The lowest allowed score; where accepting rises with falling scores, that is the best."""
    if not allowed.any():
        return float(np.nextafter(np.float32(pairs.scores[-1]), np.float32(np.inf)))
    return float(pairs.scores[int(np.argmax(allowed))])


def _check_both(pairs: PairScores) -> None:
    if not pairs.num_matches or not pairs.num_others:
        raise ValueError(f'A curve needs pairs that match and pairs that do not; there are '
                         f'{pairs.num_matches} and {pairs.num_others}.')


def _check_share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f'{name} must lie between 0 and 1, got {value!r}.')

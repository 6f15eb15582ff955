"""Open-set calibration: when a score means a match, and how sure that is."""
from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import real_number, whole_number
from ..files import kind_of_file, write_json
from ..registry import unknown_name
from ..similarity import Similarity, SimilarityFn, resolve_similarity
from .relevance import label_codes
from .verification import (
    PairScores,
    pairs_within,
    results_at,
    threshold_at_best_f1,
    threshold_at_far,
    threshold_at_precision,
)

CRITERIA = ('false_match_rate', 'precision', 'f1')
METHODS = ('platt', 'isotonic')
RANKS = (5, 30)
OF_BEST = 0.4  # of the best result's evidence that another match needs: a sure one stands alone
TAIL_SHARE = 0.5  # of the mean of a query's own tail is taken from its scores
_EVEN = 2.  # evidence at which a result is as likely a match as none, on three sets of pictures
_FEWEST = 3  # results for each that is passed over, else a tail is not fitted
_FORMAT = 'retrieval.MatchCalibration'


@dataclass
class MatchCalibration:
    """A threshold on scores, thresholds of single classes, and the probability of a match.

    Args:
        threshold: a score that reaches it is a match; with ``method='tail'``, evidence (see
            :meth:`of_query`) that does.
        class_thresholds: by class, in the place of ``threshold`` where the class of the gallery's
            row is known.
        method: ``'platt'`` or ``'isotonic'``, or None where there are no probabilities; or
            ``'tail'``: every query has a threshold of its own, from the scores of its ranking.
        slope, offset: of Platt's sigmoid, ``1 / (1 + exp(-(slope * score + offset)))``; with
            ``method='tail'``, of the evidence.
        knots: of the isotonic function, ``(score, probability)``, both rising; between them it is
            linear, and outside it stays as at the ends.
        similarity: the name of the similarity that the scores are of.
        measured: what the threshold did to the pairs that it was chosen on.
        ranks: of ``'tail'``: how many first results are passed over, since they may match, and up
            to which one the results are taken for such that do not.

    Raises:
        ValueError: the parts do not fit together.

    Example:
        >>> calibration = MatchCalibration(0.5, method='platt', slope=8., offset=-4.)
        >>> calibration.is_match(0.7), round(calibration.probability(0.7), 2)
        (True, 0.83)
    """

    threshold: float
    class_thresholds: dict[str, float] = field(default_factory=dict)
    method: str | None = None
    slope: float = 0.
    offset: float = 0.
    knots: list[tuple[float, float]] = field(default_factory=list)
    similarity: str = 'cosine_similarity'
    measured: dict[str, Any] = field(default_factory=dict)
    ranks: tuple[int, int] = RANKS

    def __post_init__(self) -> None:
        numbers = [self.threshold, *self.class_thresholds.values(), self.slope, self.offset,
                   *(value for knot in self.knots for value in knot)]
        if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            raise ValueError('The thresholds and parameters of a calibration must be finite '
                             'numbers.')
        if self.method is not None and self.method not in (*METHODS, 'tail'):
            raise ValueError(unknown_name('method of calibration', self.method,
                                          (*METHODS, 'tail')))
        first, last = (whole_number('ranks', rank) for rank in self.ranks)
        if last < _FEWEST * first:
            raise ValueError(f'ranks must be (first, last), the last at least {_FEWEST} times the '
                             f'first; got {(first, last)}.')
        if self.method == 'tail' and self.slope <= 0:
            raise ValueError(f'The evidence must rise with the score: slope above 0; got '
                             f'{self.slope}.')
        self.ranks = (first, last)
        self.knots = [(float(score), float(share)) for score, share in self.knots]
        if self.method == 'isotonic' and (not self.knots or self.knots != sorted(self.knots)):
            raise ValueError('An isotonic calibration needs knots with rising scores.')

    @property
    def depth(self) -> int:
        """How many results of a query are needed to say which of them match."""
        return self.ranks[1] if self.method == 'tail' else 0

    @property
    def fewest(self) -> int:
        """How many results a query must have for that."""
        return _FEWEST * self.ranks[0] if self.method == 'tail' else 0

    def of_query(self, scores: Sequence[float] | np.ndarray) -> MatchCalibration:
        """The calibration for one query: itself, but for ``method='tail'``.

        There, the mean score of the query's results behind the first few, which hardly match,
        says how near is to it what does not match. Half of that is taken from its scores: all of it
        is what score normalisation by a cohort does for speakers (Matejka et al., "Analysis of
        score normalization in multilingual speaker recognition", Interspeech 2017), and takes too
        much, since what matches is no nearer to a query that much is near to. ``slope`` and
        ``offset`` make evidence of it: minus the logarithm of the number of results that do not
        match that are to be expected at the score or above, as the E-value of a sequence search
        (Karlin and Altschul, PNAS 1990). The probability is the logistic function of the evidence
        less 2. A match needs two fifths of the best result's evidence too: beside a sure one, what
        is hardly better than chance is none.

        Args:
            scores: of the query's results, the highest first; :attr:`depth` of them are read.

        Returns:
            A calibration with a threshold for the query's scores, and probabilities.

        Raises:
            ValueError: there are too few results to say what does not match.

        Example:
            >>> tail = MatchCalibration(0., method='tail', slope=20., offset=-8.)
            >>> own = tail.of_query([.9, *(.6 - .01 * rank for rank in range(40))])
            >>> own.is_match(.9), own.is_match(.6), round(own.probability(.9), 2)
            (True, False, 0.97)
        """
        if self.method != 'tail':
            return self
        values = np.asarray(scores, dtype=np.float64)[None]
        offset = float(self.evidence(values, np.zeros(1))[0])
        best = self.slope * float(values[0, 0]) + offset
        bar = max(self.threshold, OF_BEST * best) if best > 0 else self.threshold
        return MatchCalibration((bar - offset) / self.slope, method='platt', slope=self.slope,
                                offset=offset - _EVEN, similarity=self.similarity)

    def evidence(self, scores: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
        """The evidence for matches, with ``method='tail'``.

        Args:
            scores: ``(Q, n)`` float64 of the queries' results, each row falling.
            of: ``(Q,)`` scores; each query's first by default.

        Returns:
            The evidence ``(Q,)`` of these scores.

        Raises:
            ValueError: there are too few results to say what does not match.

        Example:
            >>> tail = MatchCalibration(0., method='tail', slope=20., offset=-8.)
            >>> float(tail.evidence(np.array([[.9, *[.5] * 29]]))[0])
            5.0
        """
        chosen = scores[:, 0] if of is None else of
        return self.slope * (chosen - TAIL_SHARE * tail_means(scores, self.ranks)) + self.offset

    def _check_flat(self) -> None:
        if self.method == 'tail':
            raise ValueError('This calibration judges a result by the whole ranking of its query: '
                             'take calibration.of_query(scores) for each query, or calibrate with '
                             'labels.')

    def probability(self, scores: Any) -> Any:
        """The probability of a match.

        Args:
            scores: a number, an array or a tensor.

        Returns:
            Values in [0, 1] of the same kind and shape.

        Raises:
            ValueError: the calibration has no probabilities, or is one of a whole ranking.
        """
        self._check_flat()
        if self.method is None:
            raise ValueError('This calibration holds thresholds alone: calibrate with '
                             "method='platt' or 'isotonic' for probabilities.")
        if isinstance(scores, Tensor):
            found = self._probability(scores.detach().cpu().double().numpy())
            return torch.from_numpy(np.asarray(found)).to(scores.device, torch.float32)
        found = self._probability(np.asarray(scores, dtype=np.float64))
        return found if isinstance(scores, np.ndarray) else float(found)

    def _probability(self, scores: np.ndarray) -> np.ndarray:
        if self.method == 'isotonic':
            at, shares = zip(*self.knots, strict=True)
            return np.interp(scores, at, shares)
        exponent = np.clip(self.slope * scores + self.offset, -700, 700)
        return 1 / (1 + np.exp(-exponent))

    def threshold_of(self, label: Any = None) -> float:
        """The threshold of a class, by its name or number; the common one where it has none."""
        self._check_flat()
        return self.class_thresholds.get(str(label), self.threshold)

    def is_match(self, scores: Any, labels: Sequence[Any] | None = None) -> Any:
        """True where scores are matches.

        Args:
            scores: a number, an array ``(n,)`` or a tensor ``(n,)``.
            labels: the class of each row that was found, for the thresholds of single classes.

        Returns:
            A bool, or booleans of the same kind and shape.
        """
        if labels is None:
            return scores >= self.threshold_of()
        bars = [self.threshold_of(label) for label in labels]
        if isinstance(scores, Tensor):
            return scores >= torch.tensor(bars, dtype=scores.dtype, device=scores.device)
        return np.asarray(scores) >= np.asarray(bars)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the calibration as JSON, under a temporary name first."""
        content = {'format': _FORMAT, 'version': 1, **asdict(self)}
        if self.method == 'tail':
            content['version'] = 3
        else:  # as earlier releases read it
            del content['ranks']
        write_json(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MatchCalibration:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f'There is no calibration {str(path)!r}.')
        try:
            content = json.loads(Path(path).read_text(encoding='utf-8'))
            if not isinstance(content, dict) or content.pop('format', None) != _FORMAT:
                raise ValueError('it holds something else')
            version = content.pop('version', None)
            if version == 2:
                raise ValueError('an earlier release wrote it, which cut otherwise: calibrate '
                                 'again')
            if version not in (1, 3):
                raise ValueError('it was written by a later release')
            return cls(**content)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f'{str(path)!r} is no calibration that can be read: it '
                             f'seems to be {kind_of_file(path)} ({error})'
                             ) from error


def tail_means(scores: np.ndarray, ranks: tuple[int, int] = RANKS) -> np.ndarray:
    """The mean score of the results behind the first few, for each query.

    Args:
        scores: ``(Q, n)`` float64, each row falling.
        ranks: see :class:`MatchCalibration`. Where there are fewer results, all behind the first
            few are read.

    Returns:
        Means ``(Q,)``.

    Raises:
        ValueError: there are fewer than three times the first rank of results.

    Example:
        >>> float(tail_means(np.arange(40., 0, -1)[None])[0])  # of the results 6 to 30
        23.0
    """
    first, last = ranks[0], min(ranks[1], scores.shape[-1])
    if last < _FEWEST * first:
        raise ValueError(f'There are {last} results, and to say what does not match takes '
                         f'{_FEWEST * first} at least: search more pictures.')
    return scores[:, first:last].mean(1)


def calibrate(embeddings: Any, labels: Any, criterion: str = 'f1', target: float | None = None,
              method: str | None = 'platt', *, per_class: bool = False,
              similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
              neighbors: int | None = None, prior: float | None = None,
              max_queries: int | None = 10_000, seed: int = 0,
              label_names: Sequence[str] | None = None) -> MatchCalibration:
    """A calibration from a gallery's own labels, each row against all others.

    Args:
        embeddings: ``(N, D)`` floats.
        labels: ``(N,)`` whole numbers or strings.
        criterion, target, method, prior: see :func:`calibrate_pairs`.
        per_class: choose a threshold for every class as well, from the pairs with its rows. A
            class whose pairs do not suffice keeps the common threshold.
        similarity, neighbors, max_queries, seed: see :func:`pairs_within`. With ``neighbors=1``
            the probability is that of a first result.
        label_names: what the classes are called in :attr:`MatchCalibration.class_thresholds`; by
            default their own strings or numbers.

    Raises:
        ValueError: the rows or the labels do not suffice.

    Example:
        >>> rows = [[1., 0.], [.9, .1], [0., 1.], [.1, .9]]
        >>> round(calibrate(rows, ['a', 'a', 'b', 'b']).threshold, 3)
        0.994
    """
    resolved = resolve_similarity(similarity)
    options: dict[str, Any] = dict(similarity=resolved, neighbors=neighbors, seed=seed)
    pairs = pairs_within(embeddings, labels, max_queries=max_queries, **options)
    made = calibrate_pairs(pairs, criterion, target, method, prior, resolved.name)
    if per_class:
        codes, _, own_names = label_codes(labels)
        names = own_names if label_names is None else label_names
        for label in torch.unique(codes).tolist():
            rows = (codes == label).nonzero()[:, 0]
            try:
                own = pairs_within(embeddings, codes, rows=rows, **options)
                bar = choose_threshold(own, criterion, target)
            except ValueError:  # a class of one image, or one that never reaches the precision
                continue
            name = names[label] if 0 <= label < len(names) else label
            made.class_thresholds[str(name)] = bar
    return made


def calibrate_pairs(pairs: PairScores, criterion: str = 'f1', target: float | None = None,
                    method: str | None = 'platt', prior: float | None = None,
                    similarity: str = 'cosine_similarity') -> MatchCalibration:
    """A calibration from labelled pairs; see :func:`choose_threshold` and
    :func:`platt_scaling` for the arguments.

    Example:
        >>> from retrieval.evaluation import count_pairs
        >>> calibrate_pairs(count_pairs([.9, .8, .3], [True, True, False])).threshold
        0.8
    """
    threshold = choose_threshold(pairs, criterion, target)
    fitted: dict[str, Any] = {}
    if method == 'platt':
        fitted['slope'], fitted['offset'] = platt_scaling(pairs, prior)
    elif method == 'isotonic':
        fitted['knots'] = isotonic_knots(pairs, prior)
    elif method is not None:
        raise ValueError(unknown_name('method of calibration', method, METHODS))
    measured = {name: None if math.isnan(value) else value
                for name, value in results_at(pairs, threshold)._asdict().items()}
    measured.update(criterion=criterion, target=target, matches=pairs.num_matches,
                    others=pairs.num_others)
    return MatchCalibration(threshold, method=method, similarity=similarity, measured=measured,
                            **fitted)


def choose_threshold(pairs: PairScores, criterion: str = 'f1',
                     target: float | None = None) -> float:
    """The threshold that meets a criterion on labelled pairs.

    Args:
        pairs: see :func:`count_pairs` and :func:`pairs_within`.
        criterion: ``'false_match_rate'``: the lowest threshold whose share of accepted non-matches
            is at most ``target``; ``'precision'``: the one with most true accepts whose precision
            is at least ``target``; ``'f1'``: the one with the highest F1.
        target: 0.001 and 0.99 by default; ``'f1'`` takes none.

    Raises:
        ValueError: there is no such criterion, no threshold meets it, or the pairs do not suffice.

    Example:
        >>> from retrieval.evaluation import count_pairs
        >>> choose_threshold(count_pairs([.9, .8, .3], [True, False, True]), 'precision', .9)
        0.9
    """
    if criterion not in CRITERIA:
        raise ValueError(unknown_name('criterion', criterion, CRITERIA))
    if criterion == 'f1':
        if target is not None:
            raise ValueError("criterion='f1' takes no target: the highest F1 is looked for.")
        return threshold_at_best_f1(pairs)
    if criterion == 'precision':
        return threshold_at_precision(pairs, 0.99 if target is None else target)
    return threshold_at_far(pairs, 1e-3 if target is None else target)


def platt_scaling(pairs: PairScores, prior: float | None = None) -> tuple[float, float]:
    """Slope and offset of the sigmoid that fits labelled pairs best (Platt, "Probabilistic
    outputs for support vector machines", 1999), with his targets, which are never 0 or 1.

    Args:
        pairs: labelled pairs, some of each kind.
        prior: the share of matches that is to be expected where the calibration is used; by
            default the share among the pairs.
    """
    from sklearn.linear_model import LogisticRegression

    matches, others = _weighted(pairs, prior)
    total, rest = float(matches.sum()), float(others.sum())
    high, low = (total + 1) / (total + 2), 1 / (rest + 2)
    one = matches * high + others * low
    zero = matches * (1 - high) + others * (1 - low)
    centre, scale = _scale_of(pairs, one + zero)
    x = np.concatenate([pairs.scores, pairs.scores])[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit((x - centre) / scale, np.repeat([1, 0], len(pairs.scores)),
              sample_weight=np.concatenate([one, zero]) / (total + rest))
    slope = float(model.coef_[0, 0]) / scale
    return slope, float(model.intercept_[0]) - slope * centre


def isotonic_knots(pairs: PairScores, prior: float | None = None) -> list[tuple[float, float]]:
    """The rising function that fits labelled pairs best, as ``(score, probability)`` where it
    bends (Zadrozny and Elkan, 2002). The arguments are those of :func:`platt_scaling`.
    """
    from sklearn.isotonic import IsotonicRegression

    matches, others = _weighted(pairs, prior)
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds='clip')
    model.fit(pairs.scores, matches / (matches + others), sample_weight=matches + others)
    return [(float(score), float(share)) for score, share in
            zip(model.X_thresholds_, model.y_thresholds_, strict=True)]


def _weighted(pairs: PairScores, prior: float | None) -> tuple[np.ndarray, np.ndarray]:
    if not pairs.num_matches or not pairs.num_others:
        raise ValueError('Probabilities need pairs that match and pairs that do not; there are '
                         f'{pairs.num_matches} and {pairs.num_others}.')
    matches, others = pairs.matches.astype(np.float64), pairs.others.astype(np.float64)
    if prior is None:
        return matches, others
    prior = real_number('prior', prior, above=0, below=1)
    total = pairs.num_matches + pairs.num_others
    return (matches * (prior * total / pairs.num_matches),
            others * ((1 - prior) * total / pairs.num_others))


def _scale_of(pairs: PairScores, weights: np.ndarray) -> tuple[float, float]:
    centre = float(np.average(pairs.scores, weights=weights))
    spread = float(np.sqrt(np.average((pairs.scores - centre) ** 2, weights=weights)))
    return centre, spread or 1.

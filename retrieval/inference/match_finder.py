"""``MatchFinder``, as pytorch-metric-learning has it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor

from ..ranking import TILE_BUDGET
from ..ranking.range_search import checked_threshold

if TYPE_CHECKING:
    from ..evaluation.calibration import MatchCalibration


class MatchFinder:
    """Decides by a threshold which embeddings belong together.

    Args:
        distance: one of ``pytorch_metric_learning.distances``: called with ``(Q, D), (N, D)`` it
            gives ``(Q, N)``; ``pairwise_distance`` gives ``(n,)``; ``is_inverted`` says that
            larger is nearer. By default ``CosineSimilarity()``.
        threshold: pairs match at this distance or nearer; None where each call gives its own.
        calibration: turns scores into probabilities of a match; its own threshold counts where
            there is no other. It must have been fitted to the scores of this distance (of one that
            is not inverted: to its negative).

    Raises:
        TypeError: the distance is none of these.
        ValueError: no distance reaches the threshold.

    Example:
        >>> finder = MatchFinder(threshold=0.7)
        >>> finder.get_matching_pairs(torch.tensor([[1., 0], [1, 1], [0, 1]]), return_tuples=True)
        [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]
    """

    def __init__(self, distance: Any = None, threshold: float | None = None, *,
                 calibration: MatchCalibration | None = None) -> None:
        if distance is None:
            from pytorch_metric_learning.distances import CosineSimilarity
            distance = CosineSimilarity()
        for name in ('pairwise_distance', 'is_inverted'):
            if not hasattr(distance, name):
                raise TypeError('distance must be one of pytorch_metric_learning.distances, such '
                                f'as CosineSimilarity(); {type(distance).__name__} has no {name}.')
        self.distance = distance
        self.threshold = self._checked(threshold)
        self.calibration = calibration

    @torch.no_grad()
    def get_matching_pairs(self, query_emb: Tensor, ref_emb: Tensor | None = None,
                           threshold: float | None = None,
                           return_tuples: bool = False) -> np.ndarray | list[tuple[int, int]]:
        """Which queries match which references.

        Args:
            query_emb: ``(Q, D)``.
            ref_emb: ``(N, D)``; the queries themselves by default.
            threshold: in place of the finder's own.
            return_tuples: return the pairs ``(query, reference)`` instead of the matrix.

        Returns:
            Booleans ``(Q, N)``, or a list of pairs in rising order.

        Raises:
            ValueError: no threshold was given anywhere.
        """
        ref_emb = query_emb if ref_emb is None else ref_emb
        bar = self._threshold(threshold)
        step = max(1, TILE_BUDGET // max(1, len(ref_emb)))
        blocks = ((start, self._reaches(self.distance(query_emb[start:start + step], ref_emb), bar))
                  for start in range(0, len(query_emb), step))
        if return_tuples:
            return [(start + query, row) for start, block in blocks
                    for query, row in block.nonzero().tolist()]
        matches = np.empty((len(query_emb), len(ref_emb)), dtype=bool)
        for start, block in blocks:
            matches[start:start + step] = block.cpu().numpy()
        return matches

    @torch.no_grad()
    def is_match(self, x: Tensor, y: Tensor, threshold: float | None = None) -> bool | np.ndarray:
        """True where each ``x (n, D)`` matches the ``y (n, D)`` beside it.

        Returns:
            A bool for one pair, booleans ``(n,)`` for several.

        Raises:
            ValueError: no threshold was given anywhere.
        """
        found = self._reaches(self._beside(x, y), self._threshold(threshold))
        return bool(found) if found.numel() == 1 else found.cpu().numpy()

    @torch.no_grad()
    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """How near each ``x (n, D)`` is to the ``y (n, D)`` beside it, larger for nearer."""
        distances = self._beside(x, y)
        return distances if self.distance.is_inverted else -distances

    def _beside(self, x: Tensor, y: Tensor) -> Tensor:
        """The distances ``(n,)``, the same as on the diagonal of the matrix of distances.

        The library's ``pairwise_distance`` takes embeddings that are normalised already, and
        leaves the power out.
        """
        if hasattr(self.distance, 'maybe_normalize'):
            x, y = self.distance.maybe_normalize(x), self.distance.maybe_normalize(y)
        distances = self.distance.pairwise_distance(x, y)
        power = getattr(self.distance, 'power', 1)
        return distances if power == 1 else distances ** power

    def match_probability(self, x: Tensor, y: Tensor) -> Tensor:
        """The probability that each ``x (n, D)`` matches the ``y (n, D)`` beside it, ``(n,)``.

        Raises:
            ValueError: the finder has no calibration.
        """
        if self.calibration is None:
            raise ValueError('A probability needs a calibration: give MatchFinder(calibration=…), '
                             'such as calibrate(gallery) returns.')
        return self.calibration.probability(self.scores(x, y))

    def score_threshold(self, threshold: float | None = None, label: Any = None) -> float:
        """The threshold on :meth:`scores`, where that on distances is ``threshold``.

        Without one, and without one of the finder's own, it is the calibration's for the class
        ``label``.
        """
        if threshold is None and self.threshold is None and self.calibration is not None:
            return self.calibration.threshold_of(label)
        bar = self._threshold(threshold)
        return bar if self.distance.is_inverted else -bar

    def _threshold(self, threshold: float | None) -> float:
        bar = self.threshold if threshold is None else self._checked(threshold)
        if bar is None and self.calibration is not None:
            bar = self.calibration.threshold_of()
            bar = bar if self.distance.is_inverted else -bar
        if bar is None:
            raise ValueError('There is no threshold: give one to MatchFinder, or to this call.')
        return bar

    def _checked(self, threshold: float | None) -> float | None:
        """A threshold that was given, which some distance must reach."""
        if threshold is None:
            return None
        normalized = getattr(self.distance, 'normalize_embeddings', False)
        if self.distance.is_inverted:
            return checked_threshold(threshold, 'cosine_similarity' if normalized else
                                     'inner_product')
        if threshold < 0 and isinstance(self.distance, LpDistance):
            raise ValueError(f'No distance reaches the threshold {threshold:g}: '
                             f'{type(self.distance).__name__} is at least 0. Write '
                             f'{-threshold:g}.')
        return threshold

    def _reaches(self, distances: Tensor, threshold: float) -> Tensor:
        return distances >= threshold if self.distance.is_inverted else distances <= threshold

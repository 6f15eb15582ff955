"""``CustomKNN``, as pytorch-metric-learning has it."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ranking import as_vectors, topk
from ..ranking.topk import checked_k
from .faiss_knn import check_included
from .held_reference import HeldReference

_SCORES = 2 ** 24  # held at once, where no batch size says otherwise


class CustomKNN(HeldReference):
    """k nearest neighbours by any distance of pytorch-metric-learning, exactly.

    Args:
        distance: ``(Q, D), (N, D) -> (Q, N)`` with ``is_inverted``: True where larger is nearer.
        batch_size: queries that are compared at once; by default as many as keep the matrix of
            distances small.

    Raises:
        TypeError: the distance cannot be called or does not say whether it is inverted.
        ValueError: ``batch_size`` is below 1.
    """

    def __init__(self, distance: Any, batch_size: int | None = None) -> None:
        super().__init__()
        if not callable(distance) or not hasattr(distance, 'is_inverted'):
            raise TypeError('distance must be one of pytorch_metric_learning.distances, such as '
                            f'CosineSimilarity(); got {type(distance).__name__}.')
        if batch_size is not None and batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, got {batch_size}.')
        self.distance = distance
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, query: Any, k: int, reference: Any = None,
                 ref_includes_query: bool = False) -> tuple[Tensor, Tensor]:
        """Search; see :meth:`FaissKNN.__call__`. The distances are those of ``distance``; among
        equal ones the lower row comes first.
        """
        query, k = as_vectors(query, 'query'), checked_k(k)
        among = self.held(reference).to(query.device)
        exclude = None
        if ref_includes_query:
            check_included(len(query), len(among))
            exclude = torch.arange(len(query))
        budget = _SCORES if self.batch_size is None else self.batch_size * len(among)
        found = topk(query, among, k, self._similarity, exclude, tile_budget=budget)
        return (found.scores if self.distance.is_inverted else -found.scores), found.indices

    def _similarity(self, query: Tensor, reference: Tensor) -> Tensor:
        distances = self.distance(query, reference)
        return distances if self.distance.is_inverted else -distances

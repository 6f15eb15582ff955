"""Losses and miners: the adapter to pytorch-metric-learning, and those that it lacks."""
from __future__ import annotations

from .average_precision import RoadmapLoss, SmoothAveragePrecisionLoss
from .distance_weighted import DistanceWeightedTripletMiner
from .interface import Interface
from .softmax import AdaptiveSubCenterArcFaceLoss, LearnableTemperatureSoftmaxLoss, adaptive_margins

__all__ = [
    'AdaptiveSubCenterArcFaceLoss', 'DistanceWeightedTripletMiner', 'Interface',
    'LearnableTemperatureSoftmaxLoss', 'RoadmapLoss', 'SmoothAveragePrecisionLoss',
    'adaptive_margins',
]

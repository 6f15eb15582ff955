"""Losses and miners: the adapter to pytorch-metric-learning, and those that it lacks."""
from __future__ import annotations

from .average_precision import RoadmapLoss, SmoothAveragePrecisionLoss
from .distance_weighted import DistanceWeightedTripletMiner
from .margin_softmax import AdaptiveSubCenterArcFaceLoss, adaptive_margins
from .temperature_softmax import LearnableTemperatureSoftmaxLoss

__all__ = [
    'AdaptiveSubCenterArcFaceLoss', 'DistanceWeightedTripletMiner',
    'LearnableTemperatureSoftmaxLoss', 'RoadmapLoss', 'SmoothAveragePrecisionLoss',
    'adaptive_margins',
]

"""Heads: from embeddings and labels to losses.

pytorch-metric-learning is imported when one of its parts is first asked for, not here: the scope
``PML`` of :mod:`retrieval.registry` loads :mod:`retrieval.heads.pml`.
"""
from __future__ import annotations

from .average_precision import RoadmapLoss, SmoothAveragePrecisionLoss
from .bn_neck_head import BNNeckHead
from .classification_head import ClassificationHead
from .distance_weighted import DistanceWeightedTripletMiner
from .embedding_queue import EmbeddingQueue
from .logits_head import LogitsHead
from .margin_softmax import AdaptiveSubCenterArcFaceLoss, adaptive_margins
from .memory import CrossBatchMemory
from .metric_head import MetricHead
from .temperature_softmax import LearnableTemperatureSoftmaxLoss

__all__ = [
    'AdaptiveSubCenterArcFaceLoss', 'BNNeckHead', 'ClassificationHead', 'CrossBatchMemory',
    'DistanceWeightedTripletMiner', 'EmbeddingQueue', 'LearnableTemperatureSoftmaxLoss',
    'LogitsHead', 'MetricHead', 'RoadmapLoss', 'SmoothAveragePrecisionLoss', 'adaptive_margins',
]

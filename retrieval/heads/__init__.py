"""Heads: from embeddings and labels to losses.

pytorch-metric-learning is imported when one of its parts is first asked for, not here: the scope
``PML`` of :mod:`retrieval.registry` loads :mod:`retrieval.losses.pml`.
"""
from __future__ import annotations

from .bn_neck_head import BNNeckHead
from .classification_head import ClassificationHead, LogitsHead
from .cross_batch_memory import CrossBatchMemory, EmbeddingQueue
from .metric_head import MetricHead

__all__ = [
    'BNNeckHead', 'ClassificationHead', 'CrossBatchMemory', 'EmbeddingQueue', 'LogitsHead',
    'MetricHead',
]

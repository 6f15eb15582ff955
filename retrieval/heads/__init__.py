"""Heads: from embeddings and labels to losses.

pytorch-metric-learning is imported when one of its parts is first asked for, not here: the scope
``PML`` of :mod:`retrieval.registry` loads :mod:`retrieval.heads.pml`.
"""
from __future__ import annotations

from .classification_head import ClassificationHead
from .logits_head import LogitsHead
from .metric_head import MetricHead

__all__ = ['ClassificationHead', 'LogitsHead', 'MetricHead']

"""Evaluation: pure functions over exact rankings, and the metrics that a config names."""
from __future__ import annotations

from .functional import DEFAULT_METRICS, evaluate, query_values, summarise
from .gathered import GatheredMetric
from .metrics import EmbeddingMetrics
from .names import VALID_NAMES, Measure, parse_metric, parse_metrics
from .ranked_lists import RetrievalAveragePrecision, RetrievalRecall

__all__ = ['DEFAULT_METRICS', 'EmbeddingMetrics', 'GatheredMetric', 'Measure',
           'RetrievalAveragePrecision', 'RetrievalRecall', 'VALID_NAMES', 'evaluate',
           'parse_metric', 'parse_metrics', 'query_values', 'summarise']

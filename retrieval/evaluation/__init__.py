"""Evaluation: pure functions over exact rankings, and the metrics that a config names."""
from __future__ import annotations

from .clusters import (
    adjusted_mutual_information,
    evaluate_clusters,
    normalized_mutual_information,
)
from .figures import QueryFigures, compare
from .functional import DEFAULT_METRICS, evaluate, rank_queries
from .gathered import GatheredMetric
from .metrics import EmbeddingMetrics
from .names import VALID_NAMES, Measure, parse_metric, parse_metrics
from .protocols import (
    PROTOCOLS,
    Level,
    Protocol,
    evaluate_protocol,
    rank_protocol,
    refuse_beside_protocol,
    resolve_protocol,
)
from .query_values import query_values
from .ranked_lists import RetrievalAveragePrecision, RetrievalRecall
from .relations import shares_a_label
from .testers import evaluate_levels, evaluate_splits, evaluate_within_parents

__all__ = [
    'DEFAULT_METRICS', 'EmbeddingMetrics', 'GatheredMetric', 'Level', 'Measure',
    'PROTOCOLS', 'Protocol', 'QueryFigures',
    'RetrievalAveragePrecision', 'RetrievalRecall', 'VALID_NAMES', 'adjusted_mutual_information',
    'compare', 'evaluate', 'evaluate_clusters', 'evaluate_levels', 'evaluate_protocol',
    'evaluate_splits',
    'evaluate_within_parents', 'normalized_mutual_information', 'parse_metric', 'parse_metrics',
    'query_values', 'rank_protocol', 'rank_queries',
    'refuse_beside_protocol', 'resolve_protocol', 'shares_a_label',
]

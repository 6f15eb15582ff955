"""Evaluation: pure functions over exact rankings, and the metrics that a config names."""
from __future__ import annotations

from .calibration import (
    MatchCalibration,
    calibrate,
    calibrate_pairs,
    choose_threshold,
    isotonic_knots,
    platt_scaling,
)
from .clustering import (
    adjusted_mutual_information,
    evaluate_clusters,
    normalized_mutual_information,
)
from .embedding_metrics import EmbeddingMetrics
from .evaluate import (
    DEFAULT_METRICS,
    evaluate,
    evaluate_levels,
    evaluate_splits,
    evaluate_within_parents,
    query_values,
    rank_queries,
)
from .gallery_comparison import GalleryComparison, compare_galleries
from .gathered_metric import GatheredMetric
from .metrics import VALID_NAMES, Measure, parse_metric, parse_metrics
from .protocols import (
    PROTOCOLS,
    Level,
    Protocol,
    evaluate_protocol,
    rank_protocol,
    refuse_beside_protocol,
    resolve_protocol,
)
from .relevance import shares_a_label
from .results import QueryFigures, compare
from .search_metrics import RetrievalAveragePrecision, RetrievalRecall
from .verification import (
    PairFigures,
    PairScores,
    RocCurve,
    count_pairs,
    equal_error_rate,
    figures_at,
    pairs_within,
    precision_recall_curve,
    roc_auc,
    roc_curve,
    tar_at_far,
    threshold_at_best_f1,
    threshold_at_far,
    threshold_at_precision,
)

__all__ = [
    'DEFAULT_METRICS', 'EmbeddingMetrics', 'GalleryComparison', 'GatheredMetric', 'Level',
    'MatchCalibration', 'Measure', 'PROTOCOLS', 'PairFigures', 'PairScores', 'Protocol',
    'QueryFigures', 'RetrievalAveragePrecision', 'RetrievalRecall', 'RocCurve', 'VALID_NAMES',
    'adjusted_mutual_information', 'calibrate', 'calibrate_pairs', 'choose_threshold', 'compare',
    'compare_galleries', 'count_pairs', 'equal_error_rate', 'evaluate', 'evaluate_clusters',
    'evaluate_levels', 'evaluate_protocol', 'evaluate_splits', 'evaluate_within_parents',
    'figures_at', 'isotonic_knots', 'normalized_mutual_information', 'pairs_within', 'parse_metric',
    'parse_metrics', 'platt_scaling', 'precision_recall_curve', 'query_values', 'rank_protocol',
    'rank_queries', 'refuse_beside_protocol', 'resolve_protocol', 'roc_auc', 'roc_curve',
    'shares_a_label', 'tar_at_far', 'threshold_at_best_f1', 'threshold_at_far',
    'threshold_at_precision',
]

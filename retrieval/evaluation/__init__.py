"""Evaluation: pure functions over exact rankings, and the metrics that a config names."""
from __future__ import annotations

from .calibration import MatchCalibration, calibrate, calibrate_pairs, choose_threshold
from .clustering import (
    adjusted_mutual_information,
    evaluate_clusters,
    normalized_mutual_information,
)
from .embedding_metrics import EmbeddingMetrics
from .evaluate import (
    evaluate,
    evaluate_levels,
    evaluate_splits,
    evaluate_within_parents,
    rank_queries,
)
from .gallery_comparison import GalleryComparison, compare_galleries
from .metrics import metric, metric_names, per_query
from .principal_components import principal_component_fraction
from .protocols import PROTOCOLS, Protocol, evaluate_protocol
from .relevance import shares_a_label
from .results import QueryResults, compare
from .search_metrics import RetrievalAveragePrecision, RetrievalRecall
from .single_shot import single_shot_cmc
from .task import EmbeddingSet, EvaluationTask
from .verification import (
    PairResults,
    PairScores,
    RocCurve,
    count_pairs,
    equal_error_rate,
    false_non_match_rate,
    pairs_of,
    pairs_within,
    precision_recall_curve,
    results_at,
    roc_auc,
    roc_curve,
    tar_at_far,
    threshold_at_best_f1,
    threshold_at_far,
    threshold_at_precision,
)
from .without_labels import calibrate_without_labels

__all__ = [
    'EmbeddingMetrics', 'EmbeddingSet', 'EvaluationTask', 'GalleryComparison', 'MatchCalibration',
    'PROTOCOLS', 'PairResults', 'PairScores', 'Protocol', 'QueryResults',
    'RetrievalAveragePrecision', 'RetrievalRecall', 'RocCurve', 'adjusted_mutual_information',
    'calibrate', 'calibrate_pairs', 'calibrate_without_labels', 'choose_threshold', 'compare',
    'compare_galleries', 'count_pairs', 'equal_error_rate', 'evaluate', 'evaluate_clusters',
    'evaluate_levels', 'evaluate_protocol', 'evaluate_splits', 'evaluate_within_parents',
    'false_non_match_rate',
    'metric', 'metric_names', 'normalized_mutual_information', 'pairs_of', 'pairs_within',
    'per_query', 'precision_recall_curve', 'principal_component_fraction', 'rank_queries',
    'results_at', 'roc_auc', 'roc_curve', 'shares_a_label', 'single_shot_cmc', 'tar_at_far',
    'threshold_at_best_f1', 'threshold_at_far', 'threshold_at_precision',
]

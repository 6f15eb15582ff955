"""A run as one HTML file: its metrics, what fails, and how it compares with another run."""
from __future__ import annotations

from .comparison import MetricComparison, RunComparison, compare_runs
from .findings import (
    Confusion,
    FirstResults,
    Hubs,
    SimilarPair,
    Suspect,
    WorstQuery,
    confusions,
    first_results,
    hubs,
    most_similar_pairs,
    ranking_curve,
    sampled,
    suspects,
    worst_queries,
)
from .page import write_comparison, write_report
from .run import Run, run_of_test, with_embedding_metrics
from .summary import Summary, summarize
from .training import Training, read_training

__all__ = [
    'Confusion', 'FirstResults', 'Hubs', 'MetricComparison', 'Run', 'RunComparison', 'SimilarPair',
    'Summary', 'Suspect', 'Training', 'WorstQuery', 'compare_runs', 'confusions', 'first_results',
    'hubs', 'most_similar_pairs', 'ranking_curve', 'read_training', 'run_of_test', 'sampled',
    'summarize', 'suspects', 'with_embedding_metrics', 'worst_queries', 'write_comparison',
    'write_report',
]

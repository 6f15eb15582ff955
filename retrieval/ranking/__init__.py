"""The exact ranking engine: top-k, ranks of the relevant rows, range search, in tiles."""
from __future__ import annotations

from .clustering import kmeans
from .radius import RangeNeighbors, within
from .ranks import BEYOND, Depth, RelevantRanks
from .rowsets import RowSets, paired_labels
from .scoring import TILE_BUDGET, PreparedGallery, checked_precision, prepared_rows
from .streaming import is_shallow, ranks_among_themselves, relevant_ranks
from .topk import topk
from .vectors import as_vectors

__all__ = [
    'BEYOND', 'Depth', 'PreparedGallery', 'RangeNeighbors', 'RelevantRanks', 'RowSets',
    'TILE_BUDGET', 'as_vectors', 'checked_precision', 'is_shallow', 'kmeans', 'paired_labels',
    'prepared_rows', 'ranks_among_themselves', 'relevant_ranks', 'topk', 'within',
]

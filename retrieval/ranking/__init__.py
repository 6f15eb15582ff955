"""The exact ranking engine: top-k, ranks of the relevant rows, range search, in tiles."""
from __future__ import annotations

from .clustering import kmeans
from .prepared import TILE_BUDGET, PreparedGallery, as_vectors, checked_precision, prepared_rows
from .range_search import RangeNeighbors, within
from .ranks import BEYOND, Depth, RelevantRanks
from .relevant_ranks import is_shallow, ranks_among_themselves, relevant_ranks
from .row_sets import RowSets, paired_labels
from .topk import topk

__all__ = [
    'BEYOND', 'Depth', 'PreparedGallery', 'RangeNeighbors', 'RelevantRanks', 'RowSets',
    'TILE_BUDGET', 'as_vectors', 'checked_precision', 'is_shallow', 'kmeans', 'paired_labels',
    'prepared_rows', 'ranks_among_themselves', 'relevant_ranks', 'topk', 'within',
]

"""The exact ranking engine: top-k, ranks of the relevant rows, range search, in tiles."""
from __future__ import annotations

from .radius import RangeNeighbors, within
from .ranks import BEYOND, Depth, RelevantRanks, relevant_ranks
from .rowsets import RowSets, paired_labels
from .scoring import TILE_BUDGET, PreparedGallery, prepared_rows
from .topk import topk
from .vectors import as_vectors

__all__ = ['BEYOND', 'Depth', 'PreparedGallery', 'RangeNeighbors', 'RelevantRanks', 'RowSets',
           'TILE_BUDGET', 'as_vectors', 'paired_labels', 'prepared_rows', 'relevant_ranks', 'topk',
           'within']

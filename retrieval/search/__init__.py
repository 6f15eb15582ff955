"""Images in, answers out: searching, comparing and grouping images from anywhere."""
from __future__ import annotations

from ..answers import expand
from ..encoded_folder import cache_beside
from .clusters import Clusters, cluster
from .duplicates import Duplicates, find_duplicates
from .inferencer import ImageRetrievalInferencer

__all__ = [
    'Clusters', 'Duplicates', 'ImageRetrievalInferencer', 'cache_beside', 'cluster', 'expand',
    'find_duplicates',
]

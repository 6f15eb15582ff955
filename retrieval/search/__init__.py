"""Images in, answers out: searching, comparing and grouping images from anywhere."""
from __future__ import annotations

from .clusters import Clusters, cluster
from .duplicates import Duplicates, find_duplicates
from .folder import cache_beside
from .inferencer import ImageRetrievalInferencer, expand

__all__ = [
    'Clusters', 'Duplicates', 'ImageRetrievalInferencer', 'cache_beside', 'cluster', 'expand',
    'find_duplicates',
]

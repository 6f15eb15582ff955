"""Images in, answers out: searching, comparing and grouping images from anywhere."""
from __future__ import annotations

from .clusters import Clusters, cluster
from .duplicates import Duplicates, find_duplicates
from .folder import CacheReport, cache_beside, cached_gallery
from .inferencer import ImageRetrievalInferencer, expand

__all__ = [
    'CacheReport', 'Clusters', 'Duplicates', 'ImageRetrievalInferencer', 'cache_beside',
    'cached_gallery', 'cluster', 'expand', 'find_duplicates',
]

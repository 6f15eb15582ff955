"""Images in, answers out: searching, comparing and grouping images from anywhere."""
from __future__ import annotations

from ..answers import expand
from ..encoded_folder import cache_beside
from .clusters import Clusters, cluster
from .duplicates import Duplicates, find_duplicates
from .inferencer import ImageRetrievalInferencer
from .plan import plan_script, plan_table
from .proof import Proof
from .proved_duplicates import ProvedDuplicates, prove_duplicates

__all__ = [
    'Clusters', 'Duplicates', 'ImageRetrievalInferencer', 'Proof', 'ProvedDuplicates',
    'cache_beside', 'cluster', 'expand', 'find_duplicates', 'plan_script', 'plan_table',
    'prove_duplicates',
]

"""Using a trained model: searching, matching and grouping images from anywhere."""
from .clusters import Clusters, cluster
from .custom_knn import CustomKNN
from .duplicates import Duplicates, find_duplicates
from .faiss_indexer import FaissIndexer
from .faiss_kmeans import FaissKMeans
from .faiss_knn import FaissKNN
from .inference_model import InferenceModel
from .inferencer import ImageRetrievalInferencer, expand
from .logit_getter import LogitGetter
from .match_finder import MatchFinder
from .prototype_cache import CacheReport, cache_beside, cached_gallery

__all__ = [
    'CacheReport', 'Clusters', 'CustomKNN', 'Duplicates', 'FaissIndexer', 'FaissKMeans',
    'FaissKNN', 'ImageRetrievalInferencer', 'InferenceModel', 'LogitGetter', 'MatchFinder',
    'cache_beside', 'cached_gallery', 'cluster', 'expand', 'find_duplicates',
]

"""Using a trained model: searching, matching and grouping images from anywhere."""
from __future__ import annotations

from .inference_model import InferenceModel
from .kmeans import FaissKMeans
from .knn import CustomKNN, FaissIndexer, FaissKNN
from .logit_getter import LogitGetter
from .match_finder import MatchFinder

__all__ = [
    'CustomKNN', 'FaissIndexer', 'FaissKMeans', 'FaissKNN', 'InferenceModel', 'LogitGetter',
    'MatchFinder',
]

"""Retrievers: the models that rank a gallery."""
from __future__ import annotations

from .base import BaseRetriever
from .build import build_retriever
from .checkpoint import check_backbone, check_encoder, check_model, load_pretrained, read_state_dict
from .encode import encode, evaluation_mode
from .encoded_file import (
    CacheReport,
    RefusedElsewhere,
    cache_features,
    cached_gallery,
    check_target,
    dump_in_parts,
    write_gallery,
)
from .image_to_image import ImageToImageRetriever
from .momentum import MomentumRetriever
from .prototype import (
    configured_prototype,
    loader_pipeline,
    pipeline_hash,
    pipeline_of,
    warn_of_pipelines,
)
from .self_supervised import ProjectionMLP, SelfSupervisedRetriever

__all__ = [
    'BaseRetriever', 'CacheReport', 'ImageToImageRetriever', 'MomentumRetriever', 'ProjectionMLP',
    'RefusedElsewhere', 'SelfSupervisedRetriever', 'build_retriever', 'cache_features',
    'cached_gallery', 'check_backbone', 'check_encoder', 'check_model', 'check_target',
    'configured_prototype', 'dump_in_parts', 'encode', 'evaluation_mode', 'load_pretrained',
    'loader_pipeline', 'pipeline_hash', 'pipeline_of', 'read_state_dict', 'warn_of_pipelines',
    'write_gallery',
]

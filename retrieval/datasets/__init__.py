"""Datasets of images, the transforms of their pipelines, and samplers."""
from __future__ import annotations

from .base import RetrievalDataset, build_pipeline, plain_config
from .image_io import MissingImageError, UnreadableImageError, read_image
from .sampling_state import DrawIndex, SamplingState, seed_datasets, seeded

__all__ = [
    'DrawIndex', 'MissingImageError', 'RetrievalDataset', 'SamplingState', 'UnreadableImageError',
    'build_pipeline', 'plain_config', 'read_image', 'seed_datasets', 'seeded',
]

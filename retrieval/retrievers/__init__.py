"""Retrievers: the models that rank a gallery."""
from __future__ import annotations

from .base import BaseRetriever
from .dumping import RefusedElsewhere, check_target, dump_in_parts, write_gallery
from .encoding import NothingEncodedError, encode, evaluation_mode
from .image_to_image import ImageToImageRetriever
from .pretrained import (
    check_backbone,
    check_encoder,
    check_model,
    load_pretrained,
    read_state_dict,
)
from .prototype import pipeline_hash, pipeline_of

__all__ = [
    'BaseRetriever', 'ImageToImageRetriever', 'NothingEncodedError', 'RefusedElsewhere',
    'check_backbone', 'check_encoder', 'check_model', 'check_target', 'dump_in_parts', 'encode',
    'evaluation_mode', 'load_pretrained', 'pipeline_hash', 'pipeline_of', 'read_state_dict',
    'write_gallery',
]

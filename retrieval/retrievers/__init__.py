"""Retrievers: the models that rank a gallery."""
from .base import BaseRetriever
from .encoding import NothingEncodedError, encode, evaluation_mode
from .image_to_image import ImageToImageRetriever
from .pretrained import check_encoder, load_pretrained, read_state_dict
from .prototype import pipeline_hash, pipeline_of

__all__ = ['BaseRetriever', 'ImageToImageRetriever', 'NothingEncodedError', 'check_encoder',
           'encode', 'evaluation_mode', 'load_pretrained', 'pipeline_hash', 'pipeline_of',
           'read_state_dict']

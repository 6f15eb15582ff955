"""Using a trained retriever: searching with images from anywhere."""
from .inferencer import ImageRetrievalInferencer, expand

__all__ = ['ImageRetrievalInferencer', 'expand']

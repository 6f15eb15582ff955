"""Galleries: embeddings with ids, labels, metadata and the fingerprint of what made them."""
from .blocks import DamagedError
from .changes import UnknownIdError
from .codec import VECTOR_DTYPES, Vectors
from .fingerprint import Fingerprint, FingerprintError, hash_settings, hash_weights
from .gallery import Gallery
from .pointer import switch
from .reading import is_gallery
from .storage import write_atomically, write_text
from .store import GalleryStore
from .string_column import StringColumn

__all__ = ['DamagedError', 'Fingerprint', 'FingerprintError', 'Gallery', 'GalleryStore',
           'StringColumn', 'UnknownIdError', 'VECTOR_DTYPES', 'Vectors', 'hash_settings',
           'hash_weights', 'is_gallery', 'switch', 'write_atomically', 'write_text']

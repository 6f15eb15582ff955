"""Galleries: embeddings with ids, labels, metadata and the fingerprint of what made them."""
from .fingerprint import Fingerprint, FingerprintError, hash_settings, hash_weights
from .gallery import Gallery
from .storage import write_atomically, write_text
from .string_column import StringColumn

__all__ = ['Fingerprint', 'FingerprintError', 'Gallery', 'StringColumn', 'hash_settings',
           'hash_weights', 'write_atomically', 'write_text']

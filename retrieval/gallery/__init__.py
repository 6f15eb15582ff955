"""Galleries: embeddings with ids, labels, metadata and the fingerprint of what made them."""
from __future__ import annotations

from .column_file import read_column
from .fingerprint import Fingerprint, FingerprintError, hash_settings, hash_weights
from .gallery import Gallery, UnknownIdError
from .imported import import_gallery
from .open import is_gallery, switch
from .store import GalleryStore
from .vectors import Vectors

__all__ = [
    'Fingerprint', 'FingerprintError', 'Gallery', 'GalleryStore', 'UnknownIdError', 'Vectors',
    'hash_settings', 'hash_weights', 'import_gallery', 'is_gallery', 'read_column', 'switch',
]

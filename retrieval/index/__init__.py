"""Indexes: vectors under ids, searched by similarity."""
from __future__ import annotations

from .base import Capabilities, Index
from .binding import check_gallery, gallery_digest
from .exact import ExactIndex
from .faiss_index import FaissIndex

__all__ = ['Capabilities', 'ExactIndex', 'FaissIndex', 'Index', 'check_gallery', 'gallery_digest']

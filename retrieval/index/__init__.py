"""Indexes: vectors under ids, searched by similarity."""
from __future__ import annotations

from .base import Capabilities, Index
from .binding import check_gallery, gallery_digest
from .exact import ExactIndex
from .faiss_index import FaissIndex
from .milvus import MilvusIndex
from .milvus_connection import MilvusError, MilvusUnavailable

__all__ = [
    'Capabilities', 'ExactIndex', 'FaissIndex', 'Index', 'MilvusError', 'MilvusIndex',
    'MilvusUnavailable', 'check_gallery', 'gallery_digest',
]

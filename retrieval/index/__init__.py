"""Indexes: vectors under ids, searched by similarity."""
from __future__ import annotations

from .base import Capabilities, Index, RowIds, check_gallery, gallery_digest
from .exact import ExactIndex
from .faiss.index import FaissIndex
from .lock import changes, reads
from .milvus.connection import MilvusError, MilvusUnavailable
from .milvus.index import MilvusIndex
from .open import index_type, open_index
from .parts import PartsIndex

__all__ = [
    'Capabilities', 'ExactIndex', 'FaissIndex', 'Index', 'MilvusError', 'MilvusIndex',
    'MilvusUnavailable', 'PartsIndex', 'RowIds', 'changes', 'check_gallery', 'gallery_digest',
    'index_type', 'open_index', 'reads',
]

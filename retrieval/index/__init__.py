"""Indexes: vectors under ids, searched by similarity."""
from __future__ import annotations

from .base import Capabilities, Index
from .exact import ExactIndex
from .milvus import MilvusIndex
from .milvus_connection import MilvusError, MilvusUnavailable

__all__ = ['Capabilities', 'ExactIndex', 'Index', 'MilvusError', 'MilvusIndex', 'MilvusUnavailable']

"""Indexes: vectors under ids, searched by similarity."""
from __future__ import annotations

from .base import Capabilities, Index
from .exact import ExactIndex

__all__ = ['Capabilities', 'ExactIndex', 'Index']

"""Rerankers: ``(queries, gallery, neighbors) -> Neighbors``, registered in RERANKERS."""
from __future__ import annotations

from .base import Reranker, SearchState, apply_rerankers, build_rerankers, first_state, rerank
from .diffusion import Diffusion
from .k_reciprocal import KReciprocal
from .local import LocalRerank
from .query_expansion import AlphaQueryExpansion, AverageQueryExpansion, DatabaseAugmentation
from .super_global import SuperGlobalReranking

__all__ = [
    'AlphaQueryExpansion', 'AverageQueryExpansion', 'DatabaseAugmentation', 'Diffusion',
    'KReciprocal', 'LocalRerank', 'Reranker', 'SearchState', 'SuperGlobalReranking',
    'apply_rerankers', 'build_rerankers', 'first_state', 'rerank',
]

"""Rerankers: ``(queries, gallery, neighbors) -> Neighbors``, registered in RERANKERS."""
from __future__ import annotations

from .augmentation import DatabaseAugmentation
from .base import Reranker, first_state
from .chain import apply_rerankers, build_rerankers, rerank
from .diffusion import Diffusion
from .expansion import AlphaQueryExpansion, AverageQueryExpansion
from .k_reciprocal import KReciprocal
from .state import SearchState
from .super_global import SuperGlobalReranking

__all__ = ['AlphaQueryExpansion', 'AverageQueryExpansion', 'DatabaseAugmentation', 'Diffusion',
           'KReciprocal', 'Reranker', 'SearchState', 'SuperGlobalReranking', 'apply_rerankers',
           'build_rerankers', 'first_state', 'rerank']

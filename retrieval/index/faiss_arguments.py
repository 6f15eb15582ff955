"""Checking the arguments of a FaissIndex."""
from __future__ import annotations

from typing import Any

from ..registry import unknown_name
from ..similarity import SIMILARITIES, Similarity, SimilarityFn, resolve_similarity
from .base import Capabilities
from .faiss_engine import FaissEngine
from .faiss_factory import load_faiss
from .faiss_lists import plain_lists


def known_similarity(similarity: str | SimilarityFn | Similarity) -> Similarity:
    """One of the named similarities, which faiss can search by. Raises ValueError for others."""
    chosen = resolve_similarity(similarity)
    if SIMILARITIES.get(chosen.name) is not chosen:
        raise ValueError(unknown_name('similarity of a FaissIndex', chosen.name, SIMILARITIES)
                         + ' ExactIndex takes any callable.')
    return chosen


def at_least(name: str, value: Any, least: float) -> float:
    """``value`` as it is. Raises TypeError for no number, ValueError for less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{name} must be a number, got {value!r}.')
    if not value >= least:
        raise ValueError(f'{name} must be at least {least}, got {value!r}.')
    return value


def checked_capabilities(index: Any, factory: str, similarity: str, rescore: bool,
                         on_disk: bool) -> Capabilities:
    """What an index of this factory can do.

    Args:
        index: an empty index of it, of any width.

    Raises:
        ValueError: the factory cannot be used as it is asked for.
    """
    engine = FaissEngine(index, similarity)
    if isinstance(engine.core, load_faiss().IndexLSH) and not rescore:
        raise ValueError(f'The factory {factory!r} counts differing bits, which are no similarity: '
                         'use it with rescore=True.')
    if on_disk and not (engine.given and plain_lists(engine.core)):
        raise ValueError(f'on_disk keeps plain inverted lists in a file, and {factory!r} has none: '
                         "use an IVF factory without 'fs' and without refinement (rescore=True "
                         "refines), such as 'IVF4096,PQ32'.")
    return Capabilities(exact=engine.exact, removal=True, filters=True, range_search=True,
                        training=not engine.trained)

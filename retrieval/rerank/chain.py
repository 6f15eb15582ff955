"""Rerankers in a list, and re-ranking without a retriever."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..gallery import Gallery
from ..ranking import as_vectors
from ..registry import RERANKERS
from ..similarity import Similarity, SimilarityFn, resolve_similarity
from ..structures import Neighbors
from .base import Reranker, first_state, positive_integer
from .state import SearchState


def build_rerankers(steps: Any, similarity: Similarity) -> list[Any]:
    """Rerankers from configs, or as they are.

    Args:
        steps: None, a config or a reranker, or a list of them.
        similarity: of the search that they follow.

    Raises:
        TypeError: a step is neither a config nor callable.
        ValueError: a type is unknown, an argument is wrong, or a step does not fit the similarity.
    """
    if steps is None:
        return []
    if isinstance(steps, (str, bytes)) or not isinstance(steps, (Sequence, Mapping)) \
            and not callable(steps):
        raise TypeError('rerank must be a list of rerankers, such as '
                        f"[dict(type='KReciprocal')], got {steps!r}.")
    if isinstance(steps, Mapping) or callable(steps):
        steps = [steps]
    built = []
    for step in steps:
        step = RERANKERS.build(dict(step)) if isinstance(step, Mapping) else step
        if not callable(step):
            raise TypeError('A reranker must be a config with a type or a callable (queries, '
                            f'gallery, neighbors) -> Neighbors, got {type(step).__name__}.')
        if isinstance(step, Reranker):
            step.check_similarity(similarity)
        built.append(step)
    return built


def apply_rerankers(rerankers: Sequence[Any], state: SearchState) -> Neighbors:
    """What a search found after all steps, in turn; see :class:`Reranker`.

    Raises:
        TypeError: a step returned no Neighbors.
        ValueError: it returned those of another number of queries.
    """
    for reranker in rerankers:
        if not len(state.queries):
            break
        if isinstance(reranker, Reranker):
            state = reranker.refine(state)
            continue
        neighbors = reranker(state.queries, state.gallery, state.neighbors)
        if not isinstance(neighbors, Neighbors):
            raise TypeError(f'The reranker {_name(reranker)} must return Neighbors, got '
                            f'{type(neighbors).__name__}.')
        if len(neighbors) != len(state.queries):
            raise ValueError(f'The reranker {_name(reranker)} returned neighbors of '
                             f'{len(neighbors)} queries for {len(state.queries)}.')
        state = state.changed(found=neighbors)
    return state.neighbors


def rerank(queries: Any, gallery: Any, rerankers: Any, k: int | None = None,
           similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
           own_rows: Any = None) -> Neighbors:
    """Exact search and re-ranking of plain vectors.

    Args:
        queries: ``(Q, D)`` floats, an array or tensor.
        gallery: ``(N, D)`` floats, or a :class:`Gallery`, with which what the steps compute once
            is kept for further calls.
        rerankers: a config such as ``dict(type='KReciprocal')``, a reranker, or a list of them.
        k: how many results; None for all.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        own_rows: ``(Q,)`` integers, the row that is the query itself, which it does not find, -1
            for none: ``range(len(gallery))`` where the queries are the gallery.

    Returns:
        Scores ``(Q, k)`` float32 descending and rows ``(Q, k)`` int64.

    Raises:
        TypeError, ValueError: vectors, k, own_rows or a step are wrong, or do not fit each other.
    """
    resolved = resolve_similarity(similarity)
    steps = build_rerankers(rerankers, resolved)
    held = gallery if isinstance(gallery, Gallery) else Gallery(as_vectors(gallery, 'gallery'))
    vectors = as_vectors(queries, 'queries', held.dim)
    own = list(own_rows) if isinstance(own_rows, range) else own_rows
    count = len(held) if k is None else min(positive_integer('k', k), len(held))
    return apply_rerankers(steps, first_state(vectors, held, count, resolved, own, gallery_ids=(
        held.ids if held.identified else None)))


def _name(reranker: Any) -> str:
    return getattr(reranker, '__name__', type(reranker).__name__)

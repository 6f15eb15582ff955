"""Re-ranking: the contract of a reranker, the state between two of them, and lists of them."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..checks import whole_number
from ..gallery import Gallery
from ..ranking import PreparedGallery, as_vectors, topk
from ..ranking.lists import best_of_lists
from ..registry import RERANKERS
from ..similarity import Similarity, SimilarityFn, resolve_similarity
from ..structures import Neighbors

# Beside the galleries and not in the rerankers, which are copied and pickled with a model. An entry
# goes with its gallery.
ReadPicture = Callable[[int], Any]
_KEPT: WeakKeyDictionary[Gallery, dict[Hashable, tuple[Hashable, Any]]] = WeakKeyDictionary()


class Reranker(ABC):
    """A step between the index and the result: ``(queries, gallery, neighbors) -> Neighbors``.

    Any callable with this contract may be registered in RERANKERS:

    - ``queries (Q, D)`` float32, the embeddings that were searched for; ``gallery`` the
      :class:`Gallery`; ``neighbors`` what the search, or the step before, found, ``(Q, k)``.
    - The result has at most k columns, scores float32, finite and descending in every row, the
      lower row first among equal scores, and short rows end in ``-inf`` and -1.
    - A query's result is a function of this query and the gallery, whatever the queries beside it,
      so that it depends neither on the batch size nor on the number of processes.
    - A query in the gallery never finds its own row.

    Steps of a list are applied in turn. Those that derive from this class hand a
    :class:`SearchState` on (:meth:`refine`), so that a step may also change what is searched for
    (query expansion) or the vectors that are searched in (database augmentation): those after it
    work on the changed ones. The steps that give a new order (k-reciprocal, diffusion, SuperGlobal)
    leave queries and vectors as they are.

    Example:
        >>> class Reversed(Reranker):
        ...     def refine(self, state):
        ...         found = state.neighbors
        ...         return state.ranked(-found.scores.flip(1), found.indices.flip(1))
        >>> rerank(torch.eye(2)[:1], torch.eye(2), Reversed()).indices
        tensor([[1, 0]])
    """

    similarities: tuple[str, ...] | None = None  # those that it works with; None for any

    @abstractmethod
    def refine(self, state: SearchState) -> SearchState:
        """The state after this step."""

    def check_similarity(self, similarity: Similarity) -> None:
        """Raise ValueError where the step makes no sense with this similarity."""
        if self.similarities is not None and similarity.name not in self.similarities:
            raise ValueError(
                f'{type(self).__name__} wants similarity_fn to be '
                f'{" or ".join(map(repr, self.similarities))}, got {similarity.name!r}: '
                f'{self.reason()}')

    def reason(self) -> str:
        """The end of the message: why other similarities are refused, and what to write instead."""
        return f"set similarity_fn='{(self.similarities or ('',))[0]}'."

    def __call__(self, queries: Any, gallery: Gallery, neighbors: Neighbors,
                 similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
                 own_rows: Tensor | None = None) -> Neighbors:
        """This step alone.

        Args:
            queries: ``(Q, D)`` floats.
            gallery: the gallery that was searched.
            neighbors: what was found in it.
            similarity: with which it was searched.
            own_rows: ``(Q,)`` int64, the row of each query in the gallery, -1 where there is none.

        Raises:
            TypeError, ValueError: the arguments do not fit each other, or the similarity does not
                fit the step.
        """
        if len(neighbors) != len(queries):
            raise ValueError(f'There are neighbors of {len(neighbors)} queries, but {len(queries)} '
                             'queries.')
        state = first_state(queries, gallery, neighbors.indices.shape[1], similarity, own_rows,
                            found=neighbors, gallery_ids=neighbors.gallery_ids)
        self.check_similarity(state.similarity)
        return self.refine(state).neighbors if len(state.queries) and state.k else neighbors


@dataclass(frozen=True)
class SearchState:
    """A search between two steps: what is searched for, in what, and what was found.

    Args:
        queries: the vectors that are searched for, ``(Q, D)`` float32.
        gallery: whose embeddings are searched.
        similarity: of queries and embeddings.
        own_rows: ``(Q,)`` int64, the row of the gallery that holds the query itself, which it must
            not find; -1 where there is none.
        k: how many results a query gets.
        found: the results so far, ``(Q, k)``; None where they are those of a search for the queries
            in the gallery, which is made when it is needed.
        engine: ``(queries, k) -> Neighbors``, an index over this gallery that leaves out the own
            rows; exact search where it is None.
        gallery_ids: the id of every row, for the result.
        query_picture, row_picture: the picture ``(H, W)`` or ``(H, W, 3)`` uint8 of a query and of
            a row of the gallery by its number, or None where it has none; themselves None where
            vectors are searched.
    """

    queries: Tensor
    gallery: Gallery
    similarity: Similarity
    own_rows: Tensor
    k: int
    found: Neighbors | None = None
    engine: Callable[[Tensor, int], Neighbors] | None = None
    gallery_ids: Sequence[str] | None = None
    query_picture: ReadPicture | None = None
    row_picture: ReadPicture | None = None

    @property
    def neighbors(self) -> Neighbors:
        """The results at this point, ``(Q, k)``."""
        return self.nearest(self.k) if self.found is None else self.found

    @property
    def prepared(self) -> PreparedGallery:
        """The gallery as exact search wants it, on the queries' device; made once."""
        return self.kept('prepared', lambda: PreparedGallery(
            self.gallery.embeddings.to(self.queries.device), self.similarity))

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """A value that ``make`` returned once for this gallery, similarity, device and key.

        It is called again after the gallery's embeddings were replaced or written to, and what it
        returned goes with the gallery.
        """
        kept = _KEPT.setdefault(self.gallery, {})
        embeddings = self.gallery.embeddings
        version = (embeddings.data_ptr(), tuple(embeddings.shape),
                   0 if embeddings.is_inference() else embeddings._version)
        key = key, self.similarity, str(self.queries.device)
        if key not in kept or kept[key][0] != version:
            kept[key] = (version, make())
        return kept[key][1]

    def changed(self, **fields: Any) -> SearchState:
        """The state with other fields."""
        return replace(self, **fields)

    def nearest(self, count: int) -> Neighbors:
        """The ``count`` nearest rows of every query, whatever order the last step gave."""
        if self.engine is not None:
            return self.named(*self.engine(self.queries, count))
        return self.named(*topk(self.queries, self.prepared, count, exclude=self.own_rows))

    def first(self, count: int) -> Neighbors:
        """The first ``count`` rows in the present order; at most k where a step gave another order
        than a search.
        """
        if self.found is None:
            return self.nearest(count)
        return self.named(self.found.scores[:, :count], self.found.indices[:, :count])

    def named(self, scores: Tensor, indices: Tensor) -> Neighbors:
        """Neighbors with the ids of the gallery."""
        return Neighbors(scores, indices, self.gallery_ids)

    def ranked(self, scores: Tensor, rows: Tensor) -> SearchState:
        """The state after a step that gave another order.

        Args:
            scores: ``(Q, M)`` float32 descending, at most k are kept; ``-inf`` for none.
            rows: ``(Q, M)`` int64, -1 for none.
        """
        width = min(self.k, int((rows >= 0).sum(dim=1).max()) if rows.numel() else 0)
        device = self.queries.device
        return self.changed(found=self.named(scores[:, :width].to(device),
                                             rows[:, :width].to(device)))

    def settled(self, found: Neighbors, scores: Tensor, scored: Tensor) -> SearchState:
        """The state where some candidates have new scores and the others keep their order, behind.

        Args:
            found: the candidates, ``(Q, M)``, with the scores that order them.
            scores: their new scores ``(Q, M)``.
            scored: ``(Q, M)`` bool, which of them are meant.

        A candidate without a new score gets its old one, moved as a whole below the lowest new one.
        """
        rest = ~scored & found.valid
        lowest = scores.masked_fill(~scored, torch.inf).amin(dim=1, keepdim=True)
        highest = found.scores.masked_fill(~rest, -torch.inf).amax(dim=1, keepdim=True)
        gap = 1e-6 * lowest.abs().clamp(min=1)
        moved = torch.where(scored.any(dim=1, keepdim=True),
                            lowest - gap - (highest - found.scores), found.scores)
        scores = torch.where(scored, scores, moved).masked_fill(~found.valid, -torch.inf)
        return self.ranked(*best_of_lists(scores, found.indices, self.k))


def rerank(queries: Any, gallery: Any, rerankers: Any, k: int | None = None,
           similarity: str | SimilarityFn | Similarity = 'cosine_similarity',
           own_rows: Any = None, *, query_pictures: Sequence[Any] | None = None,
           pictures: Sequence[Any] | None = None) -> Neighbors:
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
        query_pictures, pictures: the pictures of the queries and of the gallery's rows, ``(H, W)``
            or ``(H, W, 3)`` uint8 or None, for steps that compare them; what has ``[number]``, and
            may read a picture then.

    Returns:
        Scores ``(Q, k)`` float32 descending and rows ``(Q, k)`` int64.

    Raises:
        TypeError, ValueError: vectors, k, own_rows or a step are wrong, or do not fit each other.

    Example:
        >>> embeddings = torch.tensor([[1., 0.], [1., 1.], [0., 1.]])
        >>> found = rerank(embeddings, embeddings, dict(type='AverageQueryExpansion', top_n=1),
        ...                k=1, own_rows=range(3))
        >>> found.indices.tolist()
        [[1], [0], [1]]
    """
    resolved = resolve_similarity(similarity)
    steps = build_rerankers(rerankers, resolved)
    held = gallery if isinstance(gallery, Gallery) else Gallery(as_vectors(gallery, 'gallery'))
    vectors = as_vectors(queries, 'queries', held.dim)
    own = list(own_rows) if isinstance(own_rows, range) else own_rows
    count = len(held) if k is None else min(whole_number('k', k), len(held))
    return apply_rerankers(steps, first_state(
        vectors, held, count, resolved, own, gallery_ids=held.ids if held.identified else None,
        query_picture=None if query_pictures is None else query_pictures.__getitem__,
        row_picture=None if pictures is None else pictures.__getitem__))


def build_rerankers(steps: Any, similarity: Similarity) -> list[Any]:
    """Rerankers from configs, or as they are.

    Args:
        steps: None, a config or a reranker, or a list of them.
        similarity: of the search that they follow.

    Raises:
        TypeError: a step is neither a config nor callable.
        ValueError: a type is unknown, an argument is wrong, or a step does not fit the similarity.

    Example:
        >>> steps = build_rerankers(dict(type='Diffusion'), resolve_similarity('cosine_similarity'))
        >>> [type(step).__name__ for step in steps]
        ['Diffusion']
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
    """The results of a search after all steps, in turn; see :class:`Reranker`.

    Raises:
        TypeError: a step returned no Neighbors.
        ValueError: it returned those of another number of queries.

    Example:
        >>> gallery = Gallery(torch.eye(3))
        >>> state = first_state(torch.eye(3)[:1], gallery, 1, 'cosine_similarity', own_rows=[0])
        >>> apply_rerankers([], state).indices
        tensor([[1]])
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


def first_state(queries: Any, gallery: Gallery, k: int, similarity: str | SimilarityFn | Similarity,
                own_rows: Any = None, **fields: Any) -> SearchState:
    """The state before the first step.

    Args:
        queries: ``(Q, D)`` floats.
        gallery: the gallery that is searched, N rows of width D.
        k: how many results are wanted.
        similarity: with which it is searched.
        own_rows: ``(Q,)`` integers, the row of each query in the gallery, -1 where there is none.
        fields: others of :class:`SearchState`.

    Raises:
        TypeError, ValueError: the arguments do not fit each other.

    Example:
        >>> state = first_state(torch.eye(3), Gallery(torch.eye(3)), 1, 'euclidean', [0, 1, 2])
        >>> state.neighbors.indices
        tensor([[1],
                [0],
                [0]])
    """
    vectors = as_vectors(queries, 'queries', gallery.dim)
    own = torch.full((len(vectors),), -1) if own_rows is None else torch.as_tensor(own_rows)
    own = own.to(torch.int64) if own.numel() == 0 else own  # an empty list has no type
    if own.dtype.is_floating_point or own.dtype == torch.bool or own.shape != (len(vectors),):
        raise ValueError(f'own_rows must be integers ({len(vectors)},), the row of each query in '
                         f'the gallery or -1, got {own.dtype} {tuple(own.shape)}.')
    if len(own) and (int(own.min()) < -1 or int(own.max()) >= len(gallery)):
        raise ValueError(f'own_rows must lie between -1 and {len(gallery) - 1}, got '
                         f'{int(own.min())} to {int(own.max())}.')
    return SearchState(vectors, gallery, resolve_similarity(similarity),
                       own.to(torch.int64).cpu(), k, **fields)


def _name(reranker: Any) -> str:
    return getattr(reranker, '__name__', type(reranker).__name__)

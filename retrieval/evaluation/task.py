"""An evaluation as data: queries, the gallery that they rank, what is relevant and what is not
ranked.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import same_length, some_of
from ..gallery import Gallery, is_gallery, read_column
from ..ranking import TILE_BUDGET, PreparedGallery, RowSets, as_vectors
from ..similarity import Similarity, SimilarityFn
from .relevance import (
    RelevanceLike,
    as_relevance,
    label_codes,
    same_as_query,
    same_ids,
    united,
)

_BLOCK = 1000  # queries looked at in turn


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of queries or of a gallery, and what is known of each row.

    Args:
        embeddings: ``(N, D)`` floats.
        labels: the classes ``(N,)``, whole numbers or strings.
        ids: ``(N,)``, equal for the same picture.
        metadata: further columns ``(N,)`` by name, such as ``camera``.
        label_names: the name of class i at place i, where labels are numbers.

    Example:
        >>> EmbeddingSet([[1., 0.]], ['cat'], metadata={'camera': [3]}).labels
        ['cat']
    """

    embeddings: Any
    labels: Any = None
    ids: Sequence[Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    label_names: Sequence[Any] = ()

    @classmethod
    def of_gallery(cls, gallery: Gallery) -> EmbeddingSet:
        """The set of a gallery, its labels by name where it has names: two galleries may number
        classes apart.
        """
        labels: Any = gallery.labels
        if labels is not None and gallery.label_names is not None:
            labels = [gallery.label_name(row) for row in range(len(gallery))]
        return cls(gallery.embeddings, labels, gallery.ids if gallery.identified else None,
                   gallery.metadata)

    @classmethod
    def load(cls, path: str, labels: str | None = None,
             metadata: Mapping[str, str | None] | None = None) -> EmbeddingSet:
        """Read embeddings and their columns from files.

        Args:
            path: a ``.npy`` file ``(N, D)`` or a gallery, which brings columns of its own.
            labels: a file for :func:`retrieval.gallery.read_column`, in the place of the gallery's
                labels.
            metadata: such files by the name of the column; None for the gallery's own.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged or holds something else.
        """
        if not is_gallery(path):
            raise FileNotFoundError(f'There are no embeddings at {path!r}.')
        own = cls.of_gallery(Gallery.load(path))
        read = {name: read_column(file, f'{name}s') for name, file in (metadata or {}).items()
                if file is not None}
        return cls(own.embeddings, own.labels if labels is None else read_column(labels), own.ids,
                   {**own.metadata, **read})


@dataclass(frozen=True)
class EvaluationTask:
    """Queries, the gallery that they rank, what is relevant, and what is not ranked.

    A query never ranks the rows of the gallery with its own id; without a gallery, never itself.

    Args:
        queries: Q of them.
        gallery: N rows; None where every query is ranked against all others (leave-one-out).
        relevance: replaces equality of labels: a boolean ``(Q, N)``, a callable from query rows
            ``(B,)`` to a boolean ``(B, N)``, or a list of rows for each query.
        junk: rows that are taken out before ranking, in the same forms.
        exclude_same: columns of the metadata, such as ``camera``; a query does not rank rows of
            its own class that share its value.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.

    What does not fit together raises ValueError or TypeError where it is first used.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 7, 8]))
        >>> task.labels[0]
        tensor([7, 7, 8])
    """

    queries: EmbeddingSet
    gallery: EmbeddingSet | None = None
    relevance: RelevanceLike | None = None
    junk: RelevanceLike | None = None
    exclude_same: tuple[str, ...] = ()
    similarity: str | SimilarityFn | Similarity = 'cosine_similarity'

    @cached_property
    def query_vectors(self) -> Tensor:
        """``(Q, D)``."""
        vectors = as_vectors(self.queries.embeddings, 'embeddings')
        if not len(vectors):
            raise ValueError('There are no queries: embeddings is empty.')
        return vectors

    @cached_property
    def gallery_vectors(self) -> Tensor:
        """``(N, D)``, those of the queries where every query is ranked against all others."""
        if self.gallery is None:
            return self.query_vectors
        return as_vectors(self.gallery.embeddings, 'gallery', self.query_vectors.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Q and N."""
        return len(self.query_vectors), len(self.gallery_vectors)

    @cached_property
    def labels(self) -> tuple[Tensor | None, Tensor | None]:
        """The classes of queries ``(Q,)`` and gallery ``(N,)``, int64, where they are known."""
        return self._label_codes[0], self._label_codes[1]

    @cached_property
    def label_names(self) -> Sequence[Any]:
        """The name of class i at place i, where classes have names."""
        return self._label_codes[2] or self.queries.label_names

    @cached_property
    def _label_codes(self) -> tuple[Tensor | None, Tensor | None, Sequence[Any]]:
        if self.queries.labels is None:
            return None, None, ()
        num_queries, num_rows = self.shape
        theirs = None if self.gallery is None else self.gallery.labels
        numbers, others, names = label_codes(self.queries.labels, theirs)
        same_length('labels', numbers, num_queries, 'embeddings')
        same_length('gallery_labels', others, num_rows, 'rows of the gallery')
        return numbers, numbers if self.gallery is None else others, names

    def relevant_rows(self) -> RowSets:
        """The rows that are relevant to each query."""
        if self.relevance is not None:
            return as_relevance(self.relevance, *self.shape)
        own, theirs = self.labels
        if own is None or theirs is None:
            raise ValueError('Give labels (and gallery_labels, if there is a gallery), or '
                             'relevance.')
        return RowSets.from_labels(own, theirs)

    def excluded_rows(self) -> RowSets | None:
        """The rows that each query does not rank; without a gallery, beside itself."""
        return united(*self._excluded_by.values())

    @cached_property
    def _excluded_by(self) -> dict[str, RowSets | None]:
        """The rows that each query does not rank, by what leaves them out."""
        junk = None if self.junk is None else as_relevance(self.junk, *self.shape)
        theirs = self.queries if self.gallery is None else self.gallery
        return {'they are the query itself': self._own_rows(), 'they are junk': junk, **{
            f"they have the query's {name}": same_as_query(
                name, self.queries.metadata.get(name), theirs.metadata.get(name), *self.labels)
            for name in self.exclude_same}}

    def nothing_relevant(self) -> str:
        """Why no query has a relevant row, where that is so, for an error."""
        relevant, (num_queries, count) = self.relevant_rows(), self.shape
        for start in range(0, num_queries, _BLOCK):  # the first queries that have some tell it
            stop = min(start + _BLOCK, num_queries)
            query, row = relevant.block(start, stop)
            others = (query + start != row) if self.gallery is None else (row >= 0)
            keys = query[others] * count + row[others]
            if len(keys):
                break
        else:
            if self.relevance is not None:
                return 'the relevance that is given names none.'
            if self.gallery is None:
                return f'every class has a single row, of {count}.'
            own, theirs = map(self._examples, self.labels)
            return ('queries and gallery have no label in common; the queries have '
                    f'{own}, the gallery {theirs}.')
        causes = {why: bool(torch.isin(keys, sets.keys(start, stop)).all())
                  for why, sets in self._excluded_by.items() if sets is not None}
        alone = [why for why, all_of_them in causes.items() if all_of_them]
        what = ' or '.join(alone[:1] or causes)
        names = [name for name in self.exclude_same if f"they have the query's {name}" in what]
        return (f'the relevant rows are all left out, since {what}.'
                + ''.join(self._spread(name) for name in names))

    def _examples(self, labels: Tensor | None) -> str:
        known = [] if labels is None else labels.unique().tolist()
        names = self.label_names
        return some_of([names[one] if 0 <= one < len(names) else one for one in known])

    def _spread(self, name: str) -> str:
        """How many values of a column there are: one camera everywhere is no camera."""
        sides = [self.queries] + ([] if self.gallery is None else [self.gallery])
        values = {str(value) for side in sides for value in np.asarray(
            side.metadata[name]).reshape(-1).tolist()}
        if len(values) > 1:
            return f' There are {len(values)} values of {name}, {some_of(sorted(values))}.'
        return (f' Every row has the {name} {values.pop()!r}: give each its own, or leave {name} '
                'out, such as by another protocol.')

    def _own_rows(self) -> RowSets | None:
        """The rows with the query's own id, where a query can have one beside itself."""
        ids, num_queries = self.queries.ids, self.shape[0]
        same_length('ids', ids, num_queries, 'embeddings')
        if self.gallery is None:
            repeated = ids is not None and len({str(one) for one in ids}) < num_queries
            return same_ids(ids, ids) if ids is not None and repeated else None
        theirs = self.gallery.ids
        same_length('gallery_ids', theirs, self.shape[1], 'rows of the gallery')
        return None if ids is None or theirs is None else same_ids(ids, theirs)


def scored_blocks(task: EvaluationTask) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The scores of all pairs of a query and a row, a block of queries at a time.

    Yields scores ``(B, N)`` float32, and which rows each query ranks and which of these are
    relevant, ``(B, N)`` bool both.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.8, .6]], [7, 7]))
        >>> [(scores[rankable], relevant.sum()) for scores, rankable, relevant in
        ...  scored_blocks(task)]
        [(tensor([0.8000, 0.8000]), tensor(2))]
    """
    gallery = PreparedGallery(task.gallery_vectors, task.similarity)
    vectors = gallery.prepare_queries(task.query_vectors)
    relevant, excluded = task.relevant_rows(), task.excluded_rows()
    height, _ = gallery.tiles(len(vectors), TILE_BUDGET, whole_rows=True)
    for start in range(0, len(vectors), height):
        scores = gallery.scores(vectors[start:start + height])
        stop = start + len(scores)
        rankable = torch.ones_like(scores, dtype=torch.bool)
        if task.gallery is None:
            rankable[torch.arange(len(scores)), torch.arange(start, stop)] = False
        if excluded is not None:
            rankable[excluded.block(start, stop)] = False
        hits = torch.zeros_like(rankable)
        hits[relevant.block(start, stop)] = True
        yield scores, rankable, hits & rankable

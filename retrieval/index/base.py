"""The contract of an index, and what indexes share: ids of rows, exclusions and filters."""
from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..checks import some_of, unique_names
from ..distributed import Meeting, rank, world_size
from ..gallery.fingerprint import Fingerprint
from ..ranking import RangeNeighbors, RowSets, as_vectors
from ..ranking.range_search import checked_threshold
from ..similarity import SIMILARITIES, Similarity, SimilarityFn, resolve_similarity
from ..string_column import StringColumn
from ..structures import Neighbors
from ..tensor_file import Container, Format, write_container
from .lock import ReadersWriterLock, changes, reads

Exclude = Sequence[Any]  # for every query an id, a collection of ids, or None
Filter = Any             # (N,) bool, a callable from an id to bool, or an expression
Found = tuple[np.ndarray, np.ndarray]  # rows int64 and scores float32 of one shape, best first

_COLLECTIONS = (list, tuple, set, frozenset, np.ndarray)
_BLOCK = 2 ** 16  # rows that are digested together
_FIRST_RANGE, _GROWTH = 128, 4  # results that a range search asks for first; how they grow


@dataclass(frozen=True)
class Capabilities:
    """How an index differs from others; removing, filters and range search all of them have.

    Args:
        exact: the results are those of an exhaustive search, ties included.
        training: it must see a sample of the vectors before the first rows are added.
        expressions: rows have metadata, and a filter may be an expression over them, a string.
        persistent: the rows outlive the process, and ``replace`` replaces those of an earlier one.
    """

    exact: bool = False
    training: bool = False
    expressions: bool = False
    persistent: bool = False


class Index(ABC):
    """Vectors under unique string ids, searched by similarity; larger is more similar.

    A row's number is its place in :attr:`ids`: rows stand in the order in which they were added,
    and those behind a removed row move up. Every change is made whole or, where it is refused,
    not at all. Threads may search while others change it: an answer is of the state before a
    change or after it. For this a method takes :attr:`lock`, by ``@reads`` or ``@changes``.

    A constructor takes ``similarity``, and ``device`` where the type :attr:`follows_device`;
    whatever else it takes has a default. An own index gives :attr:`ids`, :attr:`width`,
    :meth:`add`, :meth:`remove`, :meth:`search`, and either :meth:`vectors` or :meth:`save` and
    :meth:`load`; the rest is made of these. docs/extending/index.md has one.

    Args:
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)`` where the index takes any.

    Attributes:
        similarity: what the scores are.
        gallery_digest: of the gallery that the rows are, where the index was built over one and
            has not changed since; see :func:`gallery_digest`.
        fingerprint: of the model whose embeddings the rows are, as far as it is known.
        capabilities: how it differs from others.
        lock: what searches hold together, and a change alone.
        follows_device: whether a retriever puts the index on its own device, unless the config
            says otherwise.
        load_options: the settings that :meth:`load` takes besides the path. ``similarity`` among
            them says that a callable, which no file holds, is given to it again.
    """

    capabilities = Capabilities()
    follows_device: ClassVar[bool] = False
    load_options: ClassVar[tuple[str, ...]] = ()
    gallery_digest: str | None = None
    fingerprint: Fingerprint = Fingerprint()

    def __init__(self, similarity: str | SimilarityFn | Similarity = 'cosine_similarity') -> None:
        self.similarity: Similarity = resolve_similarity(similarity)
        self.lock = ReadersWriterLock()

    @property
    @abstractmethod
    def ids(self) -> Sequence[str]:
        """The ids ``(N,)``, in the order of the rows."""

    @property
    @abstractmethod
    def width(self) -> int | None:
        """The number of columns of the vectors, D; None while none were ever added."""

    @abstractmethod
    def add(self, embeddings: Any, ids: Iterable[Any]) -> None:
        """Append vectors.

        Args:
            embeddings: ``(n, D)`` floats.
            ids: n unique ids; whatever they are, they are kept as strings.

        Raises:
            TypeError: the vectors are no floats.
            ValueError: an id repeats or is in the index already, the numbers of vectors and ids
                differ, or the vectors have another width or hold NaN or infinity.
        """

    @abstractmethod
    def remove(self, ids: Iterable[Any]) -> None:
        """Remove the rows of these ids.

        Raises:
            KeyError: an id is not in the index; some of those are listed.
            ValueError: an id is given twice.
        """

    @abstractmethod
    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        """The ``k`` most similar rows for every query.

        Args:
            queries: ``(Q, D)`` floats.
            k: how many, at least 1; more than there are gives what there are.
            exclude: for every query an id, a list of ids or None: what it must not find. Ids that
                the index does not hold are no error.
            filter: ``(N,)`` bool over the rows, or a callable from an id to bool: what may be
                found at all.

        Returns:
            Neighbors whose width is the largest number of results that a query has.

        Raises:
            ValueError: the index is empty, k is below 1, the queries are not finite or have
                another width, or ``exclude`` or ``filter`` have another length.
            TypeError: k is no integer, or the filter holds no booleans.
        """

    @changes
    def replace(self, embeddings: Any, ids: Iterable[Any],
                metadata: Mapping[str, Any] | None = None) -> None:
        """Make these the rows; a persistent index leaves its old ones until the new ones are in.

        Args:
            embeddings: ``(n, D)`` floats.
            ids: n unique ids.
            metadata: columns of n values by name, where the index has metadata (``expressions``).

        Raises:
            TypeError, ValueError: as :meth:`add`; the index has no metadata, or is not persistent
                and holds rows.
        """
        if metadata is not None:
            raise ValueError(f'A {type(self).__name__} keeps no metadata: leave them out.')
        if len(self):
            raise ValueError(f'The {type(self).__name__} holds {len(self)} rows: build a new one.')
        self.add(embeddings, ids)

    def replace_together(self, embeddings: Any, ids: Iterable[Any],
                         metadata: Mapping[str, Any] | None = None) -> None:
        """:meth:`replace` with the same rows in all processes of a distributed run. The index of
        each is its own; of one that they share (``persistent``) the first writes.
        """
        if self.capabilities.persistent and world_size() > 1:
            meeting, failure = Meeting(), None
            if rank() == 0:
                try:
                    self.replace(embeddings, ids, metadata)
                except Exception as error:
                    failure = error
            meeting.agree(failure)
        self.replace(embeddings, ids, metadata)

    @reads
    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        """Every row whose similarity is at least ``threshold``; the arguments are as in search.

        By searches for more and more results, where the index knows nothing better.
        """
        least = checked_threshold(threshold, self.similarity)
        vectors = self.as_queries(queries)
        names = None if exclude is None else exclusions(exclude, len(vectors))

        def best(some: np.ndarray, k: int) -> Found:
            left_out = None if names is None else [names[query] for query in some]
            found = self.search(vectors[torch.from_numpy(some)], k, left_out, filter)
            return found.indices.cpu().numpy(), found.scores.cpu().numpy()

        found = grow_to_threshold(best, len(vectors), len(self), least)
        return as_range(found, self.ids)

    def settings(self) -> dict[str, Any]:
        """The arguments that make such an index, less where it runs, as JSON can hold them."""
        return {'similarity': self.similarity.name}

    def vectors(self) -> Tensor:
        """The vectors ``(N, D)`` in the order of the rows, for :meth:`save` as it stands here."""
        raise NotImplementedError(f'{type(self).__name__} needs `vectors`, or `save` and `load`.')

    @reads
    def reconstruct(self, rows: Sequence[int]) -> Tensor:
        """The vectors ``(n, D)`` float32 of some rows, as they can be searched for: for cosine they
        may be of length 1, and where the index codes them they are approximate.

        Raises:
            ValueError: what is kept of the rows gives no vectors back.
        """
        return self.vectors()[list(rows)].float()

    @reads
    def save(self, path: str | PathLike[str]) -> None:
        """Write the index to one file: under a temporary name first, then renamed.

        The settings, ids and vectors, where the index has no file of its own.
        """
        rows = self.vectors() if len(self) else torch.zeros(0, 0)
        columns: dict[str, Any] = dict(rows=rows, ids=StringColumn.from_strings(self.ids))
        write_container(path, self._format(), columns,
                        dict(settings=self.settings(), gallery=self.gallery_digest))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Index:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no such index, or is damaged.
        """
        opened = Container(path, cls._format())
        opened.verify()
        index = cls(**opened.manifest['settings'])
        if len(opened.tensor('rows')):
            index.add(opened.tensor('rows'), opened.strings('ids'))
        index.gallery_digest = opened.manifest['gallery']
        return index

    @classmethod
    def _format(cls) -> Format:
        return Format(cls.__name__, 1, 'Build the index again.')

    def as_queries(self, queries: Any) -> Tensor:
        """Queries as float32 ``(Q, D)``.

        Raises:
            TypeError: they are no floats.
            ValueError: the index is empty, or they are not finite or of another width.
        """
        if not len(self):
            raise ValueError('The index is empty: add embeddings before searching.')
        return as_vectors(queries, 'queries', self.width)

    def __len__(self) -> int:
        """The number of rows, N."""
        return len(self.ids)

    @reads
    def __contains__(self, item: Any) -> bool:
        return str(item) in self.ids

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} rows of width {self.width})'


class RowIds:
    """Unique strings in the order of the rows.

    Those that were read from a file stay packed, and the table from id to row is made when the
    first id is looked up, so that opening a large index takes no time for either.

    Args:
        names: the ids; unique.

    Example:
        >>> ids = RowIds(['a', 'b', 'c'])
        >>> ids.drop(ids.rows(['a']))
        >>> ids.names, ids.row('c'), ids.row('a')
        (['b', 'c'], 1, None)
    """

    def __init__(self, names: list[str] | StringColumn | None = None) -> None:
        self.names: list[str] | StringColumn = [] if names is None else names
        self._rows: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def row(self, name: str) -> int | None:
        """The row of an id, or None."""
        return self._table().get(name)

    def _table(self) -> dict[str, int]:
        if self._rows is None:
            self._rows = {name: row for row, name in enumerate(self.names)}
        return self._rows

    def new(self, ids: Iterable[Any], count: int) -> list[str]:
        """``count`` ids as strings, none of which is here.

        Raises:
            TypeError, ValueError: as in :meth:`Index.add`.
        """
        names = unique_names(ids, count)
        table = self._table() if len(self) else {}
        known = [name for name in names if name in table]
        if known:
            raise ValueError(f'Already in the index: {some_of(known)}. Remove them first.')
        return names

    def append(self, names: Sequence[str]) -> None:
        """Add rows; earlier results go on naming the same ids."""
        table, start = self._table(), len(self)
        if not isinstance(self.names, list):
            self.names = list(self.names)
        table.update(zip(names, range(start, start + len(names)), strict=True))
        self.names.extend(names)

    def rows(self, ids: Iterable[Any]) -> list[int]:
        """The rows of ids.

        Raises:
            KeyError: one is not here.
            TypeError, ValueError: as in :meth:`Index.remove`.
        """
        names = unique_names(ids)
        table = self._table() if names else {}
        unknown = [name for name in names if name not in table]
        if unknown:
            raise KeyError(f'Not in the index: {some_of(unknown)}. Nothing was done.')
        return [table[name] for name in names]

    def drop(self, rows: Iterable[int]) -> None:
        """Remove rows; those behind move up."""
        gone = set(rows)
        self.names = [name for row, name in enumerate(self.names) if row not in gone]
        self._rows = None

    def column(self) -> StringColumn:
        """The ids packed for a file."""
        if isinstance(self.names, StringColumn):
            return self.names
        return StringColumn.from_strings(self.names)

    def excluded(self, exclude: Exclude | None, num_queries: int) -> RowSets | None:
        """The rows that ``exclude`` names for every query; ids that are not here name none.

        Raises:
            TypeError, ValueError: as :func:`exclusions`.
        """
        if exclude is None:
            return None
        row_of = self._table().get
        lists = [[row for row in map(row_of, names) if row is not None]
                 for names in exclusions(exclude, num_queries)]
        if all(len(rows) <= 1 for rows in lists):
            alone = [rows[0] if rows else -1 for rows in lists]
            return RowSets.from_rows(torch.tensor(alone, dtype=torch.int64), len(self))
        return RowSets.from_lists(lists, len(self))

    def allowed(self, chosen: Filter | None) -> Tensor | None:
        """A filter as a bool tensor ``(N,)``: it is one, or a callable from an id to bool.

        Raises:
            TypeError: it is neither.
            ValueError: it has another length than there are rows.
        """
        if chosen is None:
            return None
        if isinstance(chosen, str):
            raise TypeError(f'This index knows no columns: give the filter {chosen!r} to the '
                            f'gallery, as filter=gallery.where({chosen!r}).')
        if callable(chosen) and not isinstance(chosen, Tensor):
            return torch.tensor([bool(chosen(name)) for name in self.names], dtype=torch.bool)
        try:
            mask = torch.as_tensor(chosen)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError('filter must be booleans (N,) or a callable from an id to bool, got '
                            f'{type(chosen).__name__}.') from error
        if mask.dtype != torch.bool:
            raise TypeError(f'filter must hold booleans, got {mask.dtype}.')
        if mask.shape != (len(self),):
            raise ValueError(f'filter must have one entry for each of {len(self)} rows, got '
                             f'{tuple(mask.shape)}.')
        return mask


def exclusions(exclude: Exclude, num_queries: int) -> list[list[str]]:
    """The ids that every query must not find.

    Raises:
        TypeError: ``exclude`` is one string.
        ValueError: it has another length than there are queries.

    Example:
        >>> exclusions(['a', None, {7}], 3)
        [['a'], [], ['7']]
    """
    if isinstance(exclude, (str, bytes)):
        raise TypeError(f'exclude must be a sequence with one entry for each query, got {exclude!r}'
                        f': write [{exclude!r}].')
    if len(exclude) != num_queries:
        raise ValueError(f'exclude has {len(exclude)} entries for {num_queries} queries: give an '
                         'id, a list of ids or None for each.')
    lists = ([] if item is None else item if isinstance(item, _COLLECTIONS) else [item]
             for item in exclude)
    return [[str(name) for name in names] for names in lists]


def named_similarity(similarity: str | SimilarityFn | Similarity, kind: str) -> Similarity:
    """One of the similarities that have a name.

    Raises:
        ValueError: there is none of that name, or it is a callable.
    """
    chosen = resolve_similarity(similarity)
    if SIMILARITIES.get(chosen.name) is not chosen:
        raise ValueError(f'A {kind} searches by {", ".join(SIMILARITIES)}, not by the callable '
                         f'{chosen.name!r}: ExactIndex takes any.')
    return chosen


def grow_to_threshold(best: Callable[[np.ndarray, int], Found], num_queries: int, most: int,
                      threshold: float) -> list[Found]:
    """All rows of similarity ``threshold`` or more for every query, by searches for the best.

    A query whose results all reach the threshold is searched again for more of them, until one
    falls below or there are no more.

    Args:
        best: from numbers of queries ``(Q,)`` and k to the rows ``(Q, k)`` (-1 for none) and
            scores of the best.
        most: how many results a query can have.
    """
    found: list[Found] = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * num_queries
    todo, k = np.arange(num_queries if most else 0), min(_FIRST_RANGE, most)
    while len(todo):
        rows, scores = best(todo, k)
        reach = (rows >= 0) & (scores >= np.float32(threshold))
        for place, query in enumerate(todo):
            found[query] = rows[place, reach[place]], scores[place, reach[place]]
        todo = todo[reach.all(axis=1)] if rows.shape[1] == k < most else todo[:0]
        k = min(most, k * _GROWTH)
    return found


def as_range(found: Sequence[Found], ids: Sequence[str]) -> RangeNeighbors:
    """The results of all queries as those of a range search."""
    rows = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in found)])
    scores = np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in found)])
    offsets = np.cumsum([0, *(len(rows) for rows, _ in found)])
    return RangeNeighbors(torch.from_numpy(offsets), torch.from_numpy(scores),
                          torch.from_numpy(rows), ids)


def gallery_digest(embeddings: Any, ids: Iterable[str]) -> str:
    """A digest of a gallery's ids and embeddings, for :attr:`Index.gallery_digest`.

    Args:
        embeddings: ``(N, D)``; compared as float32.
        ids: N strings.

    Example:
        >>> gallery_digest([[1., 0.]], ['a']) == gallery_digest([[1., 0.]], ['b'])
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(embeddings), _BLOCK):
        block = torch.as_tensor(embeddings[start:start + _BLOCK]).to('cpu', torch.float32)
        digest.update(block.contiguous().numpy().data)
    for name in ids:
        digest.update(f'{len(name)}:'.encode())
        digest.update(name.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def check_gallery(index: Index, embeddings: Any, ids: Iterable[str], path: Any) -> None:
    """Refuse an index that was built over another gallery than this one.

    Args:
        index: the index, read from ``path``.
        embeddings: ``(N, D)``, the gallery's.
        ids: N strings, the gallery's.

    Raises:
        ValueError: it was, or it does not say over which.
    """
    again = (f'Build it again with `python tools/build_index.py GALLERY {path}`, or leave `path` '
             'out to build it at each start.')
    if index.gallery_digest is None:
        raise ValueError(f'The index {str(path)!r} does not say over which gallery it was built. '
                         f'{again}')
    if len(index) != len(embeddings) or index.gallery_digest != gallery_digest(embeddings, ids):
        raise ValueError(f'The index {str(path)!r} ({len(index)} rows of width {index.width}) '
                         'belongs to another gallery than this one '
                         f'({len(embeddings)} rows of width {embeddings.shape[1]}): its ids or '
                         f'embeddings differ. {again}')

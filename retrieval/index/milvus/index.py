"""An index in a Milvus database: embedded, or a cluster."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from ...ranking import RangeNeighbors, as_vectors, prepared_rows
from ...ranking.range_search import checked_threshold
from ...ranking.topk import checked_k
from ...registry import INDEXES
from ...similarity import Similarity
from ...structures import Neighbors
from ..base import Capabilities, Exclude, Filter, Index, as_ids, some_of
from . import collection as collections
from . import rows as export
from . import search as searching
from .collection import MOST_BYTES, Columns, as_columns, declared
from .connection import Connection, MilvusError, is_embedded
from .rows import Store, read_metadata
from .search import Searcher

_Answer = TypeVar('_Answer')


@INDEXES.register_module()
class MilvusIndex(Index):
    """Rows in a Milvus collection, which outlive the process.

    An existing collection is opened with its rows and their order. What :meth:`add` returned from
    is found by the next search (consistency level Strong).

    Args:
        uri: a path that ends in ``.db`` for the embedded Milvus, or the address of a server or
            cluster, such as ``http://host:19530``.
        collection: the name of the index in the database.
        similarity: ``cosine_similarity``, ``inner_product`` or ``euclidean``.
        token: ``user:password`` or a key, where the server asks for one.
        timeout: seconds that a call may take before it is tried again.
        retries: how often a call is tried again, after pauses that double.
        patience: seconds after which no call is tried again.
        batch_size: the most rows of one insertion; a message stays below 16 MiB in any case.
        index_params: Milvus's index, ``dict(index_type='HNSW', params=dict(M=32))``; the default,
            ``FLAT``, is exact.
        search_params: parameters of its search, ``dict(ef=128)``.
        metadata: columns and their kinds, ``dict(label='int', split='str')`` (also ``float`` and
            ``bool``); the default are those that the first rows come with.
        id_length: the most bytes of an id, at most 65,535.
        overwrite: let :meth:`replace` replace rows that were added one call after another.

    Raises:
        ImportError: ``pip install 'retrieval[milvus]'`` is missing.
        ValueError, TypeError: an argument is wrong, or the collection is another's.
        MilvusError: an ``OSError``; the server failed, or ``MilvusUnavailable``: a
            ``ConnectionError``; it is down, too slow or lost the connection each time.
    """

    capabilities = Capabilities(exact=True, removal=True, filters=True, range_search=True,
                                expressions=True, persistent=True)

    def __init__(self, uri: str = './gallery_milvus.db', collection: str = 'retrieval',
                 similarity: str | Similarity = 'cosine_similarity', token: str | None = None,
                 timeout: float = 30.0, retries: int = 5, patience: float = 120.0,
                 batch_size: int = 2048, index_params: Mapping[str, Any] | None = None,
                 search_params: Mapping[str, Any] | None = None,
                 metadata: Mapping[str, Any] | None = None, id_length: int = 1024,
                 overwrite: bool = False) -> None:
        name = collections.checked_name(collection)
        self.similarity = collections.checked_similarity(similarity)
        kind, params = collections.checked_index_params(index_params, is_embedded(uri))
        kinds = declared(metadata)
        self.search_params, self.overwrite = dict(search_params or {}), overwrite
        layout = collections.Layout(0, collections.METRICS[self.similarity.name], kinds or {},
                                    _whole('id_length', id_length, 1, MOST_BYTES), kind, params)
        batch_size = _whole('batch_size', batch_size, 1)
        connection = Connection(uri, token, _seconds('timeout', timeout),
                                _whole('retries', retries, 0), _seconds('patience', patience))
        self._store = Store(connection, name, layout, kinds is not None, batch_size)
        self.capabilities = Capabilities(exact=kind == 'FLAT', removal=True, filters=True,
                                         range_search=True, expressions=True, persistent=True)

    def __repr__(self) -> str:
        return f'MilvusIndex({self._store.connection.uri!r}, collection={self._store.name!r})'

    def close(self) -> None:
        """End the connection; the embedded server ends with the last index on its database."""
        self._store.connection.close()

    def refresh(self) -> None:
        """Look at the collection anew, where another process may have changed it."""
        self._store.refresh()

    @property
    def ids(self) -> Sequence[str]:
        return self._store.rows().ids

    @property
    def width(self) -> int | None:
        self._store.rows()
        return None if self._store.layout is None else self._store.layout.width

    def __len__(self) -> int:
        return len(self._store.rows())

    def __contains__(self, item: Any) -> bool:
        return str(item) in self._store.rows().row_of

    def add(self, embeddings: Any, ids: Iterable[Any],
            metadata: Mapping[str, Any] | None = None) -> None:
        """Append vectors; see :meth:`Index.add`.

        Args:
            embeddings: ``(n, D)`` floats.
            ids: n unique ids.
            metadata: columns of n values by name (whole numbers, numbers, truth values, strings).

        Raises:
            TypeError, ValueError: as of every index; and metadata that do not fit the columns.
            MilvusUnavailable: the connection was lost midway; ``written`` rows are certainly in,
                and :meth:`upsert` with the same arguments completes them without doubling any.
        """
        row_of = self._store.rows().row_of
        vectors, names, columns = self._checked_rows(embeddings, ids, metadata, self._store.layout)
        known = [name for name in names if name in row_of]
        if known:
            raise ValueError(f'Already in the index: {some_of(known)}. Remove them first.')
        self._store.write(vectors, names, columns)

    def upsert(self, embeddings: Any, ids: Iterable[Any],
               metadata: Mapping[str, Any] | None = None) -> None:
        """Append the vectors of new ids and replace those of known ids, which keep their rows.

        The arguments and errors are those of :meth:`add`.
        """
        self._store.rows()
        self._store.write(*self._checked_rows(embeddings, ids, metadata, self._store.layout))

    def _checked_rows(self, embeddings: Any, ids: Iterable[Any], metadata: Any,
                      layout: collections.Layout | None) -> tuple[np.ndarray, list[str], Columns]:
        width = None if layout is None else layout.width
        vectors = as_vectors(embeddings, 'embeddings', width)
        names = as_ids(ids, len(vectors))
        prepared_rows(vectors, self.similarity)  # refuses what would overflow
        collections.check_width(vectors.shape[1])
        made_of = layout or self._store.wanted
        collections.check_ids(names, made_of.id_length)
        fixed = names and (layout is not None or self._store.declared)
        columns = as_columns(metadata, len(names), made_of.columns if fixed else None)
        return vectors.cpu().numpy(), names, columns

    def remove(self, ids: Iterable[Any]) -> None:
        self._store.remove(self._present(ids, ' Nothing was removed.'))

    def _present(self, ids: Iterable[Any], then: str = '') -> list[str]:
        names, row_of = as_ids(ids), self._store.rows().row_of
        unknown = [name for name in names if name not in row_of]
        if unknown:
            raise KeyError(f'Not in the index: {some_of(unknown)}.{then}')
        return names

    def replace(self, embeddings: Any, ids: Iterable[Any],
                metadata: Mapping[str, Any] | None = None) -> None:
        """Hold these rows instead of those that the collection holds.

        They are written into a new collection beside the old one; the name is moved to it in one
        step, and only then is the old one dropped. Where the collection holds exactly these rows
        already (a digest of vectors, ids, metadata and settings says so), nothing is written.

        Raises:
            ValueError: as :meth:`add`; and where the old rows came by :meth:`add`, which nothing
                replaces unless the index was built with ``overwrite=True``.
        """
        self._replace(embeddings, ids, metadata, 'gallery')

    def _replace(self, embeddings: Any, ids: Iterable[Any], metadata: Mapping[str, Any] | None,
                 kind: str) -> None:
        vectors, names, columns = self._checked_rows(embeddings, ids, metadata, None)
        if not names:
            raise ValueError('There are no rows to put into the collection: give at least one.')
        self._store.replace(vectors, names, columns, kind, self.overwrite)

    def metadata_of(self, ids: Iterable[Any]) -> list[dict[str, Any]]:
        """The metadata of the rows of these ids. Raises KeyError where one is not there."""
        names, store = self._present(ids), self._store
        if not names or store.own is None or store.layout is None:
            return []
        return read_metadata(store.connection, store.own, list(store.layout.columns),
                             store.serials(names))

    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        """The ``k`` most similar rows for every query; see :meth:`Index.search`.

        Args:
            queries: ``(Q, D)`` floats.
            k: how many; with the ids that a query excludes at most 16,384, Milvus's limit.
            exclude: for every query an id, a list of ids or None.
            filter: a Milvus expression over the metadata, such as ``'label in [3, 5]'``; or
                ``(N,)`` bool; or a callable from an id to bool.

        Raises:
            ValueError: also an expression that Milvus does not understand, or a larger k.
        """
        number = checked_k(k)

        def nearest(searcher: Searcher, vectors: np.ndarray) -> Neighbors:
            excluded = searching.excluded_rows(exclude, searcher.table, len(vectors))
            expressions, rows = searching.expressions_of(filter, searcher.table)
            wanted = min(number, rows)
            searching.check_limit(wanted, max(map(len, excluded), default=0), rows)
            found = searcher.nearest(vectors, wanted, excluded, expressions)
            return searching.as_neighbors(found, searcher.table.ids)

        return self._search(queries, nearest)

    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        """Every row whose similarity is at least ``threshold``, also more than 16,384 of them;
        the arguments are as in :meth:`search`.
        """
        least = checked_threshold(threshold)

        def within(searcher: Searcher, vectors: np.ndarray) -> RangeNeighbors:
            excluded = searching.excluded_rows(exclude, searcher.table, len(vectors))
            expressions, _ = searching.expressions_of(filter, searcher.table)
            found = searcher.within(vectors, least, excluded, expressions)
            return searching.as_range(found, searcher.table.ids)

        return self._search(queries, within)

    def _search(self, queries: Any, search: Callable[[Searcher, np.ndarray], _Answer]) -> _Answer:
        for _ in range(3):
            table, store = self._store.rows(), self._store
            if not len(table) or store.own is None or store.layout is None:
                raise ValueError('The index is empty: add embeddings before searching.')
            vectors = as_vectors(queries, 'queries', store.layout.width)
            prepared_rows(vectors, self.similarity, 'queries')
            searcher = Searcher(store.connection, store.own, table, store.layout.metric,
                                self.search_params)
            try:
                return search(searcher, vectors.cpu().numpy())
            except searching.UnknownRow:
                store.forget_rows()  # another process has added rows
        raise MilvusError(f'Other processes add rows to the collection {self._store.name!r} faster '
                          'than it can be searched: search it when they are done.')

    def save(self, path: str | PathLike) -> None:
        """Write vectors, ids and metadata to one safetensors file, a copy that needs no Milvus."""
        wanted = self._store.wanted
        export.write(path, self._store, dict(
            similarity=self.similarity.name, search_params=self.search_params,
            index_params=dict(index_type=wanted.index_type, params=dict(wanted.index_params)),
            metadata=dict(wanted.columns) if self._store.declared else None,
            id_length=wanted.id_length, batch_size=self._store.batch_size))

    @classmethod
    def load(cls, path: str | PathLike, uri: str | None = None, collection: str = 'retrieval',
             overwrite: bool = False, **options: Any) -> MilvusIndex:
        """Put what :meth:`save` wrote into a collection.

        Args:
            path: the file.
            uri: the database; the default is an embedded one in a temporary folder, which goes
                with the index.
            collection: the name there; it must be new, unless ``overwrite``.
            overwrite: replace what the collection holds.
            options: further arguments of the constructor; those of the saved index otherwise.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no such index, is damaged, or the collection holds rows.
        """
        content, settings = export.read(path)
        folder = TemporaryDirectory(prefix='retrieval-milvus-') if uri is None else None
        uri = f'{folder.name}/index.db' if folder else uri
        index = cls(uri or '', collection, overwrite=overwrite, **{**settings, **options})
        if folder:
            index._store.connection.owns(folder)
        try:
            if len(index) and not overwrite:
                raise ValueError(f'The collection {collection!r} at {uri} holds {len(index):,} '
                                 'rows: give another `collection`, or overwrite=True.')
            if len(content.ids):
                index._replace(content.vectors, content.ids, content.metadata, 'copy')
        except BaseException:
            index.close()
            raise
        return index


def _whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f'{name} must be a whole number, got {value!r}.')
    if value < least or (most is not None and value > most):
        raise ValueError(f'{name} must be at least {least}'
                         f'{"" if most is None else f" and at most {most:,}"}, got {value}.')
    return int(value)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f'{name} must be a number of seconds, got {value!r}.')
    if not 0 < value < float('inf'):
        raise ValueError(f'{name} must be more than 0 seconds and finite, got {value}.')
    return float(value)

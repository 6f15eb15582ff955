"""The index whose rows are in a Milvus database: embedded, a server or a cluster."""
from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...checks import real_number, unique_names, whole_number
from ...distributed import world_size
from ...gallery.fingerprint import Fingerprint
from ...ranking import RangeNeighbors, as_vectors, prepared_rows
from ...ranking.range_search import checked_threshold
from ...registry import INDEXES, unknown_name
from ...similarity import Similarity
from ...structures import Neighbors
from ..base import Capabilities, Exclude, Filter, Index, as_range, named_similarity
from ..lock import reads
from . import collection as collections
from . import rows as export
from . import search as searching
from .collection import MOST_BYTES, Columns, as_columns, declared
from .connection import Connection, MilvusError, is_embedded
from .rows import Store, read_metadata, read_vectors
from .search import Searcher
from .vectors import check_dtype, rounded

_Answer = TypeVar('_Answer')


@INDEXES.register_module()
class MilvusIndex(Index):
    """Rows in a Milvus collection, which outlive the process.

    An existing collection is opened with its rows and their order. What :meth:`add` returned from
    is found by the next search.

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
        keep: let :meth:`replace` keep the rows that it replaces, for :meth:`undo`, in the place of
            those that it kept before. They take as much of the server's memory as they did.
        consistency: ``Session``: a search finds what this index has written, and what others have
            as soon as the server knows of it, mostly within a second. ``Strong``: it waits for
            that, some 0.2 s each time.
        dtype: of the vectors in Milvus: ``float32``, or ``float16`` or ``bfloat16`` on a server
            from 2.4 on.
        partition_key: a metadata column of whole numbers or strings, such as a tenant or a shop,
            by whose values Milvus keeps rows apart: a filter for some of them reads these rows
            alone. Of the embedded Milvus, and of a server from 2.4 on.

    Raises:
        ImportError: ``pip install 'retrieval[milvus]'`` is missing.
        ValueError, TypeError: an argument is wrong, or the collection is another's.
        MilvusError: an ``OSError``; the server failed, or ``MilvusUnavailable``: a
            ``ConnectionError``; it is down, too slow or lost the connection each time.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index = MilvusIndex(f'{folder}/gallery.db', 'pictures')
        ...     index.add(torch.eye(3), ['a', 'b', 'c'])
        ...     print(index.search(torch.eye(3)[1:2], k=1).ids)
        ...     index.close()
        [['b']]
    """

    capabilities = Capabilities(exact=True, expressions=True, persistent=True)
    load_options = ('uri', 'collection', 'overwrite', 'token', 'timeout', 'retries', 'patience',
                    'batch_size', 'index_params', 'search_params', 'consistency', 'dtype',
                    'partition_key', 'keep')

    def __init__(self, uri: str = './gallery_milvus.db', collection: str = 'retrieval',
                 similarity: str | Similarity = 'cosine_similarity', token: str | None = None,
                 timeout: float = 30.0, retries: int = 5, patience: float = 120.0,
                 batch_size: int = 2048, index_params: Mapping[str, Any] | None = None,
                 search_params: Mapping[str, Any] | None = None,
                 metadata: Mapping[str, Any] | None = None, id_length: int = 1024,
                 overwrite: bool = False, consistency: str = 'Session', dtype: str = 'float32',
                 partition_key: str | None = None, keep: bool = False) -> None:
        super().__init__(named_similarity(similarity, 'MilvusIndex'))
        name = collections.checked_name(collection)
        kind, params = collections.checked_index_params(index_params, is_embedded(uri))
        kinds = declared(metadata)
        key = None if partition_key is None else collections.field_name(partition_key)
        if kinds is not None:
            collections.check_partition_key(key, kinds)
        self.search_params, self.overwrite, self.keep = dict(search_params or {}), overwrite, keep
        id_length = whole_number('id_length', id_length, 1, MOST_BYTES)
        batch_size = whole_number('batch_size', batch_size)
        layout = collections.Layout(0, collections.METRICS[self.similarity.name], kinds or {},
                                    id_length, kind, params, dtype, key)
        if consistency not in ('Session', 'Strong'):
            raise ValueError(unknown_name('consistency', consistency, ('Session', 'Strong')))
        connection = Connection(uri, token, real_number('timeout', timeout, above=0),
                                whole_number('retries', retries, 0),
                                real_number('patience', patience, above=0))
        try:
            check_dtype(dtype, connection)
            collections.check_server(key, connection)
        except ValueError:
            connection.close()
            raise
        self._writing = threading.RLock()  # one change at a time, also while searches go on
        self._store = Store(connection, name, layout, kinds is not None, batch_size,
                            consistency)
        self.capabilities = replace(type(self).capabilities,
                                    exact=kind == 'FLAT' and dtype == 'float32')

    def __repr__(self) -> str:
        return f'MilvusIndex({self._store.connection.uri!r}, collection={self._store.name!r})'

    def close(self) -> None:
        """End the connection; the embedded server ends with the last index on its database."""
        self._store.connection.close()

    def refresh(self) -> None:
        """Look at the collection anew, where another process may have changed it."""
        with self._writing, self.lock.write():
            self._store.refresh()

    @property
    def ids(self) -> Sequence[str]:
        return self._store.rows().ids.names

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the model whose embeddings the rows are, as the collection says it. What is set is
        that of all rows that are written from now on: a new collection keeps it, and one of
        another model refuses them (``replace`` makes a new one).
        """
        return self._store.fingerprint

    @fingerprint.setter
    def fingerprint(self, made_by: Fingerprint) -> None:
        with self._writing:
            self._store.wanted = replace(self._store.wanted, fingerprint=made_by)

    @property
    def width(self) -> int | None:
        self._store.rows()
        return None if self._store.layout is None else self._store.layout.width

    def __len__(self) -> int:
        return len(self._store.rows())

    @reads
    def __contains__(self, item: Any) -> bool:
        return self._store.rows().ids.row(str(item)) is not None

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
        with self._writing, self.lock.write():
            table = self._store.rows()
            vectors, names, columns = self._checked_rows(embeddings, ids, metadata,
                                                         self._store.layout)
            self._store.write(vectors, table.ids.new(names, len(vectors)), columns, new=True)

    def upsert(self, embeddings: Any, ids: Iterable[Any],
               metadata: Mapping[str, Any] | None = None) -> None:
        """Append the vectors of new ids and replace those of known ids, which keep their rows.

        The arguments and errors are those of :meth:`add`.
        """
        with self._writing, self.lock.write():
            self._store.rows()
            self._store.write(*self._checked_rows(embeddings, ids, metadata, self._store.layout))

    def _checked_rows(self, embeddings: Any, ids: Iterable[Any], metadata: Any,
                      layout: collections.Layout | None) -> tuple[np.ndarray, list[str], Columns]:
        width = None if layout is None else layout.width
        vectors = as_vectors(embeddings, 'embeddings', width)
        names = unique_names(ids, len(vectors))
        self._check_lengths(vectors, 'embeddings')
        collections.check_width(vectors.shape[1])
        made_of = layout or self._store.wanted
        collections.check_ids(names, made_of.id_length)
        fixed = names and (layout is not None or self._store.declared)
        columns = as_columns(metadata, len(names), made_of.columns if fixed else None)
        return rounded(vectors.cpu().numpy(), made_of.dtype), names, columns

    def _check_lengths(self, vectors: Tensor, name: str) -> None:
        if not self.similarity.normalizes:  # else no length is too large
            prepared_rows(vectors, self.similarity, name)

    def remove(self, ids: Iterable[Any]) -> None:
        with self._writing, self.lock.write():
            self._store.remove(self._store.rows().ids.rows(ids))

    def replace(self, embeddings: Any, ids: Iterable[Any],
                metadata: Mapping[str, Any] | None = None) -> None:
        """Hold these rows instead of those that the collection holds.

        They are written into a new collection beside the old one; the name is moved to it in one
        step, and only then is the old one dropped, or kept where the index was built with
        ``keep=True``. Where the collection holds or keeps exactly these rows already (a digest of
        vectors, ids, metadata and settings says so), nothing is written.

        Raises:
            ValueError: as :meth:`add`; and where rows would be dropped that came by :meth:`add`,
                unless the index was built with ``overwrite=True``.
        """
        self._replace(embeddings, ids, metadata, 'gallery')

    def replace_together(self, embeddings: Any, ids: Iterable[Any],
                         metadata: Mapping[str, Any] | None = None) -> None:
        """:meth:`replace` of all processes of a distributed run: each writes its share of the
        rows, which it takes with all the others.
        """
        self._replace(embeddings, ids, metadata, 'gallery', world_size() > 1)

    def _replace(self, embeddings: Any, ids: Iterable[Any], metadata: Mapping[str, Any] | None,
                 kind: str, together: bool = False) -> None:
        vectors, names, columns = self._checked_rows(embeddings, ids, metadata, None)
        if not names:
            raise ValueError('There are no rows to put into the collection: give at least one.')
        with self._writing:
            self._store.replace(vectors, names, columns, kind, self.overwrite, self.lock.write,
                                together, self.keep)

    def kept(self) -> tuple[int, Fingerprint] | None:
        """How many rows :meth:`replace` has kept, and the model that made them; None for none."""
        return self._store.kept()

    def undo(self) -> None:
        """Lead the name back to the rows that the last :meth:`replace` kept, in one step and
        without writing any; those that it led to are kept in turn, so that the next one redoes it.

        Raises:
            ValueError: no rows are kept.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     index = MilvusIndex(f'{folder}/gallery.db', keep=True)
            ...     index.replace(torch.eye(3), ['a', 'b', 'c'])
            ...     index.replace(torch.eye(3)[:2], ['x', 'y'])
            ...     index.undo()
            ...     print(list(index.ids), index.kept()[0])
            ...     index.close()
            ['a', 'b', 'c'] 2
        """
        with self._writing:
            self._store.undo(self.lock.write)

    def drop_kept(self) -> None:
        """Drop the rows that the last :meth:`replace` kept; there is no way back then."""
        with self._writing:
            self._store.drop_kept()

    @reads
    def reconstruct(self, rows: Sequence[int]) -> Tensor:
        store, table = self._store, self._store.rows()
        assert store.own is not None and store.layout is not None
        return torch.from_numpy(read_vectors(store.connection, store.own,
                                             [table.ids.names[row] for row in rows],
                                             store.layout, store.consistency))

    @property
    def serials(self) -> Sequence[int]:
        """The number ``(N,)`` that is stored with each row, the same for all processes; it stays
        when others are removed, and is another in a collection that was replaced.
        """
        return self._store.rows().serials

    def is_current(self) -> bool:
        """False where another process has added or removed rows, or replaced the collection, since
        they were read here. Vectors and metadata that were replaced are always those of Milvus.
        """
        return self._store.is_current()

    def view(self) -> MilvusIndex:
        """The index with the rows as they are now, over the same connection.

        A search in it that meets a row that was added since reads the rows anew; :attr:`ids` is
        then another list.
        """
        found = copy.copy(self)
        found._store = copy.copy(self._store)
        found._store.refresh()
        found._store.rows()
        return found

    @reads
    def metadata_of(self, ids: Iterable[Any]) -> list[dict[str, Any]]:
        """The metadata of the rows of these ids. Raises KeyError where one is not there."""
        store, table = self._store, self._store.rows()
        rows = table.ids.rows(ids)
        if not rows or store.own is None or store.layout is None:
            return []
        return read_metadata(store.connection, store.own, list(store.layout.columns),
                             [table.ids.names[row] for row in rows], store.consistency)

    @reads
    def search(self, queries: Any, k: int, exclude: Exclude | None = None,
               filter: Filter | None = None) -> Neighbors:
        """The ``k`` most similar rows for every query; see :meth:`Index.search`.

        Args:
            queries: ``(Q, D)`` floats.
            k: how many; beyond 16,384, Milvus's limit, one part of the rows is searched after
                another.
            exclude: for every query an id, a list of ids or None.
            filter: a text over the metadata, such as ``'label in (3, 5) and price<20'``
                (:mod:`retrieval.gallery.filters`); or ``(N,)`` bool; or a callable from an id to
                bool.

        Raises:
            ValueError: also a text that cannot be read.
        """
        number = whole_number('k', k)

        columns = self._columns()

        def nearest(searcher: Searcher, vectors: np.ndarray) -> Neighbors:
            excluded = searching.excluded_rows(exclude, searcher.table, len(vectors))
            expressions, rows = searching.expressions_of(filter, searcher, columns)
            wanted = min(number, rows)
            found = searcher.nearest(vectors, wanted, excluded, expressions)
            return searching.as_neighbors(found, searcher.table.ids.names)

        return self._search(queries, nearest)

    @reads
    def range_search(self, queries: Any, threshold: float, exclude: Exclude | None = None,
                     filter: Filter | None = None) -> RangeNeighbors:
        """Every row whose similarity is at least ``threshold``, also more than 16,384 of them;
        the arguments are as in :meth:`search`.
        """
        least = checked_threshold(threshold, self.similarity)

        columns = self._columns()

        def within(searcher: Searcher, vectors: np.ndarray) -> RangeNeighbors:
            excluded = searching.excluded_rows(exclude, searcher.table, len(vectors))
            expressions, _ = searching.expressions_of(filter, searcher, columns)
            found = searcher.within(vectors, least, excluded, expressions)
            return as_range(found, searcher.table.ids.names)

        return self._search(queries, within)

    def _columns(self) -> Mapping[str, str]:
        """The kind of every metadata column."""
        return {} if self._store.layout is None else self._store.layout.columns

    def _search(self, queries: Any, search: Callable[[Searcher, np.ndarray], _Answer]) -> _Answer:
        for _ in range(3):
            store, vectors = self._store, self.as_queries(queries)
            table = store.rows()
            assert store.own is not None and store.layout is not None
            self._check_lengths(vectors, 'queries')
            searcher = Searcher(store.connection, store.own, table, store.layout,
                                self.search_params, store.consistency)
            try:
                return search(searcher, rounded(vectors.cpu().numpy(), store.layout.dtype))
            except searching.UnknownRow:
                store.forget_rows()  # another process has added rows
        raise MilvusError(f'Other processes add rows to the collection {self._store.name!r} faster '
                          'than it can be searched: search it when they are done.')

    @reads
    def save(self, path: str | PathLike[str]) -> None:
        """Write vectors, ids and metadata to one safetensors file, a copy that needs no Milvus."""
        wanted = self._store.wanted
        export.write(path, self._store, dict(
            similarity=self.similarity.name, search_params=self.search_params,
            index_params=dict(index_type=wanted.index_type, params=dict(wanted.index_params)),
            metadata=dict(wanted.columns) if self._store.declared else None,
            id_length=wanted.id_length, batch_size=self._store.batch_size, dtype=wanted.dtype,
            partition_key=wanted.partition_key))

    @classmethod
    def load(cls, path: str | PathLike[str], uri: str | None = None, collection: str = 'retrieval',
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
            index.fingerprint = content.fingerprint
            if len(content.ids):
                index._replace(content.vectors, content.ids, content.metadata, 'copy')
        except BaseException:
            index.close()
            raise
        return index

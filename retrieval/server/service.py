"""What is served: searches, rows and changes, over one snapshot after another."""
from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..answers import placed
from ..checks import whole_number
from ..evaluation import MatchCalibration
from ..files import write_json
from ..gallery import Fingerprint, FingerprintError, Gallery
from ..index import Index, MilvusIndex
from ..registration import EDGE
from ..retrievers.model_change import ModelChange
from ..retrievers.prototype import difference_message
from ..structures import RetrievalDataSample
from .batching import Batcher, BusyError, Encoder
from .facts import PictureFacts
from .pictures import NoPictureError, Pictures, Uploads
from .served import Served
from .shared_index import RowsChangedError, SharedRows
from .snapshot import Snapshot, display_root, handles_of, projected

_DEPTH = 500  # results that are stacked, sorted and counted
_STACKED = 0.95  # hits at least so similar to each other stand in one place
SORTS = ('score', 'date', 'folder')
Wanted = tuple[Any, int, np.ndarray | None]  # model, number of results, filter


class UnknownRowError(LookupError):
    """There is no such row, or not any more."""


@dataclass
class Query:
    """A part of a query: one of ``row``, ``id``, ``upload``, ``vector`` and ``text``.

    Args:
        row: the number of a row, as results have it.
        id: the id of a row.
        upload: the name of an upload.
        vector: an embedding ``(D,)``.
        text: words, where the encoder has a text tower.
        box: left, top, width and height of the part of the picture to search with, as shares of
            the whole in [0, 1].
        weight: below 0 what is not wanted.
    """

    row: int | None = None
    id: str | None = None
    upload: str | None = None
    vector: Sequence[float] | None = None
    text: str | None = None
    box: Sequence[float] | None = None
    weight: float = 1.0


@dataclass
class Encoding:
    """How far the encoding of a folder has come.

    Args:
        done: pictures that are encoded or cannot be read.
        total: pictures that there are.
        running: whether there is more to do.
        rate: pictures a second of the present run.
    """

    done: int = 0
    total: int = 0
    running: bool = False
    rate: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """As ``/v1/info`` says it."""
        left = self.total - self.done
        return dict(done=self.done, total=self.total, running=self.running,
                    rate=round(self.rate, 1),
                    seconds_left=round(left / self.rate) if self.rate and self.running else None)


@dataclass
class Source:
    """Where what is served comes from.

    Args:
        name: for people.
        state: the folder of thumbnails, uploads, marks and what else is kept.
        folder: the folder of pictures that is followed, or None.
        datasets: of a config, in which pictures are looked for.
    """

    name: str
    state: Path
    folder: str | None = None
    datasets: Sequence[Any] = field(default_factory=list)


class Service:
    """Searches, rows and changes of what is served; from any thread.

    Args:
        served: the model; one without a prototype waits for what is published.
        source: where the gallery comes from.
        read_only: refuse whatever changes something.
        show_paths: show where files are.

    Example:
        >>> import tempfile
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> model = ImageToImageRetriever(torch.nn.Flatten(), Gallery(np.eye(3), 'abc'))
        >>> source = Source('x', Path(tempfile.mkdtemp()))
        >>> service = Service(Served(model, [dict(type='PackInputs')]), source)
        >>> [hit['id'] for hit in service.search([Query(vector=[0, 1, .5])], k=2)['results']]
        ['b', 'c']
        >>> service.close()
    """

    def __init__(self, served: Served, source: Source, read_only: bool = False,
                 show_paths: bool = False) -> None:
        self.served, self.source = served, source
        self.read_only, self.show_paths = read_only, show_paths
        source.state.mkdir(parents=True, exist_ok=True)
        inside = None if source.folder is None else os.path.join(source.folder, '')
        self.pictures = Pictures(source.state, source.datasets, inside)
        self.uploads = Uploads(source.state / 'uploads')
        self._searches = Batcher(self._search, wait=0.0)  # together is what comes while others run
        self._looks = Batcher(self._look, wait=0.0)
        self.facts = PictureFacts(source.state / 'facts.sqlite', self.pictures.path_of)
        self.encoding = Encoding()
        self._returned = source.state / 'returned.json'
        self.returned = _counted(self._returned)  # how often each id was shown, for `migrate`
        self.trouble: str | None = None  # why the source could not be read lately
        self.snapshot: Snapshot | None = None
        self.refresh: Callable[[], None] = self._reload  # or that of what follows the source
        self.switching: Callable[[], AbstractContextManager[None]] = nullcontext
        self.stop = threading.Event()
        self._handles: dict[str, int] = {}
        self._root: str | None = None
        self._publishing = threading.Lock()
        self._fact_reader: threading.Thread | None = None
        if served.model.prototype is not None:
            try:
                self.publish(None)
            except FingerprintError as error:
                if served.shared is None:
                    raise
                self.trouble = str(error)  # until the rows of this model are switched to

    # The state -----------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The retriever that is served."""
        return self.served.model

    @property
    def encoder(self) -> Encoder:
        """That of the model."""
        return self.served.encoder

    @property
    def projection(self) -> Tensor | None:
        """What embeddings are multiplied by at present."""
        return self.served.projection

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of the model, as plain values."""
        return self.served.fingerprint

    def publish(self, gallery: Gallery | SharedRows | None, served: Served | None = None) -> None:
        """Serve another gallery from now on; None for the model's own prototype.

        Args:
            gallery: without a projection.
            served: another model, whose gallery it is.
        """
        with self._publishing:
            one = served or self.served
            own: Any = one.model.gallery if gallery is None else gallery
            if gallery is None and one.shared is not None:
                own = SharedRows(one.shared.view())
            served_rows: Any = gallery
            if isinstance(own, SharedRows):
                served_rows = own.index
            elif one.projection is not None:
                served_rows = projected(own, one.projection)
            if self._root is None:  # it stays as it was first shown
                self._root = self._root_of(own)
            one.gallery = own
            one.calibrate(own)
            handles = own.serials if isinstance(own, SharedRows) else \
                handles_of(own, self._handles)
            self.snapshot = Snapshot(one, served_rows, handles,
                                     self.generation + 1, self._root, self.facts)
            self.served = one
        self._read_facts()

    def _root_of(self, gallery: Any) -> str:
        """The folder that ids are shown relative to; empty where they are shown as they are."""
        roots = [getattr(dataset, 'data_root', '') for dataset in self.source.datasets]
        if self.source.folder is not None:
            roots = [self.source.folder]
        elif not isinstance(gallery, SharedRows):  # whose rows others may add anywhere
            return display_root(gallery) or ''
        return os.path.join(os.path.abspath(roots[0]), '') if roots and roots[0] else ''

    def _reload(self) -> None:
        """Serve the store as it is now."""
        if self.served.store is not None:
            self.publish(self.served.latest())

    def withdraw(self) -> None:
        """Serve nothing: the folder is empty."""
        self.snapshot = self.served.gallery = None

    def _read_facts(self) -> None:
        """Read the facts of pictures beside; one thread does, for the latest snapshot."""
        if self.stop.is_set() or (self._fact_reader is not None
                                  and self._fact_reader.is_alive()):
            return

        def read() -> None:
            seen = None
            while not self.stop.is_set() and self.snapshot is not seen:
                seen = self.snapshot
                if seen is not None:
                    self.facts.read(seen.ids, self.stop)
        self._fact_reader = threading.Thread(target=read, daemon=True, name='facts')
        self._fact_reader.start()

    def use(self, projection: Tensor | None) -> None:
        """Search through a projection ``(D, E)`` from now on, or through none."""
        self.served.projection = projection
        if self.served.gallery is not None:
            self.publish(self.served.gallery)

    @property
    def own_gallery(self) -> Gallery:
        """The gallery without a projection. Raises UnknownRowError where there is none."""
        gallery: Gallery | None = self.served.gallery
        if gallery is None:
            raise UnknownRowError('Nothing is served yet.')
        return gallery

    def both(self) -> tuple[Snapshot, Gallery]:
        """The present snapshot, and its gallery without a projection, of one moment."""
        with self._publishing:
            return self.current(), self.own_gallery

    def current(self) -> Snapshot:
        """The present snapshot. Raises UnknownRowError where nothing is served yet."""
        snapshot = self.present()
        if snapshot is None:
            raise UnknownRowError('Nothing is served yet: the first pictures are being encoded, or '
                                  'there are none.')
        return snapshot

    def present(self) -> Snapshot | None:
        """The present snapshot; of a shared index one that holds what others have acknowledged."""
        snapshot, shared = self.snapshot, self.served.shared
        if shared is not None:
            self._looks(shared)
            snapshot = self.snapshot
        return snapshot

    def _look(self, items: list[MilvusIndex]) -> list[None]:
        """Publish the rows of a shared index anew where they have changed; one look for all that
        wait.
        """
        snapshot = self.snapshot
        if snapshot is None or not snapshot.gallery.is_current():
            items[0].refresh()
            self._check_rows(items[0])  # before they are read
            view = items[0].view()
            self._check_rows(view)
            if len(view):
                self.publish(SharedRows(view))
            else:
                self.withdraw()
            self.trouble = None
        return [None] * len(items)

    def _check_rows(self, index: MilvusIndex) -> None:
        """Raise FingerprintError where another process has led the index to another model's rows.
        """
        if self.served.model.check_fingerprint and (different := difference_message(
                index.fingerprint, Fingerprint.from_dict(self.served.fingerprint))):
            raise FingerprintError(different)

    def close(self) -> None:
        """End the threads."""
        self.stop.set()
        self.served.close()
        self._searches.close()
        self._looks.close()
        if self._fact_reader is not None:
            self._fact_reader.join()
        self.facts.close()
        if self.returned:
            write_json(self._returned, dict(self.returned.most_common()))

    @property
    def generation(self) -> int:
        """Of the present snapshot; 0 where there is none."""
        return 0 if self.snapshot is None else self.snapshot.generation

    def info(self) -> dict[str, Any]:
        """What is served."""
        snapshot = self.present()
        served = self.served if snapshot is None else snapshot.served
        calibration, projection = served.calibration, served.projection
        gallery = None if snapshot is None else snapshot.gallery
        skipped = {} if gallery is None else getattr(gallery, 'skipped', {})
        root = '' if snapshot is None else snapshot.root or ''
        return dict(
            name=self.source.name, model=model_name(served.model),
            fingerprint=served.fingerprint, similarity=served.model.similarity.name,
            images=0 if snapshot is None else len(snapshot),
            encoding=self.encoding.as_dict(), trouble=self.trouble,
            unreadable=[dict(name=os.path.basename(name) if not root else name.removeprefix(root),
                             reason=why.replace(root, '') if root else why)
                        for name, why in list(skipped.items())[:1000]],
            threshold=None if calibration is None or projection is not None
            or calibration.method == 'tail' else calibration.threshold,
            encodes=bool(served.encoder.pipeline),
            words=bool(getattr(served.model, 'has_words', False)),
            calibrated=calibration is not None,
            rerank=bool(served.model.rerankers),
            projected=projection is not None,
            facets=[] if snapshot is None else snapshot.facets(),
            read_only=self.read_only,
            writable=not self.read_only and (self.source.folder is not None
                                             or self.served.store is not None),
            has_pictures=self.source.folder is not None or (
                snapshot is not None and any(self.facts.of(name) for name in snapshot.ids[:20])),
            parquet=find_spec('pyarrow') is not None, generation=self.generation)

    # Rows ----------------------------------------------------------------------------------------

    @staticmethod
    def row_of(snapshot: Snapshot, query: Query) -> int | None:
        """The row of the gallery that a query names, None where it names none.

        Raises:
            UnknownRowError: there is no such row.
        """
        if query.row is not None:
            row = snapshot.row_of_handle.get(query.row)
        elif query.id is not None:
            row = snapshot.row_of_name.get(query.id)
        else:
            return None
        if row is None:
            named = f'row {query.row}' if query.row is not None else f'id {query.id!r}'
            raise UnknownRowError(f'There is no {named}: it was removed, or never there.')
        return row

    def described(self, snapshot: Snapshot, row: int, score: float | None = None,
                  calibration: MatchCalibration | None = None) -> dict[str, Any]:
        """A row as a result, with the calibration of the query."""
        name, label = snapshot.name(row), snapshot.gallery.label_name(row)
        facts = self.facts.of(snapshot.ids[row])
        found = dict(
            row=int(snapshot.handles[row]), id=name, name=os.path.basename(name) or name,
            folder=os.path.dirname(name), label=label,
            score=None if score is None else round(score, 6), probability=None, match=None,
            width=facts.width if facts else None, height=facts.height if facts else None,
            date=facts.date if facts else None, metadata=_plain(snapshot.gallery.describe(row)),
            stacked=[])
        if score is not None and calibration is not None:
            found['match'] = bool(score >= calibration.threshold_of(label))
            if calibration.method is not None:
                found['probability'] = round(calibration.probability(score), 6)
        if self.show_paths:
            found['path'] = self.pictures.path_of(snapshot.ids[row])
        return found

    def item(self, handle: int) -> dict[str, Any]:
        """Everything that is known of a row. Raises UnknownRowError."""
        snapshot = self.current()
        row = self.row_of(snapshot, Query(row=handle))
        assert row is not None
        facts = self.facts.of(snapshot.ids[row])
        return {**self.described(snapshot, row), 'generation': snapshot.generation,
                'bytes': facts.bytes if facts else None, 'camera': facts.camera if facts else None}

    def name_of(self, handle: int) -> str:
        """The id, as the gallery has it, of a row. Raises UnknownRowError."""
        snapshot = self.current()
        row = self.row_of(snapshot, Query(row=handle))
        assert row is not None
        return snapshot.ids[row]

    # Searching -----------------------------------------------------------------------------------

    def embedding(self, snapshot: Snapshot, query: Query) -> Tensor:
        """The embedding ``(D,)`` of a part of a query.

        Raises:
            UnknownRowError, UnknownUploadError, NoPictureError: there is no such thing.
            UnreadableImageError: the picture cannot be read.
            ValueError: it names none, or several; the box lies outside; the vector is no embedding.
        """
        given = [name for name in ('row', 'id', 'upload', 'vector', 'text')
                 if getattr(query, name) is not None]
        if len(given) != 1:
            raise ValueError('A query names one of row, id, upload, vector and text, got '
                             f'{" and ".join(given) or "none"}.')
        if query.vector is not None:
            if query.box is not None:
                raise ValueError('A box is a part of a picture, and a vector has none.')
            vector = torch.tensor(list(query.vector), dtype=torch.float32)
            width = snapshot.width
            if vector.ndim != 1 or len(vector) != width or not bool(vector.isfinite().all()):
                raise ValueError(f'A vector has {width} finite numbers here, got {len(vector)}.')
            return vector if snapshot.projection is None else vector @ snapshot.projection
        if query.text is not None:
            if query.box is not None:
                raise ValueError('A box is a part of a picture, and words have none.')
            found = snapshot.served.encoder.words(query.text)
            return found if snapshot.projection is None else found @ snapshot.projection
        row = self.row_of(snapshot, query)
        if row is not None and query.box is None:
            if snapshot.served.mixture is not None:
                change: ModelChange = snapshot.served.model.image_encoder.change
                return change.queries(change.gallery.find([snapshot.ids[row]]).tolist())[0]
            return snapshot.vectors([row])[0]
        if query.box is None:
            assert query.upload is not None
            found = snapshot.served.encoder(str(self.uploads.path(query.upload)))
        else:
            picture = self.uploads.read(query.upload) if query.upload is not None else \
                self.pictures.read(snapshot.ids[row or 0])
            found = snapshot.served.encoder(cut(picture, query.box))
        return found if snapshot.projection is None else found @ snapshot.projection

    def search(self, queries: Sequence[Query] = (), k: int = 50, offset: int = 0,
               filter: Mapping[str, Any] | str | None = None, among: Collection[int] | None = None,
               rerank: bool | None = None, stack: bool = False,
               sort: str = 'score') -> dict[str, Any]:
        """Search, or, without queries, list what there is.

        Args:
            queries: whose embeddings, at length 1 and times their weights, are added.
            k: results.
            offset: results that are passed over.
            filter: see :meth:`Snapshot.mask`.
            among: the numbers of rows, of which alone there are results; None for all.
            rerank: with the model's rerankers or without; None as the model is configured.
            stack: put results that are near-duplicates of a better one behind it.
            sort: ``'score'``; ``'date'`` or ``'folder'`` sort the best 500.

        Raises:
            ValueError: an argument is wrong; see also :meth:`embedding`.
        """
        start = time.perf_counter()
        whole_number('k', k)
        if sort not in SORTS or offset < 0:
            raise ValueError(f'sort is one of {", ".join(SORTS)} and offset not below 0; got '
                             f'{sort!r} and {offset}.')
        for _ in range(5):
            snapshot = self.present()
            if snapshot is None:
                if queries:
                    self.current()
                return self._answer(None, [], None, 0, None, [], start)
            try:
                return self._searched(snapshot, queries, k, offset, filter, among, rerank, stack,
                                      sort, start)
            except RowsChangedError:
                continue
        raise BusyError('Rows are added and removed faster than they can be searched: try again.')

    def _searched(self, snapshot: Snapshot, queries: Sequence[Query], k: int, offset: int,
                  filter: Mapping[str, Any] | str | None, among: Collection[int] | None,
                  rerank: bool | None, stack: bool, sort: str, start: float) -> dict[str, Any]:
        """The answer of one snapshot. Raises RowsChangedError where that is over."""
        mask = snapshot.mask(filter or {})
        if among is not None:
            inside = np.isin(snapshot.handles, list(among))
            mask = inside if mask is None else mask & inside
        scores: dict[int, float] = {}
        calibration = snapshot.calibration
        places: dict[int, dict[str, Any]] = {}
        if queries:
            depth = max(calibration.depth if calibration else 0,
                        offset + (2 if stack else 1) * k,
                        _DEPTH if snapshot.columns or sort != 'score' else 0)
            rows, scores, places = self._ranked(snapshot, queries, depth, mask, rerank)
            best = scores[rows[0]] if rows else None
        else:
            rows = (np.arange(len(snapshot)) if mask is None else np.flatnonzero(mask)).tolist()
            best = None
        if calibration is not None and calibration.depth and not queries:  # it judges rankings
            calibration = None
        elif calibration is not None and queries:
            calibration = None if len(scores) < calibration.fewest else calibration.of_query(
                [scores[row] for row in rows])
        counted = np.asarray(rows, dtype=np.int64)
        facets = snapshot.facets(None if not queries and mask is None else
                                 counted[:_DEPTH] if queries else counted)
        total = len(rows) if not queries else (
            len(snapshot) if mask is None else int(mask.sum()))
        if sort != 'score':
            rows = self._sorted(snapshot, rows, sort)
        stacked: dict[int, list[int]] = {}
        if stack and queries and sort == 'score':
            rows, stacked = _stacks(snapshot, rows, offset + 2 * k)
        shown = [self.described(snapshot, int(row), scores.get(int(row)), calibration)
                 | dict(stacked=[int(snapshot.handles[one]) for one in stacked.get(int(row), ())])
                 | places.get(int(row), {})
                 for row in rows[offset:offset + k]]
        if queries:
            self.returned.update(snapshot.ids[int(row)] for row in rows[offset:offset + k])
        asked = [None if row is None else self.described(snapshot, row)
                 for row in (self.row_of(snapshot, query) for query in queries)]
        if any(query.text is not None for query in queries):  # the calibration is of pictures
            shown = [one | dict(probability=None, match=None) for one in shown]
            return self._answer(snapshot, shown, None, total, None, facets, start) \
                | dict(queries=asked)
        return self._answer(snapshot, shown, calibration, total, best, facets, start) \
            | dict(queries=asked)

    def _answer(self, snapshot: Snapshot | None, shown: list[dict[str, Any]],
                calibration: MatchCalibration | None, total: int, best: float | None,
                facets: list[Any], start: float) -> dict[str, Any]:
        threshold = None if calibration is None else calibration.threshold
        return dict(results=shown, threshold=threshold,
                    no_match=best is not None and threshold is not None and best < threshold,
                    total=total, facets=facets,
                    generation=0 if snapshot is None else snapshot.generation,
                    milliseconds=round(1000 * (time.perf_counter() - start), 1))

    def _ranked(self, snapshot: Snapshot, queries: Sequence[Query], depth: int,
                mask: np.ndarray | None,
                rerank: bool | None) -> tuple[list[int], dict[int, float],
                                              dict[int, dict[str, Any]]]:
        """The best rows, the score of each, and where the query lies in its picture, as far as a
        reranker looked; the rows that a query names are left out.
        """
        if rerank and not snapshot.model.rerankers:
            raise ValueError('The model has no rerankers: leave rerank out, or serve a config with '
                             '`model.rerank`.')
        vectors = [self.embedding(snapshot, query) for query in queries]
        if len(queries) == 1 and queries[0].weight > 0:
            vector = vectors[0]
        else:
            vector = torch.stack([query.weight * normalize(one, dim=0) for query, one in
                                  zip(queries, vectors, strict=True)]).sum(0)
        named = {row for query in queries if query.box is None
                 and (row := self.row_of(snapshot, query)) is not None}
        sample = RetrievalDataSample()
        if len(named) == 1 and snapshot.gallery.identified:
            sample.set_metainfo(dict(sample_id=snapshot.ids[next(iter(named))]))
        elif named:
            mask = np.ones(len(snapshot), dtype=bool) if mask is None else mask.copy()
            mask[list(named)] = False
        if mask is not None and not mask.any():
            return [], {}, {}
        model = snapshot.plain if rerank is False else snapshot.model
        if model.rerankers and len(queries) == 1 and queries[0].vector is None:
            sample.set_field(partial(self._asked, snapshot, queries[0]), 'picture',
                             field_type='metainfo')
        # a reranker may bring in rows that the filter keeps out, so it ranks all of them
        outside = mask is not None and bool(model.rerankers)
        wanted = (model, -1 if outside else depth, mask)
        if mask is None:
            self._searches((wanted, vector, sample))
        else:
            self._search([(wanted, vector, sample)])
        if isinstance(snapshot.gallery, SharedRows):
            snapshot.gallery.check()  # else the rows may be counted otherwise
        pairs = [(row, score) for row, score in zip(sample.pred_label.tolist(),
                                                    sample.pred_score.tolist(), strict=True)
                 if mask is None or mask[row]][:depth]
        matches = sample.get('pred_match', None)
        places = {} if matches is None else dict(zip(
            sample.pred_label.tolist(), map(placed, matches), strict=True))
        return [row for row, _ in pairs], dict(pairs), places

    def _asked(self, snapshot: Snapshot, query: Query) -> np.ndarray:
        """The picture of a part of a query."""
        if query.upload is not None:
            picture = self.uploads.read(query.upload)
        else:
            row = self.row_of(snapshot, query)
            assert row is not None
            picture = self.pictures.read(snapshot.ids[row])
        return picture if query.box is None else cut(picture, query.box)

    def _picture(self, name: str) -> np.ndarray | None:
        try:
            return self.pictures.read(name, min_edge=2 * EDGE)
        except NoPictureError:
            return None

    def _search(self, items: list[tuple[Wanted, Tensor, RetrievalDataSample]]) -> list[None]:
        """Fill the samples of several searches; those of one model and depth are one product."""
        left = list(items)
        while left:
            model, topk, mask = left[0][0]
            same = [one for one in left if one[0][0] is model and one[0][1] == topk]
            left = [one for one in left if one[0][0] is not model or one[0][1] != topk]
            vectors = torch.stack([vector for _, vector, _ in same])
            device = next(iter(model.parameters()), vectors).device
            model.search(vectors.to(device), [sample for *_, sample in same], topk, filter=mask,
                         pictures=self._picture)
        return [None] * len(items)

    def _sorted(self, snapshot: Snapshot, rows: list[int], sort: str) -> list[int]:
        """The first rows by folder, or by date with the latest first and the unknown last."""
        rows = rows[:_DEPTH] if self.facts.version == 0 else rows
        if sort == 'folder':
            return sorted(rows, key=snapshot.name)
        dates = {row: (facts.date if (facts := self.facts.known(snapshot.ids[row])) else None) or ''
                 for row in rows}
        return sorted(rows, key=lambda row: dates[row], reverse=True)

    def embed(self, query: Query) -> dict[str, Any]:
        """The embedding of a picture or row, as plain numbers."""
        snapshot = self.snapshot
        if snapshot is None and query.upload is not None:
            served = self.served
            found = served.encoder(str(self.uploads.path(query.upload)))
        else:
            snapshot = self.current()
            served, found = snapshot.served, self.embedding(snapshot, query)
        return dict(embedding=found.tolist(), fingerprint=served.fingerprint)


def cut(picture: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """The part of a picture ``(H, W, C)`` in a box of shares: left, top, width, height.

    Raises:
        ValueError: the box is no such box, or smaller than a pixel.

    Example:
        >>> cut(np.zeros((10, 20, 3), np.uint8), [0.5, 0, 0.5, 0.1]).shape
        (1, 10, 3)
    """
    values = list(map(float, box))
    if len(values) != 4 or not all(0 <= value <= 1 for value in values) or \
            values[0] + values[2] > 1.0001 or values[1] + values[3] > 1.0001:
        raise ValueError('A box is [left, top, width, height] in shares of the picture, each '
                         f'within 0 and 1; got {list(box)}.')
    height, width = picture.shape[:2]
    left, top = round(values[0] * width), round(values[1] * height)
    right, bottom = round((values[0] + values[2]) * width), round((values[1] + values[3]) * height)
    part = picture[top:bottom, left:right]
    if not part.size:
        raise ValueError(f'The box {list(box)} holds no pixel of the picture of {width} x '
                         f'{height}.')
    return np.ascontiguousarray(part)


def _stacks(snapshot: Snapshot, rows: Sequence[int],
            depth: int) -> tuple[list[int], dict[int, list[int]]]:
    """The rows without those that are near-duplicates of an earlier one, which stand behind it.

    Args:
        depth: how many of the rows are compared, up to 500.
    """
    depth = min(depth, _DEPTH)
    head = list(rows[:depth])
    try:
        vectors = normalize(snapshot.vectors(head))
    except ValueError:  # this index gives none back
        return list(rows), {}
    near = (vectors @ vectors.T >= _STACKED).cpu().numpy()
    first: list[int] = []
    behind: dict[int, list[int]] = {}
    for place, row in enumerate(head):
        leader = next((one for one in first if near[place, one]), None)
        if leader is None:
            first.append(place)
        else:
            behind.setdefault(head[leader], []).append(row)
    return [head[place] for place in first] + list(rows[depth:]), behind


def _counted(path: Path) -> Counter[str]:
    """The counts of an earlier server; none where there are none that can be read."""
    try:
        return Counter({str(name): int(count) for name, count in
                        json.loads(path.read_text(encoding='utf-8')).items()})
    except (OSError, ValueError, AttributeError, TypeError):
        return Counter()


def model_name(model: Any) -> str:
    """The name of a retriever's encoder, or of the index that it searches without one.

    Example:
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> model_name(ImageToImageRetriever(torch.nn.Flatten()))
        'Flatten'
    """
    if isinstance(model.prototype, Index) and not list(model.parameters()):
        return type(model.prototype).__name__
    backbone = getattr(model.image_encoder, 'backbone', model.image_encoder)
    return str(getattr(backbone, 'model_name', None) or type(backbone).__name__)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON can hold it: a number that is none is null."""
    return {name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in values.items()}

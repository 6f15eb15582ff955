"""Both models of a reload, searched as one while the new one encodes."""
from __future__ import annotations

import threading
from typing import Any

from ..gallery import Gallery
from ..index import PartsIndex
from ..registry import INDEXES
from ..retrievers.changing_retriever import both_pipelines, changing_retriever
from ..retrievers.model_change import EmbeddingMap, ModelChange
from .served import Served
from .service import Service, model_name

FEWEST = 10  # pictures of both models, from which a map is learned


class NothingToSwitchError(RuntimeError):
    """There is no other model to load or to switch to."""


class BothModels:
    """The rows of an old model, of which a new one has encoded a part, and the map between them.

    Args:
        service: what is served.
        old: the model whose rows all are.
        new: the one that encodes them anew.
        lock: held by whoever changes which model is served.

    Attributes:
        share: of the old rows that the new model has encoded.
        agreement: of the map, see :class:`~retrieval.retrievers.model_change.EmbeddingMap`; None
            while there are too few rows.
    """

    def __init__(self, service: Service, old: Served, new: Served,
                 lock: threading.RLock) -> None:
        self.service, self.old, self.new, self.lock = service, old, new, lock
        self.share = 0.0
        self.agreement: float | None = None
        self._encoded: Gallery | None = None
        self._learned: EmbeddingMap | None = None
        self._count = 0  # of rows of both
        self._served: Served | None = None

    @property
    def in_use(self) -> bool:
        """True where both are searched at present."""
        return self.service.served.mixture is self

    def take(self, encoded: Gallery) -> None:
        """The new model has encoded these rows by now: learn the map, and serve them where both are
        searched.
        """
        old = self.old.gallery
        learned = None if old is None or self._shared(old, encoded) < FEWEST or self._by_parts \
            else ModelChange(old, encoded).map  # for seconds, in which one may switch
        with self.lock:
            self._encoded, self._learned = encoded, learned
            self._renew(self.in_use)

    def follow(self, gallery: Gallery) -> None:
        """The folder has these rows by now, as the old model encodes them: serve them."""
        with self.lock:
            self.old.gallery = gallery
            if self.service.served is self.old:  # a reload has failed meanwhile
                self.service.publish(gallery)
            else:
                self._renew(self.in_use)

    def reread(self) -> None:
        """Take the rows of the stores as they are now."""
        with self.lock:
            self._learned = None
            self._renew(self.in_use)

    def use(self) -> None:
        """Serve both. Raises NothingToSwitchError where that is not possible (yet)."""
        with self.lock:
            if self._by_parts:
                raise NothingToSwitchError('Pictures are searched by their parts, and only models '
                                           'of one vector a picture are searched as one: use the '
                                           'new or the old one.')
            self._renew(True)
            if not self.in_use:
                raise NothingToSwitchError(
                    f'{self._count} pictures are encoded by both models so far, and {FEWEST} at '
                    'least are needed to search both: wait, GET /v1/model/reload says how far it '
                    'is.')

    def rest(self) -> None:
        """Another model is served: end the thread of what was."""
        if self._served is not None:
            self._served.close()
            self._served = None

    def _renew(self, serve: bool) -> None:
        """Look at the rows that there are, and serve them, if that is wanted; the old model where
        too few are left.
        """
        for one in (self.old, self.new):
            if one.store is not None:
                one.gallery = one.latest()
        if self.new.gallery is not None:  # all are encoded, and some may have come since
            self._encoded = self.new.gallery
        old, encoded = self.old.gallery, self._encoded
        if old is None or encoded is None or self._by_parts:
            return
        self._count = self._shared(old, encoded)
        self.share = self._count / len(old)
        if self._count < FEWEST:
            self._learned = None
            if self.in_use:
                self.service.publish(old, self.old)
                self.rest()
        else:
            self._learned = self._learned or ModelChange(old, encoded).map
            if serve:
                self._publish(old, encoded)
        self.agreement = None if self._learned is None else self._learned.agreement

    @staticmethod
    def _shared(old: Gallery, encoded: Gallery) -> int:
        """The number of rows that both have."""
        return int((encoded.ids.find(old.ids) >= 0).sum())

    @property
    def _by_parts(self) -> bool:
        """True where a model makes several vectors of a picture."""
        kinds = [one.model.index_cfg['type'] for one in (self.old, self.new)]
        return any((INDEXES.get(kind) if isinstance(kind, str) else kind) is PartsIndex
                   for kind in kinds)

    def _publish(self, old: Gallery, encoded: Gallery) -> None:
        """Serve the rows of both."""
        model: Any = changing_retriever(old, encoded, self.new.model, self.old.model, self._learned)
        pipeline = both_pipelines(self.new.pipeline, self.old.pipeline)
        model.image_encoder.model_name = \
            f'{model_name(self.old.model)} and {model_name(self.new.model)}'
        before, self._served = self._served, Served(model, pipeline, cut=self.new.cut, mixture=self)
        self.service.publish(None, self._served)
        if before is not None:
            before.close()

"""Following a folder or a store: what is added, changed and removed is served soon after."""
from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..gallery import Gallery
from ..image_files import find_images
from ..retrievers import cached_gallery, encode
from ..search.prototypes import as_dataset
from .served import Served
from .service import Service

_EVERY = 2.0  # seconds between two looks, at least
_SHARE = 20  # and so many times what a look takes


class Stopped(Exception):
    """The server ends; what was encoded is kept."""


class Follower:
    """A thread that looks for changes and publishes them.

    Args:
        service: where to.
        look: what changes with the source; cheap.
        load: publishes the present state.
    """

    def __init__(self, service: Service, look: Callable[[], Any],
                 load: Callable[[], None]) -> None:
        self.service, self.look, self.load = service, look, load
        self._seen: Any = None
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name='follower')
        service.refresh, service.switching = self.refresh, self.switching

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def refresh(self) -> None:
        """Look now, and return when what is there is published; or after half a minute, where so
        much is being encoded that it comes later.
        """
        if not self._turn.acquire(timeout=30):
            return
        try:
            seen = self.look()
            if seen != self._seen:
                self.load()
                self._seen = seen
                self.service.trouble = None
        finally:
            self._turn.release()

    @contextmanager
    def switching(self) -> Iterator[None]:
        """Inside, nothing else is published; what is there afterwards is looked at anew."""
        with self._turn:
            try:
                yield
            finally:
                self._seen = None

    def _run(self) -> None:
        wait = 0.0
        while not self.service.stop.wait(wait):
            start = time.monotonic()
            try:
                self.refresh()
            except Stopped:
                return
            except Exception as error:  # the next look may find it mended
                said = str(error).replace(os.path.join(self.service.source.folder or '', ''), '')
                if said != self.service.trouble:
                    print_log(f'{self.service.source.name}: {error}', 'current', logging.WARNING)
                self.service.trouble = said
            wait = max(_EVERY, min(60.0, _SHARE * (time.monotonic() - start)))

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, after the service has been told to stop."""
        if self._thread.is_alive():
            self._thread.join(timeout)


def look_at_folder(folder: str) -> dict[str, tuple[int, int]]:
    """Size and time of every picture of a folder.

    Example:
        >>> import tempfile
        >>> look_at_folder(tempfile.mkdtemp())
        {}
    """
    found = {}
    for path in find_images(folder):
        try:
            status = os.stat(path)
            found[path] = (status.st_size, status.st_mtime_ns)
        except OSError:
            found[path] = (0, 0)
    return found


def encode_folder(served: Served, folder: str, so_far: Callable[[Gallery], object],
                  counts: Mapping[str, int] | None = None) -> Gallery:
    """The gallery of a folder, of which only what is new is encoded where there is a cache.

    Args:
        served: the model, and its cache.
        folder: of pictures.
        so_far: is called with the gallery of what there is already, at the beginning and later.
        counts: by id; what has the highest is encoded first, where there is a cache.
    """
    loader: DataLoader[Any] = DataLoader(as_dataset(folder, served.pipeline, 'skip'),
                                         batch_size=16, collate_fn=pseudo_collate)
    if served.cache is None:
        return encode(served.model, loader, None)
    beside = [] if served.spare is None else [served.spare]
    return cached_gallery(served.model, loader, served.cache, root=os.path.normpath(folder),
                          so_far=so_far, beside=beside, counts=counts)[0]


def follow_folder(service: Service) -> Follower:
    """A follower of the service's folder, which encodes what is new; by the old model, where both
    are searched.
    """
    folder = service.source.folder
    assert folder is not None

    def load() -> None:
        encoding, first = service.encoding, None
        served, mixture = service.served, service.served.mixture
        publish = service.publish
        if mixture is not None:
            served, publish = mixture.old, mixture.follow
        encoding.total = len(find_images(folder))
        if not encoding.total:
            encoding.done, served.gallery = 0, None
            service.withdraw()
            return
        encoding.running, encoding.rate = True, 0.0
        told = took = 0.0

        def so_far(gallery: Gallery) -> None:
            nonlocal first, told, took
            if service.stop.is_set():
                raise Stopped
            encoding.done = len(gallery) + len(gallery.skipped)
            now = time.monotonic()
            if first is None:
                first = encoding.done, now
            encoding.rate = (encoding.done - first[0]) / max(1e-9, now - first[1])
            if service.snapshot is None or (now - told >= 10 * took and encoding.done > first[0]):
                gallery.embeddings  # noqa: B018  (read now: the files of parts are deleted)
                publish(gallery)
                told, took = time.monotonic(), time.monotonic() - now

        try:
            gallery = encode_folder(served, folder, so_far)
            publish(gallery)
            encoding.done = encoding.total = len(gallery) + len(gallery.skipped)
        finally:
            encoding.running = False

    return Follower(service, lambda: look_at_folder(folder), load)


def follow_store(service: Service) -> Follower:
    """A follower of the service's store, or of both, which other processes may change."""
    def look() -> str:
        served, mixture = service.served, service.served.mixture
        return repr([one.store and one.store.state for one in
                     ([served] if mixture is None else [mixture.old, mixture.new])])

    def load() -> None:
        mixture = service.served.mixture
        if mixture is None:
            service.publish(service.served.latest())
        else:
            mixture.reread()
    follower = Follower(service, look, load)
    follower._seen = look()
    return follower

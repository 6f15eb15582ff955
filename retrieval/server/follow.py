"""Following a folder or a store: what is added, changed and removed is served soon after."""
from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..gallery import Gallery, GalleryStore
from ..image_files import find_images
from ..retrievers import cached_gallery
from ..search.prototypes import as_dataset
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

    Attributes:
        error: why the last attempt failed, or None.
    """

    def __init__(self, service: Service, look: Callable[[], Any],
                 load: Callable[[], None]) -> None:
        self.service, self.look, self.load = service, look, load
        self.error: str | None = None
        self._seen: Any = None
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True, name='follower')
        service.refresh = self.refresh

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
                self.error = None
        finally:
            self._turn.release()

    def _run(self) -> None:
        wait = 0.0
        while not self.service.stop.wait(wait):
            start = time.monotonic()
            try:
                self.refresh()
            except Stopped:
                return
            except Exception as error:  # the next look may find it mended
                if str(error) != self.error:
                    print_log(f'{self.service.source.name}: {error}', 'current', logging.WARNING)
                self.error = str(error)
            wait = max(_EVERY, min(60.0, _SHARE * (time.monotonic() - start)))

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, after the service has been told to stop."""
        if self._thread.is_alive():
            self._thread.join(timeout)


def follow_folder(service: Service, pipeline: Sequence[dict[str, Any]],
                  cache: Path | None) -> Follower:
    """A follower of the service's folder, which encodes what is new.

    Args:
        service: whose source has a folder.
        pipeline: config of the test pipeline.
        cache: where what is encoded is kept, or None.
    """
    folder = service.source.folder
    assert folder is not None

    def look() -> dict[str, tuple[int, int]]:
        found = {}
        for path in find_images(folder):
            try:
                status = os.stat(path)
                found[path] = (status.st_size, status.st_mtime_ns)
            except OSError:
                found[path] = (0, 0)
        return found

    def load() -> None:
        encoding, first = service.encoding, None
        encoding.total = len(find_images(folder))
        if not encoding.total:
            encoding.done = 0
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
                service.publish(gallery)
                told, took = time.monotonic(), time.monotonic() - now

        dataset = as_dataset(folder, pipeline, 'skip')
        loader: DataLoader[Any] = DataLoader(dataset, batch_size=16, collate_fn=pseudo_collate)
        try:
            if cache is None:
                from ..retrievers import encode
                gallery = encode(service.model, loader, None)
            else:
                gallery, report = cached_gallery(service.model, loader, cache,
                                                 root=os.path.normpath(folder), so_far=so_far)
            service.publish(gallery)
            encoding.done = encoding.total = len(gallery) + len(gallery.skipped)
        finally:
            encoding.running = False

    return Follower(service, look, load)


def follow_store(service: Service) -> Follower:
    """A follower of the service's store, which other processes may change."""
    store = service.source.store
    assert isinstance(store, GalleryStore)

    def load() -> None:
        service.publish(store.load(copy=True))
    follower = Follower(service, lambda: repr(store.state), load)
    follower._seen = repr(store.state)
    return follower

"""A better model beside the one that is served: encoded, compared, switched to, and back."""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from mmengine.logging import print_log

from ..evaluation import compare_galleries
from ..gallery import Gallery
from ..image_files import find_images
from .background import Progress
from .follow import Stopped, encode_folder, look_at_folder
from .served import Served
from .service import Service


class NothingToSwitchError(RuntimeError):
    """There is no other model to load or to switch to."""


class Reload:
    """Loads a model again, or a better one, while the present one goes on answering.

    Args:
        service: what is served.
        load: makes the other model from what the command named; None where there is none.
        missing: why there is none.
    """

    def __init__(self, service: Service, load: Callable[[], Served] | None = None,
                 missing: str = 'This server knows no other model.') -> None:
        self.service, self.load, self.missing = service, load, missing
        self._lock = threading.Lock()  # of what follows
        self._old: Served | None = None
        self._new: Served | None = None
        self._look: Any = None  # at the folder, before the new model's gallery was made
        self._progress, self._began, self._took = Progress(), 0.0, 0.0
        self._thread: threading.Thread | None = None
        self._comparison: dict[str, Any] | None = None
        self._failure: str | None = None

    @property
    def running(self) -> bool:
        """True while a model is being loaded and compared."""
        return self._thread is not None and self._thread.is_alive()

    def state(self) -> dict[str, Any]:
        """How far it is, the comparison, and which model is served.

        Returns:
            ``state``: none, running, ready or failed; ``step``, ``done`` and ``total`` of what
            runs, ``seconds``; ``error``; ``use``: old or new; ``comparison``.
        """
        with self._lock:
            running = self.running
            state = 'running' if running else 'failed' if self._failure is not None else \
                'none' if self._new is None else 'ready'
            progress = self._progress.as_dict() if running else {}
            return dict(
                state=state, step=progress.get('step'), done=progress.get('done'),
                total=progress.get('total'), error=None if running else self._failure,
                seconds=round(time.monotonic() - self._began if running else self._took, 1),
                use='new' if self._new is not None and self.service.served is self._new else 'old',
                can_load=self.load is not None, comparison=self._comparison)

    def begin(self) -> dict[str, Any]:
        """Load, encode and compare in the background, where that does not run already.

        What is served then becomes the old model; nothing is switched yet.

        Raises:
            NothingToSwitchError: the command named nothing that can be loaded again.
        """
        if self.load is None:
            raise NothingToSwitchError(self.missing)
        with self._lock:
            if not self.running:
                self._began, self._failure, self._progress = time.monotonic(), None, Progress()
                self._thread = threading.Thread(target=self._run, daemon=True, name='reload')
                self._thread.start()
        return self.state()

    def _run(self) -> None:
        made: Served | None = None
        try:
            made = self._loaded()
            comparison = self._compared(made)
            with self._lock:
                left = [one for one in (self._old, self._new)
                        if one is not None and one is not self.service.served]
                self._old, self._new = self.service.served, made
                self._comparison, self._took = comparison, time.monotonic() - self._began
            for one in left:
                one.close()
        except Exception as error:
            if made is not None:
                made.close()
            if isinstance(error, Stopped):
                return
            self._failure, self._took = self._shown(error), time.monotonic() - self._began
            print_log(f'The other model was not loaded: {error}', 'current', logging.WARNING)

    def _shown(self, error: Exception) -> str:
        """The error without the folder that is served."""
        folder = self.service.source.folder
        return str(error) if folder is None else str(error).replace(f'{folder}/', '')

    def _loaded(self) -> Served:
        """The other model with its gallery."""
        assert self.load is not None
        self._progress.begin('loading')
        made, folder = self.load(), self.service.source.folder
        if folder is None:
            self._progress.begin('encoding')
            made.gallery = made.latest() or made.model.gallery
            return made
        self._progress.begin('encoding', len(find_images(folder)))
        self._look = look_at_folder(folder)
        made.gallery = encode_folder(made, folder, self._so_far)
        return made

    def _so_far(self, gallery: Gallery) -> None:
        if self.service.stop.is_set():
            raise Stopped
        self._progress.done = len(gallery) + len(gallery.skipped)

    def _compared(self, made: Served) -> dict[str, Any]:
        """What changes for the pictures that both galleries hold."""
        self._progress.begin('comparing')
        snapshot, old = self.service.both()
        found = compare_galleries(old, made.gallery).as_dict()
        known = {name: row for row, name in enumerate(snapshot.ids)}

        def shown(name: str) -> str:
            return snapshot.name(known[name]) if name in known else name.rpartition('/')[2]
        found['most_changed'] = [
            dict(id=shown(name), overlap=overlap, before=shown(before), after=shown(after))
            for name, overlap, before, after in found['most_changed']]
        return found

    def use(self, which: str) -> dict[str, Any]:
        """Switch to the new model in one step, or back to the old one; searches that run end as
        they began.

        Raises:
            NothingToSwitchError: none was loaded.
        """
        with self._lock:
            other = self._new if which == 'new' else self._old
        if other is None:
            raise NothingToSwitchError('There is no other model yet: POST /v1/model/reload, and '
                                       'wait until its state is "ready".')
        with self.service.switching():
            if other is not self.service.served:
                self.service.publish(self._present(other), other)
        return self.state()

    def _present(self, served: Served) -> Any:
        """The gallery of a model as the source is now."""
        folder = self.service.source.folder
        if folder is None:
            return served.latest()
        look = look_at_folder(folder)
        if served.cache is not None and look and look != self._look:
            served.gallery, self._look = encode_folder(served, folder, lambda _: None), look
        return served.gallery

    def close(self) -> None:
        """Wait for what runs, after the service has been told to stop."""
        if self._thread is not None:
            self._thread.join(5)
        for one in (self._old, self._new):
            if one is not None:
                one.close()

"""A better model beside the one that is served: encoded, compared, searched with the old one as
one meanwhile, switched to, and back.
"""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from mmengine.logging import print_log

from ..evaluation import compare_galleries
from ..gallery import Gallery
from ..image_files import find_images
from .background import Progress
from .changing import BothModels, NothingToSwitchError
from .follow import Stopped, encode_folder, look_at_folder
from .served import Served
from .service import Service


@dataclass
class _Pair:
    """Two models, and what is known of them together."""

    old: Served | None = None
    new: Served | None = None  # when it has encoded everything
    both: BothModels | None = None
    comparison: dict[str, Any] | None = None


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
        self._switching = threading.RLock()  # of which model is served; before the other lock
        self._lock = threading.Lock()  # of what follows
        self._pair, self._before = _Pair(), _Pair()
        self._looks: WeakKeyDictionary[Served, Any] = WeakKeyDictionary()  # as they were encoded
        self._progress, self._began, self._took = Progress(), 0.0, 0.0
        self._told, self._telling = 0.0, 0.0  # when it was last looked at both, and for how long
        self._thread: threading.Thread | None = None
        self._failure: str | None = None

    @property
    def running(self) -> bool:
        """True while a model is being loaded and compared."""
        return self._thread is not None and self._thread.is_alive()

    def state(self) -> dict[str, Any]:
        """How far it is, the comparison, and which model is served.

        Returns:
            ``state``: none, running, ready or failed; ``step``, ``done`` and ``total`` of what
            runs, ``seconds``; ``error``; ``use``: old, new or both; ``share`` of the rows that the
            new model has encoded, and the ``agreement`` of the map that makes the others, both up
            to 1; ``comparison``, while it runs of the rows that are encoded by both.
        """
        with self._lock:
            running, pair = self.running, self._pair
            state = 'running' if running else 'failed' if self._failure is not None else \
                'none' if pair.new is None else 'ready'
            progress = self._progress.as_dict() if running else {}
            served, both = self.service.served, pair.both
            return dict(
                state=state, step=progress.get('step'), done=progress.get('done'),
                total=progress.get('total'), error=None if running else self._failure,
                seconds=round(time.monotonic() - self._began if running else self._took, 1),
                use='both' if served.mixture is not None else
                'new' if served is pair.new else 'old',
                share=None if both is None else both.share,
                agreement=None if both is None else both.agreement,
                can_load=self.load is not None, comparison=pair.comparison)

    def begin(self) -> dict[str, Any]:
        """Load, encode and compare in the background, where that does not run already.

        What is served then becomes the old model; nothing is switched yet.

        Raises:
            NothingToSwitchError: the command named nothing that can be loaded again, or both
                models are searched.
        """
        if self.load is None:
            raise NothingToSwitchError(self.missing)
        with self._switching, self._lock:
            if not self.running:
                if self.service.served.mixture is not None:
                    raise NothingToSwitchError('Both models are searched: use the new or the old '
                                               'one first, which is then the old one.')
                self._before, self._pair = self._pair, _Pair(self.service.served)
                self._began, self._failure, self._progress = time.monotonic(), None, Progress()
                self._told = self._telling = 0.0
                self._thread = threading.Thread(target=self._run, daemon=True, name='reload')
                self._thread.start()
        return self.state()

    def _run(self) -> None:
        made: Served | None = None
        try:
            self._progress.begin('loading')
            assert self.load is not None and self._pair.old is not None
            made = self.load()
            both = self._pair.both = BothModels(self.service, self._pair.old, made,
                                                self._switching)
            made.gallery = self._encoded(made)
            both.take(made.gallery)
            self._progress.begin('comparing')
            comparison = self._compared(made.gallery)
            with self._lock:
                self._pair.new, self._pair.comparison = made, comparison
                self._took = time.monotonic() - self._began
                left, self._before = self._before, _Pair()
            for one in (left.old, left.new):
                if one is not None and one is not self._pair.old:
                    one.close()
        except Exception as error:
            if not isinstance(error, Stopped):
                self._undo(error)
            if made is not None:
                made.close()

    def _undo(self, error: Exception) -> None:
        """As it was before the reload that has failed; of both models the old one answers."""
        with self._switching:
            both = self._pair.both
            if both is not None and both.in_use:
                self.service.publish(both.old.gallery, both.old)
            if both is not None:
                both.rest()
            with self._lock:
                self._pair = self._before
                self._failure, self._took = self._shown(error), time.monotonic() - self._began
        print_log(f'The other model was not loaded: {error}', 'current', logging.WARNING)

    def _shown(self, error: Exception) -> str:
        """The error without the folder that is served."""
        folder = self.service.source.folder
        return str(error) if folder is None else str(error).replace(f'{folder}/', '')

    def _encoded(self, made: Served) -> Gallery:
        """The gallery of the other model."""
        folder = self.service.source.folder
        if folder is None:
            self._progress.begin('encoding')
            found: Gallery = made.latest() or made.model.gallery
            return found
        self._progress.begin('encoding', len(find_images(folder)))
        self._looks[made] = look_at_folder(folder)
        return encode_folder(made, folder, self._so_far, self.service.returned)

    def _so_far(self, gallery: Gallery) -> None:
        """The other model has encoded these rows by now; a tenth of the time goes into looking at
        them.
        """
        if self.service.stop.is_set():
            raise Stopped
        self._progress.done = len(gallery) + len(gallery.skipped)
        now, both = time.monotonic(), self._pair.both
        if both is None or now - self._told < 10 * self._telling:
            return
        gallery.embeddings  # noqa: B018  (read now: the files of parts are deleted)
        both.take(gallery)
        if both.agreement is not None:
            comparison = self._compared(gallery, whole=False)
            with self._lock:
                self._pair.comparison = comparison
        self._told, self._telling = time.monotonic(), time.monotonic() - now

    def _compared(self, new: Gallery, whole: bool = True) -> dict[str, Any]:
        """What changes for the pictures that both galleries hold, among all or among these."""
        assert self._pair.old is not None
        old, snapshot = self._pair.old.gallery, self.service.current()
        if not whole:
            old = old.subset([row for row in old.ids.find(list(new.ids)).tolist() if row >= 0])
        try:
            found = compare_galleries(old, new).as_dict()
        except ValueError:  # no picture has another of its class
            found = compare_galleries(old, new, metrics=()).as_dict()
        known = {name: row for row, name in enumerate(snapshot.ids)}

        def shown(name: str) -> str:
            return snapshot.name(known[name]) if name in known else name.rpartition('/')[2]
        found['most_changed'] = [
            dict(id=shown(name), overlap=overlap, before=shown(before), after=shown(after))
            for name, overlap, before, after in found['most_changed']]
        return found

    def use(self, which: str) -> dict[str, Any]:
        """Switch to the new model in one step, back to the old one, or to both; searches that run
        end as they began.

        Args:
            which: new, old or both; the new one when all is encoded, both from ten pictures on.

        Raises:
            NothingToSwitchError: none was loaded, or it has not encoded enough.
        """
        self._named(which)  # refused without waiting
        with self.service.switching(), self._switching:
            other = self._named(which)
            if isinstance(other, BothModels):
                if not other.in_use:
                    self._present(other.old)
                    other.use()
            elif other is not self.service.served:
                self.service.publish(self._present(other), other)
                if self._pair.both is not None:
                    self._pair.both.rest()
        return self.state()

    def _named(self, which: str) -> Served | BothModels:
        with self._lock:
            other = dict(new=self._pair.new, old=self._pair.old, both=self._pair.both)[which]
        if other is None:
            raise NothingToSwitchError('There is no other model yet: POST /v1/model/reload, and '
                                       'wait until its state is "ready".')
        return other

    def _present(self, served: Served) -> Any:
        """The gallery of a model as the source is now."""
        folder = self.service.source.folder
        if folder is None:
            return served.latest()
        look = look_at_folder(folder)
        if served is not self.service.served and served.cache is not None and look \
                and look != self._looks.get(served):
            served.gallery = encode_folder(served, folder, lambda _: None)
            self._looks[served] = look
        return served.gallery

    def close(self) -> None:
        """Wait for what runs, after the service has been told to stop."""
        if self._thread is not None:
            self._thread.join(5)
        for pair in (self._pair, self._before):
            for one in (pair.old, pair.new):
                if one is not None:
                    one.close()
            if pair.both is not None:
                pair.both.rest()

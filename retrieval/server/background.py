"""Work that lasts, in the background: whoever asks waits for it, or is told how far it is."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Progress:
    """How far some work is.

    Example:
        >>> progress = Progress()
        >>> progress.begin('comparing', 10)
        >>> progress.advance(4)
        >>> progress.as_dict()['done'], progress.as_dict()['total']
        (4, 10)
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.step, self.done, self.total = 'waiting', 0, 0

    def begin(self, step: str, total: int = 0) -> None:
        """A step begins, of so many parts; 0 where they cannot be counted."""
        self.step, self.done, self.total = step, 0, total

    def advance(self, parts: int = 1) -> None:
        """So many parts more are done."""
        self.done += parts

    def as_dict(self) -> dict[str, Any]:
        """As clients see it."""
        return dict(running=True, step=self.step, done=self.done, total=self.total or None,
                    seconds=round(time.monotonic() - self._started, 1))


class Background:
    """One kind of work, done once for each key, by one thread at a time; the last result is kept.

    Args:
        work: is called with the key and a :class:`Progress`.

    Example:
        >>> work = Background(lambda key, progress: key * 2)
        >>> work(4, wait=True)
        8
    """

    def __init__(self, work: Callable[[Any, Progress], Any]) -> None:
        self._work, self._lock = work, threading.Lock()
        self._key: Hashable = None
        self._future: Future[Any] | None = None
        self._progress = Progress()

    def __call__(self, key: Hashable, wait: bool) -> Any:
        """The result, or, without ``wait`` and while it is not there, the progress.

        Raises:
            Exception: what the work raised; asked again, it begins anew.
        """
        while True:
            with self._lock:
                future = self._future
                if future is None or future.done() and self._key != key:
                    self._key, self._progress = key, Progress()
                    future = self._future = Future()
                    threading.Thread(target=self._run, args=(key, future, self._progress),
                                     daemon=True, name='background').start()
                own = self._key == key
                if not wait and not future.done():
                    return self._progress if own else Progress()
            if not own:  # that of another key runs: it is this one's turn then
                future.exception()
                continue
            try:
                return future.result()
            except Exception:
                with self._lock:
                    if self._future is future:
                        self._future = None
                raise

    def _run(self, key: Hashable, future: Future[Any], progress: Progress) -> None:
        try:
            future.set_result(self._work(key, progress))
        except BaseException as error:  # whoever asks is told
            future.set_exception(error)

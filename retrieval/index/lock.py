"""The lock of an index: many searches at once, or one change."""
from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class ReadersWriterLock:
    """Many readers at once, or one writer.

    Who waits is served in turn: a writer that waits goes before readers that come later, and the
    readers that waited for it go before the next writer. A thread that holds it may take it
    again, but a reader not as a writer. Copies and pickles are new locks.

    Example:
        >>> lock = ReadersWriterLock()
        >>> with lock.read(), lock.read():
        ...     'both'
        'both'
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._readers = 0       # that hold it
        self._queued = 0        # readers that wait for a writer that holds it, or waits
        self._admitted = 0      # readers that waited for the last writer, and go before the next
        self._turn = 0          # how many writers there have been
        self._waiting = 0       # writers
        self._writer: int | None = None
        self._own = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return ReadersWriterLock, ()

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold it as one of the readers."""
        if getattr(self._own, 'reads', False) or self._writer == threading.get_ident():
            yield
            return
        with self._changed:
            if self._writer is not None or self._waiting:
                self._wait_for_turn()
            self._readers += 1
        self._own.reads = True
        try:
            yield
        finally:
            self._own.reads = False
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()

    def _wait_for_turn(self) -> None:
        turn = self._turn
        self._queued += 1
        try:
            self._changed.wait_for(lambda: self._writer is None and (
                turn != self._turn or not self._waiting))
        finally:  # also where Ctrl-C ends the waiting
            if turn != self._turn:
                self._admitted -= 1
                self._changed.notify_all()
            else:
                self._queued -= 1

    @contextmanager
    def write(self) -> Iterator[None]:
        """Hold it alone.

        Raises:
            RuntimeError: the thread holds it as a reader, so that it would wait for itself.
        """
        me = threading.get_ident()
        if self._writer == me:
            yield
            return
        if getattr(self._own, 'reads', False):
            raise RuntimeError('An index cannot be changed from within its own search, such as by '
                               'a filter: change it afterwards.')
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._writer is None and not self._readers
                                       and not self._admitted)
                self._writer = me
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._writer, self._turn = None, self._turn + 1
                self._admitted, self._queued = self._admitted + self._queued, 0
                self._changed.notify_all()


class _Locked(Protocol):
    lock: ReadersWriterLock


_Self = TypeVar('_Self', bound=_Locked)
_Given = ParamSpec('_Given')
_Result = TypeVar('_Result')
_Method = Callable[Concatenate[_Self, _Given], _Result]


def reads(method: _Method[_Self, _Given, _Result]) -> _Method[_Self, _Given, _Result]:
    """A method of an index that waits for a change to end, and holds off the next one.

    Example:
        >>> class Box:
        ...     lock = ReadersWriterLock()
        ...     @reads
        ...     def look(self):
        ...         return self.lock._readers
        >>> Box().look()
        1
    """
    def reading(self: _Self, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with self.lock.read():
            return method(self, *args, **kwargs)
    functools.update_wrapper(reading, method)
    return reading


def changes(method: _Method[_Self, _Given, _Result]) -> _Method[_Self, _Given, _Result]:
    """A method of an index that waits until no other thread searches or changes it, and holds
    them off.

    Example:
        >>> class Box:
        ...     lock = ReadersWriterLock()
        ...     @changes
        ...     def fill(self):
        ...         return self.lock._writer is not None
        >>> Box().fill()
        True
    """
    def changing(self: _Self, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with self.lock.write():
            return method(self, *args, **kwargs)
    functools.update_wrapper(changing, method)
    return changing

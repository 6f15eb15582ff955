"""A progress bar with rate and time left, where somebody watches."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Item = TypeVar('Item')
_showing: ContextVar[bool] = ContextVar('work that turns out long has a bar', default=False)
_SECONDS = 2  # that it may take without one


def progress_bar(title: str | None, total: int, unit: str = 'image') -> Any:
    """A bar on stderr: what is done of ``total``, the rate, and the time left.

    It stands there from the start, is drawn on the first process alone, only on a terminal, and is
    gone at its end; elsewhere it does nothing.

    Args:
        title: what is going on; None for no bar.
        total: how many there are.
        unit: of what.

    Returns:
        A ``tqdm`` bar, a context manager: ``update(n)`` counts n more, ``set_postfix(loss=0.5)``
        shows values behind it, ``write(text)`` prints a line above it.

    Example:
        >>> with progress_bar('Counting', 3) as bar:
        ...     for number in range(3):
        ...         bar.update()
    """
    return _bar(title, total, unit)


@contextmanager
def showing(on: bool = True) -> Iterator[None]:
    """Inside, :func:`counted` has a bar: in a command, but not in a server or in a library's call.

    Example:
        >>> with showing():
        ...     list(counted('Ranking', [3, 1], 2))
        [3, 1]
    """
    before = _showing.set(on)
    try:
        yield
    finally:
        _showing.reset(before)


def counted(title: str, work: Iterable[Item], total: int, unit: str = 'tile') -> Iterator[Item]:
    """The items of some work as they come; inside of :func:`showing` with a bar from the third
    second on, where somebody watches.

    Args:
        title: what is going on.
        work: what gives the items.
        total: how many they are.
        unit: of what.

    Example:
        >>> list(counted('Ranking', (n * n for n in range(3)), 3))
        [0, 1, 4]
    """
    with _bar(title if _showing.get() else None, total, unit, _SECONDS) as bar:
        for item in work:
            yield item
            bar.update()


def _bar(title: str | None, total: int, unit: str, delay: float = 0) -> Any:
    from tqdm import tqdm

    from .distributed import rank

    # None: drawn only where stderr is a terminal
    return tqdm(total=total, desc=title, unit=unit, leave=False, dynamic_ncols=True, delay=delay,
                disable=True if title is None or rank() != 0 else None)

"""A progress bar with rate and time left, where somebody watches."""
from __future__ import annotations

from typing import Any

from .distributed import rank


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
    from tqdm import tqdm

    # None: drawn only where stderr is a terminal
    return tqdm(total=total, desc=title, unit=unit, leave=False, dynamic_ncols=True,
                disable=True if title is None or rank() != 0 else None)

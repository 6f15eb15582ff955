"""One thing that was looked at, what was found, and what to do about it."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal['ok', 'warning', 'error']


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: of the thing, a word or two.
        level: ``'ok'``, ``'warning'`` (it works, and not as well as it could) or ``'error'``.
        found: what is the case.
        advice: what to do, where it is not ok.

    Example:
        >>> str(Finding('disk', 'warning', '0.2 GB are free', 'make room'))
        'warning  disk         0.2 GB are free: make room.'
    """

    name: str
    level: Level
    found: str
    advice: str = ''

    def __str__(self) -> str:
        advice = f': {self.advice.rstrip(".")}.' if self.advice else ''
        return f'{self.level:8} {self.name:12} {self.found.rstrip(".") if advice else self.found}' \
            f'{advice}'


def gather(checks: Iterable[tuple[str, Callable[[], Iterable[Finding]]]]) -> Iterator[Finding]:
    """The findings of some checks, each by its name; one that fails is an error of that name.

    Example:
        >>> [one.level for one in gather([('none', lambda: []), ('wrong', lambda: 1 / 0)])]
        ['error']
    """
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:  # whatever a library says, the other checks are made
            yield Finding(name, 'error', one_line(error))


def one_line(error: BaseException) -> str:
    """An error's message on one line, with its type where it is none of a user's input.

    Example:
        >>> one_line(ValueError('of two\\nlines')), one_line(RuntimeError('inside'))
        ('of two lines', 'RuntimeError: inside')
    """
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args
                        else error).split())
    if isinstance(error, (ValueError, TypeError, OSError, ImportError)):
        return text or type(error).__name__
    return f'{type(error).__name__}: {text}'

"""Checks of arguments, each with its one message: numbers, lengths, and ids."""
from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence, Sized
from difflib import get_close_matches
from typing import Any


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """``value`` as an ``int``; NumPy's integers are taken too.

    Raises:
        TypeError: it is no integer, or a truth value.
        ValueError: it is below ``least`` or above ``most``.

    Example:
        >>> whole_number('k', 3)
        3
    """
    wanted = f'{name} must be an integer of at least {least:,}'
    if most is not None:
        wanted += f' and at most {most:,}'
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f'{wanted}, got {value!r}.') from error
    if isinstance(value, bool):
        raise TypeError(f'{wanted}, got {value!r}.')
    if number < least or (most is not None and number > most):
        raise ValueError(f'{wanted}, got {value!r}.')
    return number


def real_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf, *,
                above: float = -math.inf, below: float = math.inf) -> float:
    """``value`` as a finite ``float`` from ``least`` to ``most``, above ``above``, below ``below``.

    Raises:
        TypeError: it is no number, or a truth value.
        ValueError: it is NaN, infinite or outside the bounds.

    Example:
        >>> real_number('temperature', 1, above=0)
        1.0
    """
    if isinstance(value, bool) or not hasattr(value, '__float__'):
        raise TypeError(f'{name} must be a number, got {value!r}.')
    number = float(value)
    if not (math.isfinite(number) and least <= number <= most and above < number < below):
        bounds = [text for bound, text in (
            (least, f'at least {least:g}'), (above, f'above {above:g}'),
            (most, f'at most {most:g}'), (below, f'below {below:g}')) if math.isfinite(bound)]
        raise ValueError(f'{name} must be {" and ".join(bounds) or "finite"}, got {value!r}.')
    return number


def some_of(names: Sequence[Any], how_many: int = 3) -> str:
    """A few of the names, for a message.

    Example:
        >>> some_of(['a', 'b', 'c', 'd'])
        "'a', 'b', 'c', … (4 in all)"
    """
    listed = ', '.join(map(repr, names[:how_many]))
    return listed + (f', … ({len(names)} in all)' if len(names) > how_many else '')


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that has been there before, or None.

    Example:
        >>> first_repeated(['a', 'b', 'a'])
        'a'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def unique_names(ids: Iterable[Any], count: int | None = None) -> list[str]:
    """``ids`` as unique strings, ``count`` of them where that is given.

    Raises:
        TypeError: it is one string, or nothing that can be gone through.
        ValueError: one repeats, or there are not ``count``.

    Example:
        >>> unique_names([7, 'b'], count=2)
        ['7', 'b']
    """
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise TypeError(f'ids must be a sequence of ids, got {ids!r}: write [{ids!r}] for one.')
    names = [str(one) for one in (ids.tolist() if hasattr(ids, 'tolist') else ids)]
    if count is not None:
        same_length('ids', names, count, 'embeddings')
    if len(set(names)) != len(names):
        raise ValueError(f'ids must be unique, but {first_repeated(names)!r} is given more than '
                         'once.')
    return names


def same_length(name: str, values: Sized | None, count: int, of: str) -> None:
    """Raise ValueError unless ``values`` has one entry for each of ``count``; None is none.

    Example:
        >>> same_length('labels', [1, 2], 2, 'embeddings')
    """
    if values is not None and len(values) != count:
        raise ValueError(f'{name} has {len(values)} entries for {count} {of}: give one each.')


def nearest_names(given: str, valid: Iterable[str], how_many: int = 3,
                  alike: float = 0.5) -> list[str]:
    """The names in ``valid`` that look most like ``given``, best first; ``alike`` is 1 for the same
    name, and 0 for one that shares no letter.

    Example:
        >>> nearest_names('gren', ['green', 'red'], how_many=1)
        ['green']
    """
    by_lower = {name.lower(): name for name in valid}
    close = get_close_matches(str(given).lower(), by_lower, n=how_many, cutoff=alike)
    return [by_lower[name] for name in close]


def unknown_name(kind: str, given: object, valid: Iterable[str]) -> str:
    """The message for a name that is not among the valid ones: what, why, and what to write.

    Example:
        >>> unknown_name('colour', 'gren', ['green', 'pink'])
        "Unknown colour 'gren'. Did you mean 'green'? Valid names: green, pink."
    """
    valid = sorted(valid)
    near = nearest_names(str(given), valid)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ''
    listed = ', '.join(valid[:40]) + (f', … ({len(valid)} in all)' if len(valid) > 40 else '')
    return f'Unknown {kind} {given!r}.{hint} Valid names: {listed}.'

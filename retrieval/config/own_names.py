"""The names that a config defines for its own use, told apart from misspelt settings.

A name of the top level that no run reads is a config's own where it begins with an underscore,
where the file that gives it a value, or one that inherits that, uses it to make something else,
and where it neither is like a setting's name nor holds a component.
"""
from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..registry import unknown_name
from .settings import is_misspelt, top_level_names


class _Names(NamedTuple):
    assigned: set[str]
    read: set[str]


def check_own_names(config: Any) -> None:
    """Refuse misspelt names of the top level of a config, and those whose value nothing uses.

    A name that is like a setting's and in use is taken out: it has done its work, and would be
    taken for a misspelt one in what the config is written to.

    Raises:
        ValueError: there is such a name; the nearest valid ones are given.

    Example:
        >>> from mmengine.config import Config
        >>> check_own_names(Config(dict(img_size=224)))
        >>> try:
        ...     check_own_names(Config(dict(optim_wraper=dict())))
        ... except ValueError as error:
        ...     print(str(error).partition('.')[0])
        Unknown setting 'optim_wraper'
    """
    files = _files(config)
    inherited = set().union(*(_of_bases(text) for text in files.values()))
    names = {file: _names(text) for file, text in files.items()}
    for name in [name for name in config if not _is_own(name)]:
        used = name in inherited or name in getattr(config, '_imported_names', ()) or any(
            name in one.assigned & one.read for one in names.values())
        idle = [file for file, one in names.items() if name in one.assigned - one.read]
        if used and name not in inherited and idle:
            raise ValueError(
                f'{name!r} in {idle[-1]!r} changes nothing: it is a name that a base uses while it '
                'is read, and what was made of it stays.' + _instead(config, name))
        if is_misspelt(name, config[name]):
            if not used:
                raise ValueError(
                    unknown_name('setting', name, top_level_names())
                    + ' A name for your own use begins with an underscore, or is used in the file.')
            config.pop(name)


def check_option_names(config: Any, options: Iterable[str]) -> None:
    """Refuse options of the command line that would change nothing.

    Args:
        config: as it was read.
        options: their keys, such as ``model.topk``.

    Raises:
        ValueError: no run reads the first name of a key, or the config has used it already.

    Example:
        >>> try:
        ...     check_option_names(dict(model=dict()), ['modle.topk'])
        ... except ValueError as error:
        ...     print(str(error).partition('.')[0])
        Unknown setting 'modle'
    """
    files = _files(config)
    for key in options:
        name = key.partition('.')[0]
        if _is_own(name):
            continue
        if name not in config:
            raise ValueError(unknown_name('setting', name, top_level_names()))
        if any(name in _names(text).read | _of_bases(text) for text in files.values()):
            raise ValueError(
                f'{key!r} would change nothing: {name!r} is a name that the config uses while it '
                'is read, and what was made of it stays.' + _instead(config, name))


def _is_own(name: str) -> bool:
    """True for a setting, and for what is marked as a name of the config's own."""
    return name.startswith('_') or name in top_level_names()


def _instead(config: Any, name: str) -> str:
    """Where the value of a name stands, to be changed there."""
    value, places = config.get(name), []
    for known in sorted(top_level_names() & set(config)):
        places += [place for place, one in _walk(known, config[known])
                   if value is not None and type(one) is type(value) and one == value]
    return f' Set {" and ".join(places[:4])} instead.' if places else ''


def _walk(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield place, value
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(
        value, (list, tuple)) else ()
    for key, inner in pairs:
        yield from _walk(f'{place}.{key}', inner)


def _files(config: Any) -> dict[str, str]:
    """The text of a config's file and of its bases, by name; the engine joins them."""
    text = getattr(config, 'text', None) if hasattr(config, 'filename') else None
    found: dict[str, list[str]] = {}
    file = str(getattr(config, 'filename', ''))
    for line in (text or '').splitlines():
        if re.fullmatch(r'/.*\.(py|json|ya?ml)', line):
            file = line
        found.setdefault(file, []).append('' if line == file else line)
    return {name: '\n'.join(lines) for name, lines in found.items()}


def _of_bases(text: str) -> set[str]:
    return set(re.findall(r'\b_base_\s*\.\s*(\w+)', text))


def _names(text: str) -> _Names:
    """The names that a file gives values to at its top level, and those that it reads."""
    try:
        tree = ast.parse(re.sub(r'\{\{\s*\$[^}]*\}\}', 'None', text))
    except SyntaxError:  # no Python
        words = Counter(re.findall(r'\w+', text))
        return _Names(set(words), {word for word, count in words.items() if count > 1})
    read = {node.id for node in ast.walk(tree)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store)}
    assigned = {node.id for part in tree.body if isinstance(part, (ast.Assign, ast.AnnAssign))
                for node in ast.walk(part)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return _Names(assigned, read)

"""``KEY=VALUE`` on a command line: a value is what was typed."""
from __future__ import annotations

import argparse
import ast
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WORDS = {'True': True, 'true': True, 'False': False, 'false': False, 'None': None}
_INTEGER = re.compile(r'-?(0|[1-9][0-9]*)')
_REAL = re.compile(r'-?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|-?inf|nan')
_CLOSING = {'[': ']', '(': ')', '{': '}'}


class ReadOptions(argparse.Action):
    """Collects ``KEY=VALUE …`` into a dict; what is given twice is what it was last."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: str | Sequence[Any] | None, option_string: str | None = None) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for text in [values] if isinstance(values, str) else values or ():
            key, equals, value = text.partition('=')
            if not equals or not key.strip():
                parser.error(f'{option_string} takes KEY=VALUE, got {text!r}.')
            try:
                options[key.strip()] = read_value(value)
            except ValueError as error:
                parser.error(f'{option_string} {key.strip()}: {error}')
        setattr(namespace, self.dest, options)


def read_value(text: str) -> Any:
    """What a typed value means.

    A number is one that Python would write so: ``007``, ``1_000`` and ``2024_01_15`` are text.
    ``True``, ``False`` and ``None`` are Python's (``true`` and ``false`` too). In quotes it is a
    string of Python's, with its blanks and commas. ``[a, b]``, ``(a, b)``, ``{'a': 1}`` and
    ``dict(a=1)`` hold values of their own, as a list without brackets does: ``a,b``. Everything
    else is text as it stands.

    Raises:
        ValueError: a bracket or quote does not close, or an entry of a dict is none.

    Example:
        >>> read_value('1e-3'), read_value('007'), read_value('my pictures/new')
        (0.001, '007', 'my pictures/new')
        >>> read_value("[mAP, 'a, b', 3]"), read_value("{'p': 3}"), read_value('8,16')
        (['mAP', 'a, b', 3], {'p': 3}, [8, 16])
    """
    parts = _split(text)
    if len(parts) > 1:
        return [_one(part.strip()) for part in parts if part.strip() or part is not parts[-1]]
    bare = text.strip()
    value = _one(bare)
    return text if value == bare and isinstance(value, str) else value


def merge_options(config: Any, options: Mapping[str, Any]) -> None:
    """Put the values of options into a config, under keys such as ``model.head.loss.margin`` and
    ``test_evaluator.0.topk``.

    A dict is merged into the one that stands there, unless its ``type`` is another or it has
    ``_delete_``; everything else takes the place of what stands there.

    Raises:
        ValueError: a key leads through something that holds no settings, or a list too short.

    Example:
        >>> config = dict(head=dict(type='A', size=1), steps=[3, 6])
        >>> merge_options(config, {'head.size': 2, 'steps.1': 9, 'head.loss': dict(type='B')})
        >>> config
        {'head': {'type': 'A', 'size': 2, 'loss': {'type': 'B'}}, 'steps': [3, 9]}
    """
    for key, value in options.items():
        holder, names = config, key.split('.')
        for depth, name in enumerate(names[:-1]):
            inner = _entry(holder, name, key)
            if isinstance(inner, tuple):  # whose entries cannot be set
                inner = list(inner)
            elif inner is not None and not isinstance(inner, (Mapping, list)):
                raise ValueError(f'{key!r} cannot be set: {".".join(names[:depth + 1])} is '
                                 f'{inner!r}, and holds no settings.')
            _set(holder, name, {} if inner is None else inner)
            holder = _entry(holder, name, key)
        _set(holder, names[-1], _merged(_entry(holder, names[-1], key), value))


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(new, Mapping):
        return new
    kept = {key: value for key, value in new.items() if key != '_delete_'}
    if not isinstance(old, Mapping) or new.get('_delete_') or (
            'type' in new and new['type'] != old.get('type')):
        return kept
    return {**old, **{key: _merged(old.get(key), value) for key, value in kept.items()}}


def _entry(holder: Any, name: str, key: str) -> Any:
    """What stands in a dict or list under a name, None where nothing does."""
    if not isinstance(holder, list):
        return holder.get(name)
    if not name.isdecimal() or int(name) >= len(holder):
        raise ValueError(f'{key!r} cannot be set: {name!r} is no place in a list of '
                         f'{len(holder)}, which counts from 0.')
    return holder[int(name)]


def _set(holder: Any, name: str, value: Any) -> None:
    holder[int(name) if isinstance(holder, list) else name] = value


def _one(text: str) -> Any:
    """A value that is no list without brackets."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _REAL.fullmatch(text):
        return float(text)
    if text[:1] in ('"', "'") and text:
        return _quoted(text)
    if text.startswith('dict(') and text.endswith(')'):
        return _dict(text[5:-1], '=', str)
    if text[:1] in _CLOSING and _end(text, 0) == len(text):
        inner = text[1:-1]
        if text[0] == '{':
            return _dict(inner, ':', _one)
        return (list if text[0] == '[' else tuple)(map(_one, _entries(inner)))
    return text


def _entries(text: str) -> list[str]:
    """What stands between the commas; the last may be left empty."""
    parts = [part.strip() for part in _split(text)]
    return parts[:-1] if not parts[-1] else parts


def _dict(text: str, sign: str, key_of: Callable[[str], Any]) -> dict[Any, Any]:
    found = {}
    for entry in _entries(text):
        parts = _split(entry, sign)
        if len(parts) < 2 or not parts[0].strip():
            raise ValueError(f'{entry!r} is no entry of a dict: write key{sign} value.')
        found[key_of(parts[0].strip())] = _one(sign.join(parts[1:]).strip())
    return found


def _quoted(text: str) -> Any:
    """A string of Python's; text that only begins with one stays as it is."""
    end = _end(text, 0)
    if end < len(text):
        return text
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a backslash before a letter stays one
        return ast.literal_eval(text)


def _split(text: str, separator: str = ',') -> list[str]:
    """The parts between separators that stand in no quotes and no brackets."""
    parts, begin, place, opening = [], 0, 0, True
    while place < len(text):
        char = text[place]
        if char == separator:
            parts.append(text[begin:place])
            begin, opening = place + 1, True
        elif char in _CLOSING or (opening and char in '"\''):
            place = _end(text, place) - 1
            opening = False
        elif not char.isspace():
            opening = char in '=:'  # a quote within a word is an apostrophe
        place += 1
    return [*parts, text[begin:]]


def _end(text: str, begin: int) -> int:
    """The place behind the quote or bracket that closes the one at ``begin``.

    Raises:
        ValueError: it is not closed.
    """
    first = text[begin]
    closing, place, opening = _CLOSING.get(first, first), begin + 1, True
    while place < len(text):
        char = text[place]
        if char == closing:
            return place + 1
        if first in '"\'':
            place += 2 if char == '\\' else 1
            continue
        if char in _CLOSING or (opening and char in '"\''):
            place = _end(text, place)
            opening = False
            continue
        opening = char in '=:,' or (opening and char.isspace())
        place += 1
    raise ValueError(f'{text!r} has {first} without the {closing} that closes it. Text with such '
                     'a sign stands in quotes: "\'…\'".')

"""A config from its file, with one message for whatever is wrong in it, and its text."""
from __future__ import annotations

import ast
import os
import re
import traceback
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..foreign_files import refuse_special
from .shipped import find_config, missing

_WIDTH = 100
_SUFFIXES = ('.py', '.json', '.yaml', '.yml')


class PlainConfig(Config):
    """A config whose text is laid out here: the engine's formatter takes seconds, and is called at
    the start of a run several times, and for every checkpoint.
    """

    @property
    def pretty_text(self) -> str:
        """The config as Python that gives it back."""
        return layout(super().pretty_text)


def read_config(path: str | os.PathLike[str]) -> Any:
    """The config in a file, or a shipped one by its name.

    Raises:
        FileNotFoundError: there is none, or none of its bases; the nearest names are given.
        ImportError: it imports what cannot be imported.
        ValueError: it cannot be read; the message has the file and the line.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), 'mine.py')
        >>> _ = file.write_text('topk = 10')
        >>> read_config(file).topk
        10
    """
    path = find_config(path)
    refuse_special(path)
    if os.path.isdir(path):
        raise FileNotFoundError(missing(path))
    if not path.endswith(_SUFFIXES):
        raise ValueError(f'A config is a file that ends in {", ".join(_SUFFIXES)}; got {path!r}.')
    try:
        read = Config.fromfile(path)
        config = PlainConfig.__new__(PlainConfig)
        config.__setstate__(read.__getstate__())
        object.__setattr__(config, '_format_python_code', False)
    except Exception as error:  # a config may run anything
        raise _described(error, path) from error
    return config


def _described(error: Exception, path: str) -> Exception:
    """The error of a config as one message, which says where it is."""
    file, line, searched = os.path.abspath(path), None, ''
    for frame, number in traceback.walk_tb(error.__traceback__):
        known, name = frame.f_locals, frame.f_code.co_name
        if name in ('_file2dict', '_parse_lazy_import'):
            given = str(known.get('filename', ''))
            if os.path.isfile(given):
                file, line = os.path.abspath(given), None
            else:
                searched = os.path.basename(given)
                error = FileNotFoundError(missing(os.path.relpath(given)).partition(
                    ' `retrieval configs`')[0])
        elif name == '_substitute_base_vars' and isinstance(error, KeyError):
            searched = f'_base_.{known["base_var_dict"].get(known.get("v") or known["cfg"], "")}'
        elif os.path.abspath(frame.f_code.co_filename) == file:
            line = number
    reason = f'{type(error).__name__}: {error}'
    if isinstance(error, SyntaxError):
        first = error.__context__ if isinstance(error.__context__, SyntaxError) else error
        line, reason = first.lineno or line, f'SyntaxError: {first.msg}'
    elif searched.startswith('_base_'):
        reason = f'no base has {searched.removeprefix("_base_.")!r}'
    elif isinstance(error, FileNotFoundError):
        searched, reason = searched or '_base_', str(error)
    elif str(error).startswith('Failed to import custom modules'):
        searched = 'custom_imports'
        reason = f'{error.__cause__}. Is its folder on PYTHONPATH?'
    elif (inherited := re.match(r'(\w+)=', str(error))) and ' in child config' in str(error):
        searched = f'{inherited[1]}='
    elif line is None and ('among bases' in str(error) or name == '_get_base_files'):
        searched = '_base_'
    return _as_message(type(error), file, line, searched, reason, path)


def _as_message(kind: type[Exception], file: str, line: int | None, searched: str, reason: str,
                path: str) -> Exception:
    lines = Path(file).read_text(encoding='utf-8', errors='replace').splitlines()
    if line is None and searched:
        line = next((number for number, text in enumerate(lines, 1)
                     if searched in text.replace(' ', '')), None)
    shown = path if os.path.abspath(path) == file else os.path.relpath(file)
    where = f', line {line}' if line else ''
    code = f'\n    {lines[line - 1].strip()}' if line and line <= len(lines) else ''
    wanted = kind if issubclass(kind, (FileNotFoundError, ImportError)) else ValueError
    return wanted(f'The config {shown!r}{where}: {reason}{code}')


def expand_home(value: Any) -> Any:
    """``value`` with every ``~`` at the beginning of a path in it as the user's folder.

    Example:
        >>> import os
        >>> expand_home(['~/photos'])[0] == os.path.expanduser('~/photos')
        True
    """
    if isinstance(value, str):
        return os.path.expanduser(value) if re.match(r'~[\w.-]*(/|$)', value) else value
    if isinstance(value, Config):
        expand_home(value._cfg_dict)
    elif isinstance(value, dict):
        for key, inner in dict.items(value):
            if (changed := expand_home(inner)) is not inner:
                value[key] = changed
    elif isinstance(value, (list, tuple)):
        changed = [expand_home(inner) for inner in value]
        if any(one is not other for one, other in zip(changed, value, strict=True)):
            return type(value)(changed)
    return value


def layout(text: str) -> str:
    """A config's Python, a statement after the other, with calls and lists that are too long
    broken up.

    Example:
        >>> layout('a=dict(b=1, c=[1,2])')
        'a = dict(b=1, c=[1, 2])\\n'
    """
    lines = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            head = f'{ast.unparse(node.targets[0])} = '
            lines.append(head + _laid(node.value, '', _WIDTH - len(head)))
        else:
            lines.append(ast.unparse(node))
    return '\n'.join(lines) + '\n'


def _laid(node: ast.expr, indent: str, room: int) -> str:
    """An expression, in one line where there is room for it."""
    short = ast.unparse(node)
    if len(short) <= room:
        return short
    inner = indent + '    '
    if isinstance(node, ast.Call) and node.keywords and not node.args:
        parts = [(f'{one.arg}=', one.value) for one in node.keywords]
        opening, closing = f'{ast.unparse(node.func)}(', ')'
    elif isinstance(node, ast.Dict) and all(node.keys):
        parts = [(f'{ast.unparse(key)}: ', value) for key, value in zip(
            node.keys, node.values, strict=True) if key is not None]
        opening, closing = '{', '}'
    elif isinstance(node, (ast.List, ast.Tuple)) and node.elts:
        parts = [('', value) for value in node.elts]
        opening, closing = ('[', ']') if isinstance(node, ast.List) else ('(', ')')
    else:
        return short
    laid = [f'{inner}{head}{_laid(value, inner, _WIDTH - len(inner) - len(head) - 1)},'
            for head, value in parts]
    return '\n'.join([opening, *laid, indent + closing])

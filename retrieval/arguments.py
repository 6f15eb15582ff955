"""The arguments that a class or function takes by keyword, with those that it hands on."""
from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

_OF_A_DICT = ('pop', 'get', 'setdefault')


@lru_cache(maxsize=4096)
def arguments(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that a class or function takes by keyword, by name.

    Where it takes further ones (``**kwargs``), its source tells which: those that it takes out by
    name, and those of what it hands them to, such as the constructor of the next class. The last
    entry is a ``**`` parameter where that cannot be told, so that any name may be right.

    Example:
        >>> class Base:
        ...     def __init__(self, size=1): ...
        >>> class Thing(Base):
        ...     def __init__(self, name): ...
        >>> list(arguments(Thing))
        ['name']
    """
    target = getattr(kind, 'cls', kind)  # a factory names its class
    if not inspect.isclass(target):
        return _of_function(inspect.unwrap(target), ())
    owners = [base for base in target.__mro__ if '__init__' in vars(base) and base is not object]
    return _of_class(tuple(owners))


def takes_any(found: dict[str, inspect.Parameter]) -> bool:
    """True where names beside those found may be right."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in found.values())


def _of_class(owners: tuple[type, ...]) -> dict[str, inspect.Parameter]:
    """Those of the first class, whose constructor may call that of the next."""
    if not owners or (owners[0].__module__, owners[0].__name__) == ('torch.nn.modules.module',
                                                                    'Module'):
        return {}
    init = inspect.unwrap(vars(owners[0])['__init__'])
    found = _of_function(init, owners[1:])
    return dict(list(found.items())[1:])  # without self


def _of_function(function: Any, bases: tuple[type, ...]) -> dict[str, inspect.Parameter]:
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # compiled, and says nothing
        return {'kwargs': inspect.Parameter('kwargs', inspect.Parameter.VAR_KEYWORD)}
    found = {one.name: one for one in given
             if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    others = next((one for one in given if one.kind is one.VAR_KEYWORD), None)
    if others is None:
        return found
    further = _handed_on(function, others.name, bases)
    if further is None:
        return {**found, others.name: others}
    rest = [one for one in further.values() if one.name not in found]
    return {**found, **{one.name: one for one in rest}}


def _handed_on(function: Any, name: str,
               bases: tuple[type, ...]) -> dict[str, inspect.Parameter] | None:
    """The arguments that become of ``**name``; None where that cannot be told."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None
    found: dict[str, inspect.Parameter] = {}
    understood = 0
    for node in ast.walk(tree):
        key = _taken_out(node, name)
        if key is not None:
            understood += 1
            found.setdefault(key, inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY))
        for callee in _called_with(node, name):
            understood += 1
            if ast.unparse(callee) == 'super().__init__':
                further = _of_class(bases)
            else:
                target = _named(callee, function)
                if target is None:
                    return None
                further = arguments(target)
            for parameter in further.values():
                if parameter.kind is not parameter.VAR_POSITIONAL:
                    found.setdefault(parameter.name, parameter)
    uses = sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))
    return found if understood == uses else None


def _taken_out(node: ast.AST, name: str) -> str | None:
    """The key that ``name.pop('key')``, ``name['key']`` or ``'key' in name`` reads."""
    key: Any = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args and \
            node.func.attr in _OF_A_DICT and ast.unparse(node.func.value) == name:
        key = node.args[0]
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == name:
        key = node.slice
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and \
            isinstance(node.ops[0], (ast.In, ast.NotIn)) and \
            ast.unparse(node.comparators[0]) == name:
        key = node.left
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else None


def _called_with(node: ast.AST, name: str) -> Iterator[ast.expr]:
    """What ``**name`` is handed to."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg is None and ast.unparse(keyword.value) == name:
                yield node.func


def _named(callee: ast.expr, function: Any) -> Any:
    """The class or function of that name where ``function`` stands, or None."""
    found = function.__globals__.get(callee.id) if isinstance(callee, ast.Name) else None
    return found if callable(found) else None

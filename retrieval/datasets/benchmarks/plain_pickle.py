"""Pickles that hold plain data and nothing else, read so that a hostile one cannot run code.

A pickle is a program for a small stack machine, and two of its instructions name any function and
call it. So Python's own unpickler is not used here at all. ``pickletools``, which parses a pickle
without running it, gives the instructions; the machine below knows those that make plain data; and
the few names that numpy writes into a pickle stand for functions of this module, not of numpy.
"""
from __future__ import annotations

import math
import os
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 64 << 20  # an official ground truth has about one megabyte
MAX_DEPTH = 32
_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_WITH_VALUE = frozenset((
    'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT',
    'STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE',
    'BINUNICODE8', 'SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8', 'BYTEARRAY8'))
_EMPTY: dict[str, Callable[[], Any]] = {
    'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_DICT': dict, 'EMPTY_SET': set}
_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class NotPlainError(ValueError):
    """A pickle that is damaged, or holds anything but plain data; the message says what."""


def _refused(what: str) -> NotPlainError:
    return NotPlainError(
        f'it holds {what}. A pickle can make the reader run any code, so only dicts, lists, '
        'tuples, sets, strings, numbers and numpy arrays of numbers are let through')


def _damaged(what: str) -> NotPlainError:
    return NotPlainError(f'it is no sound pickle ({what})')


def load_plain_pickle(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> Any:
    """The plain data of a pickle: containers, strings, numbers, and numpy arrays of numbers.

    Args:
        path: the file.
        max_bytes: a larger one is refused before it is read.

    Returns:
        What the file holds, numpy's scalars as Python's numbers and text of Python 2 decoded as
        Latin-1. Keys are strings, bytes and numbers.

    Raises:
        NotPlainError: it is too large, damaged, or holds anything else. Nothing of it was run.
        FileNotFoundError: there is no such file.
    """
    size = os.path.getsize(path)
    if size > max_bytes:
        raise NotPlainError(f'it has {size:,} bytes, where {max_bytes:,} are expected at most')
    data = Path(path).read_bytes()
    machine = _Machine()
    try:
        argument: Any
        for opcode, argument, position in pickletools.genops(data):
            # pickletools holds the length of everything else against the file itself
            if opcode.name == 'FRAME' and argument > len(data) - (position or 0):
                raise _damaged(f'a frame of {argument} bytes in a file of {len(data)}')
            if opcode.name != 'STOP':
                machine.step(opcode.name, argument)
        return _plain(machine.pop(), {})
    except NotPlainError:
        raise
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise _damaged(str(error) or type(error).__name__) from error


class _Machine:
    """A stack, the places on it that are marked, and the memo; each step is one instruction."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """Take off what was put on since the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def step(self, name: str, argument: Any) -> None:
        """Raises NotPlainError for an instruction that does not make plain data."""
        if name in _WITH_VALUE:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise _refused(f'an object of another kind (instruction {name})')

    def extend(self, items: list[Any]) -> None:
        """Put the items into the list or set on top."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(map(_key, items))
        else:
            raise _damaged(f'items for a {type(target).__name__}')

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, which alternate, into the dict on top."""
        if type(self.stack[-1]) is not dict or len(items) % 2:
            raise _damaged('keys and values that are none of a dict')
        self.stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def make_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _damaged('a name that is no text')
        if (module, name) not in _NAMES:
            raise _refused(f'{module}.{name}')
        self.stack.append(_Name(module, name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
            raise _damaged('a call of what cannot be called')
        self.stack.append(_NAMES[function.module, function.name](*arguments))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if type(target) not in (_Dtype, _Array):
            raise _refused(f'a {type(target).__name__} with a state')
        target.take(state)


def _key(value: Any) -> Any:
    """A key of a dict or member of a set. Tuples, whose hash goes as deep as they do, are none."""
    if value is not None and type(value) not in (str, bytes, int, float, bool, complex):
        raise _refused(f'a {type(value).__name__} as a key')
    return value


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    'PROTO': lambda machine, argument: None,
    'FRAME': lambda machine, argument: None,
    'MARK': lambda machine, argument: machine.marks.append(len(machine.stack)),
    'MEMOIZE': lambda machine, argument: machine.memo.update(
        {len(machine.memo): machine.stack[-1]}),
    **{name: lambda machine, argument: machine.memo.update({argument: machine.stack[-1]})
       for name in ('PUT', 'BINPUT', 'LONG_BINPUT')},
    **{name: lambda machine, argument: machine.stack.append(machine.memo[argument])
       for name in ('GET', 'BINGET', 'LONG_BINGET')},
    'APPEND': lambda machine, argument: machine.extend([machine.pop()]),
    'APPENDS': lambda machine, argument: machine.extend(machine.marked()),
    'ADDITEMS': lambda machine, argument: machine.extend(machine.marked()),
    'SETITEM': lambda machine, argument: machine.set_items([machine.pop(), machine.pop()][::-1]),
    'SETITEMS': lambda machine, argument: machine.set_items(machine.marked()),
    'LIST': lambda machine, argument: machine.stack.append(machine.marked()),
    'TUPLE': lambda machine, argument: machine.stack.append(tuple(machine.marked())),
    'FROZENSET': lambda machine, argument: machine.stack.append(
        frozenset(map(_key, machine.marked()))),
    'DICT': lambda machine, argument: machine.make_dict(machine.marked()),
    'GLOBAL': lambda machine, argument: machine.name(*argument.split(' ', 1)),
    'STACK_GLOBAL': lambda machine, argument: machine.name(
        *[machine.pop(), machine.pop()][::-1]),
    'REDUCE': lambda machine, argument: machine.call(),
    'BUILD': lambda machine, argument: machine.build(),
}


# What numpy writes ------------------------------------------------------------------------------


class _Name:
    """A name of the list below, on the stack."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Dtype:
    """What ``numpy.dtype('f8')`` says in a pickle, checked."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or code.lstrip('<>=|') not in _DTYPES:
            raise _refused(f'an array of {str(code)[:40]!r}, which are no numbers')
        self.dtype = np.dtype(code)

    def take(self, state: Any) -> None:
        """The byte order; what else a state may hold is of dtypes that are no numbers."""
        if type(state) is not tuple or not 5 <= len(state) <= 8 or state[1] not in '<>=|' \
                or any(part is not None for part in state[2:5]):
            raise _refused('an array of a structured dtype')
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array, whose bytes may come later."""

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def take(self, state: Any) -> None:
        """The version, shape, dtype, whether the first axis runs fastest, and the bytes."""
        if type(state) is not tuple or len(state) != 5:
            raise _refused('an array of an unknown form')
        _, shape, dtype, fortran, content = state
        self.array = _from_bytes(content, dtype, shape, 'F' if fortran else 'C')


def _from_bytes(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The array of those bytes; there must be as many as its shape and dtype say."""
    content = content.encode('latin1') if isinstance(content, str) else content
    if type(dtype) is not _Dtype or not isinstance(content, (bytes, bytearray)):
        raise _refused('an array of objects')
    whole = type(shape) is tuple and all(type(edge) is int and edge >= 0 for edge in shape)
    if not whole or len(shape) > MAX_DEPTH or order not in ('C', 'F'):
        raise _refused('an array of an unknown form')
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise _damaged(f'an array of shape {shape} in {len(content)} bytes')
    flat = np.frombuffer(content, dtype.dtype).astype(dtype.dtype.newbyteorder('='))
    return flat.reshape(shape, order=order)


def _bytes_of(text: Any, encoding: Any = 'latin1') -> bytes:
    """How the protocols 0 to 2 write bytes."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise _refused('bytes in another encoding than Latin-1')
    return text.encode('latin1')


def _members(items: Any = ()) -> list[Any]:
    if type(items) not in (list, tuple):
        raise _refused(f'a set made of a {type(items).__name__}')
    return [_key(item) for item in items]


def _no_bytes() -> bytes:
    return b''


def _not_called(*arguments: Any) -> Any:
    raise _refused('a call of numpy.ndarray')


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ('numpy', 'dtype'): _Dtype,
    ('numpy', 'ndarray'): _not_called,  # it only stands among the arguments of _reconstruct
    ('_codecs', 'encode'): _bytes_of,
    ('__builtin__', 'bytes'): _no_bytes,  # how the protocols 0 to 2 write none at all
    ('builtins', 'bytes'): _no_bytes,
    **{(module, kind.__name__): lambda items=(), kind=kind: kind(_members(items))
       for kind in (set, frozenset) for module in ('builtins', '__builtin__')},
    **{(f'numpy.{core}.multiarray', '_reconstruct'): lambda kind, shape, code: _Array()
       for core in ('core', '_core')},
    **{(f'numpy.{core}.multiarray', 'scalar'): lambda dtype, content: _from_bytes(
        content, dtype, (), 'C').item() for core in ('core', '_core')},
    **{(f'numpy.{core}.numeric', '_frombuffer'): lambda *parts: _Array(_from_bytes(*parts))
       for core in ('core', '_core')},
}


def _plain(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """``value`` with its arrays in place. What occurs several times is gone through once."""
    if type(value) is _Array and value.array is not None:
        return value.array
    if type(value) in (_Name, _Dtype, _Array):
        raise _refused('a function, a dtype or an unfinished array')
    if type(value) not in (list, tuple, dict):  # sets hold only keys
        return value
    if depth > MAX_DEPTH or done.get(id(value), value) is None:
        raise _refused(f'containers that hold themselves, or are more than {MAX_DEPTH} deep')
    if id(value) not in done:
        done[id(value)] = None  # begun
        if type(value) is dict:
            done[id(value)] = {key: _plain(item, done, depth + 1) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done, depth + 1) for item in value)
    return done[id(value)]

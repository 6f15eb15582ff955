"""Pickles that hold plain data and nothing else, read so that a hostile one cannot run code.

The reader is Python's own in its Python form, less every instruction that makes objects. The form
in C would not do: it fills memory up to any place of the memo that a file names, and hashes tuples
of any depth before its caller sees them. The few names that NumPy writes into a pickle stand for
functions of this module, since NumPy's own trust the state that they are given.
"""
from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from ...foreign_files import read_regular

_PythonUnpickler: Any = pickle._Unpickler
MAX_BYTES = 16 << 20  # an official ground truth has about one megabyte
MAX_DEPTH = 32
_NUMBERS = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')
_KEYS = (type(None), bool, int, float, complex, str, bytes)
_INSTRUCTIONS = frozenset((
    'PROTO', 'FRAME', 'STOP', 'MARK', 'MEMOIZE', 'PUT', 'BINPUT', 'LONG_BINPUT', 'GET', 'BINGET',
    'LONG_BINGET', 'NONE', 'NEWTRUE', 'NEWFALSE', 'INT', 'BININT', 'BININT1', 'BININT2', 'LONG',
    'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE',
    'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8',
    'EMPTY_LIST', 'LIST', 'APPEND', 'APPENDS', 'EMPTY_DICT', 'DICT', 'SETITEM', 'SETITEMS',
    'EMPTY_SET', 'ADDITEMS', 'FROZENSET', 'EMPTY_TUPLE', 'GLOBAL', 'STACK_GLOBAL', 'REDUCE'))


class NotPlainError(ValueError):
    """A pickle that is damaged, or holds anything but plain data; the message says what."""


def _refused(what: str) -> NotPlainError:
    return NotPlainError(
        f'it holds {what}. A pickle can make the reader run any code, so only dicts, lists, '
        'tuples, sets, strings, numbers and numpy arrays of numbers are let through')


def load_plain_pickle(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Any:
    """The plain data of a pickle: containers, strings, numbers, and numpy arrays of numbers.

    Args:
        path: the file.
        max_bytes: a larger one is refused before it is read, and so is one whose content grows
            beyond that when all that it repeats is written out.

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
    data = read_regular(path)
    try:
        return _Copy(max_bytes).of(_PlainUnpickler(_File(data), encoding='latin1').load())
    except NotPlainError:
        raise
    except Exception as error:  # damage shows as any error: of a key, a type, the memory
        raise NotPlainError(
            f'it is no sound pickle ({str(error) or type(error).__name__})') from error


class _File(io.BytesIO):
    """Raises EOFError where it is shorter than what is asked of it."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if len(data) < (size or 0):
            raise EOFError(f'it ends before {size} more bytes')
        return data


class _Tuple(tuple[Any, ...]):
    """A tuple that is no key: a hash goes as deep, and as often, as the file makes tuples nest."""

    def __hash__(self) -> NoReturn:
        raise _refused('a tuple as a key')


class _Dtype:
    """Stands for ``numpy.dtype('f8')``."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or code.lstrip('<>=|') not in _NUMBERS:
            raise _refused(f'an array of {str(code)[:40]!r}, which are no numbers')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """The byte order; what else a state may hold is of dtypes that are no numbers."""
        if type(state) is not _Tuple or not 5 <= len(state) <= 8 \
                or state[1] not in ('<', '>', '=', '|') or any(p is not None for p in state[2:5]):
            raise _refused('an array of a structured dtype')
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for an array, whose bytes may come later."""

    def __init__(self, array: np.ndarray | None = None) -> None:
        self.array = array

    def __setstate__(self, state: Any) -> None:
        """The version, shape, dtype, whether the first axis runs fastest, and the bytes."""
        _, shape, dtype, fortran, content = state
        self.array = _from_bytes(content, dtype, shape, 'F' if fortran else 'C')


def _from_bytes(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The array of those bytes; there must be as many as its shape and dtype say."""
    content = content.encode('latin1') if isinstance(content, str) else content
    if type(dtype) is not _Dtype or not isinstance(content, (bytes, bytearray)):
        raise _refused('an array of objects')
    if not isinstance(shape, tuple) or len(shape) > MAX_DEPTH or order not in ('C', 'F') \
            or any(type(edge) is not int or edge < 0 for edge in shape):
        raise _refused('an array of an unknown form')
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise ValueError(f'an array of shape {tuple(shape)} in {len(content)} bytes')
    flat = np.frombuffer(content, dtype.dtype).astype(dtype.dtype.newbyteorder('='))
    return flat.reshape(tuple(shape), order=order)


def _bytes_of(text: Any, encoding: Any = 'latin1') -> bytes:
    """How the protocols 0 to 2 write bytes."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise _refused('bytes in another encoding than Latin-1')
    return text.encode('latin1')


def _no_bytes(*arguments: Any) -> bytes:
    """How the protocols 0 to 2 write none at all."""
    if arguments:
        raise _refused('bytes made of something else')
    return b''


def _members(items: Any = ()) -> Any:
    if not isinstance(items, (list, tuple)):
        raise _refused(f'a set made of a {type(items).__name__}')
    return items


def _no_call(*arguments: Any) -> NoReturn:
    raise _refused('a call of numpy.ndarray')


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ('numpy', 'dtype'): _Dtype,
    ('numpy', 'ndarray'): _no_call,  # it only stands among the arguments of _reconstruct
    ('_codecs', 'encode'): _bytes_of,
    **{(module, name): function for module in ('builtins', '__builtin__') for name, function in (
        ('bytes', _no_bytes),
        ('set', lambda *items: set(_members(*items))),
        ('frozenset', lambda *items: frozenset(_members(*items))))},
    **{(f'numpy.{core}.{module}', name): function for core in ('core', '_core')
       for module, name, function in (
           ('multiarray', '_reconstruct', lambda kind, shape, code: _Array()),
           ('multiarray', 'scalar', lambda dtype, raw: _from_bytes(raw, dtype, (), 'C').item()),
           ('numeric', '_frombuffer', lambda *parts: _Array(_from_bytes(*parts))))},
}


class _PlainUnpickler(_PythonUnpickler):
    """Python's reader, with only the instructions that plain data needs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise _refused(f'{module}.{name}')
        return _NAMES[module, name]

    def load_build(self) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) not in (_Dtype, _Array):
            raise _refused(f'a {type(self.stack[-1]).__name__} with a state')
        self.stack[-1].__setstate__(state)

    def load_bytearray8(self) -> None:
        # read before room is made for it
        self.append(bytearray(self.read(int.from_bytes(self.read(8), 'little'))))

    def load_tuple(self, length: int | None = None) -> None:
        items = self.pop_mark() if length is None else \
            [self.stack.pop() for _ in range(length)][::-1]
        self.append(_Tuple(items))

    def refuse(self) -> NoReturn:
        raise _refused('an object of another kind')

    dispatch = {
        **dict.fromkeys(_PythonUnpickler.dispatch, refuse),
        **{ord(code.code): _PythonUnpickler.dispatch[ord(code.code)]
           for code in pickletools.opcodes if code.name in _INSTRUCTIONS},
        pickle.BUILD[0]: load_build, pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.TUPLE[0]: load_tuple, pickle.TUPLE1[0]: lambda self: self.load_tuple(1),
        pickle.TUPLE2[0]: lambda self: self.load_tuple(2),
        pickle.TUPLE3[0]: lambda self: self.load_tuple(3)}


class _Copy:
    """Copies of what was read, that hold nothing but plain data and do not grow without bound."""

    def __init__(self, max_bytes: int) -> None:
        self.left = max_bytes

    def of(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind is _Array and value.array is not None:
            value, kind = value.array, np.ndarray
        size = value.nbytes if kind is np.ndarray else \
            len(value) if kind in (str, bytes, bytearray) else 1
        self.left -= max(size, 16)  # an object takes no less
        if depth > MAX_DEPTH or self.left < 0:
            raise _refused('containers that hold themselves, repeat others without end, or are '
                           f'more than {MAX_DEPTH} deep')
        if kind is dict:
            return {self.key(key): self.of(item, depth + 1) for key, item in value.items()}
        if kind in (list, tuple, _Tuple):
            items = [self.of(item, depth + 1) for item in value]
            return items if kind is list else tuple(items)
        if kind in (set, frozenset):
            return kind(map(self.key, value))
        return value if kind in (np.ndarray, bytearray) else self.key(value, 'in it')

    def key(self, value: Any, where: str = 'as a key') -> Any:
        if type(value) not in _KEYS:
            raise _refused(f'a {type(value).__name__.lstrip("_")} {where}')
        return value

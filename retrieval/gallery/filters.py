"""Filters as text: ``price<20 and brand in (Fiat, Seat) and not date<2026-01``.

A condition is a column, one of ``= != < <= > >=`` or ``in``, and a value or a list of values;
conditions are joined by ``and``, ``or``, ``not`` and parentheses. Names and values with blanks or
signs stand in quotes. What a value means follows from its column: see :meth:`Condition.mask`.
"""
from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .columns import as_number, equal_to
from .columns import column as as_column

_TOKEN = re.compile(r'''\s*(?:(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')'''
                    r'''|(?P<sign><=|>=|==|!=|<|>|=|[()\[\],])|(?P<bare>[^\s<>=!()\[\],"']+))''')
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    '<': operator.lt, '<=': operator.le, '>': operator.gt, '>=': operator.ge}
_DATE = re.compile(r'\d{4}-\d\d(-\d\d([ T].*)?)?')
_END = '~'  # behind whatever a date goes on with
_EXAMPLE = 'price<20 and brand in (Fiat, "Alfa Romeo") and not date<2026-01'

Columns = Callable[[str], Any]


@dataclass(frozen=True)
class Condition:
    """A column compared with values.

    Args:
        column: its name.
        sign: ``=``, ``in``, ``<``, ``<=``, ``>`` or ``>=``.
        values: as they were written; one, but for ``in``.
    """

    column: str
    sign: str
    values: tuple[str, ...]

    def mask(self, columns: Columns) -> np.ndarray:
        """In which rows it holds, ``(N,)`` bool.

        Numbers are compared as numbers, as the column holds them. Text is equal where it is
        written alike. It is ordered as numbers where the value is one, and then all of it must be
        numbers; at the value's precision where that is a date (``<=2026-01`` has all of January);
        else by its letters. What is missing (empty, NaN) has no order.

        Raises:
            ValueError: there is no such column, or it cannot be compared with the value.
        """
        held = columns(self.column)
        try:
            if self.sign in ('=', 'in'):
                return equal_to(as_column(held) if isinstance(held, np.ndarray) else held,
                                self.values)
            return self._ordered(held)
        except ValueError as error:
            raise ValueError(f'{self.column}: {error}') from None

    def _ordered(self, held: Any) -> np.ndarray:
        (value,), compare = self.values, _ORDERS[self.sign]
        array = held.cpu().numpy() if isinstance(held, Tensor) else held if isinstance(
            held, np.ndarray) else np.array(list(held), dtype=object)
        number = as_number(value)
        if array.dtype.kind == 'b':
            raise ValueError(f'truth values have no order: write {self.column}=True.')
        if array.dtype.kind in 'iuf':
            if number is None:
                raise ValueError(f'the column holds numbers, and {value!r} is none.')
            if array.dtype.kind == 'f':
                return compare(array, array.dtype.type(number))
            sign, edge = whole_bound(self.sign, value)
            if abs(edge) == math.inf:
                return np.full(len(array), (edge > 0) == (sign in '<='))
            return _ORDERS[sign](array, edge)
        texts: list[str] = array.tolist()
        filled = np.array([bool(text) for text in texts], dtype=bool)
        if number is not None:
            numbers = [as_number(text) if text else math.nan for text in texts]
            wrong = next((text for text, one in zip(texts, numbers, strict=True) if one is None),
                         None)
            if wrong is not None:
                hint = f' A date is written {value}-01.' if _DATE.fullmatch(wrong) else ''
                raise ValueError(f'{value} is a number, and the column holds text such as '
                                 f'{wrong!r}.{hint}')
            return compare(np.array(numbers, dtype=np.float64), number)
        length = len(value) if _DATE.fullmatch(value) else None
        return filled & np.array([compare(text[:length], value) for text in texts], dtype=bool)

    def to_milvus(self, fields: Mapping[str, tuple[str, str]]) -> str | None:
        """The expression of Milvus; None where Milvus cannot tell, which does not read text as
        numbers. See :func:`to_milvus`.
        """
        if self.column not in fields:
            raise ValueError(unknown(self.column, fields))
        name, kind = fields[self.column]
        if self.sign in ('=', 'in'):
            column: Any = {'str': np.array(['']), 'int': np.zeros(1, np.int64),
                           'float': np.zeros(1), 'bool': np.zeros(1, bool)}[kind]
            self.mask(lambda _: column)  # raises where a value is none of the kind
            values = {'str': lambda text: json.dumps(text, ensure_ascii=False),
                      'int': lambda text: str(int(text)), 'float': lambda text: repr(float(text)),
                      'bool': lambda text: str(text.lower() in ('true', '1')).lower()}[kind]
            return '(' + ' or '.join(f'{name} == {values(one)}' for one in self.values) + ')' \
                if kind != 'str' and len(self.values) < 3 else \
                f'{name} in [{", ".join(values(one) for one in self.values)}]'
        (value,) = self.values
        number = as_number(value)
        if kind == 'bool' or kind != 'str' and number is None:
            self.mask(lambda _: np.zeros(1, bool) if kind == 'bool' else np.zeros(1))
        if kind == 'int':
            sign, edge = whole_bound(self.sign, value)
            if abs(edge) >= 2 ** 63:
                return None
            return f'{name} {sign} {edge}'
        if kind == 'float':
            return None if abs(number or 0) == math.inf else f'{name} {self.sign} {number!r}'
        if number is not None:
            return None
        sign = self.sign
        if _DATE.fullmatch(value) and sign in ('<=', '>'):
            sign, value = ('<' if sign == '<=' else '>='), value + _END
        return f'({name} != "" and {name} {sign} {json.dumps(value, ensure_ascii=False)})'

    def names(self) -> Iterator[str]:
        """The column."""
        yield self.column


@dataclass(frozen=True)
class Joined:
    """Filters joined by ``and`` or ``or``, or one turned round by ``not``.

    Args:
        word: ``and``, ``or`` or ``not``.
        parts: one for ``not``, else two or more.
    """

    word: str
    parts: tuple[Condition | Joined, ...]

    def mask(self, columns: Columns) -> np.ndarray:
        """In which rows it holds, ``(N,)`` bool. Raises as :meth:`Condition.mask`."""
        masks = [part.mask(columns) for part in self.parts]
        if self.word == 'not':
            return ~masks[0]
        return np.logical_and.reduce(masks) if self.word == 'and' else np.logical_or.reduce(masks)

    def to_milvus(self, fields: Mapping[str, tuple[str, str]]) -> str | None:
        """See :func:`to_milvus`."""
        parts = [part.to_milvus(fields) for part in self.parts]
        if None in parts:
            return None
        return f'(not ({parts[0]}))' if self.word == 'not' else \
            '(' + f' {self.word} '.join(map(str, parts)) + ')'

    def names(self) -> Iterator[str]:
        """The columns."""
        for part in self.parts:
            yield from part.names()


Filter = Condition | Joined


def whole_bound(sign: str, text: str) -> tuple[str, int | float]:
    """An order against a number as one against a whole number, which whole numbers meet alike.

    Example:
        >>> whole_bound('<', '2.5'), whole_bound('>=', '2.5'), whole_bound('<', '3')
        (('<=', 2), ('>', 2), ('<', 3))
    """
    try:
        return sign, int(text)
    except ValueError:
        number = float(text)
    if abs(number) == math.inf:
        return sign, number
    if number == int(number):
        return sign, int(number)
    return ('<=' if sign[0] == '<' else '>'), math.floor(number)


def parse_filter(text: str) -> Filter:
    """A filter as text, read.

    Raises:
        ValueError: it cannot be read; the message shows where.

    Example:
        >>> prices = dict(price=np.array([5, 30]), brand=np.array(['Fiat', 'Seat']))
        >>> parse_filter('price<20 or brand = Seat').mask(prices.__getitem__).tolist()
        [True, True]
        >>> parse_filter('not (price<20)').mask(prices.__getitem__).tolist()
        [False, True]
    """
    return _Reader(text).all()


def unknown(name: str, names: Any) -> str:
    """The message for a column that there is not."""
    from ..registry import unknown_name

    return unknown_name('column', name, names)


class _Reader:
    """Reads a filter from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, where
        place, end = 0, len(text.rstrip())
        while place < end:
            found = _TOKEN.match(text, place)
            if found is None:
                raise self._wrong('a quote that is not closed, or a sign that means nothing',
                                  place)
            kind = str(found.lastgroup)
            token = found[kind]
            self.tokens.append((kind, re.sub(r'\\(.)', r'\1', token[1:-1]) if kind == 'quoted'
                                else token, found.start(kind)))
            place = found.end()

    def all(self) -> Filter:
        found = self._joined('or')
        if self.place < len(self.tokens):
            raise self._wrong('nothing more was expected here (a text with blanks stands in '
                              'quotes)')
        return found

    def _joined(self, word: str) -> Filter:
        def part() -> Filter:
            return self._joined('and') if word == 'or' else self._not()
        parts = [part()]
        while self._takes_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _not(self) -> Filter:
        if self._takes_word('not'):
            return Joined('not', (self._not(),))
        if self._takes_sign('('):
            found = self._joined('or')
            self._needs(')')
            return found
        return self._condition()

    def _condition(self) -> Filter:
        column = self._text('a column')
        if self._takes_word('not'):
            if not self._takes_word('in'):
                raise self._wrong("'in' was expected behind 'not'")
            return Joined('not', (Condition(column, 'in', self._list()),))
        if self._takes_word('in'):
            return Condition(column, 'in', self._list())
        for sign in ('=', '==', '!=', *_ORDERS):
            if self._takes_sign(sign):
                value = self._text('a value')
                if sign == '!=':
                    return Joined('not', (Condition(column, '=', (value,)),))
                return Condition(column, sign[:1] if sign == '==' else sign, (value,))
        raise self._wrong(f'one of = != < <= > >= in was expected behind {column!r}')

    def _list(self) -> tuple[str, ...]:
        closing = ')' if self._takes_sign('(') else ']'
        if closing == ']':
            self._needs('[', "'(' and a list were expected behind 'in'")
        values = [self._text('a value')]
        while self._takes_sign(','):
            values.append(self._text('a value'))
        self._needs(closing)
        return tuple(values)

    def _takes_word(self, word: str) -> bool:
        return self._takes(('bare',), word)

    def _takes_sign(self, sign: str) -> bool:
        return self._takes(('sign',), sign)

    def _takes(self, kinds: tuple[str, ...], text: str) -> bool:
        if self.place < len(self.tokens):
            kind, token, _ = self.tokens[self.place]
            if kind in kinds and token.lower() == text:
                self.place += 1
                return True
        return False

    def _needs(self, sign: str, message: str = '') -> None:
        if not self._takes_sign(sign):
            raise self._wrong(message or f'{sign!r} was expected')

    def _text(self, what: str) -> str:
        if self.place < len(self.tokens):
            kind, token, _ = self.tokens[self.place]
            if kind == 'quoted' or kind == 'bare' and token.lower() not in ('and', 'or', 'not',
                                                                            'in'):
                self.place += 1
                return token
        raise self._wrong(f'{what} was expected')

    def _wrong(self, message: str, place: int | None = None) -> ValueError:
        if place is None:
            place = self.tokens[self.place][2] if self.place < len(self.tokens) else len(self.text)
        return ValueError(
            f'The filter {self.text!r} cannot be read: {message}, '
            + (f'at {self.text[place:][:20]!r}' if self.text[place:].strip() else 'at its end')
            + f'. A filter is such as {_EXAMPLE}')

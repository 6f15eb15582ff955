"""A column of strings in two arrays, of which a million open at once."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:  # torch is imported where a tensor is made: an array needs none
    from torch import Tensor

_CHUNK_ROWS = 16384
_FEW = 16  # a share of the rows below which each is read alone
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it is 0


class StringColumn(Sequence[str]):
    """A read-only list of strings, decoded one at a time when they are asked for.

    Args:
        data: the UTF-8 bytes of all strings in turn, ``(B,)`` uint8.
        offsets: where each string begins and the last one ends, ``(N + 1,)`` int64.

    Raises:
        ValueError: the offsets do not rise from 0 to the number of bytes.

    Example:
        >>> column = StringColumn.from_strings(['cat', '', 'dog'])
        >>> column[2], list(column.take(np.array([1, 0]))), column.find(['dog', 'emu']).tolist()
        ('dog', ['', 'cat'], [2, -1])
    """

    def __init__(self, data: Tensor, offsets: Tensor) -> None:
        self._bytes: Any = data.numpy()
        self._edges: Any = offsets.numpy()
        if len(self._edges) == 0 or self._edges[0] != 0 or self._edges[-1] != len(self._bytes):
            raise _misfit()
        self._checked(self._edges)

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> StringColumn:
        """Pack strings into a column."""
        encoded = [text.encode('utf-8', 'surrogateescape') for text in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        data = np.frombuffer(bytearray(b''.join(encoded)), dtype=np.uint8)
        return cls.from_arrays(data, offsets)

    @classmethod
    def from_arrays(cls, data: Any, offsets: Any) -> StringColumn:
        """A column over arrays in memory or in a mapped file, whose offsets are looked at when
        they are used.
        """
        column = cls.__new__(cls)
        column._bytes, column._edges = data, offsets
        return column

    @classmethod
    def joined(cls, parts: Sequence[StringColumn]) -> StringColumn:
        """The strings of several columns after one another."""
        edges, total = [np.zeros(1, dtype=np.int64)], 0
        for part in parts:
            own = part._checked(part._edges[:])
            edges.append(own[1:] + total)
            total += len(part._bytes)
        return cls.from_arrays(np.concatenate([part._bytes[:] for part in parts]),
                               np.concatenate(edges))

    @property
    def data(self) -> Tensor:
        """The bytes, ``(B,)`` uint8."""
        import torch

        return torch.from_numpy(self._bytes[:])

    @property
    def offsets(self) -> Tensor:
        """The offsets, ``(N + 1,)`` int64."""
        import torch

        return torch.from_numpy(self._checked(self._edges[:]))

    def _checked(self, edges: np.ndarray) -> np.ndarray:
        if len(edges) and (edges[0] < 0 or edges[-1] > len(self._bytes)
                           or bool((edges[1:] < edges[:-1]).any())):
            raise _misfit()
        return edges

    def __len__(self) -> int:
        return len(self._edges) - 1

    @overload
    def __getitem__(self, item: int) -> str: ...

    @overload
    def __getitem__(self, item: slice) -> list[str]: ...

    def __getitem__(self, item: int | slice) -> str | list[str]:
        if isinstance(item, slice):
            rows = range(*item.indices(len(self)))
            return list(self.between(rows.start, rows.stop)) if rows.step == 1 else [
                self[row] for row in rows]
        row = int(item)
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(f'row {int(item)} of {len(self)} strings')
        begin, end = self._checked(self._edges[row:row + 2]).tolist()
        return self._bytes[begin:end].tobytes().decode('utf-8', 'surrogateescape')

    def __iter__(self) -> Iterator[str]:
        return self.between(0, len(self))

    def between(self, start: int, stop: int) -> Iterator[str]:
        """The strings of the rows ``start:stop`` in turn."""
        for first in range(start, stop, _CHUNK_ROWS):
            edges = self._checked(self._edges[first:min(first + _CHUNK_ROWS, stop) + 1])
            text: Any = self._bytes[int(edges[0]):int(edges[-1])].tobytes()
            places = pairwise((edges - edges[0]).tolist())
            if text.isascii():
                text = text.decode('ascii')
                yield from (text[begin:end] for begin, end in places)
            else:
                yield from (text[begin:end].decode('utf-8', 'surrogateescape')
                            for begin, end in places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: np.ndarray) -> StringColumn:
        """A column of the rows with these numbers."""
        rows = np.asarray(rows, dtype=np.int64)
        if _FEW * len(rows) < len(self):
            return StringColumn.from_strings(self[row] for row in rows.tolist())
        edges = self._checked(self._edges[:])
        starts, lengths = edges[rows], edges[rows + 1] - edges[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        data, source = np.empty(int(offsets[-1]), dtype=np.uint8), self._bytes[:]
        for first in range(0, len(rows), _CHUNK_ROWS):
            part = slice(first, first + _CHUNK_ROWS)
            begin, end = int(offsets[first]), int(offsets[min(first + _CHUNK_ROWS, len(rows))])
            shift = np.repeat(starts[part] - offsets[:-1][part], lengths[part])
            data[begin:end] = source[shift + np.arange(begin, end)]
        return StringColumn.from_arrays(data, offsets)

    # Looking strings up ------------------------------------------------------------------------

    def hashes(self) -> np.ndarray:
        """A 64-bit number for each string, ``(N,)`` uint64, equal for equal strings."""
        out = np.empty(len(self), dtype=np.uint64)
        for first in range(0, len(self), _CHUNK_ROWS):
            edges = self._checked(self._edges[first:first + _CHUNK_ROWS + 1])
            data = self._bytes[int(edges[0]):int(edges[-1])]
            out[first:first + len(edges) - 1] = _polynomials(data, edges - edges[0])
        return out

    def find(self, names: Sequence[str] | StringColumn) -> np.ndarray:
        """The row of each of some strings, ``(n,)`` int64; -1 where it is none of these.

        Where a string stands in several rows, the last one counts.
        """
        wanted = names if isinstance(names, StringColumn) else StringColumn.from_strings(names)
        keys = wanted.hashes()
        order = np.argsort(keys, kind='stable')
        ordered, own = keys[order], self.hashes()
        left = np.searchsorted(ordered, own, side='left')
        rows = np.flatnonzero(np.append(ordered, np.uint64(0))[left] == own).tolist()
        found = np.full(len(wanted), -1, dtype=np.int64)
        places: dict[str, list[int]] = {}
        for place, name in enumerate(wanted):
            places.setdefault(name, []).append(place)
        for row in rows:  # equal numbers are rarely other strings
            for place in places.get(self[row], ()):
                found[place] = row
        return found

    def first_repeated(self) -> str | None:
        """A string that stands in more than one row, the first of them; None if there is none."""
        keys = self.hashes()
        order = np.argsort(keys, kind='stable')
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
        seen: set[str] = set()
        for row in suspects.tolist():
            name = self[row]
            if name in seen:
                return name
            seen.add(name)
        return None


def _misfit() -> ValueError:
    return ValueError('The offsets of a string column do not fit its bytes: the file is damaged.')


def _polynomials(data: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """For each string the sum of its bytes, each plus 1, times rising powers, modulo 2^64."""
    lengths = np.diff(edges)
    longest = int(lengths.max(initial=0))
    powers = np.multiply.accumulate(np.full(longest + 1, _FACTOR, dtype=np.uint64))
    place = np.arange(len(data)) - np.repeat(edges[:-1], lengths)
    terms = (data.astype(np.uint64) + np.uint64(1)) * powers[place]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return sums[edges[1:]] - sums[edges[:-1]]

"""Strings as bytes and offsets: a million of them open at once and fit into a tensor file."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor


class StringColumn(Sequence[str]):
    """A read-only list of strings, decoded one at a time when they are asked for.

    Args:
        data: the UTF-8 bytes of all strings in turn, ``(B,)`` uint8.
        offsets: where each string begins and the last one ends, ``(N + 1,)`` int64.

    Raises:
        ValueError: the offsets do not rise from 0 to the number of bytes.
    """

    def __init__(self, data: Tensor, offsets: Tensor) -> None:
        self.data, self.offsets = data, offsets
        self._bytes, self._edges = data.numpy(), offsets.numpy()
        edges = self._edges
        if (len(edges) == 0 or edges[0] != 0 or edges[-1] != len(self._bytes)
                or bool((edges[1:] < edges[:-1]).any())):
            raise ValueError('The offsets of a string column do not fit its bytes: the file is '
                             'damaged.')

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> StringColumn:
        """Pack strings into a column."""
        encoded = [text.encode('utf-8', 'surrogateescape') for text in strings]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        data = np.frombuffer(bytearray(b''.join(encoded)), dtype=np.uint8)
        return cls(torch.from_numpy(data.copy()), torch.from_numpy(offsets))

    def __len__(self) -> int:
        return len(self._edges) - 1

    @overload
    def __getitem__(self, item: int) -> str: ...

    @overload
    def __getitem__(self, item: slice) -> list[str]: ...

    def __getitem__(self, item: int | slice) -> str | list[str]:
        if isinstance(item, slice):
            return [self[i] for i in range(*item.indices(len(self)))]
        row = int(item)
        row += len(self) if row < 0 else 0
        if not 0 <= row < len(self):
            raise IndexError(f'row {int(item)} of {len(self)} strings')
        begin, end = self._edges[row], self._edges[row + 1]
        return self._bytes[begin:end].tobytes().decode('utf-8', 'surrogateescape')

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

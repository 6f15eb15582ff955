"""The container of galleries, indexes and caches: arrays in one mapped, checked, versioned file.

It is a plain safetensors file (8 bytes with the length of the header, a JSON header, the
tensors), which any reader of that format opens. Beside the tensors that are written it holds

- ``checksums``, uint8 ``(blocks, 16)``: the truncated SHA-256 of each block of 1 MiB of the
  tensors in their order in the file,
- ``manifest``, uint8: JSON,

and in its header's metadata the name and version of its format, the digests of both, and of the
header itself. So a flipped bit is found wherever it is: in the header and the manifest when the
file is opened, in a tensor when its block is first read.

A column of strings is two tensors, ``NAME.bytes`` and ``NAME.offsets``: a million of them open at
once.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .files import kind_of_file, write_all, write_atomically
from .foreign_files import refuse_special

if TYPE_CHECKING:  # torch is imported where a tensor is made: an array needs none
    from torch import Tensor

BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 16
# BF16, which NumPy does not have, stands in arrays of uint16 with the same bits
_DTYPES = {'BOOL': 'bool', 'U8': 'uint8', 'I8': 'int8', 'U16': 'uint16', 'I16': 'int16',
           'U32': 'uint32', 'I32': 'int32', 'U64': 'uint64', 'I64': 'int64', 'F16': 'float16',
           'F32': 'float32', 'F64': 'float64', 'BF16': 'uint16'}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items() if code != 'BF16'}
_LONGEST_HEADER = 100_000_000  # the limit of the format
_ALIGNMENT = 64
_UNSET = '0' * 2 * DIGEST_BYTES
_CHUNK_ROWS = 16384
_FEW = 16  # a share of the rows below which each is read alone
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it is 0


class DamagedError(ValueError):
    """A file whose bytes are not those that were written."""


class ForeignFileError(ValueError):
    """A file of another kind or version than the one that was asked for."""


@dataclass(frozen=True)
class Format:
    """A kind of file, for writing, reading and the errors of both.

    Args:
        name: its name, in the file.
        version: which version is written, and the only one that is read.
        again: how such a file is made anew, a sentence.
        finite: the tensors in which NaN and infinity are refused.
    """

    name: str
    version: int
    again: str
    finite: tuple[str, ...] = ()

    def check(self, path: str | os.PathLike[str], name: Any, version: Any) -> None:
        """Raise ForeignFileError where a file at ``path`` is of another name or version.

        Example:
            >>> Format('index', 2, 'Build it again.').check('a', 'index', 2)
        """
        if name != self.name:
            raise ForeignFileError(f'{os.fspath(path)!r} holds {name or "something else"!r}, not '
                                   f'{self.name!r}.')
        if str(version) != str(self.version):
            newer = str(version).isdecimal() and int(version) > self.version
            raise ForeignFileError(
                f'{os.fspath(path)!r} has version {version} of the format {name!r}, and this '
                f'release reads version {self.version}. '
                f'{"Install a newer release." if newer else self.again}')


#: Galleries; it stands here for those who read one without torch.
GALLERY_FILE = Format('retrieval-gallery', 2, 'Dump the prototype again.',
                      finite=('embeddings', 'embeddings.scale'))


@dataclass(frozen=True)
class Pieces:
    """An array that is made while it is written.

    Args:
        dtype: its NumPy dtype.
        shape: its shape.
        pieces: called when it is written: arrays that in turn are its elements.
    """

    dtype: Any
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def write_container(path: str | os.PathLike[str], format: Format,
                    columns: Mapping[str, np.ndarray | Tensor | StringColumn | Pieces],
                    manifest: Mapping[str, Any]) -> str:
    """Write arrays, columns of strings and a manifest, atomically.

    Tensors stand by falling size of their elements, so that each is aligned in the file.

    Args:
        path: the file.
        format: what kind of file it is.
        columns: what it holds, by name.
        manifest: anything that JSON has.

    Returns:
        The checksum of the header, which stands for the whole contents.

    Raises:
        TypeError: the format has no such dtype.
        OSError: it cannot be written, such as on a full disk; what was there before stays.
    """
    text = json.dumps(manifest).encode()
    tensors = sorted(_tensors(columns), key=lambda tensor: -np.dtype(tensor[2].dtype).itemsize)
    blocks = sum(_block_count(made.num_bytes, BLOCK_BYTES) for _, _, made in tensors)
    layout = [(name, code, made.shape, made.num_bytes) for name, code, made in tensors]
    layout += [('checksums', 'U8', (blocks, DIGEST_BYTES), blocks * DIGEST_BYTES),
               ('manifest', 'U8', (len(text),), len(text))]
    metadata = dict(format=format.name, version=str(format.version), block=str(BLOCK_BYTES),
                    checksum=_UNSET, checksums=_UNSET, manifest=digest(text).hex())

    def write(temporary: str) -> None:
        with open(temporary, 'wb', buffering=0) as handle:
            write_all(handle, _header(metadata, layout))
            digests = b''.join(_write_tensor(handle, name, made) for name, _, made in tensors)
            write_all(handle, digests)
            write_all(handle, text)
            metadata['checksums'] = digest(digests).hex()
            metadata['checksum'] = digest(_header(metadata, layout)).hex()
            handle.seek(0)
            write_all(handle, _header(metadata, layout))

    write_atomically(path, write)
    return metadata['checksum']


def _tensors(columns: Mapping[str, Any]) -> Iterator[tuple[str, str, Pieces]]:
    """The name, code of the dtype, and elements of every tensor that the columns are."""
    for name, values in columns.items():
        code = None
        if isinstance(values, StringColumn):
            yield from _tensors({f'{name}.bytes': values.data, f'{name}.offsets': values.offsets})
            continue
        if hasattr(values, 'detach'):  # a tensor
            import torch

            values = values.detach().cpu().contiguous()
            if values.dtype == torch.bfloat16:
                code, values = 'BF16', values.view(torch.uint16)
            values = values.numpy()
        if isinstance(values, np.ndarray):
            values = Pieces(values.dtype, values.shape, [values].copy)
        code = code or _CODES.get(np.dtype(values.dtype))
        if code is None:
            raise TypeError(f'{name!r} is of {values.dtype}, which safetensors does not have.')
        yield name, code, values


def _write_tensor(handle: Any, name: str, made: Pieces) -> bytes:
    digester, written = BlockDigester(), 0
    for piece in made.pieces():
        data = np.ascontiguousarray(piece, made.dtype).reshape(-1).view(np.uint8).data
        digester.update(data)
        write_all(handle, data)
        written += len(data)
    if written != made.num_bytes:
        raise ValueError(f'The tensor {name!r} of shape {made.shape} has {written} bytes.')
    return digester.finish()


def _header(metadata: dict[str, str], layout: list[Any]) -> bytes:
    header: dict[str, Any] = {'__metadata__': metadata}
    offset = 0
    for name, code, shape, num_bytes in layout:
        header[name] = dict(dtype=code, shape=list(shape), data_offsets=[offset,
                                                                         offset + num_bytes])
        offset += num_bytes
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-(8 + len(text)) % _ALIGNMENT)
    return struct.pack('<Q', len(text)) + text


class Container:
    """An open file that :func:`write_container` wrote; nothing but its ends has been read.

    Args:
        path: the file.
        format: what kind of file it must be.
        copy: read it into memory now, instead of mapping it. A mapped file that is cut short while
            it is open is an error at the next look at it, but for the moment between the look at
            its size and the one at its bytes, in which the system ends the process.

    Attributes:
        path: its absolute path.
        checksum: that of the header, which stands for the whole contents.
        manifest: what was written as such.
        arrays: the tensors by name, as :class:`BlockArray`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: a ``ValueError``; it is cut off, or a checksum does not fit.
        ForeignFileError: a ``ValueError``; it is of another kind or version.

    Example:
        >>> import tempfile, torch
        >>> format = Format('toy', 1, 'Write it again.')
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     columns = dict(x=torch.eye(2), ids=StringColumn.from_strings('ab'))
        ...     checksum = write_container(f'{folder}/x.safetensors', format, columns, {})
        ...     opened = Container(f'{folder}/x.safetensors', format)
        ...     opened.tensor('x').tolist(), list(opened.strings('ids'))
        ([[1.0, 0.0], [0.0, 1.0]], ['a', 'b'])
    """

    def __init__(self, path: str | os.PathLike[str], format: Format, copy: bool = False) -> None:
        self.path, self.format = os.path.abspath(path), format
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f'There is no file {self.path!r} ({format.name}).')
        self._watched = None if copy else WatchedFile(self.path)
        self._file = np.fromfile(self.path, np.uint8) if copy else map_file(self.path)
        header, metadata = self._read_header()
        self.checksum = metadata['checksum']
        self._check_size(max(entry['data_offsets'][1] for entry in header.values()))
        text = self._plain(header.pop('manifest'))
        digests = self._plain(header.pop('checksums')).reshape(-1, DIGEST_BYTES).copy()
        for name, data in (('manifest', text), ('checksums', digests)):
            if digest(np.ascontiguousarray(data)).hex() != metadata[name]:
                raise self._damaged(f'its {name} (in the last bytes of the file) does not fit its '
                                    'checksum')
        self.manifest: dict[str, Any] = json.loads(text.tobytes())
        self._codes = {name: entry['dtype'] for name, entry in header.items()}
        self.arrays = self._arrays(header, digests, int(metadata['block']))

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.format, self.checksum, self._watched is None)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays or f'{name}.bytes' in self.arrays

    def tensor(self, name: str) -> Tensor:
        """A tensor, whose bytes are those of the mapped file; its blocks are checked.

        Raises:
            DamagedError: the file has none of that name, or not the one that was written.
        """
        import torch

        tensor = torch.from_numpy(self._array(name)[:])
        return tensor.view(torch.bfloat16) if self._codes[name] == 'BF16' else tensor

    def strings(self, name: str) -> StringColumn:
        """A column of strings, which are read and checked when they are used.

        Raises:
            DamagedError: the file has none of that name.
        """
        return StringColumn.from_arrays(self._array(f'{name}.bytes'),
                                        self._array(f'{name}.offsets'))

    def column(self, name: str) -> StringColumn | Tensor:
        """The column of strings or a copy of the tensor of that name."""
        return self.strings(name) if f'{name}.bytes' in self.arrays else self.tensor(name).clone()

    def check_size(self) -> None:
        """Raise DamagedError where the file was cut short since it was opened: touching what was
        mapped of it would end the process.
        """
        if self._watched is not None:
            self._watched.check()

    def verify(self) -> None:
        """Check every block of every tensor. Raises DamagedError for the first that is damaged."""
        for array in self.arrays.values():
            array.verify()

    def _array(self, name: str) -> BlockArray:
        if name not in self.arrays:
            raise self._damaged(f'it has no tensor {name!r}')
        return self.arrays[name]

    def _read_header(self) -> tuple[dict[str, Any], dict[str, str]]:
        header, raw = read_header(self._file, self.path)
        metadata = header.pop('__metadata__', None) or {}
        given = metadata.get('checksum')
        if 'checksums' not in metadata or not isinstance(given, str):
            self.format.check(self.path, metadata.get('format'), metadata.get('version'))
            raise self._damaged('its header has no checksums')
        if len(given) != len(_UNSET) or digest(
                raw.replace(given.encode(), _UNSET.encode(), 1)).hex() != given:
            raise self._damaged('its header (the first '
                                f'{len(raw)} bytes) does not fit its checksum')
        self.format.check(self.path, metadata['format'], metadata['version'])
        self._data_start = len(raw)
        return header, metadata

    def _check_size(self, end: int) -> None:
        wanted, size = self._data_start + end, len(self._file)
        if size < wanted:
            raise self._damaged(f'it is cut off after {size} of {wanted} bytes')
        if size > wanted:
            raise self._damaged(f'{size - wanted} bytes stand behind its end')

    def _plain(self, entry: dict[str, Any]) -> np.ndarray:
        begin, end = entry['data_offsets']
        return self._file[self._data_start + begin:self._data_start + end]

    def _arrays(self, header: dict[str, Any], digests: np.ndarray,
                block_bytes: int) -> dict[str, BlockArray]:
        arrays, block = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
            begin, end = entry['data_offsets']
            blocks = _block_count(end - begin, block_bytes)
            arrays[name] = BlockArray(
                self._file, self.path, name, _DTYPES[entry['dtype']], tuple(entry['shape']),
                self._data_start + begin, digests[block:block + blocks], block_bytes,
                finite=name in self.format.finite, again=self.format.again,
                watched=self._watched)
            block += blocks
        return arrays

    def _damaged(self, reason: str) -> DamagedError:
        return DamagedError(f'{self.path!r} is damaged: {reason}. Restore the file. '
                            f'{self.format.again}')


def _reopen(path: str, format: Format, checksum: str, copy: bool) -> Container:
    again = Container(path, format, copy)
    if again.checksum != checksum:
        raise ValueError(f'{path!r} is not the file any more that it was when it was opened: open '
                         'it again.')
    return again


class BlockArray:
    """An array in a file, of which only touched blocks are read, and checked once.

    It is sliced like a NumPy array along its first axis (``array[3:8]``, always a view of the
    mapped bytes); :meth:`take` copies rows.

    Args:
        file: the bytes of the whole file, ``(B,)`` uint8.
        path: the file's name, for errors.
        name: the tensor's name, for errors.
        dtype: of the elements.
        shape: of the array.
        begin: where its bytes begin in the file.
        digests: those of its blocks, ``(n, 16)`` uint8.
        block_bytes: the size of a block, a multiple of the size of an element.
        finite: whether NaN and infinity are refused.
        again: how the file is made anew, for errors.
        watched: the file, where it is mapped: looked at before the bytes are touched.
    """

    def __init__(self, file: np.ndarray, path: str, name: str, dtype: Any,
                 shape: tuple[int, ...], begin: int, digests: np.ndarray,
                 block_bytes: int = BLOCK_BYTES, finite: bool = False, again: str = '',
                 watched: WatchedFile | None = None) -> None:
        self.path, self.name, self.begin, self.finite = path, name, begin, finite
        self._again, self._watched, self._changes = again, watched, 0
        self.dtype, self.shape = np.dtype(dtype), tuple(shape)
        self._row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        self._bytes = file[begin:begin + self._row_bytes * self.shape[0]]
        self._array = self._bytes.view(self.dtype).reshape(self.shape)
        self._digests, self._block_bytes = digests, block_bytes
        self._good = np.zeros(len(digests), dtype=bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Raises DamagedError where a touched block is not what was written."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError('a block array is sliced without a step')
        self._check(start * self._row_bytes, stop * self._row_bytes)
        return self._array[start:stop]

    def take(self, rows: np.ndarray, axis: int = 0) -> np.ndarray:
        """A copy of the rows with these numbers; only their blocks are read."""
        rows = np.asarray(rows)
        self._look()
        if len(rows) and self._row_bytes and not self._good.all():
            first = rows * self._row_bytes // self._block_bytes
            last = ((rows + 1) * self._row_bytes - 1) // self._block_bytes
            steps = int((last - first).max()) + 1
            touched = np.unique(np.concatenate([np.minimum(first + i, last)
                                                for i in range(steps)]))
            for block in touched[~self._good[touched]].tolist():
                self._check_block(block)
        return self._array.take(rows, axis=axis)

    def verify(self) -> None:
        """Check every block, also those that were checked before."""
        self._good[:] = False
        self._check(0, len(self._bytes))

    def _look(self) -> None:
        """Raise DamagedError where the file is cut short; where it was written to since, no block
        counts as checked any more.
        """
        changes = 0 if self._watched is None else self._watched.check()
        if changes != self._changes:
            self._good = np.zeros_like(self._good)
            self._changes = changes

    def _check(self, begin: int, end: int) -> None:
        if begin >= end:
            return
        self._look()
        first, stop = begin // self._block_bytes, _block_count(end, self._block_bytes)
        if self._good[first:stop].all():
            return
        for block in range(first, stop):
            if not self._good[block]:
                self._check_block(block)

    def _check_block(self, block: int) -> None:
        start = block * self._block_bytes
        data = self._bytes[start:start + self._block_bytes]
        if digest(data) != self._digests[block].tobytes():
            raise DamagedError(
                f'{self.path!r} is damaged: bytes {self.begin + start} to '
                f'{self.begin + start + len(data) - 1} of the file (in its tensor {self.name!r}) '
                f'do not fit their checksum. Restore the file. {self._again}')
        if self.finite:
            self._check_finite(data.view(self.dtype), start)
        self._good[block] = True

    def _check_finite(self, values: np.ndarray, start: int) -> None:
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            row = (start + int(bad[0]) * self.dtype.itemsize) // self._row_bytes
            raise DamagedError(
                f'{self.path!r} holds NaN or infinity in its tensor {self.name!r}, the first in '
                f'row {row} (bytes {self.begin + start} to '
                f'{self.begin + start + values.nbytes - 1}). {self._again}')


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


def read_header(file: np.ndarray, path: str) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its bytes with those of its length.

    Raises:
        DamagedError: it is none.
    """
    length = struct.unpack('<Q', file[:8].tobytes())[0] if len(file) >= 8 else -1
    try:
        if not 0 < length <= min(_LONGEST_HEADER, len(file) - 8):
            raise ValueError('it is cut off')
        raw = file[:8 + length].tobytes()
        header = json.loads(raw[8:])
        if not isinstance(header, dict):
            raise ValueError('it is no object')
    except (ValueError, RecursionError) as error:
        raise DamagedError(f'{path!r} is damaged or no safetensors file of {len(file)} bytes: its '
                           f'header cannot be read ({error}); it seems to be {kind_of_file(path)}. '
                           'Restore the file, or give another.') from error
    return header, raw


class WatchedFile:
    """A file that is mapped, and whether it still has the bytes that it had.

    Touching what is gone of a mapped file that was cut short ends the process (SIGBUS), so it is to
    be checked before. A file that is replaced or deleted, as this package does it, stays as it was
    for whoever has it open.

    Args:
        path: the file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b'abc'), file.flush()
        ...     watched = WatchedFile(file.name)
        ...     print(watched.check())
        ...     _ = file.truncate(2)
        ...     try:
        ...         watched.check()
        ...     except DamagedError as error:
        ...         print(str(error).partition('was ')[2].partition('.')[0])
        0
        cut off after 2 of 3 bytes while it was open
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(path)  # what a link leads to later is another file
        now = os.stat(self.path)
        self._identity, self._size = (now.st_dev, now.st_ino), now.st_size
        self._time, self._changes = now.st_mtime_ns, 0

    def check(self) -> int:
        """How often the file was seen to have been written to since it was opened.

        Raises:
            DamagedError: it is shorter than when it was opened.
        """
        try:
            now = os.stat(self.path)
        except OSError:  # it is deleted, and so still there for whoever has it open
            return self._changes
        if (now.st_dev, now.st_ino) == self._identity:
            if now.st_size < self._size:
                raise DamagedError(
                    f'{self.path!r} was cut off after {now.st_size} of {self._size} bytes while it '
                    'was open. Restore the file and open it again; replace an open file by '
                    'renaming a new one to its name, or open it with copy=True.')
            if now.st_mtime_ns != self._time:
                self._changes, self._time = self._changes + 1, now.st_mtime_ns
        return self._changes


def map_file(path: str | os.PathLike[str]) -> np.ndarray:
    """The bytes of a file, ``(B,)`` uint8, read when they are touched.

    What is written into them stays in memory and never reaches the file. No file descriptor stays
    open, so that the number of mapped files has no low limit.
    """
    import torch

    refuse_special(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return np.zeros(0, dtype=np.uint8)
        same = f'/proc/self/fd/{descriptor}'  # the opened file, whatever its name means by now
        name = same if Path(same).exists() else os.fspath(path)
        storage = torch.UntypedStorage.from_file(name, shared=False, nbytes=size)
    finally:
        os.close(descriptor)
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy()  # type: ignore[arg-type]


def digest(*parts: Any) -> bytes:
    """The first 16 bytes of the SHA-256 of bytes-like parts in turn.

    SHA-256 rather than a faster-looking hash, since processors compute it in hardware.
    """
    running = hashlib.sha256()
    for part in parts:
        running.update(part)
    return running.digest()[:DIGEST_BYTES]


class BlockDigester:
    """The digests of the blocks of a stream that comes in pieces of any size.

    Example:
        >>> digester = BlockDigester(4)
        >>> for piece in (b'abc', b'def'):
        ...     digester.update(memoryview(piece))
        >>> digester.finish() == digest(b'abcd') + digest(b'ef')
        True
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        self._digests: list[bytes] = []
        self._running = hashlib.sha256()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """Take the next piece, as bytes."""
        while len(data):
            piece = data[:self.block_bytes - self._filled]
            self._running.update(piece)
            self._filled += len(piece)
            data = data[len(piece):]
            if self._filled == self.block_bytes:
                self._end_block()

    def _end_block(self) -> None:
        self._digests.append(self._running.digest()[:DIGEST_BYTES])
        self._running, self._filled = hashlib.sha256(), 0

    def finish(self) -> bytes:
        """The digests of all blocks, one after another."""
        if self._filled:
            self._end_block()
        return b''.join(self._digests)


def _block_count(num_bytes: int, block_bytes: int) -> int:
    return -(-num_bytes // block_bytes)

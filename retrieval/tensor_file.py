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

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import kind_of_file, write_all, write_atomically
from .mapped_file import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    BlockArray,
    BlockDigester,
    DamagedError,
    WatchedFile,
    block_count,
    digest,
    map_file,
)
from .string_column import StringColumn

if TYPE_CHECKING:  # torch is imported where a tensor is made: an array needs none
    from torch import Tensor

# BF16, which NumPy does not have, stands in arrays of uint16 with the same bits
_DTYPES = {'BOOL': 'bool', 'U8': 'uint8', 'I8': 'int8', 'U16': 'uint16', 'I16': 'int16',
           'U32': 'uint32', 'I32': 'int32', 'U64': 'uint64', 'I64': 'int64', 'F16': 'float16',
           'F32': 'float32', 'F64': 'float64', 'BF16': 'uint16'}
_CODES = {np.dtype(name): code for code, name in _DTYPES.items() if code != 'BF16'}
_LONGEST_HEADER = 100_000_000  # the limit of the format
_ALIGNMENT = 64
_UNSET = '0' * 2 * DIGEST_BYTES


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
    blocks = sum(block_count(made.num_bytes, BLOCK_BYTES) for _, _, made in tensors)
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
            blocks = block_count(end - begin, block_bytes)
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

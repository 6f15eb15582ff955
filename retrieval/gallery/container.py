"""Safetensors files with checksums: of the header, of a manifest, and of every block of a tensor.

Such a file is a plain safetensors file (8 bytes with the length of the header, a JSON header, the
tensors), which any reader of that format opens. Beside the tensors that are written it holds

- ``checksums``, uint8 ``(blocks, 16)``: the truncated SHA-256 of each block of 1 MiB of the
  tensors in their order in the file,
- ``manifest``, uint8: JSON,

and in its header's metadata the digests of both, and of the header itself. So a flipped bit is
found wherever it is: in the header and the manifest when the file is opened, in a tensor when its
block is first read.
"""
from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .blocks import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    BlockArray,
    BlockDigester,
    DamagedError,
    block_count,
    digest,
)
from .storage import write_all, write_atomically

DTYPES = {'BOOL': 'bool', 'U8': 'uint8', 'I8': 'int8', 'U16': 'uint16', 'I16': 'int16',
          'U32': 'uint32', 'I32': 'int32', 'U64': 'uint64', 'I64': 'int64', 'F16': 'float16',
          'F32': 'float32', 'F64': 'float64'}
_CODES = {np.dtype(name): code for code, name in DTYPES.items()}
_LONGEST_HEADER = 100_000_000  # the limit of the format
_ALIGNMENT = 64
_UNSET = '0' * 2 * DIGEST_BYTES


@dataclass
class Entry:
    """A tensor to be written.

    Args:
        name: its name.
        dtype: its NumPy dtype.
        shape: its shape.
        pieces: called when it is written: arrays that in turn are its elements.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[np.ndarray]]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> Entry:
        """An array that is in memory."""
        return cls(name, array.dtype, array.shape, lambda: [array])

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def write_container(path: str | os.PathLike, kind: str, version: int, entries: Sequence[Entry],
                    manifest: dict[str, Any]) -> str:
    """Write tensors and a manifest, atomically; returns the checksum of the header.

    Tensors stand by falling size of their elements, so that each is aligned in the file.

    Raises:
        OSError: it cannot be written, such as on a full disk; what was there before stays.
    """
    text = json.dumps(manifest).encode()
    ordered = sorted(entries, key=lambda entry: -np.dtype(entry.dtype).itemsize)
    blocks = sum(block_count(entry.num_bytes) for entry in ordered)
    layout = [(e.name, _CODES[np.dtype(e.dtype)], e.shape, e.num_bytes) for e in ordered]
    layout += [('checksums', 'U8', (blocks, DIGEST_BYTES), blocks * DIGEST_BYTES),
               ('manifest', 'U8', (len(text),), len(text))]
    metadata = dict(format=kind, version=str(version), block=str(BLOCK_BYTES), checksum=_UNSET,
                    checksums=_UNSET, manifest=digest(text).hex())

    def write(temporary: str) -> None:
        with open(temporary, 'wb', buffering=0) as handle:
            write_all(handle, _header(metadata, layout))
            digests = b''.join(_write_entry(handle, entry) for entry in ordered)
            write_all(handle, digests)
            write_all(handle, text)
            metadata['checksums'] = digest(digests).hex()
            metadata['checksum'] = digest(_header(metadata, layout)).hex()
            handle.seek(0)
            write_all(handle, _header(metadata, layout))

    write_atomically(path, write)
    return metadata['checksum']


def _write_entry(handle: Any, entry: Entry) -> bytes:
    digester, written = BlockDigester(), 0
    for piece in entry.pieces():
        data = np.ascontiguousarray(piece, dtype=entry.dtype).reshape(-1).view(np.uint8).data
        digester.update(data)
        write_all(handle, data)
        written += len(data)
    if written != entry.num_bytes:
        raise ValueError(f'The tensor {entry.name!r} of shape {entry.shape} has {written} bytes.')
    return digester.finish()


def _header(metadata: dict[str, str], layout: list) -> bytes:
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

    Attributes:
        path: its absolute path.
        version: of the format.
        checksum: that of the header, which stands for the whole contents.
        manifest: what was written as such.
        arrays: the tensors by name.
    """

    def __init__(self, path: str | os.PathLike, kind: str) -> None:
        """Map the file and check header and manifest.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedError: a ``ValueError``; it is cut off, or a checksum does not fit.
            ForeignFileError: a ``ValueError``; it has no checksums, or is of another kind.
        """
        self.path, self.kind = os.path.abspath(path), kind
        self._file = map_file(self.path)
        header, metadata = self._read_header()
        self.version, self.checksum = int(metadata['version']), metadata['checksum']
        end = max(entry['data_offsets'][1] for entry in header.values())
        self._check_size(end)
        text = self._plain(header['manifest'])
        digests = self._plain(header['checksums']).reshape(-1, DIGEST_BYTES)
        for name, data in (('manifest', text), ('checksums', digests)):
            if digest(np.ascontiguousarray(data)).hex() != metadata[name]:
                raise self._damaged(f'its {name} (in the last bytes of the file) does not fit its '
                                    'checksum')
        self.manifest: dict[str, Any] = json.loads(text.tobytes())
        self.arrays = self._arrays(header, digests, int(metadata['block']))

    def __reduce__(self) -> tuple:
        return _reopen, (self.path, self.kind, self.checksum)

    def verify(self) -> None:
        """Check every block of every tensor. Raises DamagedError for the first that is damaged."""
        for array in self.arrays.values():
            array.verify()

    def _read_header(self) -> tuple[dict[str, Any], dict[str, str]]:
        header, raw = read_header(self._file, self.path)
        metadata = header.pop('__metadata__', None) or {}
        given = metadata.get('checksum')
        if not isinstance(given, str):
            raise ForeignFileError(f'{self.path!r} has no checksums.')
        if len(given) != len(_UNSET) or digest(
                raw.replace(given.encode(), _UNSET.encode(), 1)).hex() != given:
            raise self._damaged('its header (the first '
                                f'{len(raw)} bytes) does not fit its checksum')
        if metadata['format'] != self.kind:
            raise ForeignFileError(f'{self.path!r} holds {metadata["format"]!r}, not '
                                   f'{self.kind!r}.')
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
        del header['checksums'], header['manifest']
        for name, entry in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
            begin, end = entry['data_offsets']
            blocks = block_count(end - begin, block_bytes)
            arrays[name] = BlockArray(
                self._file, self.path, name, DTYPES[entry['dtype']], tuple(entry['shape']),
                self._data_start + begin, digests[block:block + blocks], block_bytes,
                finite=name.startswith('embeddings'))
            block += blocks
        return arrays

    def _damaged(self, reason: str) -> DamagedError:
        return DamagedError(f'{self.path!r} is damaged: {reason}. Restore the file, or dump the '
                            'prototype again.')


class ForeignFileError(ValueError):
    """A safetensors file that no container is."""


def _reopen(path: str, kind: str, checksum: str) -> Container:
    again = Container(path, kind)
    if again.checksum != checksum:
        raise ValueError(f'{path!r} is not the file any more that it was when it was opened: open '
                         'the gallery again.')
    return again


def read_header(file: np.ndarray, path: str) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its bytes with those of its length.

    Raises:
        DamagedError: it is none.
    """
    length = struct.unpack('<Q', file[:8].tobytes())[0] if len(file) >= 8 else -1
    if not 0 < length <= min(_LONGEST_HEADER, len(file) - 8):
        raise DamagedError(f'{path!r} is damaged or no safetensors file: its header is cut off '
                           f'({len(file)} bytes). Restore the file, or dump the prototype again.')
    raw = file[:8 + length].tobytes()
    try:
        header = json.loads(raw[8:])
    except (ValueError, RecursionError) as error:
        raise DamagedError(f'{path!r} is damaged or no safetensors file: its header (the first '
                           f'{len(raw)} bytes) cannot be read. Restore the file, or dump the '
                           'prototype again.') from error
    if not isinstance(header, dict):
        raise DamagedError(f'{path!r} is no safetensors file: its header is no object.')
    return header, raw


def map_file(path: str | os.PathLike) -> np.ndarray:
    """The bytes of a file, ``(B,)`` uint8, read when they are touched.

    What is written into them stays in memory and never reaches the file. No file descriptor stays
    open, so that the number of mapped files has no low limit.
    """
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

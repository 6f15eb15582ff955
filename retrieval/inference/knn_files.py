"""Files of k-nearest-neighbour functions: one safetensors file with a checksum."""
from __future__ import annotations

from os import PathLike
from pathlib import Path

from torch import Tensor

from ..index import files
from .row_names import RowNames

_NAMES = ('ids', 'id_offsets', 'labels')
_VERSION = '1'


def write(path: str | PathLike, kind: str, held: dict[str, Tensor], names: RowNames) -> None:
    """Write the tensors that a function holds, and what its rows are called."""
    files.write(path, {**held, **names.tensors()}, {'format': kind, 'version': _VERSION})


def read(path: str | PathLike, kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the function held, and the tensors of its :class:`RowNames`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another kind or version.
    """
    tensors, header = files.read(path, kind)
    if header.get('version') != _VERSION:
        raise ValueError(f'{str(path)!r} has version {header.get("version")} of the format, this '
                         f'package reads {_VERSION}.')
    return ({name: value for name, value in tensors.items() if name not in _NAMES},
            {name: value for name, value in tensors.items() if name in _NAMES})


def is_ours(path: str | PathLike) -> bool:
    """Whether a file looks like one of safetensors: a length, and then a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no index file {str(path)!r}.')
    with open(path, 'rb') as opened:
        start = opened.read(9)
    return start[8:] == b'{'

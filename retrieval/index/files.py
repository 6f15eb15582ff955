"""Index files: one safetensors file with a checksum, written whole or not at all."""
from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import write_atomically


def checksum(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """A digest of the header and of the tensors' names, types, shapes and bytes."""
    digest = hashlib.blake2b(repr(sorted(header.items())).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)};'.encode())
        if tensor.numel():
            digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write(path: str | PathLike, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    """Write tensors and a small header, replacing the file in one step."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    header = {**header, 'checksum': checksum(tensors, header)}
    write_atomically(Path(path), lambda name: save_file(tensors, name, metadata=header))


def read(path: str | PathLike, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of a file that :func:`write` wrote.

    Args:
        kind: what the header's ``format`` must be.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    target = Path(path)
    if not target.is_file():
        raise FileNotFoundError(f'There is no index file {str(target)!r}.')
    try:
        with safe_open(str(target), framework='pt') as opened:
            header = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ValueError(f'{str(target)!r} is damaged or no safetensors file: {error}') from error
    if header.get('format') != kind:
        raise ValueError(f'{str(target)!r} holds {header.get("format", "something else")!r}, '
                         f'not {kind!r}.')
    if header.pop('checksum', None) != checksum(tensors, header):
        raise ValueError(f'{str(target)!r} is damaged: its checksum does not fit. Write it again.')
    return tensors, header

"""Which gallery an index was built over."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

_BLOCK = 2 ** 16


def gallery_digest(embeddings: Any, ids: Iterable[str]) -> str:
    """A digest of a gallery's ids and embeddings, for :attr:`Index.gallery_digest`.

    Args:
        embeddings: ``(N, D)``; compared as float32.
        ids: N strings.
    """
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(embeddings), _BLOCK):
        block = torch.as_tensor(embeddings[start:start + _BLOCK]).to('cpu', torch.float32)
        digest.update(block.contiguous().numpy().data)
    for name in ids:
        digest.update(f'{len(name)}:'.encode())
        digest.update(name.encode('utf-8', 'surrogateescape'))
    return digest.hexdigest()


def check_gallery(index: Any, embeddings: Any, ids: Iterable[str], path: Any) -> None:
    """Refuse an index that was built over another gallery than this one.

    Raises:
        ValueError: it was, or it does not say over which.
    """
    again = (f'Build it again with `python tools/build_index.py GALLERY {path}`, or leave `path` '
             'out to build it at each start.')
    if index.gallery_digest is None:
        raise ValueError(f'The index {str(path)!r} does not say over which gallery it was built. '
                         f'{again}')
    if len(index) != len(embeddings) or index.gallery_digest != gallery_digest(embeddings, ids):
        raise ValueError(f'The index {str(path)!r} ({len(index)} rows of width {index.width}) '
                         'belongs to another gallery than this one '
                         f'({len(embeddings)} rows of width {embeddings.shape[1]}): its ids or '
                         f'embeddings differ. {again}')

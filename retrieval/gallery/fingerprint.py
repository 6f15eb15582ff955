"""Which encoder made a gallery: a hash of its weights, its preprocessing and its test pipeline."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

#: What the embeddings of images depend on, by its name in words.
_PARTS = {'weights': "the encoder's weights", 'preprocessor': "the data preprocessor's settings",
          'pipeline': 'the test pipeline', 'pooling': "the pooling's settings",
          'whitening': "the whitening's settings"}


class FingerprintError(ValueError):
    """A gallery was made by another model or pipeline than the one that would search it."""


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of each part that decides what an image is encoded to; None where it is not known.

    ``words`` is that of the text tower with its tokenizer, which images do not depend on: it is
    compared where words are searched for. Library versions are recorded beside it, and not
    compared.

    Example:
        >>> Fingerprint('a', pipeline='p').differences(Fingerprint('b', pipeline='p'))
        ["the encoder's weights"]
    """

    weights: str | None = None
    preprocessor: str | None = None
    pipeline: str | None = None
    pooling: str | None = None
    whitening: str | None = None
    words: str | None = None

    def differences(self, other: Fingerprint) -> list[str]:
        """The parts that differ, in words; one that either side does not know does not count."""
        return [words for part, words in _PARTS.items()
                if getattr(self, part) and getattr(other, part)
                and getattr(self, part) != getattr(other, part)]

    def completed(self, other: Fingerprint) -> Fingerprint:
        """The parts, and where one is not known that of ``other``."""
        return Fingerprint(*(getattr(self, part.name) or getattr(other, part.name)
                             for part in fields(self)))

    @classmethod
    def from_dict(cls, parts: Mapping[str, str | None]) -> Fingerprint:
        """From what :meth:`as_dict` gave; parts that this release does not know are left out."""
        return cls(**{part.name: parts.get(part.name) for part in fields(cls)})

    def as_dict(self) -> dict[str, str | None]:
        """The parts by name, for a manifest; ``words`` where there are any."""
        found = asdict(self)
        return found if self.words else {part: found[part] for part in _PARTS}


def hash_weights(module: nn.Module, among: Collection[str] | None = None) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of a module's state, in hexadecimal.

    Args:
        module: any.
        among: the names that count; None for all.

    Example:
        >>> one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> other.load_state_dict(one.state_dict())
        <All keys matched successfully>
        >>> hash_weights(one) == hash_weights(other)
        True
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if among is not None and name not in among:
            continue
        digest.update(f'{name}|'.encode())
        if isinstance(value, Tensor):
            digest.update(f'{value.dtype}|{tuple(value.shape)}|'.encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        else:
            digest.update(hash_settings(value).encode())
    return digest.hexdigest()


def hash_settings(settings: Any) -> str:
    """SHA-256 of settings (nested mappings, sequences, numbers, strings), whatever their order.

    Example:
        >>> hash_settings(dict(a=1, b=(2,))) == hash_settings(dict(b=[2.0], a=1))
        True
    """
    return hashlib.sha256(json.dumps(_plain(settings), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """``value`` in JSON's types, so that a tuple and a list, or 1 and 1.0, are the same setting."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if hasattr(value, 'tolist'):
        return _plain(value.tolist())
    return getattr(value, '__qualname__', type(value).__qualname__)

"""Image retrieval in the MMEngine style.

Importing the package imports nothing heavy: the parts load when they are first named, so that a
command's ``--help`` does not wait for torch.
"""
from __future__ import annotations

from importlib import import_module
from types import ModuleType

__version__ = '0.1.0'

_PARTS = ('checks', 'commands', 'compat', 'datasets', 'distributed', 'encoders', 'evaluation',
          'gallery', 'files', 'heads', 'hooks', 'index', 'inference', 'losses', 'ranking',
          'registry', 'rerank', 'retrievers', 'runs', 'search', 'similarity', 'structures',
          'tensor_file', 'visualization')

__all__ = ['__version__']


def __getattr__(name: str) -> ModuleType:
    """Load a part of the package when it is first named (PEP 562)."""
    if name in _PARTS:
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])

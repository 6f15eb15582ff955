"""Randomness that depends on seed, epoch and index alone.

What a transform draws for an image is a function of (seed, epoch, index, draw). It is the same
with any number of loader workers, whatever was drawn before, so that a resumed training sees what
an uninterrupted one sees.
"""
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..checks import whole_number

Key = tuple[int, int, int, int]


class DrawIndex(int):
    """An index into a dataset that also says which of its draws this is.

    Args:
        value: the index.
        epoch: the epoch, or the pass of an endless sampler; None for the dataset's own.
        draw: tells repeated draws of one index within one epoch apart, from 0.

    Example:
        >>> DrawIndex(7, draw=1) == 7
        True
    """

    epoch: int | None
    draw: int

    def __new__(cls, value: int, epoch: int | None = None, draw: int = 0) -> DrawIndex:
        self = super().__new__(cls, value)
        self.epoch = epoch
        self.draw = draw
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return DrawIndex, (int(self), self.epoch, self.draw)

    def __repr__(self) -> str:
        return f'DrawIndex({int(self)}, epoch={self.epoch}, draw={self.draw})'

    @classmethod
    def moved(cls, index: int, value: int, repeat: int = 0, repeats: int = 1) -> DrawIndex:
        """The draw ``index`` handed on to a wrapped dataset as ``value``.

        ``repeat`` of ``repeats`` says which of a wrapper's copies of the image this is.
        """
        draw = getattr(index, 'draw', 0) * repeats + repeat
        return cls(value, getattr(index, 'epoch', None), draw)


class SamplingState:
    """A dataset's seed and epoch, in memory that it shares with its loader workers.

    Shared, because persistent workers outlive an epoch and would never hear of the next one.
    """

    def __init__(self) -> None:
        self._cell = torch.zeros(3, dtype=torch.int64)  # whether there is a seed, seed, epoch

    def __deepcopy__(self, memo: dict[str, Any]) -> SamplingState:
        other = SamplingState()
        other._cell.copy_(self._cell)
        return other

    @property
    def seed(self) -> int | None:
        return int(self._cell[1]) if self._cell[0] else None

    @seed.setter
    def seed(self, seed: int | None) -> None:
        number = 0 if seed is None else whole_number('seed', seed, least=0, most=2**63 - 1)
        self._share()
        self._cell[1] = number
        self._cell[0] = seed is not None

    @property
    def epoch(self) -> int:
        return int(self._cell[2])

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        number = whole_number('epoch', epoch, least=0)
        self._share()
        self._cell[2] = number

    def _share(self) -> None:
        if not self._cell.is_shared():
            self._cell.share_memory_()

    def key(self, row: int, index: int) -> Key | None:
        """All that the randomness of one item depends on, or None where no seed is set."""
        given, seed, epoch = self._cell.tolist()
        if not given:
            return None
        own = getattr(index, 'epoch', None)
        return seed, epoch if own is None else own, row, getattr(index, 'draw', 0)


def _seed_all(key: Key) -> None:
    words = np.random.SeedSequence(key).generate_state(8)
    np.random.seed(words[:4])  # noqa: NPY002  (the generator in use)
    python_seed, torch_seed = words[4:].view(np.uint64).tolist()
    random.seed(python_seed)
    # Not torch.manual_seed, which would seed the GPUs' generators as well.
    torch.default_generator.manual_seed(torch_seed)


@contextmanager
def seeded(key: Key) -> Iterator[None]:
    """Seed numpy, ``random`` and torch's CPU generator from ``key``; put their states back after.

    In a loader worker, where nothing else draws, they are not put back: it costs more than seeding.
    """
    if get_worker_info() is not None:
        _seed_all(key)
        yield
        return
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    _seed_all(key)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        torch.set_rng_state(torch_state)


def wrapped_datasets(dataset: Any) -> list[Any]:
    """The datasets directly inside a wrapper: none for a dataset that wraps nothing."""
    # what MMEngine's `num_batch_per_epoch` wraps
    sliced = getattr(dataset, '__dict__', {}).get('_dataset')
    if sliced is not None:
        return [sliced]
    inner = getattr(dataset, 'datasets', None)
    if isinstance(inner, (list, tuple)):
        return list(inner)
    inner = getattr(dataset, 'dataset', None)
    return [] if inner is None else [inner]


def seed_datasets(dataset: Any, seed: int | None, epoch: int = 0) -> int:
    """Set seed and epoch of a dataset, or of those that it wraps.

    Reaches through ``ConcatDataset``, ``Subset``, ``RepeatDataset``, ``ClassBalancedDataset`` and
    whatever else keeps what it wraps in ``dataset`` or ``datasets``. The parts of a concatenation
    get seeds of their own, so that equal rows of two parts differ in what they draw.

    Returns:
        How many datasets took the seed; 0 where none in there has ``set_seed``.

    Example:
        >>> from retrieval.datasets import ImageList
        >>> seed_datasets(ImageList([np.zeros((4, 4), np.uint8)]), seed=0)
        1
    """
    inner = wrapped_datasets(dataset)
    if inner:
        return sum(seed_datasets(wrapped, _seed_of_part(seed, part), epoch)
                   for part, wrapped in enumerate(inner))
    if not (hasattr(dataset, 'set_seed') and hasattr(dataset, 'set_epoch')):
        return 0
    dataset.set_seed(seed)
    dataset.set_epoch(epoch)
    return 1


def set_epoch_of_datasets(dataset: Any, epoch: int) -> None:
    """Tell a dataset, or those that it wraps, which epoch comes next; their seeds stay.

    Example:
        >>> from retrieval.datasets import ImageList
        >>> images = ImageList([np.zeros((4, 4), np.uint8)])
        >>> set_epoch_of_datasets(images, 3)
    """
    for wrapped in wrapped_datasets(dataset):
        set_epoch_of_datasets(wrapped, epoch)
    if not wrapped_datasets(dataset) and hasattr(dataset, 'set_epoch'):
        dataset.set_epoch(epoch)


def _seed_of_part(seed: int | None, part: int) -> int | None:
    if seed is None or part == 0:
        return seed
    return int(np.random.SeedSequence((seed, part)).generate_state(1)[0])

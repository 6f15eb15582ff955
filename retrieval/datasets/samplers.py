"""Samplers: batches of m images from each of several classes, and an endless stream."""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from mmengine.dist import sync_random_seed
from torch.utils.data import Sampler

from ..distributed import rank, world_size
from ..registry import DATA_SAMPLERS
from .sampling_state import DrawIndex
from .wrappers import labels_of


class Cycle:
    """Numbers in random order, pass after pass, each in a new order."""

    def __init__(self, values: np.ndarray, rng: np.random.Generator) -> None:
        self.values = values
        self.rng = rng
        self.waiting: deque[int] = deque()

    def _shuffled(self) -> list[int]:
        return self.rng.permutation(self.values).tolist()

    def take(self, count: int) -> list[int]:
        """The next ``count``: all different where there are so many, else as even as can be."""
        whole, rest = divmod(count, len(self.values))
        taken = [value for _ in range(whole) for value in self._shuffled()]
        part = [self.waiting.popleft() for _ in range(min(rest, len(self.waiting)))]
        if len(part) < rest:
            order, have = self._shuffled(), set(part)
            part += [value for value in order if value not in have][:rest - len(part)]
            have = set(part[len(have):])
            self.waiting = deque(value for value in order if value not in have)
        return taken + part


class ClassBatches:
    """Batches that hold m images of each of ``batch_size / m`` classes, on every process.

    In one iteration the processes' batches together hold ``world_size`` times as many classes, all
    different. Within an epoch the classes come in turn, in random order, and so do the images of
    each class; an image is repeated in a batch only where its class has fewer than m.

    Args:
        labels: the class of every image, ``(N,)`` int64.
        batch_size: images of one process in one iteration.
        m: images of a class.
        round_up: round the number of batches up rather than down.

    Raises:
        ValueError: m does not divide the batch size, or there are too few classes.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, m: int, round_up: bool = True) -> None:
        self.world_size, self.rank = world_size(), rank()
        if m < 1 or batch_size < 1 or batch_size % m:
            raise ValueError(
                f'A batch of {batch_size} cannot hold m={m} images of each of its classes: give '
                'the sampler the batch_size of the dataloader, a multiple of m, for example '
                f'{max(1, round(batch_size / max(m, 1))) * max(m, 1)}.')
        self.batch_size, self.m = batch_size, m
        order = np.argsort(labels, kind='stable')
        _, starts = np.unique(labels[order], return_index=True)
        self.members = np.split(order, starts[1:])
        self.classes = batch_size // m * self.world_size  # in one iteration
        if len(self.members) < self.classes:
            raise ValueError(
                f'{self.world_size} batches of {batch_size} with m={m} need {self.classes} '
                f'classes, the dataset has {len(self.members)}: raise m or lower batch_size.')
        images = batch_size * self.world_size
        whole = -(-len(labels) // images) if round_up else len(labels) // images
        self.count = max(whole, -(-len(self.members) // self.classes))

    def drawn_classes(self, rng: np.random.Generator) -> Iterator[list[int]]:
        """For each iteration the classes of all processes' batches, one process after another."""
        classes = Cycle(np.arange(len(self.members)), rng)
        for _ in range(self.count):
            yield classes.take(self.classes)

    def batches(self, seed: int, epoch: int) -> Iterator[list[DrawIndex]]:
        """This process's batches of one epoch, the same for the same seed and epoch."""
        rng = np.random.default_rng((seed, epoch))
        images: dict[int, Cycle] = {}
        draws: Counter[int] = Counter()
        for drawn in self.drawn_classes(rng):
            batch: list[DrawIndex] = []
            for label in drawn:
                if label not in images:
                    images[label] = Cycle(self.members[label], rng)
                for image in images[label].take(self.m):
                    # The epoch travels along, since a loop by iterations tells the sampler alone.
                    batch.append(DrawIndex(image, epoch=epoch or None, draw=draws[image]))
                    draws[image] += 1
            yield batch[self.rank * self.batch_size:(self.rank + 1) * self.batch_size]


def needed_labels(dataset: Any, sampler: str) -> np.ndarray:
    """The labels of a dataset or wrapper. Raises ValueError where there are none."""
    labels = labels_of(dataset)
    if labels is None:
        raise ValueError(f'{sampler} needs labels, but {type(dataset).__name__} has none.')
    return labels


class ClassSampler(Sampler):
    """The indices of :class:`ClassBatches`, batch after batch, as a ``sampler``."""

    def __init__(self, dataset: Any, composition: ClassBatches, seed: int | None) -> None:
        self.dataset = dataset
        self.composition = composition
        self.batch_size = composition.batch_size
        self.seed = sync_random_seed() if seed is None else int(seed)
        self.epoch = 0

    def __iter__(self) -> Iterator[DrawIndex]:
        for batch in self.composition.batches(self.seed, self.epoch):
            yield from batch

    def __len__(self) -> int:
        """Images of this process in an epoch."""
        return self.composition.count * self.composition.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch


class ClassBatchSampler(Sampler):
    """The batches of :class:`ClassBatches` as a ``batch_sampler``; epochs come by ``sampler``."""

    def __init__(self, sampler: Any, composition: ClassBatches) -> None:
        self.sampler = sampler
        self.composition = composition
        self.batch_size = composition.batch_size
        seed = getattr(sampler, 'seed', None)
        self.seed = sync_random_seed() if seed is None else int(seed)

    def __iter__(self) -> Iterator[list[DrawIndex]]:
        # a generator, so that seed and epoch count that are set when the first batch is asked for
        yield from self.composition.batches(self.seed, getattr(self.sampler, 'epoch', 0))

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return self.composition.count


def dataset_of(sampler: Any, name: str) -> Any:
    """The dataset of the sampler inside a batch sampler.

    Raises:
        TypeError: the sampler does not know its dataset and epoch.
    """
    dataset = getattr(sampler, 'dataset', None)
    if dataset is None or not hasattr(sampler, 'epoch'):
        raise TypeError(f'{name} needs a sampler that knows its dataset and epoch, such as '
                        f'DefaultSampler, got {type(sampler).__name__}.')
    return dataset


@DATA_SAMPLERS.register_module()
class MPerClassSampler(ClassSampler):
    """m images of each of ``batch_size / m`` classes in every run of ``batch_size`` indices.

    Every class is seen in every epoch, equally often up to one batch; see :class:`ClassBatches`.
    The length, about ``len(dataset) / world_size``, is a multiple of ``batch_size`` and the same in
    every epoch. ``batch_size`` has to be that of the dataloader: a sampler is not told. Where that
    may change, use :class:`MPerClassBatchSampler`, which is told.

    Args:
        dataset: a dataset with ``labels``, or a wrapper of such.
        m: images of a class.
        batch_size: the dataloader's, for one process.
        seed: what decides, together with the epoch; None draws one that all processes share.
        round_up: round the number of batches up rather than down.

    Raises:
        ValueError: the dataset has no labels, m does not divide ``batch_size``, or there are too
            few classes.
    """

    def __init__(self, dataset: Sized, m: int, batch_size: int, seed: int | None = None,
                 round_up: bool = True) -> None:
        labels = needed_labels(dataset, 'MPerClassSampler')
        super().__init__(dataset, ClassBatches(labels, batch_size, m, round_up), seed)


@DATA_SAMPLERS.register_module()
class MPerClassBatchSampler(ClassBatchSampler):
    """The batches of :class:`MPerClassSampler`, as a ``batch_sampler``, which knows the batch size.

    ``sampler=dict(type='DefaultSampler', shuffle=True)`` stands beside it in the dataloader's
    config; its dataset, seed and epoch are used, its order is not.

    Args:
        sampler: a sampler with ``dataset`` and ``seed``.
        batch_size: images of one process in one batch.
        m: images of a class.
        round_up: round the number of batches up rather than down.
    """

    def __init__(self, sampler: Any, batch_size: int, m: int, round_up: bool = True) -> None:
        name = 'MPerClassBatchSampler'
        labels = needed_labels(dataset_of(sampler, name), name)
        super().__init__(sampler, ClassBatches(labels, batch_size, m, round_up))


@DATA_SAMPLERS.register_module()
class InfiniteSampler(Sampler):
    """Pass after pass over a dataset without end, for training by iterations.

    Every index says which pass it belongs to, so that the augmentations differ from pass to pass
    though the epoch does not move on.

    Args:
        dataset: what is sampled.
        shuffle: whether each pass has a random order of its own.
        seed: what decides, together with the pass; None draws one that all processes share.

    Attributes:
        start: how many indices of this process to leave out at the beginning;
            ``ResumableIterTrainLoop`` sets it to those that were used.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int | None = None) -> None:
        if not len(dataset):
            raise ValueError('InfiniteSampler got an empty dataset.')
        self.dataset = dataset
        self.size = len(dataset)
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else int(seed)
        self.start = 0
        self.world_size, self.rank = world_size(), rank()

    def __iter__(self) -> Iterator[DrawIndex]:
        position = self.rank + self.start * self.world_size
        current, order = -1, np.arange(self.size)
        while True:
            number, offset = divmod(position, self.size)
            if number != current:
                current = number
                if self.shuffle:
                    order = np.random.default_rng((self.seed, number)).permutation(self.size)
            yield DrawIndex(int(order[offset]), epoch=number)
            position += self.world_size

    def __len__(self) -> int:
        """The length of one pass over the dataset."""
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the passes are counted."""

"""Samplers: batches of m images of each of several classes, also within super-classes, and an
endless stream.
"""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np
from mmengine.dist import sync_random_seed
from torch.utils.data import Sampler

from ..distributed import rank, world_size
from ..registry import DATA_SAMPLERS
from .randomness import DrawIndex
from .wrappers import labels_of, metadata_of


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


class WholeClassBatches:
    """Batches of whole classes: all images of as many classes as fit, on every process.

    In one iteration all classes of all processes are different. Classes come in turn, in random
    order, within their group; one that does not fit any more waits for the next batch. The batches
    are of unequal sizes, and an epoch has as many as would hold every image once were they full.

    Args:
        labels: the class of every image, ``(N,)`` int64.
        batch_size: the most images of one process in one iteration.
        groups: the super-class of every image, ``(N,)`` int64, or None for one of all.
        parts: super-classes of one process in one iteration, each with as much room.
        round_up: round the number of batches up rather than down.

    Raises:
        ValueError: a class does not fit a batch, or there are too few super-classes.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, groups: np.ndarray | None = None,
                 parts: int = 1, round_up: bool = True) -> None:
        self.world_size, self.rank = world_size(), rank()
        self.batch_size, self.parts, self.room = batch_size, parts, batch_size // parts
        order = np.argsort(labels, kind='stable')
        different, starts = np.unique(labels[order], return_index=True)
        self.members = np.split(order, starts[1:])
        largest = max(range(len(self.members)), key=lambda one: len(self.members[one]))
        if len(self.members[largest]) > self.room:
            raise ValueError(
                f"m='all' puts whole classes into a batch, and class {different[largest]} has "
                f'{len(self.members[largest])} images, more than the {self.room} that '
                f'{f"each of {parts} super-classes" if parts > 1 else "a batch"} has room for: '
                'raise batch_size, or give m a number.')
        of_class = np.zeros(len(self.members), dtype=np.int64) if groups is None else \
            groups[[rows[0] for rows in self.members]]
        self.groups = [np.flatnonzero(of_class == one) for one in np.unique(of_class)]
        images = batch_size * self.world_size
        if len(labels) < images or (groups is not None and
                                    len(self.groups) < parts * self.world_size):
            raise ValueError(
                f"m='all' makes {self.world_size} batches of up to {batch_size} images of "
                f'{parts} super-classes, all different, which {len(labels)} images of '
                f'{len(self.groups)} super-classes are too few for: lower batch_size or '
                'super_classes_per_batch.')
        self.count = max(1, -(-len(labels) // images) if round_up else len(labels) // images)

    def batches(self, seed: int, epoch: int) -> Iterator[list[DrawIndex]]:
        """This process's batches of one epoch, the same for the same seed and epoch."""
        rng = np.random.default_rng((seed, epoch))
        turns, draws = Cycle(np.arange(len(self.groups)), rng), Counter[int]()
        waiting: list[list[int]] = [[] for _ in self.groups]
        for _ in range(self.count):
            used: set[int] = set()
            for process in range(self.world_size):
                batch: list[DrawIndex] = []
                for group in turns.take(self.parts):
                    for label in self._fitting(group, waiting, used, rng):
                        for image in rng.permutation(self.members[label]).tolist():
                            batch.append(DrawIndex(image, epoch=epoch or None, draw=draws[image]))
                            draws[image] += 1
                if process == self.rank:
                    yield batch

    def _fitting(self, group: int, waiting: list[list[int]], used: set[int],
                 rng: np.random.Generator) -> list[int]:
        """The next classes of a group that fit its room and are not in this iteration yet."""
        room, chosen, queue = self.room, list[int](), waiting[group]
        while True:
            left = []
            for label in queue:
                if label not in used and len(self.members[label]) <= room:
                    chosen.append(label)
                    used.add(label)
                    room -= len(self.members[label])
                else:
                    left.append(label)
            waiting[group] = left
            rest = [one for one in self.groups[group].tolist() if one not in used]
            if (left and chosen) or not any(len(self.members[one]) <= room for one in rest):
                return chosen
            queue = left + [label for label in rng.permutation(self.groups[group]).tolist()
                            if label not in left and label not in chosen]

def needed_labels(dataset: Any, sampler: str) -> np.ndarray:
    """The labels of a dataset or wrapper. Raises ValueError where there are none."""
    labels = labels_of(dataset)
    if labels is None:
        raise ValueError(f'{sampler} needs labels, but {type(dataset).__name__} has none.')
    return labels


class ClassSampler(Sampler[Any]):
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


class ClassBatchSampler(Sampler[Any]):
    """The batches of :class:`ClassBatches` as a ``batch_sampler``; epochs come by ``sampler``."""

    def __init__(self, sampler: Any, composition: ClassBatches | WholeClassBatches) -> None:
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

    Example:
        >>> labels = np.repeat([0, 1, 2, 3], 3)
        >>> images = type('Images', (), {'labels': labels, '__len__': lambda self: 12})()
        >>> sampler = MPerClassSampler(images, m=2, batch_size=4, seed=0)
        >>> [len(set(labels[batch].tolist())) for batch in np.reshape(list(sampler), (-1, 4))]
        [2, 2, 2]
    """

    def __init__(self, dataset: Sized, m: int, batch_size: int, seed: int | None = None,
                 round_up: bool = True) -> None:
        labels = needed_labels(dataset, 'MPerClassSampler')
        super().__init__(dataset, ClassBatches(labels, batch_size,
                                               images_of_a_class(m, batches=False), round_up), seed)


@DATA_SAMPLERS.register_module()
class MPerClassBatchSampler(ClassBatchSampler):
    """The batches of :class:`MPerClassSampler`, as a ``batch_sampler``, which knows the batch size.

    ``sampler=dict(type='DefaultSampler', shuffle=True)`` stands beside it in the dataloader's
    config; its dataset, seed and epoch are used, its order is not.

    Args:
        sampler: a sampler with ``dataset`` and ``seed``.
        batch_size: images of one process in one batch.
        m: images of a class; ``'all'`` puts every image of a class into one batch, as
            :class:`WholeClassBatches` says (``samples_per_class='all'`` of
            pytorch-metric-learning).
        round_up: round the number of batches up rather than down.

    Example:
        >>> from mmengine.dataset import DefaultSampler
        >>> labels = np.repeat([0, 1, 2, 3], 3)
        >>> images = type('Images', (), {'labels': labels, '__len__': lambda self: 12})()
        >>> batches = MPerClassBatchSampler(DefaultSampler(images, seed=0), batch_size=4, m=2)
        >>> [len(set(labels[batch].tolist())) for batch in batches]
        [2, 2, 2]
    """

    def __init__(self, sampler: Any, batch_size: int, m: int | str, round_up: bool = True) -> None:
        name = 'MPerClassBatchSampler'
        labels = needed_labels(dataset_of(sampler, name), name)
        super().__init__(
            sampler, WholeClassBatches(labels, batch_size, round_up=round_up)
            if m == 'all' else ClassBatches(labels, batch_size, images_of_a_class(m), round_up))


@DATA_SAMPLERS.register_module()
class InfiniteSampler(Sampler[Any]):
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

    Example:
        >>> from itertools import islice
        >>> list(map(int, islice(InfiniteSampler('abc', shuffle=False), 5)))
        [0, 1, 2, 0, 1]
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


def super_classes_of(dataset: Any,
                     super_class: str | Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
    """The super-class of every item as numbers ``(N,)`` int64, and the value of each number.

    Args:
        dataset: a dataset or wrapper.
        super_class: the name of a metadata column, or one value (int or str) for every item.

    Raises:
        ValueError: no such column, another number of values than of items, or a missing value.
    """
    if isinstance(super_class, str):
        values = metadata_of(dataset, super_class).tolist()
    else:
        given = np.asarray(super_class)
        if given.shape != (len(dataset),):
            raise ValueError(f'super_class must be the name of a metadata column, or one value for '
                             f'each of the {len(dataset)} items, got the shape {given.shape}.')
        values = given.tolist()
    missing = [row for row, value in enumerate(values) if value is None or value != value]
    if missing:
        raise ValueError(f'{len(missing)} of {len(values)} items have no super-class, the first is '
                         f'row {missing[0]}: give them one, or leave them out with `indices`.')
    numbers: dict[Any, int] = {}
    column = [numbers.setdefault(value, len(numbers)) for value in values]
    return np.asarray(column, dtype=np.int64), list(numbers)


class HierarchicalBatches(ClassBatches):
    """Batches of ``super_classes_per_batch`` super-classes, each with equally many classes, each
    with m images, on every process.

    In one iteration all classes of all processes are different; a super-class may come on several
    processes. Within an epoch every class comes up, and super-classes come equally often, except
    that a large one comes as often as its classes need, and a small one no more often than its
    classes allow. Within a super-class the classes come in turn, in random order, and so do the
    images of each class.

    An epoch has as many batches as :class:`ClassBatches` would have, or more where the classes
    could not all be seen otherwise.

    Args:
        labels: the class of every image, ``(N,)`` int64.
        super_classes: the super-class of every image, ``(N,)`` int64, numbered from 0.
        names: what the errors call each super-class.
        batch_size: images of one process in one iteration.
        m: images of a class.
        super_classes_per_batch: super-classes of one process in one iteration.
        round_up: round the number of batches up rather than down.

    Raises:
        ValueError: ``m * super_classes_per_batch`` does not divide the batch size, a class belongs
            to two super-classes, a super-class has too few classes for its part of a batch, or
            there are too few super-classes.
    """

    def __init__(self, labels: np.ndarray, super_classes: np.ndarray, names: Sequence[Any],
                 batch_size: int, m: int, super_classes_per_batch: int = 2,
                 round_up: bool = True) -> None:
        parts = super_classes_per_batch
        if m < 1 or parts < 1 or batch_size < 1 or batch_size % (m * parts):
            step = max(m, 1) * max(parts, 1)
            raise ValueError(
                f'A batch of {batch_size} cannot hold equally many classes of '
                f'super_classes_per_batch={parts} super-classes with m={m} images each: give a '
                f'multiple of both, for example {max(1, round(batch_size / step)) * step}.')
        super().__init__(labels, batch_size, m, round_up)
        self.parts = parts
        self.share = batch_size // m // parts  # classes of a super-class in one batch
        self.groups = self._group(super_classes, names)
        sizes = np.array([len(group) for group in self.groups])
        self._check_groups(sizes, names)
        self.most = np.minimum(sizes // self.share, self.world_size)  # of one, in one iteration
        self.need = -(-sizes // self.share)  # of one, in one epoch
        if self.most.sum() < parts * self.world_size:
            raise ValueError(
                f'{self.world_size} batches of {parts} super-classes with {self.share} classes '
                f'each, all different, cannot be made of {len(sizes)} super-classes with '
                f'{sizes.sum()} classes: raise m, or lower batch_size or super_classes_per_batch.')
        self.count = max(self.count, -(-int(self.need.sum()) // (parts * self.world_size)),
                         int((-(-self.need // self.most)).max()))

    def _group(self, super_classes: np.ndarray, names: Sequence[Any]) -> list[np.ndarray]:
        """The classes (positions in ``members``) of every super-class."""
        of_class = []
        for rows in self.members:
            found = np.unique(super_classes[rows])
            if len(found) > 1:
                raise ValueError(
                    f'The class of image {int(rows[0])} stands in {len(found)} super-classes, '
                    f'{names[found[0]]!r} and {names[found[1]]!r} among them: a class belongs to '
                    'one. Number the classes of different super-classes differently.')
            of_class.append(int(found[0]))
        return [np.flatnonzero(np.equal(of_class, number)) for number in range(len(names))]

    def _check_groups(self, sizes: np.ndarray, names: Sequence[Any]) -> None:
        small = np.flatnonzero(sizes < self.share)
        if len(small):
            raise ValueError(
                f'A batch of {self.batch_size} with m={self.m} and {self.parts} super-classes '
                f'needs {self.share} classes of each, but {names[small[0]]!r} has '
                f'{sizes[small[0]]} ({len(small)} of {len(sizes)} super-classes have too few): '
                'raise m or super_classes_per_batch, lower batch_size, or give super_class as an '
                'array that joins small ones.')

    def _draws(self, rng: np.random.Generator) -> np.ndarray:
        """How often each super-class comes in an epoch: as evenly as ``need`` and ``most`` let."""
        total, limit = self.parts * self.world_size * self.count, self.most * self.count
        low, high = 0, total
        while low < high:  # the highest level at which the sum stays within the total
            level = (low + high + 1) // 2
            if np.clip(level, self.need, limit).sum() <= total:
                low = level
            else:
                high = level - 1
        draws = np.clip(low, self.need, limit)
        growing = np.flatnonzero(np.clip(low + 1, self.need, limit) > draws)
        draws[rng.permutation(growing)[:total - draws.sum()]] += 1
        return draws

    def _chosen(self, draws: np.ndarray, left: int, rng: np.random.Generator) -> np.ndarray:
        """How often each super-class comes in the next of ``left`` iterations.

        Those that could not be placed later come for certain; the rest of the places go at random,
        the likelier the more is left of a super-class. So what remains always fits.
        """
        chosen = np.maximum(draws - self.most * (left - 1), 0)
        free = np.minimum(self.most, draws) - chosen
        places = self.parts * self.world_size - int(chosen.sum())
        if places:
            copies = np.repeat(np.arange(len(free)), free)
            weights = (draws / np.maximum(free, 1))[copies]
            picked = rng.choice(copies, places, replace=False, p=weights / weights.sum())
            np.add.at(chosen, picked, 1)
        return chosen

    def drawn_classes(self, rng: np.random.Generator) -> Iterator[list[int]]:
        """For each iteration the classes of all processes' batches, one process after another."""
        draws = self._draws(rng)
        cycles = [Cycle(group, rng) for group in self.groups]
        for left in range(self.count, 0, -1):
            chosen = self._chosen(draws, left, rng)
            draws = draws - chosen
            order = rng.permutation(np.flatnonzero(chosen))
            # Dealt out in turn: copies of one super-class, at most one a process, fall apart.
            batches: list[list[int]] = [[] for _ in range(self.world_size)]
            place = 0
            for number in order.tolist():
                classes = cycles[number].take(int(chosen[number]) * self.share)
                for start in range(0, len(classes), self.share):
                    batches[place % self.world_size] += classes[start:start + self.share]
                    place += 1
            yield [label for batch in batches for label in batch]


def _composition(dataset: Any, sampler: str, super_class: str | Sequence[Any], batch_size: int,
                 m: int, super_classes_per_batch: int, round_up: bool) -> HierarchicalBatches:
    labels = needed_labels(dataset, sampler)
    numbers, names = super_classes_of(dataset, super_class)
    return HierarchicalBatches(labels, numbers, names, batch_size, m, super_classes_per_batch,
                               round_up)


def images_of_a_class(m: Any, batches: bool = True) -> int:
    """``m`` as a number of images.

    Raises:
        ValueError: it is ``'all'`` where batches have one size, or another word.

    Example:
        >>> images_of_a_class(4)
        4
    """
    if m == 'all' and not batches:
        raise ValueError("m='all' makes batches of unequal sizes, which a sampler of single images "
                         'cannot: use the batch sampler of that name.')
    if isinstance(m, str):
        raise ValueError(f"m must be a whole number or 'all', got {m!r}.")
    return int(m)


@DATA_SAMPLERS.register_module()
class HierarchicalSampler(ClassSampler):
    """In every run of ``batch_size`` indices some super-classes, in each equally many classes, of
    each class m images; see :class:`HierarchicalBatches`.

    A batch within few super-classes is harder, since classes of one super-class look alike. The
    length is a multiple of ``batch_size`` and the same in every epoch and on every process.
    ``batch_size`` has to be that of the dataloader: a sampler is not told. Where that may change,
    use :class:`HierarchicalBatchSampler`, which is told.

    Args:
        dataset: a dataset with ``labels``, or a wrapper of such.
        super_class: the name of a metadata column such as ``'category'``, or one value (int or
            str) for every item of the dataset.
        m: images of a class.
        batch_size: the dataloader's, for one process.
        super_classes_per_batch: how many super-classes there are in a batch.
        seed: what decides, together with the epoch; None draws one that all processes share.
        round_up: round the number of batches up rather than down.

    Raises:
        ValueError: there are no labels or super-classes, or such batches cannot be made of them.

    Example:
        >>> labels = np.repeat([0, 1, 2, 3], 3)
        >>> images = type('Images', (), {'labels': labels, '__len__': lambda self: 12})()
        >>> sampler = HierarchicalSampler(images, labels // 2, m=2, batch_size=4,
        ...                               super_classes_per_batch=1, seed=0)
        >>> supers = labels[np.reshape(list(sampler), (-1, 4))] // 2
        >>> [len(set(batch)) for batch in supers.tolist()]
        [1, 1, 1]
    """

    def __init__(self, dataset: Sized, super_class: str | Sequence[Any], m: int, batch_size: int,
                 super_classes_per_batch: int = 2, seed: int | None = None,
                 round_up: bool = True) -> None:
        super().__init__(dataset, _composition(
            dataset, 'HierarchicalSampler', super_class, batch_size,
            images_of_a_class(m, batches=False), super_classes_per_batch, round_up), seed)


@DATA_SAMPLERS.register_module()
class HierarchicalBatchSampler(ClassBatchSampler):
    """The batches of :class:`HierarchicalSampler`, as a ``batch_sampler``, which knows the batch
    size.

    ``sampler=dict(type='DefaultSampler', shuffle=True)`` stands beside it in the dataloader's
    config; its dataset, seed and epoch are used, its order is not.

    Args:
        sampler: a sampler with ``dataset`` and ``seed``.
        batch_size: images of one process in one batch.
        super_class: as in :class:`HierarchicalSampler`, and so are the others.
        m: images of a class; or ``'all'``, as :class:`WholeClassBatches` says.

    Example:
        >>> from mmengine.dataset import DefaultSampler
        >>> labels = np.repeat([0, 1, 2, 3], 3)
        >>> images = type('Images', (), {'labels': labels, '__len__': lambda self: 12})()
        >>> batches = HierarchicalBatchSampler(
        ...     DefaultSampler(images, seed=0), batch_size=4, super_class=labels // 2, m=2,
        ...     super_classes_per_batch=1)
        >>> [len(set((labels[batch] // 2).tolist())) for batch in batches]
        [1, 1, 1]
    """

    def __init__(self, sampler: Any, batch_size: int, super_class: str | Sequence[Any],
                 m: int | str, super_classes_per_batch: int = 2, round_up: bool = True) -> None:
        name = 'HierarchicalBatchSampler'
        dataset = dataset_of(sampler, name)
        if m == 'all':
            super().__init__(sampler, WholeClassBatches(
                needed_labels(dataset, name), batch_size, super_classes_of(dataset, super_class)[0],
                super_classes_per_batch, round_up))
        else:
            super().__init__(sampler, _composition(
                dataset, name, super_class, batch_size, images_of_a_class(m),
                super_classes_per_batch, round_up))

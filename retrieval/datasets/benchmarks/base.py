"""The bases of the benchmarks: splits in official files, re-identification, judged galleries."""
from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmengine.logging import print_log

from ...image_files import UnreadableImageError
from ...registry import unknown_name
from ..base import RetrievalDataset
from .layout import malformed, require_images

ACTIONS = ('warn', 'raise', 'ignore')


@dataclass
class Listing:
    """One split, as the official files have it.

    Args:
        source: the file that names the images, for messages.
        entries: one dict an image, as :class:`RetrievalDataset` wants them, but for ``gt_label``,
            which is the class as the files call it.
        classes: the names of all classes that share one numbering, by what the files call them, in
            the order of their labels.

    Example:
        >>> Listing('list.txt', [{'img_path': 'a.png', 'gt_label': 7}], {7: 'seven'}).classes[7]
        'seven'
    """

    source: str
    entries: list[dict[str, Any]]
    classes: Mapping[Any, str]


class BenchmarkDataset(RetrievalDataset):
    """A benchmark, read from the files that its authors give out.

    A subclass sets :attr:`tree`, :attr:`splits` and :attr:`counts`, and implements :meth:`read`.

    Args:
        data_root: the folder of the dataset; what stands in it is the subclass's :attr:`tree`.
        split: one of the subclass's :attr:`splits`.
        pipeline: transforms, dicts or callables.
        check_files: whether to see that every image of the split is there, by listing each folder
            once. False saves that, and a missing image is found when it is read.
        on_count_mismatch: what to do where the numbers of images and classes are not the official
            ones, ``'warn'``, ``'raise'`` or ``'ignore'``.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        FileNotFoundError: a file of the layout, or an image that it names, is missing; the error
            shows the tree.
        ValueError: a file is malformed, ``split`` or ``on_count_mismatch`` is unknown, or the
            counts differ and ``on_count_mismatch`` is ``'raise'``.

    Example:
        >>> class Toy(BenchmarkDataset):
        ...     tree, counts = 'toy/', {'train': (1, 1)}
        ...     def read(self):
        ...         return Listing('list.txt', [{'img_path': 'a.png', 'gt_label': 7}], {7: 'seven'})
        >>> toy = Toy('toy', check_files=False)
        >>> toy.labels.tolist(), toy.label_names
        ([0], ['seven'])
    """

    tree: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ('train', 'test')
    counts: ClassVar[dict[str, tuple[int, int]]]  # split: (images, classes)

    def __init__(self, data_root: str | Path, split: str = 'train',
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 check_files: bool = True, on_count_mismatch: str = 'warn', **kwargs: Any) -> None:
        if split not in self.splits:
            raise ValueError(unknown_name(f'split of {type(self).__name__}', split, self.splits))
        if on_count_mismatch not in ACTIONS:
            raise ValueError(unknown_name('on_count_mismatch', on_count_mismatch, ACTIONS))
        self.split = split
        self.check_files = check_files
        self.on_count_mismatch = on_count_mismatch
        super().__init__(data_root=str(data_root), pipeline=pipeline, **kwargs)

    def read(self) -> Listing:
        """The images and classes of ``self.split`` in the official files."""
        raise NotImplementedError(f'{type(self).__name__} implements read().')

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image of the split, in the order of the official file."""
        listing = self.read()
        if not listing.entries:
            raise malformed(listing.source, self.tree,
                            f'it has no image for split {self.split!r}.')
        if self.check_files:
            require_images(listing.source, self.tree,
                           [entry['img_path'] for entry in listing.entries])
        label_of = {name: label for label, name in enumerate(listing.classes)}
        for entry in listing.entries:
            entry['gt_label'] = label_of[entry['gt_label']]
        self._metainfo['classes'] = tuple(listing.classes.values())
        found = len(listing.entries), len({entry['gt_label'] for entry in listing.entries})
        compare_counts(f'{type(self).__name__}, split {self.split!r} in {self.data_root!r},',
                       self.counts[self.split], found, self.on_count_mismatch)
        return listing.entries


class ReidentificationDataset(BenchmarkDataset):
    """Images of identities, each seen by a camera.

    A subclass sets the attributes below and implements :meth:`list_images`. Labels count from 0 by
    rising identity: once over the images for training, and once over queries and gallery together,
    so that the two agree. A class is called by its identity, in four digits.

    Args:
        split: ``'train'``, ``'query'`` or ``'gallery'``.
        data_root, pipeline, check_files, on_count_mismatch, kwargs: see
            :class:`BenchmarkDataset`, which says what is raised too.

    Example:
        >>> class Toy(ReidentificationDataset):
        ...     tree, counts = 'toy/', {'train': (2, 2)}
        ...     pattern = re.compile('(?P<identity>[0-9]+)_c(?P<camera>[0-9]).jpg')
        ...     example = '7_c1.jpg'
        ...     metadata_keys = ('camera',)
        ...     def list_images(self, split):
        ...         return 'toy/', ['toy/7_c1.jpg', 'toy/3_c2.jpg']
        >>> toy = Toy('toy', check_files=False)
        >>> toy.labels.tolist(), toy.label_names, toy.metadata
        ([1, 0], ['0003', '0007'], {'camera': [1, 2]})
    """

    splits = ('train', 'query', 'gallery')
    pattern: ClassVar[re.Pattern[str]]  # of a file's name, with the groups `identity` and `camera`
    example: ClassVar[str]

    def list_images(self, split: str) -> tuple[str, list[str]]:
        """The file or folder that lists the images of a split, and their paths in order."""
        raise NotImplementedError(f'{type(self).__name__} implements list_images().')

    def parse(self, path: str) -> dict[str, Any]:
        """The entry of an image: ``gt_label``, its identity, and the pattern's other groups.

        Raises:
            ValueError: the name of the file is no official one.
        """
        found = self.pattern.fullmatch(os.path.basename(path))
        if found is None:
            raise malformed(path, self.tree, f'images are called as in {self.example}.')
        values = {name: int(text) for name, text in found.groupdict().items()}
        return {'img_path': path, 'gt_label': values.pop('identity'), **values}

    def keeps(self, entry: dict[str, Any]) -> bool:
        """True for an image that belongs to the dataset, False for one to leave out."""
        return True

    def _entries_of(self, split: str) -> tuple[str, list[dict[str, Any]]]:
        source, paths = self.list_images(split)
        return source, [entry for entry in map(self.parse, paths) if self.keeps(entry)]

    def read(self) -> Listing:
        """The images of the split, and the identities that share its numbering."""
        source, entries = self._entries_of(self.split)
        identities = {entry['gt_label'] for entry in entries}
        if self.split != 'train':
            _, others = self._entries_of('gallery' if self.split == 'query' else 'query')
            identities |= {entry['gt_label'] for entry in others}
        return Listing(source, entries, {identity: f'{identity:04d}'
                                         for identity in sorted(identities)})


class JudgedRowsDataset(RetrievalDataset):
    """A dataset with ``split='gallery'``, whose queries list rows of that gallery.

    Those rows have to stay where they are: an image is not skipped for being unreadable, and the
    gallery is not cut by ``indices``.

    Attributes:
        num_judged: how many rows, from the first, the ground truth is about.
    """

    split: str
    num_judged: int = 0

    def full_init(self) -> None:
        """Read the annotations. Raises ValueError for ``indices`` of a gallery."""
        if self.split == 'gallery' and self._indices is not None:
            raise ValueError(f"{type(self).__name__} with split='gallery' cannot be cut by "
                             'indices: the ground truth of the queries names its rows.')
        super().full_init()

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """Run the pipeline on one image.

        Raises:
            UnreadableImageError: the image cannot be read, and it may not be skipped.
        """
        data = super().prepare_data(idx)
        if self.on_unreadable == 'raise' or self.split != 'gallery' or idx >= self.num_judged:
            return data
        reason = data['data_samples'].get('unreadable', None)
        if reason:
            raise UnreadableImageError(f'{reason} It cannot be skipped: the ground truth names '
                                       'images of this gallery by their rows, which would shift.')
        return data


def compare_counts(owner: str, expected: tuple[int, int], found: tuple[int, int],
                   action: str) -> None:
    """Compare the numbers of images and of classes with the official ones.

    Args:
        owner: the dataset and its split, for the message.
        expected: the official ``(images, classes)``.
        found: those that were loaded.
        action: what to do where they differ, ``'warn'``, ``'raise'`` or ``'ignore'``.

    Raises:
        ValueError: they differ and ``action`` is ``'raise'``.
    """
    if action == 'ignore' or tuple(expected) == tuple(found):
        return
    message = (f'{owner} has {found[0]:,} images of {found[1]:,} classes; officially there are '
               f'{expected[0]:,} images of {expected[1]:,} classes. Figures of this copy are not '
               "comparable with those that are published. on_count_mismatch='ignore' is silent, "
               "'raise' refuses.")
    if action == 'raise':
        raise ValueError(message)
    print_log(message, logger='current', level=logging.WARNING)

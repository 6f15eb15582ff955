"""What the benchmarks in their official layouts share: splits, labels from 0, checks, counts."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..registry import unknown_name
from .base import RetrievalDataset
from .layout import ACTIONS, compare_counts, malformed, require_images


@dataclass
class Listing:
    """What the official files say about one split.

    Args:
        source: the file that names the images, for messages.
        entries: one dict an image, as :class:`RetrievalDataset` wants them, but for ``gt_label``,
            which is the class as the files call it.
        classes: the names of all classes that share one numbering, by what the files call them, in
            the order of their labels.
    """

    source: str
    entries: list[dict]
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
    """

    tree: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ('train', 'test')
    counts: ClassVar[dict[str, tuple[int, int]]]  # split: (images, classes)

    def __init__(self, data_root: str | Path, split: str = 'train',
                 pipeline: Sequence[dict | Callable] | None = (), check_files: bool = True,
                 on_count_mismatch: str = 'warn', **kwargs: Any) -> None:
        if split not in self.splits:
            raise ValueError(unknown_name(f'split of {type(self).__name__}', split, self.splits))
        if on_count_mismatch not in ACTIONS:
            raise ValueError(unknown_name('on_count_mismatch', on_count_mismatch, ACTIONS))
        self.split = split
        self.check_files = check_files
        self.on_count_mismatch = on_count_mismatch
        super().__init__(data_root=str(data_root), pipeline=pipeline, **kwargs)

    def read(self) -> Listing:
        """What the official files say about ``self.split``."""
        raise NotImplementedError(f'{type(self).__name__} implements read().')

    def load_data_list(self) -> list[dict]:
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

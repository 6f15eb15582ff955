"""What datasets for re-identification share: identity and camera stand in the names of files."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..registry import unknown_name
from .base import RetrievalDataset
from .layout import ACTIONS, compare_counts, malformed

SPLITS = ('train', 'query', 'gallery')


class ReidentificationDataset(RetrievalDataset):
    """Images of identities, each seen by a camera.

    A subclass sets the attributes below and implements :meth:`list_images`. Labels count from 0 by
    rising identity: once over the images for training, and once over queries and gallery together,
    so that the two agree. A class is called by its identity, as file names write it.

    Args:
        data_root: the folder of the dataset; what stands in it is the subclass's :attr:`tree`.
        split: ``'train'``, ``'query'`` or ``'gallery'``.
        pipeline: transforms, dicts or callables.
        on_count_mismatch: what to do where the numbers of images and identities are not the
            official ones, ``'warn'``, ``'raise'`` or ``'ignore'``.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        FileNotFoundError: a part of the layout is missing; the error shows the tree.
        ValueError: the split is unknown, a file's name is no official one, or the counts differ
            and ``on_count_mismatch`` is ``'raise'``.
    """

    tree: ClassVar[str]
    pattern: ClassVar[re.Pattern]  # of a file's name, with the groups `identity` and `camera`
    example: ClassVar[str]
    counts: ClassVar[dict[str, tuple[int, int]]]  # split: (images, identities)

    def __init__(self, data_root: str | Path, split: str = 'train',
                 pipeline: Sequence[dict | Callable] | None = (), on_count_mismatch: str = 'warn',
                 **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(unknown_name(f'split of {type(self).__name__}', split, SPLITS))
        if on_count_mismatch not in ACTIONS:
            raise ValueError(unknown_name('on_count_mismatch', on_count_mismatch, ACTIONS))
        self.split = split
        self.on_count_mismatch = on_count_mismatch
        super().__init__(data_root=str(data_root), pipeline=pipeline, **kwargs)

    def list_images(self, split: str) -> list[str]:
        """The paths of the images of a split, in their order."""
        raise NotImplementedError(f'{type(self).__name__} implements list_images().')

    def parse(self, path: str) -> dict:
        """The entry of an image. ``identity`` is an integer; the other groups are metadata.

        Raises:
            ValueError: the name of the file is no official one.
        """
        found = self.pattern.fullmatch(os.path.basename(path))
        if found is None:
            raise malformed(path, self.tree, f'images are called as in {self.example}.')
        return {'img_path': path, **{name: int(text) for name, text in found.groupdict().items()}}

    def keeps(self, entry: dict) -> bool:
        """Whether an image belongs to the dataset at all."""
        return True

    def read_entries(self, split: str) -> list[dict]:
        """The entries of a split, with ``identity`` in place of a label."""
        parsed = [self.parse(path) for path in self.list_images(split)]
        return [entry for entry in parsed if self.keeps(entry)]

    def load_data_list(self) -> list[dict]:
        """One entry an image of the split."""
        chosen = self.read_entries(self.split)
        sharing = {'query': 'gallery', 'gallery': 'query'}.get(self.split)
        identities = {entry['identity'] for entry in chosen}
        everyone = sorted(identities | {entry['identity'] for entry in (
            self.read_entries(sharing) if sharing else ())})
        self._metainfo['classes'] = tuple(f'{identity:04d}' for identity in everyone)
        label_of = {identity: label for label, identity in enumerate(everyone)}
        for entry in chosen:
            entry['gt_label'] = label_of[entry.pop('identity')]
        compare_counts(f'{type(self).__name__}, split {self.split!r} in {self.data_root!r},',
                       self.counts[self.split], (len(chosen), len(identities)),
                       self.on_count_mismatch)
        return chosen

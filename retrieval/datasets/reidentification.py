"""What datasets for re-identification share: identity and camera stand in the names of files."""
from __future__ import annotations

import os
import re
from typing import ClassVar

from .benchmark_dataset import BenchmarkDataset, Listing
from .layout import malformed


class ReidentificationDataset(BenchmarkDataset):
    """Images of identities, each seen by a camera.

    A subclass sets the attributes below and implements :meth:`list_images`. Labels count from 0 by
    rising identity: once over the images for training, and once over queries and gallery together,
    so that the two agree. A class is called by its identity, in four digits.

    Args:
        split: ``'train'``, ``'query'`` or ``'gallery'``.
        data_root, pipeline, check_files, on_count_mismatch, kwargs: see
            :class:`BenchmarkDataset`, which says what is raised too.
    """

    splits = ('train', 'query', 'gallery')
    pattern: ClassVar[re.Pattern]  # of a file's name, with the groups `identity` and `camera`
    example: ClassVar[str]

    def list_images(self, split: str) -> tuple[str, list[str]]:
        """What lists the images of a split, and their paths in order."""
        raise NotImplementedError(f'{type(self).__name__} implements list_images().')

    def parse(self, path: str) -> dict:
        """The entry of an image: ``gt_label``, its identity, and the pattern's other groups.

        Raises:
            ValueError: the name of the file is no official one.
        """
        found = self.pattern.fullmatch(os.path.basename(path))
        if found is None:
            raise malformed(path, self.tree, f'images are called as in {self.example}.')
        values = {name: int(text) for name, text in found.groupdict().items()}
        return {'img_path': path, 'gt_label': values.pop('identity'), **values}

    def keeps(self, entry: dict) -> bool:
        """Whether an image belongs to the dataset at all."""
        return True

    def _entries_of(self, split: str) -> tuple[str, list[dict]]:
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

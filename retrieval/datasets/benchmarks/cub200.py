"""CUB-200-2011: 200 species of birds."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...registry import DATASETS
from .base import BenchmarkDataset, Listing
from .layout import malformed, read_numbers, read_rows, require

CLASSES, LAST_TRAINING_CLASS = 200, 100


@DATASETS.register_module()
class CUB200(BenchmarkDataset):
    """CUB-200-2011 (Wah et al., 2011) with disjoint classes, as Oh Song et al. (CVPR 2016).

    Classes 1 to 100 are for training, 101 to 200 for testing; the ``train_test_split.txt`` of the
    dataset, which is for classification, is not used. Officially there are

    - train: 5,864 images, 100 classes,
    - test: 5,924 images, 100 classes (Kim et al., Proxy Anchor Loss, CVPR 2020, section 4.1).

    Labels count from 0 in the order of the class numbers; a class is called by its folder, without
    the number.

    Args:
        data_root: the folder ``CUB_200_2011``.
        split: ``'train'`` or ``'test'``.
        use_boxes: give every entry the ``box`` around its bird, which ``LoadImage`` cuts out; needs
            ``bounding_boxes.txt``. Published figures mostly are those of the whole images.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`BenchmarkDataset`, which says
            what is raised too.

    Example:
        >>> CUB200.counts['test']  # images, classes
        (5924, 100)
    """

    tree = """
CUB_200_2011/                <- data_root
├── images.txt               <image id> <path below images/>
├── image_class_labels.txt   <image id> <class 1 to 200>
├── bounding_boxes.txt       <image id> <x> <y> <width> <height>   (with use_boxes=True)
└── images/
    ├── 001.Black_footed_Albatross/
    │   ├── Black_Footed_Albatross_0001_796111.jpg
    │   └── ...
    └── ...
"""
    counts = {'train': (5864, 100), 'test': (5924, 100)}

    def __init__(self, data_root: str | Path, split: str = 'train', use_boxes: bool = False,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 **kwargs: Any) -> None:
        self.use_boxes = use_boxes
        super().__init__(data_root=data_root, split=split, pipeline=pipeline, **kwargs)

    def read(self) -> Listing:
        """The images of the classes of the split, by rising image id."""
        wanted = ['images.txt', 'image_class_labels.txt', 'images/']
        wanted += ['bounding_boxes.txt'] if self.use_boxes else []
        names_file, labels_file, folder, *boxes_file = require(self.data_root, self.tree, *wanted)
        names = self._by_id(names_file, read_rows(names_file, self.tree, 2))
        labels = self._by_id(labels_file, read_numbers(labels_file, self.tree, 2))
        self._same_ids(labels_file, labels, names)
        boxes = {}
        if boxes_file:
            boxes = self._by_id(boxes_file[0], read_numbers(boxes_file[0], self.tree, 5))
            self._same_ids(boxes_file[0], boxes, names)
        classes, entries = {}, []
        for image, (name,) in sorted(names.items()):
            number = self._class(labels_file, image, labels[image][0])
            if (number > LAST_TRAINING_CLASS) != (self.split == 'test'):
                continue
            classes[number] = name.split('/')[0].partition('.')[2] or name.split('/')[0]
            entry = {'img_path': os.path.join(folder, name), 'gt_label': number}
            if boxes:
                x, y, width, height = boxes[image]
                entry['box'] = (x, y, x + width, y + height)
            entries.append(entry)
        return Listing(names_file, entries, dict(sorted(classes.items())))

    def _class(self, path: str, image: int, number: float) -> int:
        if number not in range(1, CLASSES + 1):
            raise malformed(path, self.tree, f'the class of image {image} is {number:g}; it must '
                            f'be an integer from 1 to {CLASSES}.')
        return int(number)

    def _by_id(self, path: str, rows: Sequence[Sequence[Any]]) -> dict[int, Sequence[Any]]:
        """The rows by their first cell."""
        try:
            by_id = {int(row[0]): row[1:] for row in rows}
        except ValueError as error:
            raise malformed(path, self.tree, f'an image id is no integer ({error}).') from error
        if len(by_id) < len(rows):
            raise malformed(path, self.tree, f'{len(rows) - len(by_id)} image ids stand in it more '
                            'than once.')
        return by_id

    def _same_ids(self, path: str, found: dict[int, Any], names: dict[int, Any]) -> None:
        without = sorted(set(names) - set(found))
        if without:
            raise malformed(path, self.tree, f'it has no row for {len(without)} of the '
                            f'{len(names)} images of images.txt, the first is {without[0]}.')

"""Objects: a thousand rendered objects, each in ten views."""
from __future__ import annotations

import os
import re

from ...registry import DATASETS
from .base import BenchmarkDataset, Listing
from .layout import require

VIEWS = 10


@DATASETS.register_module()
class Objects(BenchmarkDataset):
    """A thousand objects in random views, light and background, which ``retrieval
    prepare_objects`` renders.

    Objects of even numbers are for training, of odd ones for testing:

    - train: 5,000 images, 500 classes,
    - test: 5,000 images, 500 classes.

    Args:
        data_root: the folder that the command wrote.
        split: ``'train'`` or ``'test'``.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`BenchmarkDataset`, which says
            what is raised too.

    Example:
        >>> Objects.counts['test']  # images, classes
        (5000, 500)
    """

    tree = """
objects/             <- data_root, which `retrieval prepare_objects` writes
├── licence.txt
└── images/
    ├── 000/         an object
    │   ├── 0.jpg    a view of it
    │   └── ...
    └── ...
"""
    counts = {'train': (5000, 500), 'test': (5000, 500)}

    def read(self) -> Listing:
        """The images of every other object, by number and view."""
        root, = require(self.data_root, self.tree, 'images/')
        names = sorted(name for name in os.listdir(root)
                       if re.fullmatch('[0-9]{3}', name)
                       and int(name) % 2 == (self.split == 'test'))
        entries = [{'img_path': os.path.join(root, name, f'{view}.jpg'), 'gt_label': name}
                   for name in names for view in range(VIEWS)]
        return Listing(root, entries, {name: name for name in names})

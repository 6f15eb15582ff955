"""Cars196: 196 models of cars."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...foreign_files import read_apart
from ...registry import DATASETS
from .base import BenchmarkDataset, Listing
from .layout import malformed, require

LAST_TRAINING_CLASS = 98
EDGES = ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2')
FIELDS = ('relative_im_path', 'class', *EDGES)


@DATASETS.register_module()
class Cars196(BenchmarkDataset):
    """Stanford Cars (Krause et al., 2013) with disjoint classes, as Oh Song et al. (CVPR 2016).

    Classes 1 to 98 are for training, 99 to 196 for testing; the field ``test`` of the annotations,
    which is for classification, is not used. Officially there are

    - train: 8,054 images, 98 classes,
    - test: 8,131 images, 98 classes (Kim et al., Proxy Anchor Loss, CVPR 2020, section 4.1).

    Labels count from 0 in the order of the class numbers; the names are those of ``class_names``.
    The file is read by ``scipy.io.loadmat``, which executes nothing, in a process of its own,
    since it crashes on some damaged ones.

    Args:
        data_root: the folder of ``cars_annos.mat`` and ``car_ims/``.
        split: ``'train'`` or ``'test'``.
        use_boxes: give every entry the ``box`` around its car, which ``LoadImage`` cuts out.
            Published figures mostly are those of the whole images.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`BenchmarkDataset`, which says
            what is raised too.

    Example:
        >>> Cars196.counts['test']  # images, classes
        (8131, 98)
    """

    tree = """
cars196/             <- data_root
├── cars_annos.mat   with the variables `annotations` and `class_names`
└── car_ims/         unpacked from car_ims.tgz
    ├── 000001.jpg
    ├── ...
    └── 016185.jpg
"""
    counts = {'train': (8054, 98), 'test': (8131, 98)}

    def __init__(self, data_root: str | Path, split: str = 'train', use_boxes: bool = False,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 **kwargs: Any) -> None:
        self.use_boxes = use_boxes
        super().__init__(data_root=data_root, split=split, pipeline=pipeline, **kwargs)

    def read(self) -> Listing:
        """The images of the classes of the split, in the order of the annotations."""
        path, _ = require(self.data_root, self.tree, 'cars_annos.mat', 'car_ims/')
        names, columns = self._annotations(path)
        root = os.path.dirname(path)
        entries, present = [], set()
        for name, number, *edges in zip(*columns, strict=True):
            if not 1 <= number <= len(names):
                raise malformed(path, self.tree, f'the image {name!r} has the class {number}, but '
                                f'there are {len(names)} class_names.')
            if (number > LAST_TRAINING_CLASS) != (self.split == 'test'):
                continue
            present.add(number)
            entry = {'img_path': os.path.join(root, name), 'gt_label': number}
            if self.use_boxes:  # MATLAB counts pixels from 1, and the last one belongs to the box
                x_1, y_1, x_2, y_2 = edges
                entry['box'] = (x_1 - 1, y_1 - 1, x_2, y_2)
            entries.append(entry)
        return Listing(path, entries, {number: names[number - 1] for number in sorted(present)})

    def _annotations(self, path: str) -> tuple[list[str], list[list[Any]]]:
        """The class names, and the columns of ``FIELDS``."""
        import scipy.io

        def read() -> dict[str, Any]:
            content = scipy.io.loadmat(path, squeeze_me=True,
                                       variable_names=['annotations', 'class_names'])
            return {name: {field: np.atleast_1d(value)[field] for field in value.dtype.names}
                    if getattr(value, 'dtype', np.dtype('O')).names else np.atleast_1d(value)
                    for name, value in content.items() if not name.startswith('__')}
        try:
            content = read_apart(read)
        except ValueError as error:  # the reader raises whatever a damaged byte leads it to
            raise malformed(path, self.tree, f'it cannot be read as a MATLAB file ({error}).') \
                from error
        missing = [name for name in ('annotations', 'class_names') if name not in content]
        if missing:
            raise malformed(path, self.tree, f'it has no variable {" and no ".join(missing)}.')
        table = content['annotations']
        fields = list(table) if isinstance(table, dict) else []
        if set(FIELDS) - set(fields):
            raise malformed(path, self.tree, f'its annotations have the fields {", ".join(fields)} '
                            f'and not {", ".join(FIELDS)}.')
        try:
            columns: list[list[Any]] = [[str(name) for name in table['relative_im_path']]]
            columns += [[int(value) for value in table[field]] for field in FIELDS[1:]]
        except (TypeError, ValueError) as error:
            raise malformed(path, self.tree, f'a class or an edge is no integer ({error}).') \
                from error
        return [str(name) for name in content['class_names']], columns

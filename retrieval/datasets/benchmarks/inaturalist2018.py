"""iNaturalist 2018 with disjoint classes: species of plants and animals."""
from __future__ import annotations

import json
import os
from typing import Any

from ...registry import DATASETS
from .base import BenchmarkDataset, Listing
from .layout import malformed, read_rows, require

ANNOTATIONS = ('train2018.json', 'val2018.json')
SPLITS_FOLDER = 'Inat_dataset_splits'


@DATASETS.register_module()
class INaturalist2018(BenchmarkDataset):
    """iNaturalist 2018 (Van Horn et al., CVPR 2018) for retrieval, as Brown et al. split it.

    The split of Smooth-AP (Brown et al., ECCV 2020) parts the 8,142 species of the competition's
    training and validation images, so that train and test share none. Officially there are

    - train: 325,846 images, 5,690 classes,
    - test: 136,093 images, 2,452 classes (Brown et al., section 5).

    Needed are

    - ``train_val2018/``, the images for training and validation, and ``train2018.json`` and
      ``val2018.json``, their annotations, all of the competition;
    - ``Inaturalist_train_set1.txt`` or ``Inaturalist_test_set1.txt``, one image a line, as written
      in the annotations, from the page of Smooth-AP; in a folder ``Inat_dataset_splits`` or beside
      the rest;
    - optionally ``categories.json``, the names that were hidden during the competition.

    Labels count from 0 in the order of the category ids. Classes are called as in
    ``categories.json``, or else as in the annotations. The metadata ``super_category`` is
    ``'Aves'``, ``'Plantae'`` and so on, the folder of the image.

    Args:
        data_root: the folder of all that.
        split: ``'train'`` or ``'test'``.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`BenchmarkDataset`, which says
            what is raised too.

    Example:
        >>> INaturalist2018.counts['test']  # images, classes
        (136093, 2452)
    """

    tree = """
inaturalist2018/                        <- data_root
├── train2018.json
├── val2018.json
├── categories.json                     (optional: the names of the species)
├── Inat_dataset_splits/                (or without the folder)
│   ├── Inaturalist_train_set1.txt      train_val2018/<super category>/<category>/<image>.jpg
│   └── Inaturalist_test_set1.txt
└── train_val2018/
    ├── Actinopterygii/
    │   ├── 2229/
    │   │   ├── 014a31ac33a6ec3d7d3f8f2ab1ac1f6a.jpg
    │   │   └── ...
    │   └── ...
    └── ...
"""
    metadata_keys = ('super_category',)
    counts = {'train': (325846, 5690), 'test': (136093, 2452)}

    def read(self) -> Listing:
        """The images of the split, in the order of its file."""
        name = f'Inaturalist_{self.split}_set1.txt'
        path, *annotations, _ = require(
            self.data_root, self.tree, (f'{SPLITS_FOLDER}/{name}', name), *ANNOTATIONS,
            'train_val2018/')
        category_of, names = self._annotations(annotations)
        root = os.path.dirname(annotations[0])
        files = [cells[0] for cells in read_rows(path, self.tree, 1)]
        unknown = [file for file in files if file not in category_of]
        if unknown:
            raise malformed(path, self.tree, f'{len(unknown)} of its {len(files)} images are '
                            f'neither in {" nor in ".join(ANNOTATIONS)}; the first is '
                            f'{unknown[0]!r}.')
        names |= self._revealed(os.path.join(root, 'categories.json'))
        entries = [{'img_path': os.path.join(root, file), 'gt_label': category_of[file],
                    'super_category': os.path.basename(os.path.dirname(os.path.dirname(file)))}
                   for file in files]
        present = sorted({category_of[file] for file in files})
        return Listing(path, entries, {number: names.get(number, str(number))
                                       for number in present})

    def _annotations(self, paths: list[str]) -> tuple[dict[str, int], dict[int, str]]:
        """The category of every image by its file name, and the names of the categories."""
        category_of: dict[str, int] = {}
        names: dict[int, str] = {}
        for path in paths:
            content = self._json(path)
            try:
                by_image = {row['image_id']: int(row['category_id'])
                            for row in content['annotations']}
                category_of |= {row['file_name']: by_image[row['id']] for row in content['images']}
                names |= {int(row['id']): str(row['name']) for row in content['categories']}
            except (KeyError, TypeError, ValueError) as error:
                raise malformed(path, self.tree, 'lists of images, annotations and categories as '
                                f'in COCO are wanted ({type(error).__name__}: {error}).') from error
        return category_of, names

    def _revealed(self, path: str) -> dict[int, str]:
        if not os.path.isfile(path):
            return {}
        content = self._json(path)
        try:
            return {int(row['id']): str(row['name']) for row in content}
        except (KeyError, TypeError, ValueError) as error:
            raise malformed(path, self.tree, f'a list of categories with id and name is wanted '
                            f'({type(error).__name__}: {error}).') from error

    def _json(self, path: str) -> Any:
        try:
            with open(path, encoding='utf-8') as file:
                return json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise malformed(path, self.tree, f'it is no JSON ({error}).') from error

"""In-shop Clothes Retrieval: clothes of DeepFashion in several poses."""
from __future__ import annotations

import os

from ...registry import DATASETS
from .base import BenchmarkDataset, Listing
from .layout import malformed, read_rows, require

HEADER = ('image_name', 'item_id', 'evaluation_status')
PARTITION = 'list_eval_partition.txt'
STATUSES = ('train', 'query', 'gallery')


@DATASETS.register_module()
class InShop(BenchmarkDataset):
    """The In-shop Clothes Retrieval Benchmark of DeepFashion (Liu et al., CVPR 2016).

    An item is a class. Officially there are

    - train: 25,882 images, 3,997 classes,
    - query: 14,218 images, 3,985 classes,
    - gallery: 12,612 images of the same 3,985 classes (Kim et al., Proxy Anchor Loss, CVPR 2020,
      section 4.1).

    Labels count from 0 in the order of the item ids: over the items for training, and once over
    those of queries and gallery together, so that the two agree. The item id, ``'id_00000002'``, is
    the name of a class; the metadata ``category`` is the folder of the item, ``'WOMEN/Dresses'``.

    Args:
        data_root: the folder of the benchmark. The partition may stand in ``Eval/``, in ``Anno/``
            or directly in it, the images in ``Img/img/`` or ``img/``.
        split: ``'train'``, ``'query'`` or ``'gallery'``.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`BenchmarkDataset`, which says
            what is raised too.

    Example:
        >>> InShop.counts['gallery']  # images, classes
        (12612, 3985)
    """

    tree = """
In-shop Clothes Retrieval Benchmark/   <- data_root
├── Eval/                              (or Anno/, or without a folder)
│   └── list_eval_partition.txt        number of rows, header, <image name> <item id> <split>
└── Img/                               (or without a folder)
    └── img/                           unpacked from img.zip
        ├── MEN/
        │   ├── Denim/
        │   │   ├── id_00000080/
        │   │   │   ├── 01_1_front.jpg
        │   │   │   └── ...
        │   │   └── ...
        │   └── ...
        └── WOMEN/
"""
    metadata_keys = ('category',)
    splits = STATUSES
    counts = {'train': (25882, 3997), 'query': (14218, 3985), 'gallery': (12612, 3985)}

    def read(self) -> Listing:
        """The images of the split, in the order of the partition."""
        path, folder = require(self.data_root, self.tree,
                               (f'Eval/{PARTITION}', f'Anno/{PARTITION}', PARTITION),
                               ('Img/img/', 'img/'))
        numbered = ('train',) if self.split == 'train' else ('query', 'gallery')
        entries, items = [], set()
        for name, item, status in read_rows(path, self.tree, len(HEADER), HEADER, counted=True):
            if status not in STATUSES or not name.startswith('img/'):
                raise malformed(path, self.tree, f'a row holds img/... and one of '
                                f'{", ".join(STATUSES)}, but one is {name!r} {status!r}.')
            if status in numbered:
                items.add(item)
            if status == self.split:
                entries.append({
                    'img_path': os.path.join(folder, name.removeprefix('img/')), 'gt_label': item,
                    'category': '/'.join(name.split('/')[1:-2])})
        return Listing(path, entries, {item: item for item in sorted(items)})

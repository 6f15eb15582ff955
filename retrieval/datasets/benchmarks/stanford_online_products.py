"""Stanford Online Products: photographs of products on eBay."""
from __future__ import annotations

import os

from ...registry import DATASETS
from .base import BenchmarkDataset, Listing
from .layout import malformed, read_rows, require

HEADER = ('image_id', 'class_id', 'super_class_id', 'path')


@DATASETS.register_module()
class StanfordOnlineProducts(BenchmarkDataset):
    """Stanford Online Products (Oh Song et al., CVPR 2016).

    Products are classes, of mostly two to twelve images, in twelve super classes; train and test
    share no product, but all super classes. Officially there are

    - train: 59,551 images, 11,318 classes,
    - test: 60,502 images, 11,316 classes (Kim et al., Proxy Anchor Loss, CVPR 2020,
      section 4.1).

    Labels count from 0 in the order of ``class_id``, which is kept as the name of a class. The
    metadata ``super_class`` is ``'bicycle'``, ``'cabinet'``, ``'chair'`` and so on, the folder
    without ``_final``.

    Args:
        data_root: the folder ``Stanford_Online_Products``.
        split: ``'train'`` or ``'test'``.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`BenchmarkDataset`, which says
            what is raised too.

    Example:
        >>> StanfordOnlineProducts.counts['test']  # images, classes
        (60502, 11316)
    """

    tree = """
Stanford_Online_Products/   <- data_root
├── Ebay_train.txt          image_id class_id super_class_id path, with that header
├── Ebay_test.txt           the same
├── bicycle_final/
│   ├── 111085122871_0.JPG
│   └── ...
├── cabinet_final/
└── ...                     twelve folders
"""
    metadata_keys = ('super_class',)
    counts = {'train': (59551, 11318), 'test': (60502, 11316)}

    def read(self) -> Listing:
        """The images of the split, in the order of its file."""
        path, = require(self.data_root, self.tree, f'Ebay_{self.split}.txt')
        rows = read_rows(path, self.tree, len(HEADER), HEADER)
        root = os.path.dirname(path)
        entries, present = [], set()
        for _, number, _, name in rows:
            if not number.isdecimal():
                raise malformed(path, self.tree, f'the class_id of {name!r} is {number!r}, no '
                                'integer.')
            present.add(int(number))
            entries.append({'img_path': os.path.join(root, name), 'gt_label': int(number),
                            'super_class': name.split('/')[0].removesuffix('_final')})
        return Listing(path, entries, {number: str(number) for number in sorted(present)})

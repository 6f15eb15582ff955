"""Market-1501: people in front of a supermarket, seen by six cameras."""
from __future__ import annotations

import os
import re
from typing import Any

from ...registry import DATASETS
from .base import ReidentificationDataset
from .layout import malformed, require

_FOLDERS = {'train': 'bounding_box_train', 'query': 'query', 'gallery': 'bounding_box_test'}


@DATASETS.register_module()
class Market1501(ReidentificationDataset):
    """Market-1501 (Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015).

    Officially there are

    - train: 12,936 images of 751 people,
    - query: 3,368 images of 750 people,
    - gallery: 15,913 images of 751 identities, which are those 750 and the distractors. The folder
      has 19,732 images, of which 3,819 are junk.

    The name of a file says the identity, the camera from 1 to 6, the sequence, the frame and the
    number of the box. Images with the identity -1 are junk: they are not ranked at all, and left
    out here. Images with the identity 0 are distractors: they are ranked and never relevant, since
    no query has their label. The metadata are ``camera`` and ``sequence``, integers; a query does
    not rank images of its own identity and camera (protocol ``Market1501``).

    Args:
        data_root: the folder ``Market-1501-v15.09.15``.
        split, pipeline, check_files, on_count_mismatch, kwargs: see
            :class:`ReidentificationDataset`, which says too how labels count and what is raised.

    Example:
        >>> Market1501.counts['query']  # images, classes
        (3368, 750)
    """

    metadata_keys = ('camera', 'sequence')
    tree = """
Market-1501-v15.09.15/            <- data_root
├── bounding_box_train/           split='train'
│   ├── 0002_c1s1_000451_03.jpg   <identity>_c<camera>s<sequence>_<frame>_<box>.jpg
│   └── ...
├── query/                        split='query'
└── bounding_box_test/            split='gallery'
    ├── -1_c1s1_000401_03.jpg     junk, left out
    ├── 0000_c1s1_000151_01.jpg   distractor
    └── ...
"""
    pattern = re.compile(r'(?P<identity>-1|\d+)_c(?P<camera>\d)s(?P<sequence>\d)_\d+_\d+\.jpg')
    example = '0002_c1s1_000451_03.jpg'
    counts = {'train': (12936, 751), 'query': (3368, 750), 'gallery': (15913, 751)}

    def list_images(self, split: str) -> tuple[str, list[str]]:
        """The JPEG files of the split's folder, sorted; other files are left alone."""
        folder, = require(self.data_root, self.tree, f'{_FOLDERS[split]}/')
        names = sorted(name for name in os.listdir(folder)
                       if name.endswith('.jpg') and not name.startswith('.'))
        if not names:
            raise malformed(folder, self.tree, 'there is no JPEG file in it.')
        return folder, [os.path.join(folder, name) for name in names]

    def keeps(self, entry: dict[str, Any]) -> bool:
        """All but junk."""
        return entry['gt_label'] >= 0

"""VeRi-776: vehicles on the streets of a city, seen by twenty cameras."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ...registry import DATASETS
from .base import Listing, ReidentificationDataset
from .layout import malformed, read_rows, require

_FOLDERS = {'train': 'train', 'query': 'query', 'gallery': 'test'}  # image_…/ and name_….txt
# As list_color.txt and list_type.txt of the dataset number them.
COLORS = ('yellow', 'orange', 'green', 'gray', 'red', 'blue', 'white', 'golden', 'brown', 'black')
TYPES = ('sedan', 'suv', 'van', 'hatchback', 'mpv', 'pickup', 'bus', 'truck', 'estate')
UNKNOWN = ''


@DATASETS.register_module()
class VeRi776(ReidentificationDataset):
    """VeRi-776 (Liu et al., A Deep Learning-Based Approach to Progressive Vehicle
    Re-identification for Urban Surveillance, ECCV 2016).

    Officially there are, as its read-me says,

    - train: 37,778 images of 576 vehicles,
    - query: 1,678 images of 200 vehicles,
    - gallery: 11,579 images of the same 200 vehicles.

    The name of a file says the vehicle, the camera from 1 to 20 and the time. Every query stands
    in the gallery too, and has the same identity there, the path in ``image_test``, so that it
    does not find itself. The metadata are ``camera``, an integer, and where the file with the
    labels is there ``color`` and ``type``, words, empty where they are not known. A query does not
    rank images of its own vehicle and camera (protocol ``VeRi776``), which are the junk images of
    the official ``jk_index.txt``.

    Args:
        data_root: the folder ``VeRi``.
        split: ``'train'``, ``'query'`` or ``'gallery'``.
        attributes: whether to read colour and type from ``train_label.xml`` or, for queries and
            gallery, ``test_label.xml``; None: where the file is there.
        pipeline, check_files, on_count_mismatch, kwargs: see :class:`ReidentificationDataset`,
            which says too how labels count and what is raised.

    Example:
        >>> VeRi776.counts['query']  # images, classes
        (1678, 200)
    """

    metadata_keys = ('camera', 'color', 'type')
    tree = """
VeRi/                                <- data_root
├── image_train/                     split='train'
│   ├── 0001_c001_00016450_0.jpg     <vehicle>_c<camera>_<time>_<number>.jpg
│   └── ...
├── image_query/                     split='query'
├── image_test/                      split='gallery'
├── name_train.txt                   one file name a line
├── name_query.txt
├── name_test.txt
├── train_label.xml                  colour and type of the images, in GB2312 (optional)
└── test_label.xml
"""
    pattern = re.compile(r'(?P<identity>\d+)_c(?P<camera>\d+)_\d+_\d+\.jpg')
    example = '0002_c002_00030600_0.jpg'
    counts = {'train': (37778, 576), 'query': (1678, 200), 'gallery': (11579, 200)}

    def __init__(self, data_root: str | Path, split: str = 'train', attributes: bool | None = None,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 **kwargs: Any) -> None:
        self.attributes = attributes
        super().__init__(data_root=data_root, split=split, pipeline=pipeline, **kwargs)

    def list_images(self, split: str) -> tuple[str, list[str]]:
        """The list of the split, and the images that it names."""
        part = _FOLDERS[split]
        source, folder = require(self.data_root, self.tree, f'name_{part}.txt', f'image_{part}/')
        names = [name for name, in read_rows(source, self.tree, 1)]
        strange = [name for name in names if not self.pattern.fullmatch(name)]
        if strange:
            raise malformed(source, self.tree, f'it lists {strange[0][:100]!r}; images are called '
                            f'as in {self.example}.')
        return source, [os.path.join(folder, name) for name in names]

    def read(self) -> Listing:
        """The images of the split with colour and type; queries as the gallery calls them."""
        listing = super().read()
        if self.split == 'query':
            in_gallery = {os.path.basename(path): path for path in self.list_images('gallery')[1]}
            for entry in listing.entries:
                name = os.path.basename(entry['img_path'])
                if name in in_gallery:
                    entry['sample_id'] = in_gallery[name]
        name = f'{"train" if self.split == "train" else "test"}_label.xml'
        if self.attributes or (self.attributes is None and os.path.isfile(
                os.path.join(self.data_root, name))):
            source, = require(self.data_root, self.tree, name)
            labels = read_attributes(source, self.tree)
            for entry in listing.entries:
                entry.update(labels.get(os.path.basename(entry['img_path']),
                                        {'color': UNKNOWN, 'type': UNKNOWN}))
        return listing


def read_attributes(path: str, tree: str) -> dict[str, dict[str, str]]:
    """Colour and type of every image, by the name of its file.

    The file says that it is in GB2312, which the parser of the standard library does not read; it
    is decoded before, in GB 18030, which contains GB2312. Entities and document types, with which
    a small file can fill the memory, are refused.

    Raises:
        ValueError: it is no such file.
    """
    try:
        text = Path(path).read_bytes().decode('gb18030')
        if '<!' in re.sub('<!--.*?-->', '', text, flags=re.DOTALL):
            raise ValueError('it declares a document type')
        root = ElementTree.fromstring(re.sub(r'^\s*<\?xml.*?\?>', '', text, flags=re.DOTALL))
    except (ValueError, ElementTree.ParseError) as error:
        raise malformed(path, tree, f'it is no XML in GB2312 ({error}).') from error
    labels = {item.get('imageName', ''): {
        'color': _word(COLORS, item.get('colorID')), 'type': _word(TYPES, item.get('typeID'))}
        for item in root.iter('Item')}
    if not labels or '' in labels:
        raise malformed(path, tree, "it must have elements 'Item' with an 'imageName'.")
    return labels


def _word(words: Sequence[str], number: str | None) -> str:
    """The word of a number that counts from 1; the official file has some zeros."""
    known = number is not None and number.isdecimal() and 1 <= int(number) <= len(words)
    return words[int(number) - 1] if known else UNKNOWN  # type: ignore[arg-type]

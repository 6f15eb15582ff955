"""The embedded dataset: the characters of real typefaces."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...checks import whole_number
from ...registry import DATASETS, unknown_name
from ..base import RetrievalDataset
from ..image_folder import SPLITS, split_classes
from ..transforms.geometry import resize
from .cache import SIZE, GlyphTable, MappedImages, default_folder, open_glyphs


@DATASETS.register_module()
class Glyphs(RetrievalDataset):
    """Characters of the 22 typefaces of five families that ship with matplotlib.

    The task is to find the same character in another typeface. Classes are characters that stand
    in at least eight of the typefaces, merged where one of them draws two alike (Latin A, Greek
    Alpha, Cyrillic A), whose picture is then there once. Train and test have different classes,
    half of them each (see ``split_classes``): 3,293 characters, 2,866 classes, 37,012 images, the
    same with every release of matplotlib from 3.8 to 3.11.

    Nothing is downloaded: the pictures are drawn in a few seconds when the dataset is first used,
    and kept in one file that all processes map. An item's ``img`` is ``(size, size, 1)`` uint8,
    white on black. ``sample_id`` is the code point and the font, ``U+0041/DejaVuSans-Bold``; the
    metadata are ``typeface`` (with its style), ``family`` and ``character``; a class is called by
    its characters.

    Args:
        split: ``'train'`` or ``'test'``.
        size: the edge of the pictures in pixels, from 8 to 64; they are drawn at 64 and shrunk by
            averaging areas. For larger pictures put a resizing step into the pipeline.
        data_root: the folder of the file, by default ``$XDG_CACHE_HOME/retrieval/glyphs`` or
            ``~/.cache/retrieval/glyphs``.
        pipeline: transforms, dicts or callables; the picture is loaded already.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        ValueError: an unknown split, or a size out of range.
        TypeError: ``size`` is no integer.
        FileNotFoundError: matplotlib's fonts are missing.
        OSError: the folder cannot be written.

    Example:
        >>> Glyphs('train', size=128)
        Traceback (most recent call last):
        ValueError: size must be an integer of at least 8 and at most 64, got 128.
    """

    metadata_keys = ('typeface', 'family', 'character')

    def __init__(self, split: str = 'train', size: int = SIZE, data_root: str | Path | None = None,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 **kwargs: Any) -> None:
        if split not in SPLITS:
            raise ValueError(unknown_name('split of Glyphs', split, SPLITS))
        self.split = split
        self.size = whole_number('size', size, least=8, most=SIZE)
        self._images: MappedImages | None = None
        super().__init__(data_root=str(data_root or default_folder()), pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a picture of the split; ``row`` is where the picture stands in the cache."""
        table = open_glyphs(self.data_root)
        self._images = table.images
        names = split_classes(table.classes, self.split)
        self._metainfo['classes'] = tuple(names)
        label_of = {name: label for label, name in enumerate(names)}
        labels = [label_of.get(name, -1) for name in table.classes]
        return [self._entry(table, row, labels[label])
                for row, label in enumerate(table.labels.tolist()) if labels[label] >= 0]

    @staticmethod
    def _entry(table: GlyphTable, row: int, label: int) -> dict[str, Any]:
        code, face = int(table.code_points[row]), table.typefaces[table.fonts[row]]
        return {'gt_label': label, 'sample_id': f'U+{code:04X}/{face["stem"]}', 'row': row,
                'typeface': face['name'], 'family': face['family'], 'character': chr(code)}

    def _picture(self, row: int) -> np.ndarray:
        if self._images is None:  # built with lazy_init, from annotations of another dataset
            self._images = open_glyphs(self.data_root).images
        return resize(self._images[row], self.size, self.size, 'area')

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry of one image with its picture, ``img`` ``(size, size, 1)`` uint8."""
        info = super().get_data_info(idx)
        info['img'] = self._picture(info.pop('row'))[..., None]
        info['img_shape'] = info['ori_shape'] = (self.size, self.size)
        return info

    def pictures(self) -> np.ndarray:
        """All pictures in the order of the dataset, ``(N, size, size)`` uint8."""
        return np.stack([self._picture(entry['row']) for entry in self._entries()])

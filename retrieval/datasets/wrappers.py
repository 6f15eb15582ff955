"""Datasets around datasets: MMEngine's, told apart what they repeat.

Where MMEngine's own wrapper hands the same row on twice, the two draws get the same augmentation,
since that depends on (seed, epoch, row). These say which repetition it is. They also know their
labels.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import ClassBalancedDataset as _ClassBalancedDataset
from mmengine.dataset import ConcatDataset as _ConcatDataset
from mmengine.dataset import RepeatDataset as _RepeatDataset
from torch.utils.data import ConcatDataset as _TorchConcatDataset
from torch.utils.data import Subset

from ..checks import whole_number
from ..registry import DATASETS, unknown_name
from .base import check_unique, items_of
from .randomness import DrawIndex, wrapped_datasets


def labels_of(dataset: Any) -> np.ndarray | None:
    """The class of every item of a dataset or wrapper, ``(N,)`` int64, or None where unknown.

    Example:
        >>> from retrieval.datasets import RetrievalDataset
        >>> class Cats(RetrievalDataset):
        ...     metadata_keys = ('colour',)
        ...     def load_data_list(self):
        ...         return [{'img_path': f'{row}.png', 'gt_label': row // 3, 'colour': 'grey'}
        ...                 for row in range(4)]
        >>> labels_of(RepeatDataset(Cats(), times=2)).tolist()
        [0, 0, 0, 1, 0, 0, 0, 1]
    """
    def read(leaf: Any) -> np.ndarray | None:
        labels = getattr(leaf, 'labels', None)
        return None if labels is None else np.asarray(labels).astype(np.int64)
    return _column(dataset, read)


def metadata_of(dataset: Any, name: str) -> np.ndarray:
    """One metadata column of a dataset or wrapper, ``(N,)`` object; see
    :attr:`RetrievalDataset.metadata`.

    Raises:
        ValueError: a dataset in there has no such column; the nearest names are named.

    Example:
        >>> from retrieval.datasets import RetrievalDataset
        >>> class Cats(RetrievalDataset):
        ...     metadata_keys = ('colour',)
        ...     def load_data_list(self):
        ...         return [{'img_path': f'{row}.png', 'gt_label': row // 3, 'colour': 'grey'}
        ...                 for row in range(4)]
        >>> metadata_of(Cats(), 'colour').tolist()
        ['grey', 'grey', 'grey', 'grey']
    """
    def read(leaf: Any) -> np.ndarray:
        columns = getattr(leaf, 'metadata', None) or {}
        if name not in columns:
            raise ValueError(unknown_name(f'metadata column of {type(leaf).__name__}', name,
                                          columns) if columns else
                             f'{type(leaf).__name__} has no metadata, so no column {name!r}.')
        values = np.empty(len(columns[name]), dtype=object)
        values[:] = columns[name]
        return values
    column = _column(dataset, read)
    assert column is not None  # `read` raises where there is none
    return column


def _column(dataset: Any, read: Callable[[Any], np.ndarray | None]) -> np.ndarray | None:
    """One value an item, ``(N,)``: those of the innermost datasets, seen through wrappers."""
    wrapped = wrapped_datasets(dataset)
    if not wrapped:
        return read(dataset)
    inner = [values for values in (_column(part, read) for part in wrapped) if values is not None]
    if len(inner) < len(wrapped):
        return None
    if isinstance(dataset, _TorchConcatDataset):
        return np.concatenate(inner)
    values = inner[0]
    if isinstance(dataset, Subset):
        return values[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, _RepeatDataset):
        return np.tile(values, dataset.times)
    if isinstance(dataset, _ClassBalancedDataset):
        return values[np.asarray(dataset.repeat_indices)]
    return values[:len(dataset)]


def _built(dataset: Any) -> Any:
    return DATASETS.build(dataset) if isinstance(dataset, dict) else dataset


@DATASETS.register_module()
class RepeatDataset(_RepeatDataset):
    """``times`` passes over a dataset as one, each with augmentations of its own.

    Example:
        >>> from retrieval.datasets import ImageList
        >>> images = ImageList([np.zeros((4, 4), np.uint8)])
        >>> len(RepeatDataset(images, times=3))
        3
    """

    def __init__(self, dataset: Any, times: int, lazy_init: bool = False) -> None:
        super().__init__(_built(dataset), whole_number('times', times), lazy_init)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        repeat, row = divmod(int(idx) % len(self), self._ori_len)
        return self.dataset[DrawIndex.moved(idx, row, repeat, self.times)]

    __getitems__ = items_of

    @property
    def labels(self) -> np.ndarray | None:
        """The class of every item, ``(N,)`` int64."""
        return labels_of(self)


@DATASETS.register_module()
class ClassBalancedDataset(_ClassBalancedDataset):
    """Images of rare classes several times (Gupta et al., 2019), each with its own augmentation.

    Example:
        >>> from retrieval.datasets import RetrievalDataset
        >>> class Cats(RetrievalDataset):
        ...     metadata_keys = ('colour',)
        ...     def load_data_list(self):
        ...         return [{'img_path': f'{row}.png', 'gt_label': row // 3, 'colour': 'grey'}
        ...                 for row in range(4)]
        >>> ClassBalancedDataset(Cats(), oversample_thr=0.5).labels.tolist()
        [0, 0, 0, 1, 1]
    """

    def __init__(self, dataset: Any, oversample_thr: float, lazy_init: bool = False) -> None:
        super().__init__(_built(dataset), oversample_thr, lazy_init)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        rows = self.repeat_indices
        position = int(idx) % len(self)
        row = rows[position]
        first = bisect_left(rows, row)
        draw = DrawIndex.moved(idx, row, position - first, bisect_right(rows, row) - first)
        return self.dataset[draw]

    __getitems__ = items_of

    @property
    def labels(self) -> np.ndarray | None:
        """The class of every item, ``(N,)`` int64."""
        return labels_of(self)


@DATASETS.register_module()
class ConcatDataset(_ConcatDataset):
    """Datasets one after another, as one gallery or training set.

    ``sample_idx`` counts through all of them: an evaluation on several processes knows a sample by
    it.

    Args:
        datasets: datasets or configs, with the same label names.
        ignore_keys: entries of ``metainfo`` that may differ.

    Example:
        >>> from retrieval.datasets import ImageList
        >>> images = ImageList([np.zeros((4, 4), np.uint8)])
        >>> others = ImageList([np.ones((4, 4), np.uint8)])
        >>> len(ConcatDataset([images, others]))
        2
    """

    def __init__(self, datasets: Sequence[Any], lazy_init: bool = False,
                 ignore_keys: str | list[str] | None = None) -> None:
        super().__init__([_built(dataset) for dataset in datasets], lazy_init, ignore_keys)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        part, row = self._get_ori_dataset_idx(int(idx))
        item = self.datasets[part][DrawIndex.moved(idx, row)]
        sample = item.get('data_samples') if isinstance(item, dict) else None
        if sample is not None:
            sample.set_field(int(idx) % len(self), 'sample_idx', field_type='metainfo')
        return item

    __getitems__ = items_of

    @property
    def labels(self) -> np.ndarray | None:
        """The class of every item, ``(N,)`` int64, or None where a part has none."""
        return labels_of(self)

    @property
    def label_names(self) -> list[str] | None:
        """The names of the labels, which the parts share."""
        return self.datasets[0].label_names

    @property
    def sample_ids(self) -> list[str]:
        """The identity of every picture. Raises ValueError where two are the same."""
        return check_unique([name for part in self.datasets for name in part.sample_ids],
                            'ConcatDataset')

    @property
    def metadata(self) -> dict[str, list[Any]]:
        """The metadata columns of the parts, with None where a part lacks one."""
        names = dict.fromkeys(name for part in self.datasets for name in part.metadata)
        return {name: [value for part in self.datasets
                       for value in part.metadata.get(name, [None] * len(part))]
                for name in names}

    @property
    def pipeline_cfg(self) -> list[Any]:
        """The pipeline of the parts, where they have the same; else the list of their pipelines."""
        pipelines = [part.pipeline_cfg for part in self.datasets]
        return pipelines[0] if all(one == pipelines[0] for one in pipelines) else pipelines

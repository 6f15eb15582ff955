"""The base of every dataset of images: identity, labels, randomness, and unreadable images."""
from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine.dataset import BaseDataset, Compose
from PIL import UnidentifiedImageError

from ..checks import first_repeated
from ..image_files import MissingImageError, UnreadableImageError
from ..registry import DATASETS, TRANSFORMS
from ..structures import RetrievalDataSample, sample_id_of
from .randomness import SamplingState, seeded


def plain_config(value: Any) -> Any:
    """A config as dicts, lists and scalars; classes and objects become their qualified names."""
    if isinstance(value, Mapping):
        return {str(key): plain_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_config(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    cls = value if isinstance(value, type) or callable(value) and hasattr(value, '__qualname__') \
        else type(value)
    return f'{cls.__module__}.{cls.__qualname__}'


def build_pipeline(pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None) -> Compose:
    """A pipeline whose parts are built through the registry of this package.

    Raises:
        TypeError: a part is neither a dict with a ``type`` nor callable.
        UnknownTypeError: no registry holds a ``type``; the nearest names are named.

    Example:
        >>> pipeline = build_pipeline([dict(type='ResizeEdge', scale=8)])
        >>> pipeline({'img': np.zeros((16, 32, 3), np.uint8)})['img_shape']
        (8, 16)
    """
    steps = []
    for step in pipeline or []:
        steps.append(TRANSFORMS.build(step) if isinstance(step, Mapping) else step)
        if type(steps[-1]) is _LoadImageFromFile:  # as `mmcv.…` or as a class: it opens anything
            steps[-1] = TRANSFORMS.build({'type': 'retrieval.LoadImageFromFile', **{
                name: value for name, value in vars(steps[-1]).items() if value is not None}})
        if not callable(steps[-1]):
            raise TypeError('A pipeline is a list of dicts with a `type`, or of callables; got '
                            f'{type(step).__name__}.')
    return Compose(steps)


def check_unique(ids: list[str], owner: str) -> list[str]:
    """``ids`` as they are. Raises ValueError, naming the first that stands there twice."""
    surplus = len(ids) - len(set(ids))
    if surplus:
        raise ValueError(f'{owner}: the image {first_repeated(ids)!r} stands in it more than once '
                         f'({surplus} entries too many). List every image once, or give the '
                         'entries a `sample_id` each.')
    return ids


def items_of(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """The items of a batch. Those that cannot be read are reported together.

    Raises:
        UnreadableImageError: it names every image of the batch that cannot be read.

    Example:
        >>> items_of('abc', [2, 0])
        ['c', 'a']
    """
    items, errors = [], []
    for index in indices:
        try:
            items.append(dataset[index])
        except UnreadableImageError as error:
            errors.append(error)
    if len(errors) > 1:
        raise UnreadableImageError(f'{len(errors)} of {len(indices)} images of a batch cannot be '
                                   'read:' + ''.join(f'\n  {error}' for error in errors))
    if errors:
        raise errors[0]
    return items


@DATASETS.register_module()
class RetrievalDataset(BaseDataset):
    """Images with an identity and, mostly, a label.

    A subclass implements ``load_data_list() -> list[dict]``. An entry holds ``img_path`` (or
    ``img``, the picture itself), and as far as known ``gt_label`` int, ``sample_id`` str (without
    it the path, with its box), ``gt_indices`` (relevant rows of the gallery), ``box`` ``(x_1, y_1,
    x_2, y_2)`` in pixels, and the columns named in :attr:`metadata_keys`. It may set
    ``self._metainfo['classes']``, the names of the labels.

    With :meth:`set_seed`, an item depends on (seed, epoch, index) alone: not on the number of
    workers, nor on what was drawn before. Without a seed the global generators are used as they
    are.

    Args:
        ann_file: the annotation file, for subclasses that have one.
        data_root: the folder of the images.
        pipeline: transforms, dicts or callables.
        on_unreadable: ``'raise'``, or ``'skip'``: the item of an unreadable image then has empty
            ``inputs`` and a data sample with ``unreadable``, the reason.
        kwargs: those of MMEngine's ``BaseDataset`` (``metainfo``, ``indices``, ``test_mode``,
            ``lazy_init``, ``serialize_data``, …).

    Example:
        >>> class Two(RetrievalDataset):
        ...     def load_data_list(self):
        ...         return [{'img_path': f'{name}.png', 'gt_label': label}
        ...                 for name, label in (('a', 1), ('b', 0))]
        >>> Two().labels.tolist(), Two().sample_ids
        ([1, 0], ['a.png', 'b.png'])
    """

    metadata_keys: tuple[str, ...] = ()
    _fully_initialized: bool

    def __init__(self, ann_file: str = '', data_root: str = '',
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 on_unreadable: str = 'raise', **kwargs: Any) -> None:
        if on_unreadable not in ('raise', 'skip'):
            raise ValueError(f"on_unreadable must be 'raise' or 'skip', got {on_unreadable!r}.")
        self.on_unreadable = on_unreadable
        self.pipeline_cfg: list[Any] = plain_config(list(pipeline or []))
        self._sampling = SamplingState()
        self._columns: dict[str, Any] = {}
        kwargs.setdefault('data_prefix', {})
        lazy_init = kwargs.pop('lazy_init', False)
        super().__init__(ann_file=str(ann_file), data_root=str(data_root), pipeline=[],
                         lazy_init=True, **kwargs)
        self.pipeline = build_pipeline(pipeline)
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read the annotations. Raises ValueError where there is not one image."""
        if self._fully_initialized:
            return
        self.data_list = self.load_data_list()
        self.data_list = self.filter_data()
        if self._indices is not None:
            self.data_list = [self.data_list[row] for row in self._rows(self._indices)]
        if not self.data_list:
            raise ValueError(f'{type(self).__name__} has no images (data_root={self.data_root!r}, '
                             f'ann_file={self.ann_file!r}): check what it was given.')
        self._columns = {'labels': self._read_labels(self.data_list)}
        if self.serialize_data:
            self.data_bytes, self.data_address = self._serialize_data()
        self._fully_initialized = True

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """The entries as bytes that workers share, and where each ends.

        Without the garbage collection of MMEngine's, which takes longer than a small dataset.
        """
        entries = [pickle.dumps(entry, protocol=4) for entry in self.data_list]
        self.data_list.clear()
        ends = np.cumsum([len(entry) for entry in entries], dtype=np.int64)
        return np.frombuffer(b''.join(entries), dtype=np.uint8), ends

    # Columns, read without decoding an image ---------------------------------------------------

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The entries as they were loaded, in order."""
        if not self._fully_initialized:
            self.full_init()
        if not self.serialize_data:
            yield from self.data_list
            return
        data, start = memoryview(self.data_bytes), 0  # type: ignore[arg-type]
        for end in self.data_address.tolist():
            # bytes that this object pickled itself, in memory; nothing comes from a file
            yield pickle.loads(data[start:end])
            start = end

    def _read_labels(self, entries: Iterable[dict[str, Any]]) -> np.ndarray | None:
        values = [entry.get('gt_label') for entry in entries]
        missing = sum(value is None for value in values)
        if missing == len(values):
            return None
        if missing:
            raise ValueError(f'{type(self).__name__}: {missing} of {len(values)} entries have no '
                             f'gt_label, the first is row {values.index(None)}. Label all or none.')
        labels = np.asarray(values)
        if labels.dtype.kind not in 'iu' or labels.ndim != 1:
            raise ValueError(f'{type(self).__name__}: gt_label must be one integer an entry, got '
                             f'{labels.dtype} of shape {labels.shape}.')
        return labels.astype(np.int64)

    @property
    def labels(self) -> np.ndarray | None:
        """The class of every image, ``(N,)`` int64, or None where there are none."""
        if not self._fully_initialized:
            self.full_init()
        if 'labels' not in self._columns:
            self._columns['labels'] = self._read_labels(self._entries())
        return self._columns['labels']

    @property
    def label_names(self) -> list[str] | None:
        """The names of the labels, position by label, or None."""
        if not self._fully_initialized:
            self.full_init()
        names = self._metainfo.get('classes')
        return None if names is None else [str(name) for name in names]

    @property
    def sample_ids(self) -> list[str]:
        """The identity of every picture, in order.

        Raises:
            ValueError: two entries have the same identity.
        """
        if 'sample_ids' not in self._columns:
            ids = [str(sample_id_of(entry, row)) for row, entry in enumerate(self._entries())]
            self._columns['sample_ids'] = check_unique(ids, type(self).__name__)
        return self._columns['sample_ids']

    @property
    def metadata(self) -> dict[str, list[Any]]:
        """The columns of :attr:`metadata_keys` that the entries have, name to N values."""
        if 'metadata' not in self._columns:
            columns: dict[str, list[Any]] = {key: [] for key in self.metadata_keys}
            for entry in self._entries():
                for key, column in columns.items():
                    column.append(entry.get(key))
            self._columns['metadata'] = {
                key: column for key, column in columns.items()
                if any(value is not None for value in column)}
        return self._columns['metadata']

    def get_cat_ids(self, idx: int) -> list[int]:
        """The classes of one image, as ``ClassBalancedDataset`` asks for them."""
        if self.labels is None:
            raise ValueError(f'{type(self).__name__} has no labels to balance.')
        return [int(self.labels[idx])]

    # Items ---------------------------------------------------------------------------------------

    def set_seed(self, seed: int | None) -> None:
        """Let items depend on (seed, epoch, index) alone; None: on the global generators."""
        self._sampling.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; loader workers that already run hear of it too."""
        self._sampling.epoch = epoch

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry of one image, with ``sample_idx``, ``sample_id`` and ``metadata_keys``."""
        info = super().get_data_info(self._row(idx))
        info['sample_id'] = sample_id_of(info)
        if self.metadata_keys:
            info['metadata_keys'] = self.metadata_keys
        return info

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """The item that the pipeline makes of one image.

        Raises:
            UnreadableImageError: the image cannot be read and ``on_unreadable`` is ``'raise'``.
            IndexError: there is no such image.
        """
        if not self._fully_initialized:
            self.full_init()
        row = self._row(idx)
        key = self._sampling.key(row, idx)
        if key is None:
            return self.prepare_data(row)
        with seeded(key):
            return self.prepare_data(row)

    __getitems__ = items_of  # torch's loaders ask for a batch at once

    def prepare_data(self, idx: int) -> dict[str, Any]:
        """Run the pipeline on one image; see :meth:`__getitem__`."""
        info = self.get_data_info(idx)
        identity = {key: info.get(key) for key in ('sample_idx', 'sample_id', 'img_path')}
        named = identity['img_path'] or identity['sample_id']
        try:
            data = self.pipeline(info)
            if data is None:  # how transforms of this engine say that they failed
                raise UnreadableImageError(f'The pipeline returned nothing for image {named!r}.')
            return data
        except (UnreadableImageError, FileNotFoundError, UnidentifiedImageError) as error:
            if self.on_unreadable == 'skip':
                return {'inputs': torch.zeros(0), 'data_samples': RetrievalDataSample(
                    metainfo={**identity, 'unreadable': str(error)})}
            if isinstance(error, UnreadableImageError):
                raise
            kind = MissingImageError if isinstance(error, FileNotFoundError) \
                else UnreadableImageError
            raise kind(f'Cannot read the image {named!r}: {error}') from error

    # Subsets -------------------------------------------------------------------------------------

    def _row(self, idx: int) -> int:
        count = len(self)
        if not -count <= idx < count:
            raise IndexError(f'{type(self).__name__} has {count} images, there is no image {idx}.')
        return int(idx) % count

    def _rows(self, indices: int | Sequence[int]) -> list[int]:
        """The rows meant by ``indices``: the first (last, if negative) so many, or those named."""
        count = len(self) if self._fully_initialized else len(self.data_list)
        if isinstance(indices, (int, np.integer)):
            return list(range(count))[:indices] if indices >= 0 else list(range(count))[indices:]
        rows = np.asarray(indices).astype(np.int64)
        if len(rows) and not (-count <= rows.min() and rows.max() < count):
            raise IndexError(f'{type(self).__name__} has {count} images; `indices` go from '
                             f'{rows.min()} to {rows.max()}.')
        return (rows % count).tolist() if count else []

    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep only these rows (an int: the first, or last if negative, so many)."""
        super().get_subset_(self._rows(indices))
        self._columns = {}

    def get_subset(self, indices: int | Sequence[int]) -> RetrievalDataset:
        """A dataset of these rows (an int: the first, or last if negative, so many)."""
        subset = super().get_subset(self._rows(indices))
        subset._columns = {}
        return subset

    def _copy_without_annotation(self, memo: dict[str, Any] | None = None) -> RetrievalDataset:
        # MMEngine's default is one dict shared by all calls, which returns stale copies.
        return super()._copy_without_annotation({} if memo is None else memo)

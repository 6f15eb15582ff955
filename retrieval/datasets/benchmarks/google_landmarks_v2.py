"""Google Landmarks v2: two hundred thousand landmarks of the whole world.

Its CSV files are read by columns, since some have millions of rows.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...registry import DATASETS, unknown_name
from .base import ACTIONS, JudgedRowsDataset, compare_counts
from .layout import malformed, require, require_images

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ('train', 'train_clean', 'query', 'gallery')
USAGES = ('Public', 'Private')
_ALIASES = {'index': 'gallery', 'test': 'query'}  # as the authors call them
_FOLDERS = {'train': 'train', 'train_clean': 'train', 'query': 'test', 'gallery': 'index'}
_COUNTS = {'train': (4132914, 203094), 'train_clean': (1580470, 81313)}
ID_LENGTH = 16  # characters
_HEXADECIMAL = np.isin(np.arange(256), np.frombuffer(b'0123456789abcdef', np.uint8))


@DATASETS.register_module()
class GoogleLandmarksV2(JudgedRowsDataset):
    """Google Landmarks v2 (Weyand et al., CVPR 2020), version 2.1.

    Officially there are

    - train: 4,132,914 images of 203,094 landmarks,
    - train_clean: 1,580,470 of them, of 81,313 landmarks (Yokoo et al., Two-stage Discriminative
      Re-ranking for Large-scale Landmark Retrieval, 2020),
    - gallery: 761,757 images, the *index* of the authors,
    - query: 1,129 images with relevant ones in the gallery, 379 of them public and 750 private,
      out of 117,577 *test* images; those that the solution calls ignored are left out (Tan et al.,
      Reranking Transformers, ICCV 2021).

    Labels count from 0 by rising ``landmark_id``, which is the class's name. The landmarks of the
    gallery have other numbers than those for training. A query lists the rows of the gallery that
    are relevant, ``gt_indices``, and has no label. A picture's identity is its path.

    The columns are kept as arrays, so 4.1 million rows are read in seconds.

    Args:
        data_root: the folder of the dataset; a CSV file may also stand in its split's folder or
            in ``metadata/``.
        split: ``'train'``, ``'train_clean'``, ``'query'`` (or ``'test'``) or ``'gallery'`` (or
            ``'index'``).
        usage: ``'Public'`` or ``'Private'`` queries only; None takes both.
        ann_file: another list of training images, in the form of ``train.csv`` or
            ``train_clean.csv``, such as one without the landmarks of another benchmark; a relative
            name is looked for in ``data_root`` first.
        pipeline: transforms, dicts or callables.
        check_files: whether to see that every image of the split is there, by listing each of the
            4,096 folders once. False saves that; a missing image is then found when it is read.
        on_count_mismatch: what to do where the numbers of training images and landmarks are not
            the official ones, ``'warn'``, ``'raise'`` or ``'ignore'``; not asked for an
            ``ann_file``.
        kwargs: those of :class:`RetrievalDataset`; ``serialize_data`` is False by default.

    Raises:
        FileNotFoundError: a part of the layout, or an image, is missing; the error shows the tree.
        ValueError: an argument is unknown or not for this split, a file is malformed, or the
            solution names images that are not in the gallery.

    Example:
        >>> GoogleLandmarksV2('data', split='train', usage='Public')
        Traceback (most recent call last):
        ValueError: usage='Public' chooses queries; split='train' has none.
    """

    tree = """
data_root/
├── train.csv                      id,url,landmark_id
├── train_clean.csv                landmark_id,images
├── index.csv                      id
├── index_image_to_landmark.csv    id,landmark_id   (optional: labels of the gallery)
├── retrieval_solution_v2.1.csv    id,images,Usage
├── train/                         split='train' and 'train_clean'
│   └── 0/1/2/0123456789abcdef.jpg
├── index/                         split='gallery'
└── test/                          split='query'
"""

    ann_file: str

    def __init__(self, data_root: str | Path, split: str = 'train_clean', usage: str | None = None,
                 ann_file: str | Path = '',
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 check_files: bool = True, on_count_mismatch: str = 'warn', **kwargs: Any) -> None:
        split = _ALIASES.get(split, split)
        if split not in SPLITS:
            raise ValueError(unknown_name('split of GoogleLandmarksV2', split, SPLITS))
        if usage is not None and (usage not in USAGES or split != 'query'):
            raise ValueError(unknown_name('usage', usage, USAGES) if usage not in USAGES else
                             f"usage={usage!r} chooses queries; split={split!r} has none.")
        if ann_file and not split.startswith('train'):
            raise ValueError(f'ann_file lists images for training; split={split!r} has its own.')
        if on_count_mismatch not in ACTIONS:
            raise ValueError(unknown_name('on_count_mismatch', on_count_mismatch, ACTIONS))
        self.split, self.usage, self.check_files = split, usage, check_files
        self.on_count_mismatch = on_count_mismatch
        kwargs.setdefault('serialize_data', False)  # arrays are shared with workers as they are
        super().__init__(ann_file=str(ann_file), data_root=str(data_root), pipeline=pipeline,
                         **kwargs)

    def _join_prefix(self) -> None:
        """Take the list in ``data_root`` where there is one, else the name as it was given."""
        inside = os.path.join(self.data_root, self.ann_file)
        self.ann_file = inside if self.ann_file and os.path.isfile(inside) else self.ann_file

    def load_data_list(self) -> Any:
        """The entries of the split, in the order of its list."""
        if self.split == 'query':
            images, source = self._queries()
        elif self.split == 'gallery':
            images, source = self._gallery()
        else:
            images, source = self._training()
        if self.check_files:
            require_images(source, self.tree, images.paths())
        return list(images) if self.serialize_data else images

    def _file(self, folder: str, *names: str) -> str:
        """The place of the first of the CSV files that is there."""
        places = tuple(f'{parent}{name}' for name in names
                       for parent in ('', f'{folder}/', 'metadata/'))
        return require(self.data_root, self.tree, places)[0]

    def _training(self) -> tuple[ImageTable, str]:
        if self.ann_file and not os.path.isfile(self.ann_file):
            raise FileNotFoundError(f'There is no list {self.ann_file!r} of training images: '
                                    'check `ann_file`.')
        source = self.ann_file or self._file('train', f'{self.split}.csv')
        folder, = require(self.data_root, self.tree, 'train/')
        ids, landmarks = read_training(source, self.tree)
        labels = self._number(landmarks)
        if not self.ann_file:
            found = len(ids), len(self._metainfo['classes'])
            compare_counts(f'GoogleLandmarksV2, split {self.split!r} in {self.data_root!r},',
                           _COUNTS[self.split], found, self.on_count_mismatch)
        return ImageTable(folder, ids, labels), source

    def _number(self, landmarks: np.ndarray) -> np.ndarray:
        """Labels from 0 for ``(N,)`` landmarks; their names become those of the classes."""
        names, labels = np.unique(landmarks, return_inverse=True)
        self._metainfo['classes'] = tuple(map(str, names.tolist()))
        return labels.reshape(-1).astype(np.int64)

    def _index(self) -> tuple[np.ndarray, str]:
        """The ids of the gallery and the file that lists them."""
        source = self._file('index', 'index.csv', 'index_image_to_landmark.csv')
        return read_ids(read_table(source, self.tree, ('id',))['id'], source, self.tree), source

    def _gallery(self) -> tuple[ImageTable, str]:
        folder, = require(self.data_root, self.tree, 'index/')
        ids, source = self._index()
        self.num_judged = len(ids)
        try:
            listed = self._file('index', 'index_image_to_landmark.csv')
        except FileNotFoundError:  # labels are not needed: queries name their relevant rows
            return ImageTable(folder, ids), source
        table = read_table(listed, self.tree, ('id', 'landmark_id'))
        rows = rows_of(ids, read_ids(table['id'], listed, self.tree), listed, self.tree)
        if (rows < 0).any():
            raise malformed(listed, self.tree, f'it has no landmark for {(rows < 0).sum()} of the '
                            f'{len(ids)} images of {source!r}.')
        return ImageTable(folder, ids, self._number(table['landmark_id'].to_numpy()[rows])), source

    def _queries(self) -> tuple[ImageTable, str]:
        """The queries that are not ignored, with the rows of the gallery that are relevant."""
        source = self._file('test', 'retrieval_solution_v2.1.csv')
        folder, = require(self.data_root, self.tree, 'test/')
        gallery, listed = self._index()
        table = read_table(source, self.tree, ('id', 'images', 'Usage'))
        strange = ~table['Usage'].isin((*USAGES, 'Ignored'))
        if strange.any():
            raise malformed(source, self.tree, f'Usage must be Public, Private or Ignored, but '
                            f'{table["Usage"][strange].iloc[0]!r} stands in it.')
        table = table[table['Usage'].isin(USAGES if self.usage is None else (self.usage,))]
        ids = read_ids(table['id'], source, self.tree)
        counts, wanted = split_ids(table['images'], source, self.tree)
        rows = rows_of(wanted, gallery, listed, self.tree)
        if (rows < 0).any():
            first = wanted[rows < 0][0].decode('ascii')
            raise malformed(source, self.tree, f'{(rows < 0).sum()} of the images that it names '
                            f'are not in {listed!r}, the first is {first}.')
        return ImageTable(folder, ids, relevant=np.split(rows, np.cumsum(counts)[:-1])), source

    def _read_labels(self, entries: Any) -> np.ndarray | None:
        return entries.labels if isinstance(entries, ImageTable) else super()._read_labels(entries)


class ImageTable(Sequence[Any]):
    """Entries of images as columns: millions of dicts would take minutes and gigabytes.

    Args:
        folder: where ``a/b/c/abc….jpg`` stand.
        ids: ``(N,)`` bytes of 16 hexadecimal characters.
        labels: ``(N,)`` int64, or None.
        relevant: N arrays of int64, rows of the gallery, or None.
    """

    def __init__(self, folder: str, ids: np.ndarray, labels: np.ndarray | None = None,
                 relevant: Sequence[np.ndarray] | None = None) -> None:
        self.folder, self.ids, self.labels, self.relevant = folder, ids, labels, relevant

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, name: str) -> str:
        """The place of an image in the official folders."""
        return f'{self.folder}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg'

    def paths(self) -> Iterator[str]:
        """The places of all images."""
        return map(self.path, self.ids.astype(str).tolist())

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[each] for each in range(len(self))[row]]
        entry: dict[str, Any] = {'img_path': self.path(self.ids[row].decode('ascii'))}
        if self.labels is not None:
            entry['gt_label'] = int(self.labels[row])
        if self.relevant is not None:
            entry['gt_indices'] = self.relevant[row].tolist()
        return entry


def read_table(path: str, tree: str, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of a CSV file, as text, but ``landmark_id`` as int64.

    Raises:
        ValueError: a column is missing, the file is no CSV in UTF-8, or a landmark is no integer.
    """
    import pandas as pd

    header = _header(path, tree)
    missing = [name for name in columns if name not in header]
    if missing:
        raise malformed(path, tree, f'it has no column {", ".join(missing)}; there are '
                        f'{", ".join(header)}.')
    kinds = {name: 'int64' if name == 'landmark_id' else str for name in columns}
    try:
        return pd.read_csv(path, usecols=list(columns), dtype=kinds, na_filter=False,
                           encoding='utf-8-sig')
    except (ValueError, OverflowError) as error:
        raise malformed(path, tree, f'its rows are not as expected ({error}).') from error


def _header(path: str, tree: str) -> list[str]:
    import pandas as pd

    try:
        return [str(name) for name in pd.read_csv(path, nrows=0, encoding='utf-8-sig').columns]
    except ValueError as error:
        raise malformed(path, tree, f'it is no CSV file in UTF-8 ({error}).') from error


def read_training(path: str, tree: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids ``(N,)`` bytes and landmarks ``(N,)`` int64 of a list in either of the two forms.

    ``train.csv`` has a row for each image, ``train_clean.csv`` one for each landmark, with its
    images between spaces.

    Raises:
        ValueError: it has neither form.
    """
    if 'images' not in _header(path, tree):
        table = read_table(path, tree, ('id', 'landmark_id'))
        return read_ids(table['id'], path, tree), table['landmark_id'].to_numpy()
    table = read_table(path, tree, ('landmark_id', 'images'))
    counts, ids = split_ids(table['images'], path, tree)
    return ids, np.repeat(table['landmark_id'].to_numpy(), counts)


def split_ids(column: pd.Series, path: str, tree: str) -> tuple[np.ndarray, np.ndarray]:
    """How many ids each cell lists ``(N,)``, and all of them ``(M,)`` bytes, one after another.

    Raises:
        ValueError: a cell lists none, or an id is malformed.
    """
    import pandas as pd

    lists = [cell.split() for cell in column.tolist()]
    counts = np.array([len(names) for names in lists], dtype=np.int64)
    if not counts.all():
        raise malformed(path, tree, f'{(counts == 0).sum()} of its rows list no image.')
    names = pd.Series([name for names in lists for name in names], dtype=object)
    return counts, read_ids(names, path, tree)


def read_ids(column: pd.Series, path: str, tree: str) -> np.ndarray:
    """Ids as ``(N,)`` bytes.

    Raises:
        ValueError: there is none, or one that has other than 16 hexadecimal characters.
    """
    texts = column.to_numpy(dtype=object)
    if not len(texts):
        raise malformed(path, tree, 'it lists no image.')
    try:
        ids = texts.astype('S')
        wrong = np.ones(len(ids), dtype=bool)
        if ids.dtype.itemsize == ID_LENGTH:
            wrong = ~_HEXADECIMAL[ids.view(np.uint8).reshape(-1, ID_LENGTH)].all(axis=1)
    except UnicodeEncodeError as error:
        raise malformed(path, tree, f'an id is no ASCII text ({error}).') from error
    if wrong.any():
        at = next(row for row in np.flatnonzero(wrong) if len(texts[row]) != ID_LENGTH or
                  ids.dtype.itemsize == ID_LENGTH)
        raise malformed(path, tree, f'an id has {ID_LENGTH} characters from 0 to f, but the '
                        f'{at + 1}. is {texts[at][:40]!r}.')
    return ids


def rows_of(wanted: np.ndarray, listed: np.ndarray, path: str, tree: str) -> np.ndarray:
    """The row of each of the ``wanted`` ids ``(M,)`` in the ``listed`` ``(N,)``, -1 for none.

    Args:
        path: the file that lists, for the error.

    Raises:
        ValueError: an id is listed twice.
    """
    import pandas as pd

    index = pd.Index(_numbers(listed))
    if not index.is_unique:
        twice = listed[index.duplicated()][0].decode('ascii')
        raise malformed(path, tree, f'the id {twice} stands in it more than once.')
    return index.get_indexer(pd.Index(_numbers(wanted))).astype(np.int64)


def _numbers(ids: np.ndarray) -> np.ndarray:
    """Ids of 16 hexadecimal characters as uint64, which compare faster than text."""
    values = np.zeros(256, dtype=np.uint8)
    values[np.frombuffer(b'0123456789abcdef', np.uint8)] = np.arange(16)
    digits = values[ids.view(np.uint8).reshape(-1, ID_LENGTH)]
    pairs = digits[:, ::2] << 4 | digits[:, 1::2]
    return np.ascontiguousarray(pairs).view('>u8').reshape(-1).astype(np.uint64)

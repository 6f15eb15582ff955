"""Revisited Oxford and Paris: buildings in three degrees of difficulty."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...image_files import find_images
from ...registry import DATASETS, unknown_name
from .base import JudgedRowsDataset
from .layout import malformed, read_rows, require, require_images
from .plain_pickle import NotPlainError, load_plain_pickle

LISTS = ('gt_easy', 'gt_hard', 'gt_junk')
_TREE = """
{name}/                 <- data_root, or a folder that holds it (as DATA_ROOT/datasets/{name}/)
├── gnd_{name}.pkl      the ground truth of the revisited benchmark
└── jpg/
    ├── {first}.jpg
    └── ...
"""


class RevisitedDataset(JudgedRowsDataset):
    """The base of the two datasets; see :class:`RevisitedOxford`."""

    metadata_keys = LISTS
    name: ClassVar[str]
    tree: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ('query', 'gallery')

    def __init__(self, data_root: str | Path, split: str = 'query',
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 distractors: str | Path | Sequence[str | Path] | None = None,
                 check_files: bool = True, **kwargs: Any) -> None:
        if split not in self.splits:
            raise ValueError(unknown_name(f'split of {type(self).__name__}', split, self.splits)
                             + ' There is no set for training: train on another dataset.')
        if distractors is not None and split != 'gallery':
            raise ValueError("distractors stand behind the images of split='gallery'; split="
                             f'{split!r} has none.')
        self.split = split
        self.distractors = [distractors] if isinstance(distractors, (str, os.PathLike)) else \
            list(distractors or ())
        self.check_files = check_files
        super().__init__(data_root=str(data_root), pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image, in the order of the ground truth, then the distractors."""
        source, folder = (require(self.data_root, self.tree, tuple(
            f'{parent}{path}' for parent in ('', f'{self.name}/', f'datasets/{self.name}/')))[0]
            for path in (f'gnd_{self.name}.pkl', 'jpg/'))
        truth = read_ground_truth(source, self.tree)
        names = truth['qimlist' if self.split == 'query' else 'imlist']
        paths = [os.path.join(folder, f'{name}.jpg') for name in names]
        if self.check_files:
            require_images(source, self.tree, paths)
        entries: list[dict[str, Any]] = [{'img_path': path} for path in paths]
        if self.split == 'query':
            for entry, judged in zip(entries, truth['gnd'], strict=True):
                entry.update(judged)
        self.num_judged = len(entries)
        return entries + [{'img_path': path} for place in self.distractors
                          for path in self._distractors(os.fspath(place))]

    def _distractors(self, place: str) -> list[str]:
        """The images of a folder of distractors, by its list where it has the official one."""
        inside = os.path.join(self.data_root, place)
        root = os.path.normpath(inside if os.path.isdir(inside) else place)
        listed = os.path.join(root, f'{os.path.basename(os.path.abspath(root))}.txt')
        if not os.path.isfile(listed):
            paths = find_images(root)
            if not paths:
                raise ValueError(f'The folder of distractors {root!r} holds no images.')
            return paths
        tree = f'{root}/\n├── {os.path.basename(listed)}   one image a line, below jpg/\n└── jpg/'
        folder, = require(root, tree, 'jpg/')
        paths = [os.path.join(folder, name) for name, in read_rows(listed, tree, 1)]
        if self.check_files:
            require_images(listed, tree, paths)
        return paths

    @property
    def metadata(self) -> dict[str, list[Any]]:
        """None: the lists of a query are no columns of a gallery."""
        return {}


def read_ground_truth(path: str, tree: str) -> dict[str, Any]:
    """The ground truth of the revisited benchmark, checked.

    Args:
        path: a pickle with ``imlist`` and ``qimlist``, names without ending, and ``gnd``, for each
            query a dict with ``bbx`` and the rows ``easy``, ``hard`` and ``junk`` of ``imlist``.
        tree: the folder as a text, for errors.

    Returns:
        ``imlist`` and ``qimlist``, and ``gnd``, for each query its ``box``, ``gt_easy``,
        ``gt_hard``, ``gt_junk`` and ``gt_indices``, the first two together.

    Raises:
        ValueError: it is no plain pickle, or holds something else.
    """
    try:
        truth = load_plain_pickle(path)
    except NotPlainError as error:
        raise malformed(path, tree, f'{error}.') from error
    if not isinstance(truth, dict) or not {'imlist', 'qimlist', 'gnd'} <= set(truth):
        raise malformed(path, tree, "it must be a dict with 'imlist', 'qimlist' and 'gnd'.")
    for key in ('imlist', 'qimlist'):
        names = truth[key] = list(truth[key]) if isinstance(truth[key], (list, tuple)) else []
        strange = [name for name in names
                   if not isinstance(name, str) or name != os.path.basename(name) or not name]
        if strange or len(set(names)) < len(names) or not names:
            what = f'{strange[0]!r}' if strange else 'nothing, or a name twice'
            raise malformed(path, tree, f'{key!r} must list names of images; it holds {what}.')
    queries = truth['gnd']
    if not isinstance(queries, (list, tuple)) or len(queries) != len(truth['qimlist']):
        raise malformed(path, tree, "'gnd' must have one entry for each name in 'qimlist'.")
    try:
        judged = [_judged(query, len(truth['imlist'])) for query in queries]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise malformed(path, tree, "each entry of 'gnd' must have a box 'bbx' and the rows "
                        f"'easy', 'hard' and 'junk' of 'imlist' ({error}).") from error
    return {'imlist': truth['imlist'], 'qimlist': truth['qimlist'], 'gnd': judged}


def _judged(query: dict[str, Any], num_rows: int) -> dict[str, Any]:
    """The entry of one query. Raises KeyError, TypeError, ValueError or OverflowError."""
    # rounded as Pillow does it in the official program, so that the same pixels are cut out
    box = np.asarray(query['bbx'], float).ravel().tolist()
    left, top, right, bottom = map(round, box)
    if left >= right or top >= bottom:
        raise ValueError(f'the box {(left, top, right, bottom)} is empty')
    entry: dict[str, Any] = {'box': (left, top, right, bottom)}
    for key in LISTS:
        rows = query[key.removeprefix('gt_')]
        rows = rows.ravel().tolist() if isinstance(rows, np.ndarray) else list(rows)
        if not all(type(row) is int and 0 <= row < num_rows for row in rows):
            raise ValueError(f'{key.removeprefix("gt_")!r} must hold rows from 0 to {num_rows - 1}')
        entry[key] = rows
    entry['gt_indices'] = sorted({*entry['gt_easy'], *entry['gt_hard']})
    return entry


@DATASETS.register_module()
class RevisitedOxford(RevisitedDataset):
    """Revisited Oxford (Radenović et al., Revisiting Oxford and Paris, CVPR 2018).

    Officially there are 70 queries and 4,993 images in the gallery, among which the queries'
    pictures are not. A million distractors, ``revisitop1m``, may stand behind.

    A query is cut to its ``box``, which is part of its identity; a picture is known by its path.
    The metainfo of a query lists rows of the gallery: ``gt_easy``, ``gt_hard`` and ``gt_junk``;
    ``gt_indices`` are the easy and hard ones, relevant in the medium protocol. There are no
    labels.

    The ground truth is a pickle. Only plain data is read from it, so a manipulated file cannot
    run code.

    Args:
        data_root: the folder with ``gnd_roxford5k.pkl`` and ``jpg/``, or one that holds
            ``roxford5k/`` or ``datasets/roxford5k/``, as the authors' programs make them.
        split: ``'query'`` or ``'gallery'``.
        pipeline: transforms, dicts or callables; ``LoadImage`` cuts out the box.
        distractors: a folder, or several, of further images for the gallery; a relative name is
            looked for in ``data_root`` first. Where a folder has the official list
            (``revisitop1m/revisitop1m.txt`` beside ``revisitop1m/jpg/``) that counts, else all
            images in it, sorted by path.
        check_files: whether to see that every image that a list names is there. False saves the
            time with a million distractors; a missing image is then found when it is read.
        kwargs: those of :class:`RetrievalDataset`. With ``on_unreadable='skip'`` only distractors
            are left out, since the others have their rows.

    Raises:
        FileNotFoundError: a file or folder, or images that the ground truth names, are missing.
        ValueError: the split is unknown, or the ground truth is refused or malformed.

    Example:
        >>> RevisitedOxford.splits
        ('query', 'gallery')
    """

    name = 'roxford5k'
    tree = _TREE.format(name=name, first='all_souls_000013')


@DATASETS.register_module()
class RevisitedParis(RevisitedDataset):
    """Revisited Paris (Radenović et al., Revisiting Oxford and Paris, CVPR 2018).

    Officially there are 70 queries and 6,322 images in the gallery. Everything else is as in
    :class:`RevisitedOxford`, with ``gnd_rparis6k.pkl`` and folders of the name ``rparis6k``.

    Example:
        >>> RevisitedParis.splits
        ('query', 'gallery')
    """

    name = 'rparis6k'
    tree = _TREE.format(name=name, first='paris_defense_000605')

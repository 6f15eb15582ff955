"""The official layouts of datasets: what is missing or malformed becomes one error with the tree.

A dataset writes down its folder as a text, its *tree*, and hands it to these functions; every error
ends in it.

What the benchmarks in their official layouts share: splits, labels from 0, checks, counts.

What datasets for re-identification share: identity and camera stand in the names of files.

Datasets whose ground truth names images of the gallery by their rows.
"""
from __future__ import annotations

import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from mmengine.logging import print_log

from ...registry import unknown_name
from ..base import RetrievalDataset
from ..image_io import UnreadableImageError

ACTIONS = ('warn', 'raise', 'ignore')


def _with_tree(message: str, tree: str) -> str:
    return f'{message}\nExpected is:\n\n{tree.strip()}\n'


def _find(root: str, wanted: str | Sequence[str]) -> str | None:
    """The first of the names that is there, joined with ``root``."""
    for name in [wanted] if isinstance(wanted, str) else wanted:
        path = os.path.join(root, name)
        if os.path.isdir(path) if name.endswith('/') else os.path.isfile(path):
            return os.path.normpath(path)
    return None


def _elsewhere(root: str, wanted: Sequence[str | Sequence[str]]) -> str:
    """A hint where a folder inside, or the one above, holds all that is wanted."""
    inside = sorted(entry.path for entry in islice(os.scandir(root), 1000) if entry.is_dir())
    for folder in (*inside, os.path.dirname(os.path.abspath(root))):
        if all(_find(folder, names) for names in wanted):
            return f' They are in {folder!r}: give that as data_root.'
    return ''


def require(root: str | os.PathLike, tree: str, *paths: str | Sequence[str]) -> list[str]:
    """The places of what a dataset needs: all of them, or one error that says what is missing.

    Args:
        root: the dataset's folder, its ``data_root``.
        tree: the expected folder as a text, which the error shows.
        paths: names relative to ``root``. One that ends in ``/`` is a folder. Of several in a tuple
            any will do, and the first that is there is taken.

    Returns:
        One normal path for each of ``paths``, ``root`` included.

    Raises:
        FileNotFoundError: ``root`` or one of ``paths`` is not there. All that are missing are
            named, and the folder beside that has them, where there is one.
    """
    root = os.fspath(root)
    if not root:
        raise FileNotFoundError(_with_tree('No data_root is given, the folder of the dataset.',
                                           tree))
    if not os.path.isdir(root):
        kind = 'is a file' if os.path.exists(root) else 'does not exist'
        raise FileNotFoundError(_with_tree(f'The data_root {root!r} {kind}; the folder of the '
                                           'dataset is wanted.', tree))
    found = [_find(root, wanted) for wanted in paths]
    missing = [wanted if isinstance(wanted, str) else ' or '.join(wanted)
               for wanted, path in zip(paths, found, strict=True) if path is None]
    if missing:
        verb = 'is' if len(missing) == 1 else 'are'
        raise FileNotFoundError(_with_tree(
            f'In the data_root {root!r} {verb} missing: {", ".join(missing)}.'
            f'{_elsewhere(root, paths)}', tree))
    return [path for path in found if path is not None]


def malformed(path: str, tree: str, problem: str) -> ValueError:
    """The error for a file that is there, but does not hold what it should; to be raised."""
    return ValueError(_with_tree(f'{path!r} is not the official file: {problem}', tree))


def read_rows(path: str, tree: str, columns: int, header: Sequence[str] | None = None,
              counted: bool = False) -> list[list[str]]:
    """The rows of a text file whose cells stand between white space; empty lines are left out.

    Args:
        path: the file, in UTF-8.
        tree: as in :func:`require`.
        columns: how many cells each row has.
        header: what the first row must hold; it is not returned.
        counted: the first line, before the header, says how many rows there are.

    Raises:
        ValueError: the header, the number of rows or of cells in one, or the encoding is another,
            or there is no row; with the number of the first wrong line.
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            lines = [(number, line.split()) for number, line in enumerate(file, 1)]
    except UnicodeDecodeError as error:
        raise malformed(path, tree, f'it is no text in UTF-8 ({error}).') from error
    lines = [(number, cells) for number, cells in lines if cells]
    count = lines.pop(0)[1] if counted and lines else None
    if header is not None:
        first = lines.pop(0)[1] if lines else []
        if first != list(header):
            raise malformed(path, tree, f'its header must be {" ".join(header)!r}, but it is '
                            f'{" ".join(first)[:100]!r}.')
    for number, cells in lines:
        if len(cells) != columns:
            raise malformed(path, tree, f'line {number} has {len(cells)} cells and not {columns}: '
                            f'{" ".join(cells)[:100]!r}.')
    if not lines:
        raise malformed(path, tree, 'it lists nothing.')
    if count is not None and count != [str(len(lines))]:
        raise malformed(path, tree, f'its first line must be the number of rows, {len(lines)}, but '
                        f'it is {" ".join(count)[:100]!r}; is the file cut off?')
    return [cells for _, cells in lines]


def read_numbers(path: str, tree: str, columns: int) -> list[list[float]]:
    """The rows of a text file of finite numbers; else as :func:`read_rows`."""
    rows = read_rows(path, tree, columns)
    try:
        numbers = [[float(cell) for cell in cells] for cells in rows]
    except ValueError as error:
        raise malformed(path, tree, f'numbers are wanted in it ({error}).') from error
    wrong = [cells for cells, row in zip(rows, numbers, strict=True)
             if not all(math.isfinite(number) for number in row)]
    if wrong:
        raise malformed(path, tree, f'a number is not finite: {" ".join(wrong[0])!r}.')
    return numbers


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that are no files, in order.

    Reads each folder once, which is much faster than to ask for each file where storage is far
    away; only what is not listed is asked for.
    """
    paths = list(paths)
    by_folder: dict[str, set[str]] = defaultdict(set)
    for folder in {os.path.dirname(path) for path in paths}:
        if os.path.isdir(folder or '.'):
            with os.scandir(folder or '.') as listed:
                by_folder[folder] = {entry.name for entry in listed if entry.is_file()}
    return [path for path in paths
            if os.path.basename(path) not in by_folder[os.path.dirname(path)]
            and not os.path.isfile(path)]


def require_images(source: str, tree: str, paths: Iterable[str],
                   option: str = 'check_files=False') -> None:
    """Raise one error where ``source``, the annotation file, names images that are not there.

    Args:
        source: the file that names them.
        tree: as in :func:`require`.
        paths: the images, ``data_root`` included.
        option: how the user switches the check off; the error says so.

    Raises:
        FileNotFoundError: how many are missing, and the first of them.
    """
    paths = list(paths)
    missing = missing_files(paths)
    if missing:
        raise FileNotFoundError(_with_tree(
            f'{source!r} names {len(paths)} images, of which {len(missing)} are not there; the '
            f'first is {missing[0]!r}. Unpack the images, or pass {option} to find out only when '
            'one is read.', tree))


def compare_counts(owner: str, expected: tuple[int, int], found: tuple[int, int],
                   action: str) -> None:
    """Compare the numbers of images and of classes with the official ones.

    Args:
        owner: the dataset and its split, for the message.
        expected: the official ``(images, classes)``.
        found: those that were loaded.
        action: what to do where they differ, ``'warn'``, ``'raise'`` or ``'ignore'``.

    Raises:
        ValueError: they differ and ``action`` is ``'raise'``, or it is none of the three.
    """
    if action not in ACTIONS:
        raise ValueError(unknown_name('on_count_mismatch', action, ACTIONS))
    if action == 'ignore' or tuple(expected) == tuple(found):
        return
    message = (f'{owner} has {found[0]:,} images of {found[1]:,} classes; officially there are '
               f'{expected[0]:,} images of {expected[1]:,} classes. Figures of this copy are not '
               "comparable with those that are published. on_count_mismatch='ignore' is silent, "
               "'raise' refuses.")
    if action == 'raise':
        raise ValueError(message)
    print_log(message, logger='current', level=logging.WARNING)


@dataclass
class Listing:
    """What the official files say about one split.

    Args:
        source: the file that names the images, for messages.
        entries: one dict an image, as :class:`RetrievalDataset` wants them, but for ``gt_label``,
            which is the class as the files call it.
        classes: the names of all classes that share one numbering, by what the files call them, in
            the order of their labels.
    """

    source: str
    entries: list[dict]
    classes: Mapping[Any, str]


class BenchmarkDataset(RetrievalDataset):
    """A benchmark, read from the files that its authors give out.

    A subclass sets :attr:`tree`, :attr:`splits` and :attr:`counts`, and implements :meth:`read`.

    Args:
        data_root: the folder of the dataset; what stands in it is the subclass's :attr:`tree`.
        split: one of the subclass's :attr:`splits`.
        pipeline: transforms, dicts or callables.
        check_files: whether to see that every image of the split is there, by listing each folder
            once. False saves that, and a missing image is found when it is read.
        on_count_mismatch: what to do where the numbers of images and classes are not the official
            ones, ``'warn'``, ``'raise'`` or ``'ignore'``.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        FileNotFoundError: a file of the layout, or an image that it names, is missing; the error
            shows the tree.
        ValueError: a file is malformed, ``split`` or ``on_count_mismatch`` is unknown, or the
            counts differ and ``on_count_mismatch`` is ``'raise'``.
    """

    tree: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ('train', 'test')
    counts: ClassVar[dict[str, tuple[int, int]]]  # split: (images, classes)

    def __init__(self, data_root: str | Path, split: str = 'train',
                 pipeline: Sequence[dict | Callable] | None = (), check_files: bool = True,
                 on_count_mismatch: str = 'warn', **kwargs: Any) -> None:
        if split not in self.splits:
            raise ValueError(unknown_name(f'split of {type(self).__name__}', split, self.splits))
        if on_count_mismatch not in ACTIONS:
            raise ValueError(unknown_name('on_count_mismatch', on_count_mismatch, ACTIONS))
        self.split = split
        self.check_files = check_files
        self.on_count_mismatch = on_count_mismatch
        super().__init__(data_root=str(data_root), pipeline=pipeline, **kwargs)

    def read(self) -> Listing:
        """What the official files say about ``self.split``."""
        raise NotImplementedError(f'{type(self).__name__} implements read().')

    def load_data_list(self) -> list[dict]:
        """One entry an image of the split, in the order of the official file."""
        listing = self.read()
        if not listing.entries:
            raise malformed(listing.source, self.tree,
                            f'it has no image for split {self.split!r}.')
        if self.check_files:
            require_images(listing.source, self.tree,
                           [entry['img_path'] for entry in listing.entries])
        label_of = {name: label for label, name in enumerate(listing.classes)}
        for entry in listing.entries:
            entry['gt_label'] = label_of[entry['gt_label']]
        self._metainfo['classes'] = tuple(listing.classes.values())
        found = len(listing.entries), len({entry['gt_label'] for entry in listing.entries})
        compare_counts(f'{type(self).__name__}, split {self.split!r} in {self.data_root!r},',
                       self.counts[self.split], found, self.on_count_mismatch)
        return listing.entries


class ReidentificationDataset(BenchmarkDataset):
    """Images of identities, each seen by a camera.

    A subclass sets the attributes below and implements :meth:`list_images`. Labels count from 0 by
    rising identity: once over the images for training, and once over queries and gallery together,
    so that the two agree. A class is called by its identity, in four digits.

    Args:
        split: ``'train'``, ``'query'`` or ``'gallery'``.
        data_root, pipeline, check_files, on_count_mismatch, kwargs: see
            :class:`BenchmarkDataset`, which says what is raised too.
    """

    splits = ('train', 'query', 'gallery')
    pattern: ClassVar[re.Pattern]  # of a file's name, with the groups `identity` and `camera`
    example: ClassVar[str]

    def list_images(self, split: str) -> tuple[str, list[str]]:
        """What lists the images of a split, and their paths in order."""
        raise NotImplementedError(f'{type(self).__name__} implements list_images().')

    def parse(self, path: str) -> dict:
        """The entry of an image: ``gt_label``, its identity, and the pattern's other groups.

        Raises:
            ValueError: the name of the file is no official one.
        """
        found = self.pattern.fullmatch(os.path.basename(path))
        if found is None:
            raise malformed(path, self.tree, f'images are called as in {self.example}.')
        values = {name: int(text) for name, text in found.groupdict().items()}
        return {'img_path': path, 'gt_label': values.pop('identity'), **values}

    def keeps(self, entry: dict) -> bool:
        """Whether an image belongs to the dataset at all."""
        return True

    def _entries_of(self, split: str) -> tuple[str, list[dict]]:
        source, paths = self.list_images(split)
        return source, [entry for entry in map(self.parse, paths) if self.keeps(entry)]

    def read(self) -> Listing:
        """The images of the split, and the identities that share its numbering."""
        source, entries = self._entries_of(self.split)
        identities = {entry['gt_label'] for entry in entries}
        if self.split != 'train':
            _, others = self._entries_of('gallery' if self.split == 'query' else 'query')
            identities |= {entry['gt_label'] for entry in others}
        return Listing(source, entries, {identity: f'{identity:04d}'
                                         for identity in sorted(identities)})


class JudgedRowsDataset(RetrievalDataset):
    """A dataset with ``split='gallery'``, whose queries list rows of that gallery.

    Those rows have to stay where they are: an image is not skipped for being unreadable, and the
    gallery is not cut by ``indices``.

    Attributes:
        num_judged: how many rows, from the first, the ground truth is about.
    """

    split: str
    num_judged: int = 0

    def full_init(self) -> None:
        """Read the annotations. Raises ValueError for ``indices`` of a gallery."""
        if self.split == 'gallery' and self._indices is not None:
            raise ValueError(f"{type(self).__name__} with split='gallery' cannot be cut by "
                             'indices: the ground truth of the queries names its rows.')
        super().full_init()

    def prepare_data(self, idx: int) -> dict:
        """Run the pipeline on one image.

        Raises:
            UnreadableImageError: the image cannot be read, and it may not be skipped.
        """
        data = super().prepare_data(idx)
        if self.on_unreadable == 'raise' or self.split != 'gallery' or idx >= self.num_judged:
            return data
        reason = data['data_samples'].get('unreadable', None)
        if reason:
            raise UnreadableImageError(f'{reason} It cannot be skipped: the ground truth names '
                                       'images of this gallery by their rows, which would shift.')
        return data

"""Folders of images: one folder a class, or a bare list of images."""
from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from ..checks import real_number
from ..image_files import EXTENSIONS, describe_passed_over, is_hidden, list_images
from ..image_io import as_image_array
from ..registry import DATASETS, unknown_name
from .base import RetrievalDataset

SPLITS = ('train', 'test')


def split_classes(names: Sequence[str], split: str, test_share: float = 0.5,
                  seed: int = 0) -> list[str]:
    """The class names of one split, sorted; no class is in both.

    The names are ordered by the SHA-256 of ``'{seed}:{name}'`` and the first
    ``round(test_share * len(names))`` are for testing, at least one in each split. So the split is
    the same on every machine, and a class that is added moves few others.

    Raises:
        ValueError: an unknown split, a share outside (0, 1), or fewer than two classes.

    Example:
        >>> names = ['a', 'b', 'c', 'd']
        >>> split_classes(names, 'train'), split_classes(names, 'test')
        (['b', 'c'], ['a', 'd'])
    """
    if split not in SPLITS:
        raise ValueError(unknown_name('split', split, SPLITS) + ' None takes all classes.')
    real_number('test_share', test_share, above=0, below=1)
    if len(names) < 2:
        raise ValueError(f'{len(names)} class cannot be split into train and test: at least two '
                         'are needed. Leave `split` out to take all.')
    order = sorted(names, key=lambda name: sha256(os.fsencode(f'{seed}:{name}')).digest())
    tests = min(max(round(test_share * len(names)), 1), len(names) - 1)
    return sorted(order[:tests] if split == 'test' else order[tests:])


def _besides(passed_over: Counter[str]) -> str:
    return f' Passed over: {describe_passed_over(passed_over)}.' if passed_over else ''


def _say_passed_over(folder: str, passed_over: Counter[str]) -> None:
    if passed_over:
        print_log(f'{folder!r}: passed over {describe_passed_over(passed_over)}.',
                  logger='current', level=logging.WARNING)


@DATASETS.register_module()
class ImageFolder(RetrievalDataset):
    """One folder a class.

    A class is a folder directly in ``data_root``; images in it, however deep, belong to it, and
    links to folders are followed. Hidden files and folders are left out, as are those that file
    servers and archives add (``@eaDir``, ``#recycle``, ``lost+found``, …); what else is passed over
    is counted in a warning. Labels count from 0 in the order of the sorted class names,
    which are kept as ``label_names``. A picture's identity is its path.

    Args:
        data_root: the folder of the class folders.
        split: ``'train'`` or ``'test'`` takes a part of the classes, see :func:`split_classes`;
            None takes all.
        test_share: the share of the classes that is for testing.
        seed: decides which.
        extensions: what image files end in, whatever the case.
        classes: the class names in the order of their labels. Two folders whose labels must agree
            (queries and gallery) need the same list; without it each counts its own. With a
            ``split`` the list is split.
        pipeline: transforms, dicts or callables.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no images, no class folders, or a class that ``classes`` does not name.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ('cat', 'dog'):
        ...     (root / name).mkdir()
        ...     Image.new('L', (2, 2)).save(root / name / '0.png')
        >>> dataset = ImageFolder(root)
        >>> dataset.label_names, dataset.labels.tolist()
        (['cat', 'dog'], [0, 1])
    """

    def __init__(self, data_root: str, split: str | None = None, test_share: float = 0.5,
                 seed: int = 0, extensions: Sequence[str] = EXTENSIONS,
                 classes: Sequence[str] | None = None,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 **kwargs: Any) -> None:
        if split is not None and split not in SPLITS:
            raise ValueError(unknown_name('split', split, SPLITS) + ' None takes all classes.')
        self.split = split
        self.test_share = test_share
        self.seed = seed
        self.extensions = tuple(extensions)
        self.classes = None if classes is None else [str(name) for name in classes]
        super().__init__(data_root=data_root, pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image, class by class."""
        by_class = self._images_by_class()
        names = self.classes or sorted(by_class)
        stray = sorted(set(by_class) - set(names))
        if stray:
            raise ValueError(f'{self.data_root!r} has a class folder {stray[0]!r} '
                             f'({len(stray)} in all) that `classes` does not name.')
        if self.split is not None:
            names = [name for name in names if name in set(
                split_classes(names, self.split, self.test_share, self.seed))]
        self._metainfo['classes'] = tuple(names)
        return [{'img_path': path, 'gt_label': label} for label, name in enumerate(names)
                for path in by_class.get(name, ())]

    def _images_by_class(self) -> dict[str, list[str]]:
        root = os.path.normpath(self.data_root) if self.data_root else ''
        if not os.path.isdir(root):
            list_images(root)  # raises what fits
        names = sorted(name for name in os.listdir(root) if not name.startswith('.'))
        folders = [name for name in names if os.path.isdir(os.path.join(root, name))]
        passed_over = Counter(f'{name}/' for name in folders if is_hidden(name))
        by_class = {}
        for name in folders:
            if not is_hidden(name):
                by_class[name], others = list_images(os.path.join(root, name), self.extensions)
                passed_over += others
        endings = tuple(ending.lower() for ending in self.extensions)
        loose = [name for name in names if name not in folders and name.lower().endswith(endings)]
        empty = [name for name, paths in by_class.items() if not paths]
        if len(empty) == len(by_class):
            raise ValueError(self._no_images(root, bool(loose)) + _besides(passed_over))
        _say_passed_over(root, passed_over)
        if empty or loose:
            print_log(f'ImageFolder {root!r}: left out are {len(empty)} class folders without '
                      f'images {empty[:3]} and {len(loose)} images outside of class folders '
                      f'{loose[:3]}.', logger='current', level=logging.WARNING)
        return {name: paths for name, paths in by_class.items() if paths}

    def _no_images(self, root: str, loose: bool) -> str:
        if loose:
            return (f'The folder {root!r} holds images but no class folders. ImageFolder wants one '
                    'folder a class; for images without classes write '
                    f"dict(type='retrieval.ImageList', images={root!r}).")
        return (f'The folder {root!r} holds no images: files that end in '
                f'{", ".join(self.extensions)} are looked for.')


@DATASETS.register_module()
class ImageList(RetrievalDataset):
    """Images without labels: a folder, or a list of paths and pictures.

    The identity of a file is its path; that of an array is a digest of its pixels, so that two
    calls agree on the same picture and on nothing else.

    Args:
        images: a folder (with sub-folders), a file, or a list of files, folders, arrays
            ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)`` uint8 in RGB, and Pillow images.
        extensions: what image files in folders end in.
        pipeline: transforms, dicts or callables.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no image, or an array of another shape.
        TypeError: an entry is no path and no picture.

    Example:
        >>> dataset = ImageList([np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8)])
        >>> len(dataset), dataset.labels
        (2, None)
    """

    def __init__(self, images: str | Path | np.ndarray | Image.Image | Sequence[Any],
                 extensions: Sequence[str] = EXTENSIONS,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 **kwargs: Any) -> None:
        single = isinstance(images, (str, os.PathLike, Image.Image)) or (
            isinstance(images, np.ndarray) and images.ndim <= 3)
        self.images = [images] if single else list(images)  # type: ignore[arg-type]
        self.extensions = tuple(extensions)
        super().__init__(pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry an image, in the order given; folders in sorted order."""
        if not self.images:
            raise ValueError('ImageList got no images: give a folder, files, or arrays.')
        entries: list[dict[str, Any]] = []
        seen: dict[str, int] = {}
        for position, image in enumerate(self.images):
            if isinstance(image, (str, os.PathLike)):
                entries += [{'img_path': path} for path in self._files(os.fspath(image))]
            else:
                entries.append(self._picture(image, position, seen))
        self.images = []  # the entries hold them now
        return entries

    def _files(self, path: str) -> list[str]:
        if os.path.isdir(path):
            found, passed_over = list_images(path, self.extensions)
            if not found:
                raise ValueError(f'The folder {path!r} holds no images: files that end in '
                                 f'{", ".join(self.extensions)} are looked for.'
                                 f'{_besides(passed_over)}')
            _say_passed_over(path, passed_over)
            return found
        if not os.path.lexists(path):  # what a link leads to is seen when it is opened
            raise FileNotFoundError(f'There is no image or folder {path!r}: check the path.')
        return [path]

    @staticmethod
    def _picture(image: Any, position: int, seen: dict[str, int]) -> dict[str, Any]:
        array = np.ascontiguousarray(as_image_array(image, f'image at position {position}'))
        digest = sha256(str(array.shape).encode() + array.tobytes()).hexdigest()[:24]
        seen[digest] = seen.get(digest, 0) + 1
        copies = f'-{seen[digest]}' if seen[digest] > 1 else ''
        return {'img': array, 'sample_id': f'pixels-{digest}{copies}'}

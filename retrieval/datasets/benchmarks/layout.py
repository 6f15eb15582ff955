"""Official layouts: what of a dataset's folder is missing or malformed becomes one error.

A dataset writes down its folder as a text, its *tree*, and hands it to these functions; every error
ends in it.
"""
from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice


def require(root: str | os.PathLike[str], tree: str, *paths: str | Sequence[str]) -> list[str]:
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

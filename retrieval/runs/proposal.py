"""A config for pictures of one's own, proposed after a look at them."""
from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..registry import unknown_name

if TYPE_CHECKING:
    import pandas as pd

SMALL = 160  # px; pictures of a shorter edge up to it are trained on at 96 px, larger ones at 224
_LOOKED_AT = 200  # pictures whose size is read
_SPLITS = {'train': ('train', 'training'), 'test': ('test', 'val', 'valid', 'validation')}
_PATHS = ('path', 'image', 'img', 'img_path', 'image_path', 'file', 'filename', 'file_name')
_LABELS = ('label', 'class', 'category', 'target', 'class_name', 'product', 'sku')


@dataclass
class Proposal:
    """A config, and what was seen on which it rests.

    Args:
        config: its text.
        seen: what was seen, by name, as JSON can hold it.
        warnings: sentences on what will be a problem.
        table: of a CSV that had to be completed, the completed one as text; the config names it.
    """

    config: str
    seen: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    table: str | None = None


def propose(source: str | os.PathLike[str], table_name: str = '', path_column: str | None = None,
            label_column: str | None = None, test_share: float = 0.5,
            data_root: str | os.PathLike[str] | None = None) -> Proposal:
    """Look at a folder or a table, and propose a config for it.

    Args:
        source: a folder with one folder a class, or with ``train`` and ``test`` that have such
            folders; or a CSV file.
        table_name: where a table will be written that had to be completed.
        path_column, label_column: of a table, where they are not called as usual.
        test_share: the share of the classes that is kept for testing.
        data_root: where the relative paths of a table start; by default in its folder.

    Raises:
        FileNotFoundError: there is no such folder or file, or none of the pictures that it lists.
        ValueError: it holds no classes of pictures, or too few to train and to test.
    """
    if os.path.isdir(source):
        if path_column or label_column or data_root is not None:
            raise ValueError('A folder has no columns and no other root: --path, --label and '
                             '--data-root are for a table.')
        return _of_folder(os.path.abspath(source), test_share)
    if not os.path.isfile(source):
        raise FileNotFoundError(f'There is no folder or table {os.fspath(source)!r}.')
    file = os.path.abspath(source)
    root = os.path.dirname(file) if data_root is None else os.path.abspath(data_root)
    return _of_table(file, root, table_name, path_column, label_column, test_share)


def _of_folder(root: str, test_share: float) -> Proposal:
    from ..datasets import ImageFolder

    below = {name.lower(): name for name in sorted(os.listdir(root))
             if os.path.isdir(os.path.join(root, name))}
    parts = {part: next((below[name] for name in names if name in below), None)
             for part, names in _SPLITS.items()}
    split = all(parts.values())
    sets = {part: ImageFolder(os.path.join(root, str(parts[part]))) if split else
            ImageFolder(root, split=part, test_share=test_share) for part in _SPLITS}
    seen, warnings = _seen(*((one.sample_ids, _named(one)) for one in sets.values()))
    seen |= dict(source=root, split='by its folders' if split else
                 f'by class, {test_share:g} of them for testing')
    share = '' if test_share == 0.5 or split else f', test_share={test_share:g}'
    lines = [f'data_root = {root!r}']
    if split:
        lines += [f"train_set = dict(data_root=data_root + '/{parts['train']}', split=None)",
                  f"test_set = dict(data_root=data_root + '/{parts['test']}', split=None)"]
    else:
        lines += [f'train_set = test_set = dict(data_root=data_root{share})']
    return Proposal(_text(seen, 'image_folder', lines), seen, warnings)


def _of_table(file: str, root: str, table_name: str, path_column: str | None,
              label_column: str | None, test_share: float) -> Proposal:
    import pandas as pd

    from ..datasets import CSVDataset
    from ..datasets.image_folder import split_classes
    from ..labels import written

    given = pd.read_csv(file, dtype=object, keep_default_na=False, encoding='utf-8-sig')
    given.columns = [written(str(name)) for name in given.columns]
    table = given.copy()
    for wanted, own, usual in (('path', path_column, _PATHS), ('label', label_column, _LABELS)):
        found = _column(given, wanted, own, usual)
        if found != wanted:
            table = table.drop(columns=[wanted], errors='ignore').rename(columns={found: wanted})
    proposed = 'split' not in table
    if proposed:
        names = [written(name) for name in table['label']]
        tested = set(split_classes(sorted(set(names)), 'test', test_share))
        table['split'] = ['test' if name in tested else 'train' for name in names]
    changed = not table.equals(given)
    splits = {str(name).strip().lower() for name in table['split']}
    both = 'test' in splits and bool(splits & {'val', 'valid', 'validation'})
    text = table.to_csv(index=False) if changed else None
    if text is None:
        checked = CSVDataset(file, root, 'train'), CSVDataset(
            file, root, 'query', 'validation' if both else None)
    else:
        import tempfile
        with tempfile.NamedTemporaryFile('w', suffix='.csv', encoding='utf-8') as copy:
            copy.write(text)
            copy.flush()
            checked = CSVDataset(copy.name, root, 'train'), CSVDataset(
                copy.name, root, 'query', 'validation' if both else None)
    seen, warnings = _seen(*((one.sample_ids, _named(one)) for one in checked))
    seen |= dict(source=file, split=f'by class, {test_share:g} of them for testing' if proposed
                 else 'by its column `split`')
    lines = [f'table, data_root = {table_name if changed else file!r}, {root!r}',
             'train_set = dict(ann_file=table, data_root=data_root)']
    if both:
        lines += ["test_set = dict(train_set, evaluation_split='validation')  # 'test' at the end"]
    else:
        lines += ['test_set = train_set']
    return Proposal(_text(seen, 'csv', lines), seen, warnings, text)


def _column(table: pd.DataFrame, wanted: str, own: str | None, usual: Sequence[str]) -> str:
    """The column of a table that holds paths or labels."""
    names = list(table.columns)
    if own is not None:
        if own not in names:
            raise ValueError(unknown_name('column', own, names))
        return own
    lower = {name.lower(): name for name in reversed(names)}
    found = next((lower[name] for name in usual if name in lower), None)
    if found is None:
        raise ValueError(f'Which column is the {wanted} is not clear from the names '
                         f'{", ".join(map(repr, names))}: say --{wanted} NAME.')
    return found


def _named(dataset: Any) -> list[str]:
    names = dataset.label_names
    return [names[label] for label in dataset.labels.tolist()]


def _seen(train: tuple[list[str], list[str]], test: tuple[list[str], list[str]]
          ) -> tuple[dict[str, Any], list[str]]:
    """What there is in both sets, each paths and classes, and what is a problem with it."""
    counts = [Counter(train[1]), Counter(test[1])]
    files = [path for path in (*train[0], *test[0]) if os.path.isfile(path)]
    edges = _edges(files[::max(1, len(files) // _LOOKED_AT)])
    trained = sorted(counts[0].values())
    if len(trained) < 2 or trained[-1] < 2:
        raise ValueError(f'{len(trained)} training classes of at most {max(trained, default=0)} '
                         'pictures: metric learning needs two classes for training, and two '
                         'pictures of one.')
    every = sorted((counts[0] + counts[1]).values())
    both = len(set(counts[0]) & set(counts[1]))
    seen = dict(
        pictures=len(train[0]) + len(test[0]), classes=len(set(counts[0]) | set(counts[1])),
        pictures_a_class=[every[0], int(statistics.median(every)), every[-1]],
        shorter_edge=[min(edges), int(statistics.median(edges)), max(edges)],
        training=dict(pictures=len(train[0]), classes=len(counts[0])),
        testing=dict(pictures=len(test[0]), classes=len(counts[1])),
        classes_in_both=both)
    warnings = []
    alone = sum(count == 1 for counter in counts for count in counter.values())
    if alone:
        warnings.append(f'{alone} classes have one picture in their set: there is nothing to pair '
                        'or to find it with.')
    if max(trained) > 20 * statistics.median(trained):
        warnings.append(f'The largest class has {max(trained)} pictures, the median '
                        f'{int(statistics.median(trained))}: batches take classes alike, so that '
                        'most of its pictures are seen seldom.')
    if 0 < both < len(counts[1]):
        warnings.append(f'{both} of {len(counts[1])} classes of the test are '
                        'trained on: the result is neither of new classes nor of known ones.')
    if len(counts[1]) < 20:
        warnings.append(f'{len(counts[1])} classes for testing are few: the result will be coarse.')
    return seen, warnings


def _edges(paths: Sequence[str]) -> list[int]:
    """The shorter edges of some pictures; those that cannot be read are passed over."""
    from ..image_files import UnreadableImageError, open_image

    found, problem = [], None
    for path in paths:
        try:
            with open_image(path) as (image, _):
                found.append(min(image.size))
        except UnreadableImageError as error:
            problem = error
    if not found:
        raise ValueError(f'None of {len(paths)} pictures that were tried can be read: {problem}')
    return found


def _text(seen: dict[str, Any], kind: str, lines: Sequence[str]) -> str:
    """The config: what was seen, what it inherits, and what is of these pictures."""
    size = 96 if seen['shorter_edge'][1] <= SMALL else 224
    train, test = seen['training'], seen['testing']
    each = 4 if train['pictures'] >= 3 * train['classes'] else 2
    batch = each * min(train['classes'], 64 // each)
    few, middle, many = seen['pictures_a_class']
    return '\n'.join([
        f'# {seen["classes"]} classes, {seen["pictures"]} pictures ({few} to {many} a class, '
        f'mostly {middle}; {seen["shorter_edge"][1]} px).',
        f'# Trained on {train["classes"]} classes ({train["pictures"]} pictures), tested on '
        f'{test["classes"]} ({test["pictures"]}).',
        "_base_ = ['retrieval::_base_/methods/fine_tuning',",
        f"          'retrieval::_base_/datasets/{kind}_{size}']",
        *lines,
        f'train_dataloader = dict(batch_size={batch}, batch_sampler=dict(m={each}), '
        'dataset=train_set)',
        'test_dataloader = dict(dataset=test_set)',
        'val_dataloader = test_dataloader',
        'gallery_dataloader = test_dataloader']) + '\n'

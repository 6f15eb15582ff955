"""Images that a table lists: ``path,label,split,is_query,is_gallery`` and what goes with them."""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import some_of
from ..foreign_files import refuse_special
from ..labels import as_written, written
from ..registry import DATASETS, unknown_name
from .base import RetrievalDataset

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ('train', 'validation', 'test', 'query', 'gallery')
BOX = ('x_1', 'y_1', 'x_2', 'y_2')
_ENTRY_KEYS = ('img_path', 'img', 'gt_label', 'gt_indices', 'gt_score', 'sample_id', 'sample_idx',
               'box', 'metadata_keys', 'embedding', 'pred_label', 'pred_score', 'unreadable')
_ALIASES = {'val': 'validation', 'valid': 'validation', 'training': 'train'}
_NUMBER = r'[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?'
_TRUE, _FALSE = ('true', '1', '1.0', 'yes', 't', 'y'), ('false', '0', '0.0', 'no', 'f', 'n')


def _rows(mask: pd.Series) -> str:
    """The numbers of the rows where ``mask`` is true, the first few of them."""
    numbers = (np.flatnonzero(mask.to_numpy()) + 1).tolist() if len(mask) else []
    listed = ', '.join(map(str, numbers[:8])) + (', …' if len(numbers) > 8 else '')
    count = f'{len(numbers)} row{"s" * (len(numbers) != 1)}'
    return f'{count} ({listed}; the first after the header is 1)'


def read_flags(column: pd.Series, wanted: pd.Series) -> pd.Series:
    """A column of ``True``/``False``, ``1``/``0``, ``yes``/``no`` as booleans.

    Raises:
        ValueError: another value where ``wanted`` is true.
    """
    values = column.str.strip().str.lower()
    wrong = wanted & ~values.isin((*_TRUE, *_FALSE))
    if wrong.any():
        raise ValueError(f'The column {column.name!r} must hold True or False, but '
                         f'{column[wrong].iloc[0]!r} stands in {_rows(wrong)}.')
    return values.isin(_TRUE)


def read_labels(column: pd.Series, wanted: pd.Series) -> pd.Series:
    """The labels of the wanted rows: integers, where every one is written as one, else names.

    Raises:
        ValueError: a wanted label is missing or a fraction.
    """
    import pandas as pd

    labels = column.map(written)
    missing = wanted & labels.str.lower().isin(('', 'nan'))
    if missing.any():
        raise ValueError(f'The column {column.name!r} has no label in {_rows(missing)}. Label '
                         'them or take the rows out.')
    fractional = wanted & labels.str.fullmatch(_NUMBER) & (
        pd.to_numeric(labels, errors='coerce') % 1 != 0)
    if fractional.any():
        raise ValueError(f'The column {column.name!r} holds a fraction, '
                         f'{labels[fractional].iloc[0]!r}, in {_rows(fractional)}. Labels are '
                         'integers or names.')
    return pd.Series(as_written(labels[wanted]), labels[wanted].index, dtype=object)


@DATASETS.register_module()
class CSVDataset(RetrievalDataset):
    """The rows of a CSV file.

    Columns: ``path``; ``label``, integers or names; ``split``, ``train``, ``validation`` or
    ``test``; ``is_query`` and ``is_gallery``, True or False (without the two columns every row
    that is not for training is both); ``sequence``, ``category`` and what ``metadata_keys`` names,
    which become metadata, for filters, ``exclude_same``, galleries and facets; and where wanted a
    box ``x_1,x_2,y_1,y_2`` in pixels, which the loader cuts out and which is part of the identity.
    Other columns are left alone.

    A value is what is written, without blanks around it; labels and metadata are whole numbers
    where every entry of the column is written as one, so that ``0012`` and ``12`` differ.
    Labels count from 0, by rising number or name: once over the rows for training, and once over
    those for validation, so that queries and gallery agree. What stood in the file is kept as
    ``label_names``.

    Args:
        ann_file: the CSV file; a relative name is looked for in ``data_root`` first.
        data_root: where relative paths of images start; the CSV's own folder by default.
        split: ``'train'``, ``'validation'`` (or ``'val'``), ``'test'``, or ``'query'`` and
            ``'gallery'``, the rows of the validation (or test) split that are flagged so.
        evaluation_split: which split ``'query'`` and ``'gallery'`` mean, where the file has both
            validation and test rows.
        inside_root: True refuses rows whose path leads out of ``data_root`` (absolute, or by
            ``..``): for a table from somebody else. By default a row may name any file that the
            user may read. Only pictures are opened in either case, and links in ``data_root`` are
            followed.
        pipeline: transforms, dicts or callables.
        metadata_keys: further columns that are kept beside label and path.
        kwargs: those of :class:`RetrievalDataset`.

    Raises:
        FileNotFoundError: no such file, or its first image is not there.
        ValueError: a column, label or flag is missing or wrong, a box is empty or upside down, the
            text is no UTF-8, or no row is left.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = tempfile.mkdtemp()
        >>> Image.new('L', (2, 2)).save(f'{root}/a.png')
        >>> with open(f'{root}/list.csv', 'w') as file:
        ...     _ = file.write('path,label,split\\na.png,cat,train\\n')
        >>> CSVDataset(f'{root}/list.csv').label_names
        ['cat']
    """

    metadata_keys: tuple[str, ...] = ('sequence', 'category')
    ann_file: str

    def __init__(self, ann_file: str, data_root: str = '', split: str = 'train',
                 evaluation_split: str | None = None, inside_root: bool = False,
                 pipeline: Sequence[dict[str, Any] | Callable[..., Any]] | None = (),
                 metadata_keys: str | Sequence[str] = (), **kwargs: Any) -> None:
        self._named_keys = (metadata_keys,) if isinstance(metadata_keys, str) else \
            tuple(metadata_keys)
        taken = [key for key in self._named_keys if key in _ENTRY_KEYS]
        if taken:
            raise ValueError(f'metadata_keys names {some_of(taken)}, which an entry of a dataset '
                             'has already. Rename the column.')
        self.metadata_keys = tuple(dict.fromkeys((*type(self).metadata_keys, *self._named_keys)))
        self.split = self._checked_split(split, 'split', SPLITS)
        self.evaluation_split = evaluation_split and self._checked_split(
            evaluation_split, 'evaluation_split', ('validation', 'test'))
        self.inside_root = inside_root
        super().__init__(ann_file=ann_file, data_root=data_root, pipeline=pipeline, **kwargs)

    @staticmethod
    def _checked_split(given: str, name: str, valid: Sequence[str]) -> str:
        split = _ALIASES.get(str(given), str(given))
        if split not in valid:
            raise ValueError(unknown_name(name, given, valid))
        return split

    def _join_prefix(self) -> None:
        """Take the file in ``data_root`` where there is one, else the name as it was given."""
        if not self.ann_file:
            raise ValueError('CSVDataset needs `ann_file`, the name of a CSV file.')
        inside = os.path.join(self.data_root, self.ann_file)
        if os.path.isfile(inside):
            self.ann_file = inside
        elif not os.path.isfile(self.ann_file):
            tried = ' and '.join(repr(name) for name in dict.fromkeys((inside, self.ann_file)))
            raise FileNotFoundError(f'There is no CSV file {tried}: check `ann_file`.')

    def load_data_list(self) -> list[dict[str, Any]]:
        """One entry a row of the split, in the order of the file."""
        import pandas as pd

        table = self._read_table()
        label_rows, rows = self._select(table)
        labels = read_labels(table['label'], label_rows)
        names = sorted(labels.unique())
        self._metainfo['classes'] = tuple(str(name) for name in names)
        code_of = {name: code for code, name in enumerate(names)}
        codes = labels[rows[label_rows]].map(code_of).tolist()
        entries = [{'img_path': path, 'gt_label': code}
                   for path, code in zip(self._paths(table, rows), codes, strict=True)]
        for key in self.metadata_keys:
            if key in table:  # its kind is that of the whole table, queries and gallery alike
                values = pd.Series(as_written(table[key]), table.index, dtype=object)
                for entry, value in zip(entries, values[rows].tolist(), strict=True):
                    entry[key] = value
        for entry, box in zip(entries, self._boxes(table, rows), strict=True):
            if box is not None:
                entry['box'] = box
        return entries

    def _read_table(self) -> pd.DataFrame:
        import pandas as pd

        try:
            table = pd.read_csv(self.ann_file, dtype=object, keep_default_na=False,
                                skipinitialspace=True, encoding='utf-8-sig',
                                encoding_errors='surrogateescape')
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
            raise ValueError(f'{self.ann_file!r} is not a CSV file in UTF-8: {error}') from error
        if not isinstance(table.index, pd.RangeIndex):  # pandas made names of the surplus cells
            raise ValueError(f'The rows of {self.ann_file!r} have more cells than its header has '
                             f'columns, {", ".join(map(repr, table.columns))}.')
        table = table.fillna('')  # cells that a short row leaves out
        table.columns = [written(str(name)) for name in table.columns]
        self._refuse_other_encodings(table)
        missing = [name for name in ('path', 'label', 'split', *self._named_keys)
                   if name not in table]
        boxes = [name for name in BOX if name in table]
        if boxes:
            missing += [name for name in BOX if name not in table]
        if missing:
            raise ValueError(f'{self.ann_file!r} has no column {", ".join(map(repr, missing))}; '
                             f'there are {", ".join(map(repr, table.columns))}.')
        return table

    def _refuse_other_encodings(self, table: pd.DataFrame) -> None:
        """Raise ValueError for text that is no UTF-8; a path may have any bytes, as files have."""
        for name in table.columns:
            if name == 'path':
                continue
            foreign = table[name].map(lambda text: re.search('[\udc80-\udcff]', text) is not None)
            if foreign.any():
                raise ValueError(f'{self.ann_file!r} is not a CSV file in UTF-8: in the column '
                                 f'{name!r} {table[name][foreign].iloc[0]!r} stands in '
                                 f'{_rows(foreign)}. Save it in UTF-8.')

    def _select(self, table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
        """Two masks: the rows that share one mapping of labels, and those of the dataset."""
        splits = table['split'].str.strip().str.lower().replace(_ALIASES)
        unknown = ~splits.isin(('train', 'validation', 'test'))
        if unknown.any():
            raise ValueError(f'{self.ann_file!r} has an unknown split '
                             f'{table["split"][unknown].iloc[0]!r} in {_rows(unknown)}. Valid: '
                             'train, validation, test.')
        if self.split in ('query', 'gallery'):
            shared = splits == self._evaluated(splits)
            flag = f'is_{self.split}'
            rows = shared & (read_flags(table[flag], shared) if flag in table else True)
        else:
            shared = rows = splits == self.split
        if not rows.any():
            counts = ', '.join(f'{name} {count}' for name, count in splits.value_counts().items())
            raise ValueError(f'{self.ann_file!r} has no row for split {self.split!r}; the rows of '
                             f'its splits: {counts or "none"}.')
        return shared, rows

    def _evaluated(self, splits: pd.Series) -> str:
        """The split that queries and gallery come from."""
        if self.evaluation_split:
            return self.evaluation_split
        there = [name for name in ('validation', 'test') if (splits == name).any()]
        if len(there) == 2:
            raise ValueError(f"{self.ann_file!r} has rows for validation and for test: say with "
                             f"evaluation_split='validation' or 'test' which of them "
                             f'{self.split!r} means.')
        return there[0] if there else 'validation'

    def _paths(self, table: pd.DataFrame, rows: pd.Series) -> list[str]:
        root = self.data_root or os.path.dirname(self.ann_file)
        written = table['path'].str.strip()
        empty = rows & (written == '')
        if empty.any():
            raise ValueError(f"The column 'path' is empty in {_rows(empty)}.")
        paths = [os.path.normpath(os.path.join(root, path)) for path in written[rows].tolist()]
        if self.inside_root:
            top = os.path.join(os.path.abspath(root), '')
            outside = [path for path in paths if not os.path.abspath(path).startswith(top)]
            if outside:
                raise ValueError(f'{self.ann_file!r} names {outside[0]!r}, which is not below '
                                 f'data_root, {root!r} ({len(outside)} such rows); '
                                 'inside_root=True refuses that.')
        refuse_special(paths[0])
        if not os.path.isfile(paths[0]):
            raise FileNotFoundError(f'There is no image {paths[0]!r}, the first that '
                                    f'{self.ann_file!r} lists for split {self.split!r}: relative '
                                    f'paths start at data_root, {root!r}.')
        return paths

    def _boxes(self, table: pd.DataFrame, rows: pd.Series) -> list[tuple[Any, ...] | None]:
        """``(x_1, y_1, x_2, y_2)`` of every row, None where all four cells are empty."""
        import pandas as pd

        if 'x_1' not in table:
            return [None] * int(rows.sum())
        cells = table[list(BOX)].apply(lambda column: column.str.strip())
        none = (cells == '').all(axis=1)
        edges = cells.apply(pd.to_numeric, errors='coerce').astype('float64')
        sound = np.isfinite(edges).all(axis=1)
        wrong = rows & ~none & ~(sound & (edges['x_1'] < edges['x_2']) &
                                 (edges['y_1'] < edges['y_2']))
        if wrong.any():
            first = dict(cells[wrong].iloc[0])
            raise ValueError(f'A box must have numbers with x_1 < x_2 and y_1 < y_2, but {first} '
                             f'stands in {_rows(wrong)}.')
        return [None if absent else tuple(int(edge) if edge == int(edge) else edge for edge in box)
                for absent, box in zip(none[rows].tolist(), edges[rows].to_numpy().tolist(),
                                       strict=True)]

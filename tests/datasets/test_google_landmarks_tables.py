import numpy as np
import pandas as pd
import pytest

from retrieval.datasets.google_landmarks_tables import read_ids, read_table, rows_of, split_ids


def random_ids(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f'{high:08x}{low:08x}' for high, low in rng.integers(0, 2**32, (count, 2))]


def test_rows_are_those_of_a_loop():
    listed = [*random_ids(500), '0' * 16, 'f' * 16]
    wanted = [*listed[400:], *random_ids(100, 1), '0' * 15 + '1', listed[0]]
    found = rows_of(*(read_ids(pd.Series(names), 'x', '') for names in (wanted, listed)), 'x', '')
    assert found.tolist() == [listed.index(name) if name in listed else -1 for name in wanted]
    assert found.dtype == np.int64


def test_ids_that_differ_in_one_place():
    names = ['0' * place + digit + '0' * (15 - place) for place in range(16)
             for digit in '123456789abcdef'] + ['0' * 16]
    ids = read_ids(pd.Series(names), 'x', '')
    assert rows_of(ids, ids, 'x', '').tolist() == list(range(len(names)))


def test_cells_of_several_ids():
    names = random_ids(6)
    counts, ids = split_ids(pd.Series([names[0], '  '.join(names[1:4]), ' '.join(names[4:]) + ' ']),
                            'x', '')
    assert counts.tolist() == [1, 3, 2] and ids.astype(str).tolist() == names


@pytest.mark.parametrize('wrong', ['', 'abc', '0123456789ABCDEF', '0123456789abcdeg', 'a' * 17,
                                   '01234567/9abcdef', 'é' * 16])
def test_other_ids(wrong):
    with pytest.raises(ValueError, match='from 0 to f, but the 2|no ASCII text'):
        read_ids(pd.Series([*random_ids(1), wrong, *random_ids(2)]), 'x', '')


def test_ids_that_look_like_numbers_or_nothing_stay_text(tmp_path):
    path = tmp_path / 'x.csv'
    rows = ['1e10000000000000', '0000000000000012', '1234567890123456']
    path.write_text('﻿id,landmark_id\n' + ''.join(f'{name},9007199254740993\n' for name in rows))
    table = read_table(str(path), '', ('id', 'landmark_id'))
    assert table['id'].tolist() == rows
    assert table['landmark_id'].tolist() == [9007199254740993] * 3

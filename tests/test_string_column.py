"""Columns of strings against lists and dicts of them."""
import random

import numpy as np
import pytest

from retrieval.string_column import StringColumn

STRINGS = ['', 'a', 'äöü', '日本', 'x' * 1000, 'a\x00', 'a\x00\x00', 'b']


def test_string_columns():
    column = StringColumn.from_strings(STRINGS)
    assert list(column) == STRINGS and column[-1] == STRINGS[-1] and column[1:3] == STRINGS[1:3]
    assert column[::-2] == STRINGS[::-2] and column[5:2] == []
    assert column == STRINGS and len(StringColumn.from_strings([])) == 0
    assert list(StringColumn.from_strings([])) == []
    with pytest.raises(IndexError):
        column[8]
    with pytest.raises(ValueError, match='damaged'):
        StringColumn(column.data, column.offsets.flip(0))


def test_many_rows_are_read_in_chunks(monkeypatch):
    monkeypatch.setattr('retrieval.string_column._CHUNK_ROWS', 7)
    strings = [f'{"é" if row > 30 else ""}{row}' for row in range(60)]
    column = StringColumn.from_strings(strings)
    assert list(column) == strings and column[3:50] == strings[3:50]
    rows = random.Random(0).sample(range(60), 40)
    assert list(column.take(np.array(rows))) == [strings[row] for row in rows]
    assert list(column.take(np.array([59, 0]))) == ['é59', '0']
    assert column.find(['11', 'no', 'é45', '', '0']).tolist() == [11, -1, 45, -1, 0]


def test_joined():
    parts = [STRINGS[:3], [], STRINGS[3:]]
    joined = StringColumn.joined([StringColumn.from_strings(part) for part in parts])
    assert list(joined) == STRINGS


def test_finding_agrees_with_a_dict():
    rng = random.Random(1)
    strings = list({''.join(rng.choices('ab\x00ü', k=rng.randrange(6))) for _ in range(900)})
    column = StringColumn.from_strings(strings)
    asked = [*rng.sample(strings, 50), 'zzz', *rng.sample(strings, 5)]
    row_of = {name: row for row, name in enumerate(strings)}
    assert column.find(asked).tolist() == [row_of.get(name, -1) for name in asked]
    assert column.find([]).tolist() == []
    assert StringColumn.from_strings([]).find(['a']).tolist() == [-1]


def test_repeated_strings_are_named():
    assert StringColumn.from_strings(STRINGS).first_repeated() is None
    assert StringColumn.from_strings([]).first_repeated() is None
    assert StringColumn.from_strings([*STRINGS, 'äöü', 'a']).first_repeated() == 'äöü'
    assert StringColumn.from_strings(['x', '', '']).first_repeated() == ''


def test_equal_hashes_are_no_equal_strings(monkeypatch):
    """Where all hashes collide, the strings themselves decide."""
    monkeypatch.setattr('retrieval.string_column._polynomials',
                        lambda data, edges: np.zeros(len(edges) - 1, dtype=np.uint64))
    column = StringColumn.from_strings(STRINGS)
    assert column.find(['b', 'nothing', '日本']).tolist() == [7, -1, 3]
    assert column.first_repeated() is None
    assert StringColumn.from_strings(['a', 'b', 'a']).first_repeated() == 'a'

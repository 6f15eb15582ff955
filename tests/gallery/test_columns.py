import numpy as np
import pytest
import torch

from retrieval.gallery.columns import LazyColumns, column, equal_to, joined, take, value_at
from retrieval.string_column import StringColumn


def test_numbers_and_strings():
    numbers, texts = column([3, 1]), column(['x', None])
    assert isinstance(numbers, torch.Tensor) and numbers.tolist() == [3, 1]
    assert isinstance(texts, StringColumn) and list(texts) == ['x', '']
    assert list(column([1, 'x'])) == ['1', 'x'] and column([True, False]).dtype == torch.bool
    assert (value_at(numbers, 1), value_at(texts, 0)) == (1, 'x')
    assert take(numbers, np.array([1, 0])).tolist() == [1, 3]
    assert list(take(texts, np.array([1]))) == ['']


def test_joined():
    assert joined([column([1, 2]), column([0.5])], 'x').tolist() == [1, 2, 0.5]
    assert list(joined([column(['a']), column(['b', 'c'])], 'x')) == ['a', 'b', 'c']
    with pytest.raises(ValueError, match="'x' holds numbers in one"):
        joined([column([1]), column(['b'])], 'x')


def test_equal_to():
    assert equal_to(column([1, 2, 1]), 1).tolist() == [True, False, True]
    assert equal_to(column([1, 2, 3]), ['1', 3]).tolist() == [True, False, True]
    assert equal_to(column([0.5, 2.0]), '0.5').tolist() == [True, False]
    assert equal_to(column(['a', 'b', '1']), ['a', 1]).tolist() == [True, False, True]
    assert equal_to(column([True, False]), True).tolist() == [True, False]
    with pytest.raises(ValueError, match="'x' is"):
        equal_to(column([1]), 'x')


@pytest.mark.parametrize(('held', 'wanted', 'rows'), [
    ([True, False, True], True, [0, 2]), ([True, False], 'False', [1]),
    ([True, False], 'true', [0]), ([True, False], np.True_, [0]),
    ([1.5, 2.5], 1.5, [0]), ([1.5, 3.0], '3', [1]),
    (np.array([0.1, 0.2], 'float32'), 0.1, [0]), (np.array([0.1, 0.2], 'float32'), '0.1', [0]),
    ([2020, 2021], 2020.0, [0]), ([2020, 2021], '2021', [1]), ([7], 2 ** 70, []),
    (np.array([3], 'uint8'), -1, []), (['0012', '12'], 12, [1]), (['a', ''], None, [1])])
def test_a_value_is_compared_by_the_type_of_the_column(held, wanted, rows):
    assert np.flatnonzero(equal_to(column(held), wanted)).tolist() == rows


@pytest.mark.parametrize(('held', 'wanted'), [
    ([True, False], 2), ([True, False], 'yes'), ([True, False], 0.5), ([2020], 2020.7),
    ([2020], '2_020'), ([2020], '02020'), ([2020], '2020.0'), ([1], True), ([1.5], True),
    ([15.0], '1_5'), ([1.5], '１.５'), ([1.5], 'nan'), ([1.5], float('nan')), ([1], None),
    ([1], float('inf'))])
def test_a_value_of_another_type_is_refused(held, wanted):
    with pytest.raises(ValueError, match='The column .* holds .*is none'):
        equal_to(column(held), wanted)


def test_what_columns_hold():
    assert list(column([2 ** 63, -1])) == [str(2 ** 63), '-1']  # floats would round them
    assert list(column([b'caf\xc3\xa9', None])) == ['café', '']


def test_columns_are_read_once_and_when_asked_for():
    read = []

    def reader(name):
        read.append(name)
        return column([1])
    columns = LazyColumns({name: lambda name=name: reader(name) for name in 'ab'})
    assert list(columns) == ['a', 'b'] and len(columns) == 2 and 'a' in columns
    assert read == ['a']
    assert columns['a'] is columns['a'] and read == ['a']

"""A value is what is written; whole numbers are so only where every entry is one."""
import numpy as np
import pytest
import torch

from retrieval.labels import as_written, names_in, whole_number_in, written
from retrieval.string_column import StringColumn
from retrieval.structures import as_labels


@pytest.mark.parametrize(('text', 'number'), [
    ('0', 0), ('7', 7), ('-12', -12), ('9223372036854775807', 2 ** 63 - 1),
    ('-9223372036854775808', -2 ** 63), ('9223372036854775808', None), ('1' * 5000, None),
    ('00', None), ('0012', None), ('-0', None), ('+12', None), ('1_12', None), ('１２', None),
    ('1.0', None), ('1e3', None), (' 1', None), ('', None), ('x', None)])
def test_whole_numbers_are_written_in_one_way(text, number):
    assert whole_number_in(text) == number


def test_a_column_is_of_one_kind():
    assert as_written(['1', ' 20 ', '\ufeff-3']) == [1, 20, -3]
    assert as_written(['1', '1_2']) == ['1', '1_2']
    assert as_written(['1', '', '2']) == ['1', '', '2']
    assert written('\ufeff cat\t') == written(' \ufeffcat') == 'cat'


def test_names_and_numbers():
    assert names_in(np.array(['a ', 'b'])) == ['a', 'b']
    assert names_in(np.array(['a', 'b'], dtype=object)) == ['a', 'b']
    assert names_in([b'caf\xc3\xa9', 'x']) == ['café', 'x']
    assert names_in(StringColumn.from_strings(['1', '2'])) == ['1', '2']
    for numbers in (None, [1, 2], torch.tensor([1]), np.arange(3), [1., 2.]):
        assert names_in(numbers) is None


@pytest.mark.parametrize(('values', 'message'), [
    (['a', 1], "mix names and numbers: row 1 is 1, and row 0 is 'a'"),
    ([3, 'b'], "row 0 is 3, and row 1 is 'b'"),
    (['a', None], 'no value in row 1'), (['a', float('nan')], r'no value in row 1 \(nan\)'),
    ([1, None], 'no value in row 1'), (['a', ' '], 'no value in row 1')])
def test_mixed_and_missing(values, message):
    with pytest.raises(ValueError, match=message):
        names_in(values)
    with pytest.raises(ValueError, match=message):
        names_in(np.array(values, dtype=object))


@pytest.mark.parametrize(('values', 'message'), [
    (np.array([1., np.inf]), 'inf in row 1'), (np.array([1., np.nan]), 'nan in row 1'),
    ([0, 1.5], '1.5 in row 1'), (np.array([1, 2 ** 63], dtype=np.uint64), f'{2 ** 63} in row 1'),
    ([1e30], 'in row 0'), ([5, 2 ** 64], f'{2 ** 64} in row 1'), ([1, None], 'None in row 1'),
    (torch.tensor([0., float('-inf')]), '-inf in row 1')])
def test_numbers_that_are_no_labels(values, message):
    with pytest.raises(ValueError, match=f'labels must be integers.*{message}.*names'):
        as_labels(values, 'labels')


def test_the_largest_numbers_are_labels():
    assert as_labels(np.array([2 ** 63 - 1], dtype=np.uint64)).tolist() == [2 ** 63 - 1]
    assert as_labels([-2 ** 63, 2 ** 53 + 1]).tolist() == [-2 ** 63, 2 ** 53 + 1]

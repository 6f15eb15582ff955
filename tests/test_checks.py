"""The checks take what they should, and say what is wrong with the rest."""
import math

import numpy as np
import pytest

from retrieval.checks import (
    first_repeated,
    real_number,
    same_length,
    some_of,
    unique_names,
    whole_number,
)


@pytest.mark.parametrize('value', [1, 7, np.int64(7)])
def test_whole_numbers(value):
    number = whole_number('k', value)
    assert number == value and type(number) is int


@pytest.mark.parametrize('value, limits, error, message', [
    (0, {}, ValueError, 'k must be an integer of at least 1, got 0.'),
    (-2, {'least': -1}, ValueError, 'k must be an integer of at least -1, got -2.'),
    (20000, {'most': 16384}, ValueError,
     'k must be an integer of at least 1 and at most 16,384, got 20000.'),
    (1.0, {}, TypeError, 'k must be an integer of at least 1, got 1.0.'),
    (True, {}, TypeError, 'k must be an integer of at least 1, got True.'),
    ('3', {}, TypeError, "k must be an integer of at least 1, got '3'."),
    (None, {}, TypeError, 'k must be an integer of at least 1, got None.'),
])
def test_no_whole_numbers(value, limits, error, message):
    with pytest.raises(error) as raised:
        whole_number('k', value, **limits)
    assert str(raised.value) == message


@pytest.mark.parametrize('value, bounds', [
    (0.5, {}), (0, {'least': 0}), (1, {'most': 1}), (np.float32(0.25), {'above': 0, 'below': 1})])
def test_real_numbers(value, bounds):
    number = real_number('p', value, **bounds)
    assert number == value and type(number) is float


@pytest.mark.parametrize('value, bounds, error, message', [
    (0, {'above': 0}, ValueError, 'p must be above 0, got 0.'),
    (1, {'least': 0, 'below': 1}, ValueError, 'p must be at least 0 and below 1, got 1.'),
    (2, {'least': 0, 'most': 1}, ValueError, 'p must be at least 0 and at most 1, got 2.'),
    (math.nan, {}, ValueError, 'p must be finite, got nan.'),
    (math.inf, {'least': 0}, ValueError, 'p must be at least 0, got inf.'),
    (False, {}, TypeError, 'p must be a number, got False.'),
    ('1', {}, TypeError, "p must be a number, got '1'."),
])
def test_no_real_numbers(value, bounds, error, message):
    with pytest.raises(error) as raised:
        real_number('p', value, **bounds)
    assert str(raised.value) == message


def test_some_of():
    assert some_of(['a', 'b', 'c']) == "'a', 'b', 'c'"
    assert some_of(list('abcd'), 2) == "'a', 'b', … (4 in all)"


def test_first_repeated():
    assert first_repeated(iter('abcb')) == 'b' and first_repeated('abc') is None


def test_unique_names():
    assert unique_names(np.array([3, 1])) == ['3', '1']
    with pytest.raises(TypeError, match=r"write \['a'\] for one"):
        unique_names('a')
    with pytest.raises(TypeError, match='sequence of ids, got 3'):
        unique_names(3)
    with pytest.raises(ValueError, match="'1' is given more than once"):
        unique_names(['1', 2, 1])
    with pytest.raises(ValueError, match='ids has 2 entries for 3 embeddings: give one each'):
        unique_names(['a', 'b'], count=3)


def test_lengths():
    same_length('labels', None, 3, 'rows')
    with pytest.raises(ValueError, match='labels has 2 entries for 3 rows: give one each'):
        same_length('labels', [1, 2], 3, 'rows')

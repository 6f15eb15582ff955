from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking import as_vectors


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_become_float32(dtype):
    vectors = as_vectors(torch.tensor([[1.5, -2.0]], dtype=dtype, requires_grad=True))
    assert vectors.dtype == torch.float32 and not vectors.requires_grad
    assert vectors.tolist() == [[1.5, -2.0]]


def test_arrays_lists_and_views():
    expected = [[1.0, 2.0], [3.0, 4.0]]
    assert as_vectors(expected).tolist() == expected
    assert as_vectors([torch.tensor(row) for row in expected]).tolist() == expected
    array = np.array(expected[::-1])
    array.flags.writeable = False
    assert as_vectors(array[::-1]).tolist() == expected


def test_a_large_finite_sum_is_finite():
    assert as_vectors(torch.full((4, 3), 3e38)).shape == (4, 3)


@pytest.mark.parametrize(('values', 'error', 'says'), [
    (np.zeros(3), ValueError, r'\(N, D\), got \(3,\)'),
    (np.zeros((2, 3, 1)), ValueError, r'\(2, 3, 1\)'),
    (np.zeros((2, 0)), ValueError, 'no columns'),
    (np.zeros((2, 3), dtype=int), TypeError, 'int64'),
    (np.array([['a']]), TypeError, 'floats'),
    ([[1.0], [2.0, 3.0]], TypeError, 'list'),
    (np.array([[0.0, 1.0], [1.0, np.nan], [np.nan, 0.0]]), ValueError, 'row 1 '),
    (np.array([[1e300, 1.0]]), ValueError, 'row 0 '),
    (np.array([[np.inf, -np.inf]]), ValueError, 'row 0 '),
])
def test_bad_input(values, error, says):
    with pytest.raises(error, match=says):
        as_vectors(values)


def test_width():
    with pytest.raises(ValueError, match='3 columns, but 4'):
        as_vectors(np.zeros((2, 3)), width=4)

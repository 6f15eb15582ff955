from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.ranking import as_vectors
from retrieval.ranking.prepared import _ROW_MULTIPLE, _WHOLE_ROWS, PreparedGallery


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


@pytest.mark.parametrize('num_queries', [0, 1, 3, 200, 10 ** 6])
@pytest.mark.parametrize('budget', [1, 10 ** 4, 10 ** 6])
def test_a_tile_stays_within_its_budget(num_queries, budget):
    gallery = PreparedGallery(torch.eye(3).repeat(7000, 1))
    rows, columns = gallery.tiles(num_queries, budget)
    assert 1 <= rows <= max(1, num_queries) and columns % _ROW_MULTIPLE == 0
    assert rows * columns <= max(budget, rows * _ROW_MULTIPLE)
    rows, columns = gallery.tiles(num_queries, budget, whole_rows=True)
    assert columns >= 21_000 and 1 <= rows <= max(1, num_queries, _WHOLE_ROWS)
    assert rows == 1 or rows * 21_000 <= max(2 * budget, _WHOLE_ROWS * 21_000)

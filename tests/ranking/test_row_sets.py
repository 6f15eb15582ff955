from __future__ import annotations

import pytest
import torch

from retrieval.ranking import RowSets, paired_labels

MATRIX = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)


def as_matrix(sets, start=0, stop=None):
    stop = sets.num_queries if stop is None else stop
    query, row = sets.block(start, stop)
    matrix = torch.zeros(stop - start, sets.num_rows, dtype=torch.bool)
    matrix[query, row] = True
    assert int(matrix.sum()) == len(query), 'a pair repeats'
    key = query * sets.num_rows + row
    assert (key.diff() > 0).all(), 'pairs are not sorted'
    return matrix


@pytest.mark.parametrize('sets', [
    RowSets.from_matrix(MATRIX),
    RowSets.from_callable(lambda rows: MATRIX[rows], 4, 4),
    RowSets.from_lists([[2, 0, 2], [], (0, 1, 2, 3), torch.tensor([3])], 4),
    RowSets.from_rows(torch.tensor([[2, 0, 2, -1], [-1] * 4, [0, 1, 2, 3], [3, -1, -1, 3]]), 4),
], ids=['matrix', 'callable', 'lists', 'rows'])
def test_every_form_lists_the_same(sets):
    assert torch.equal(as_matrix(sets), MATRIX)
    assert torch.equal(as_matrix(sets, 1, 3), MATRIX[1:3])
    assert torch.equal(as_matrix(sets, 2, 2), MATRIX[2:2])


def test_labels_above_two_to_the_24th():
    base = 2 ** 53
    queries = torch.tensor([base + 1, base, 5])
    gallery = torch.tensor([base, base + 1, base + 2, base + 1])
    expected = queries[:, None] == gallery
    assert torch.equal(as_matrix(RowSets.from_labels(queries, gallery)), expected)
    assert expected.sum() == 3


def test_one_row_each_or_none():
    sets = RowSets.from_rows(torch.tensor([2, -1, 0]), 3)
    assert [part.tolist() for part in sets.block(0, 3)] == [[0, 2], [2, 0]]


def test_union():
    other = RowSets.from_rows(torch.tensor([0, 1, -1, 2]), 4)
    both = RowSets.from_matrix(MATRIX).union(other)
    expected = MATRIX.clone()
    expected[0, 0] = expected[1, 1] = expected[3, 2] = True
    assert torch.equal(as_matrix(both), expected)
    assert torch.equal(as_matrix(both, 1, 4), expected[1:4])


def test_paired_labels():
    queries, gallery = paired_labels(
        (torch.tensor([1, 1, 2]), torch.tensor([7, 8, 7])),
        (torch.tensor([1, 2, 1]), torch.tensor([8, 7, 7])))
    assert (queries[:, None] == gallery).tolist() == [
        [False, False, True], [True, False, False], [False, True, False]]


@pytest.mark.parametrize(('make', 'error', 'says'), [
    (lambda: RowSets.from_matrix(torch.ones(2, 2)), TypeError, 'boolean'),
    (lambda: RowSets.from_matrix(torch.ones(2, dtype=torch.bool)), ValueError, r'\(Q, N\)'),
    (lambda: RowSets.from_lists([[0], [4]], 4), ValueError, 'Query 1 names row 4'),
    (lambda: RowSets.from_lists([[0], [-1]], 4), ValueError, 'Query 1 names row -1'),
    (lambda: RowSets.from_lists([[0.5]], 4), TypeError, 'integers'),
    (lambda: RowSets.from_callable(lambda rows: MATRIX[rows], 4, 5).block(0, 2), ValueError,
     r'\(2, 5\) for 2 queries'),
    (lambda: RowSets.from_callable(lambda rows: MATRIX[rows].long(), 4, 4).block(0, 2), TypeError,
     'booleans'),
])
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()

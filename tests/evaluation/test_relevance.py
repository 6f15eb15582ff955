"""Labels of both sides, relevant rows and rows that are left out, against plain loops."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.evaluation import evaluate, shares_a_label
from retrieval.evaluation.relevance import (
    as_relevance,
    label_codes,
    same_as_query,
    same_ids,
    united,
)
from retrieval.ranking import RowSets


def pairs(sets):
    """The members as pairs of query and row."""
    query, row = sets.block(0, sets.num_queries)
    return list(zip(query.tolist(), row.tolist(), strict=True))


def test_whole_numbers_stay_and_names_are_numbered_in_their_order():
    own, theirs, names = label_codes([7, 3], np.array([3, 9]))
    assert (own.tolist(), theirs.tolist(), names) == ([7, 3], [3, 9], [])
    own, theirs, names = label_codes(['b', 'a'], ['a', 'c'])
    assert (own.tolist(), theirs.tolist(), names) == ([1, 0], [0, 2], ['a', 'b', 'c'])
    own, theirs, names = label_codes(['b', 'a'])
    assert (own.tolist(), theirs, names) == ([1, 0], None, ['a', 'b'])


def test_names_on_one_side_and_other_numbers_on_the_other():
    with pytest.raises(TypeError, match=r"strings for camera \('1', '2', … .*none in common"):
        label_codes([1, 2], ['left', 'right'], 'camera')


FORMS = {'matrix': lambda wanted: wanted, 'tensor': torch.from_numpy,
         'callable': lambda wanted: lambda rows: torch.from_numpy(wanted)[rows],
         'lists': lambda wanted: [np.flatnonzero(row).tolist() for row in wanted],
         'sets': lambda wanted: RowSets.from_matrix(wanted)}


@pytest.mark.parametrize('form', FORMS)
def test_relevance_in_every_form(form):
    wanted = np.random.default_rng(0).random((5, 8)) < 0.4
    assert pairs(as_relevance(FORMS[form](wanted), 5, 8)) == list(
        map(tuple, np.argwhere(wanted).tolist()))


@pytest.mark.parametrize(('relevance', 'error', 'says'), [
    ('all', TypeError, 'relevance must be'), (7, TypeError, 'got int'),
    (np.ones(5, bool), TypeError, 'got ndarray'),
    (np.ones((4, 8), bool), ValueError, 'for 4 queries and 8 rows, but there are 5 and 8'),
    ([[0]] * 6, ValueError, 'for 6 queries'), ([[8]] + [[]] * 4, ValueError, 'row 8')])
def test_relevance_that_does_not_fit(relevance, error, says):
    with pytest.raises(error, match=says):
        as_relevance(relevance, 5, 8)


def test_rows_of_the_same_id_are_the_same_picture():
    assert pairs(same_ids(['a', 7, 'b'], ['b', '7', 'c', 'b'])) == [(1, 1), (2, 0), (2, 3)]


def test_rows_of_the_querys_class_and_camera():
    numbers = np.random.default_rng(1)
    labels, theirs = (torch.from_numpy(numbers.integers(0, 3, count)) for count in (6, 20))
    cameras, their_cameras = ([f'c{one}' for one in numbers.integers(0, 3, count)]
                              for count in (6, 20))
    assert pairs(same_as_query('camera', cameras, their_cameras, labels, theirs)) == [
        (query, row) for query in range(6) for row in range(20)
        if labels[query] == theirs[row] and cameras[query] == their_cameras[row]]


def test_a_column_that_is_missing_or_does_not_fit():
    labels = torch.tensor([1, 2])
    for given in ((None, [1, 2], labels, labels), ([1, 2], None, labels, labels),
                  ([1, 2], [1, 2], None, labels)):
        with pytest.raises(ValueError, match='same camera needs camera and labels of both sides'):
            same_as_query('camera', *given)
    with pytest.raises(ValueError, match='camera of the gallery has 3 entries for 2 rows'):
        same_as_query('camera', [1, 2], [1, 2, 3], labels, labels)


def test_rows_in_any_of_the_sets():
    one, other = RowSets.from_lists([[0, 2], []], 4), RowSets.from_lists([[2, 3], [1]], 4)
    assert pairs(united(one, None, other)) == [(0, 0), (0, 2), (0, 3), (1, 1)]
    assert united(None, one) is one and united(None, None) is None and united() is None


def test_the_kind_of_labels_is_decided_over_both_sides():
    vectors = torch.eye(5)
    found = evaluate(vectors[:3], [1, 2, 3], vectors, ['1', '2', '3', 'distractor', 'distractor'],
                     metrics='Recall@1')
    assert found == {'Recall@1': 100, 'num_queries': 3, 'num_skipped_queries': 0}
    found = evaluate(vectors[:2], ['1', '01'], vectors[:2], torch.tensor([1, 1]), metrics='mAP')
    assert found['num_skipped_queries'] == 1  # 01 is another class than 1


@pytest.mark.parametrize(('labels', 'message'), [
    (np.array([0, 1, np.inf]), 'inf in row 2'), ([0, 'a', 'b'], 'mix names and numbers: row 0'),
    (np.array([0, 1, 2 ** 63], dtype=np.uint64), f'{2 ** 63} in row 2'), ([0, None, 1], 'row 1')])
def test_what_is_no_label_is_named_with_its_row(labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(torch.eye(3), labels)


def test_several_labels_to_an_image():
    labels = (torch.rand(12, 5) < 0.3).long()
    theirs = (torch.rand(20, 5) < 0.3).long()
    shared = [[row for row in range(20) if (labels[query] & theirs[row]).any()]
              for query in range(12)]
    vectors, others = torch.randn(12, 3), torch.randn(20, 3)
    assert evaluate(vectors, None, others, relevance=shares_a_label(labels, theirs)) == evaluate(
        vectors, None, others, relevance=shared)
    with pytest.raises(ValueError, match='0 or 1'):
        shares_a_label(labels * 3, theirs)
    with pytest.raises(ValueError, match=r'\(12, 5\) and \(20, 4\)'):
        shares_a_label(labels, theirs[:, :4])

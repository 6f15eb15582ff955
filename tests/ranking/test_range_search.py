from __future__ import annotations

import pytest
import torch

from retrieval.ranking import within


@pytest.mark.parametrize('budget', [2 ** 22, 128])
def test_against_a_plain_loop(budget):
    generator = torch.Generator().manual_seed(1)
    queries = torch.randint(-2, 3, (7, 3), generator=generator).float()
    gallery = torch.randint(-2, 3, (300, 3), generator=generator).float()
    mask = torch.rand(300, generator=generator) > 0.2
    found = within(queries, gallery, 4, 'inner_product', exclude=[[query, 9] for query in range(7)],
                   mask=mask, tile_budget=budget)
    scores = (queries @ gallery.T).tolist()
    for query, (values, rows) in enumerate(found):
        expected = [row for row in sorted(range(300), key=lambda r: (-scores[query][r], r))
                    if scores[query][row] >= 4 and mask[row] and row not in (query, 9)]
        assert rows.tolist() == expected
        assert values.tolist() == [scores[query][row] for row in expected]
    assert len(found) == 7 and found.ids[0] == [str(row) for row in found.row(0)[1].tolist()]


def test_nothing_found():
    found = within(torch.eye(2), -torch.eye(2), 0.5)
    assert found.offsets.tolist() == [0, 0, 0] and len(found.scores) == 0
    assert len(within(torch.zeros(0, 2), torch.eye(2), 0.0)) == 0


@pytest.mark.parametrize(('threshold', 'error'), [('1', TypeError), (None, TypeError),
                                                  (float('nan'), ValueError)])
def test_bad_threshold(threshold, error):
    with pytest.raises(error, match='threshold'):
        within(torch.eye(2), torch.eye(2), threshold)


@pytest.mark.parametrize(('similarity', 'threshold', 'write'), [
    ('cosine_similarity', 95, 'is at most 1. Write 0.95 for 95 percent'),
    ('cosine_similarity', 1.01, 'is at most 1'), ('euclidean', 0.5, 'at most 0. Write -0.5')])
def test_a_threshold_that_no_similarity_reaches(similarity, threshold, write):
    with pytest.raises(ValueError, match=write):
        within(torch.eye(2), torch.eye(2), threshold, similarity)


def test_a_threshold_that_some_similarity_reaches():
    assert len(within(torch.eye(2), torch.eye(2), 1 + 1e-7).scores) == 0  # just above all scores
    assert len(within(torch.eye(2), torch.eye(2), 0, 'euclidean').scores) == 2
    assert len(within(torch.eye(2) * 20, torch.eye(2) * 20, 95, 'inner_product').scores) == 2


def test_no_threshold_finds_all_but_what_is_left_out():
    mask = torch.tensor([True, True, False, True])
    found = within(torch.eye(4)[:2], torch.eye(4), -torch.inf, exclude=[[0], []], mask=mask)
    assert [rows.tolist() for _, rows in found] == [[1, 3], [1, 0, 3]]


def test_what_may_not_be_found_is_below_every_threshold():
    found = within(torch.eye(3), torch.eye(3), -float('inf'), mask=[True, False, True])
    assert [sorted(rows.tolist()) for _, rows in found] == [[0, 2]] * 3

"""Matches, against pytorch-metric-learning."""
import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances
from pytorch_metric_learning.utils import inference as peer

from retrieval.inference import MatchFinder
from retrieval.inference import match_finder as module


@pytest.mark.parametrize('distance, threshold', [
    (distances.CosineSimilarity(), 0.1), (distances.LpDistance(), 1.2)])
@pytest.mark.parametrize('with_reference', [False, True])
@pytest.mark.parametrize('at_the_call', [False, True])
def test_as_the_peer(distance, threshold, with_reference, at_the_call, monkeypatch):
    monkeypatch.setattr(module, 'TILE_BUDGET', 50)  # several blocks
    query, reference = torch.randn(17, 5), torch.randn(9, 5) if with_reference else None
    call = dict(threshold=threshold) if at_the_call else {}
    mine, theirs = (kind(distance, None if at_the_call else threshold)
                    for kind in (MatchFinder, peer.MatchFinder))
    found = mine.get_matching_pairs(query, reference, **call)
    expected = theirs.get_matching_pairs(query, reference, **call)
    assert found.dtype == bool and np.array_equal(found, expected)
    pairs = mine.get_matching_pairs(query, reference, return_tuples=True, **call)
    assert pairs == theirs.get_matching_pairs(query, reference, return_tuples=True, **call)
    query, other = (torch.nn.functional.normalize(torch.randn(17, 5)) for _ in range(2))
    assert np.array_equal(mine.is_match(query, other, **call),
                          theirs.is_match(query, other, **call))


@pytest.mark.parametrize('distance, threshold', [
    (distances.CosineSimilarity(), 0.4), (distances.LpDistance(power=2), 1.7)])
def test_pairs_are_judged_as_the_matrix_is(distance, threshold):
    """The peer's pairs are neither normalised nor raised to the power."""
    query, other = 3 * torch.randn(60, 5), torch.randn(60, 5)
    diagonal = [bool(distance(a[None], b[None]) >= threshold) == distance.is_inverted
                for a, b in zip(query, other, strict=True)]
    assert MatchFinder(distance, threshold).is_match(query, other).tolist() == diagonal
    assert peer.MatchFinder(distance, threshold).is_match(query, other).tolist() != diagonal


def test_one_pair_is_a_bool():
    finder = MatchFinder(distances.CosineSimilarity(), 0.5)
    assert finder.is_match(torch.ones(1, 3), torch.ones(1, 3)) is True
    assert finder.is_match(torch.ones(1, 3), torch.tensor([[1., 1, 0]]), threshold=0.99) is False
    assert finder.is_match(torch.ones(1, 3), -torch.ones(1, 3)) is False


def test_a_threshold_of_zero_counts():
    finder = MatchFinder(distances.LpDistance(), threshold=5)
    assert finder.is_match(torch.ones(1, 3), torch.zeros(1, 3) + 2, threshold=0) in (True, False)
    assert not finder.is_match(torch.eye(2), torch.eye(2).flip(0), threshold=0).any()


def test_a_threshold_that_nothing_reaches():
    rows = torch.eye(2)
    with pytest.raises(ValueError, match='at most 1. Write 0.95'):
        MatchFinder(distances.CosineSimilarity(), 95)
    with pytest.raises(ValueError, match='at most 1'):
        MatchFinder(distances.CosineSimilarity(), 0.5).is_match(rows, rows, threshold=50)
    with pytest.raises(ValueError, match='at least 0. Write 0.5'):
        MatchFinder(distances.LpDistance()).get_matching_pairs(rows, threshold=-0.5)
    free = distances.DotProductSimilarity(normalize_embeddings=False)
    assert MatchFinder(free, 95).is_match(rows * 10, rows * 10).all()


def test_wrong_input():
    with pytest.raises(TypeError, match='CosineSimilarity'):
        MatchFinder('cosine', 0.9)
    finder = MatchFinder(distances.CosineSimilarity())
    with pytest.raises(ValueError, match='threshold'):
        finder.get_matching_pairs(torch.eye(2))
    with pytest.raises(ValueError, match='calibration'):
        finder.match_probability(torch.eye(2), torch.eye(2))


def test_the_default_distance_is_the_cosine():
    rows = torch.randn(6, 4)
    by_default = MatchFinder(threshold=0.2).get_matching_pairs(rows)
    cosines = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    assert by_default.tolist() == (cosines >= 0.2).tolist()

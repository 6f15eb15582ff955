"""Agreement of clusters and classes, against scikit-learn and by hand."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.evaluation import (
    adjusted_mutual_information,
    evaluate_clusters,
    normalized_mutual_information,
)


@pytest.mark.parametrize('seed', range(4))
def test_against_the_peer(seed):
    peer = pytest.importorskip('sklearn.metrics')
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 12, 300)
    for clusters in (numbers.integers(0, 9, 300), labels, labels // 2, np.zeros(300, int),
                     np.arange(300), np.where(numbers.random(300) < 0.3, 0, labels)):
        ours = torch.from_numpy(labels), torch.from_numpy(clusters)
        assert normalized_mutual_information(*ours) == pytest.approx(
            peer.normalized_mutual_info_score(labels, clusters), abs=1e-9)
        assert adjusted_mutual_information(*ours) == pytest.approx(
            peer.adjusted_mutual_info_score(labels, clusters), abs=1e-9)


@pytest.mark.parametrize('count', [1, 2, 3, 10, 19, 300])
def test_rows_that_are_each_their_own_group(count):
    """Chance finds all of it then, so that the ratio is one of rounding errors."""
    alone, pair = np.arange(count), np.maximum(np.arange(count), 1)
    assert adjusted_mutual_information(alone, alone[::-1]) == 1
    assert adjusted_mutual_information(alone * 0, alone * 0) == 1
    if count > 2:
        assert adjusted_mutual_information(alone, pair) == pytest.approx(0, abs=1e-9)
        assert adjusted_mutual_information(pair, alone) == pytest.approx(0, abs=1e-9)
        assert adjusted_mutual_information(pair, pair) == pytest.approx(1)


def test_by_hand():
    labels, clusters = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    entropies = np.log(2), -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    information = 0.5 * np.log(0.5 / (0.5 * 0.75)) + 0.25 * np.log(0.25 / (0.5 * 0.75)) \
        + 0.25 * np.log(0.25 / (0.5 * 0.25))
    assert normalized_mutual_information(labels, clusters) == pytest.approx(
        information / np.mean(entropies))


def test_separate_classes_are_found():
    labels = torch.arange(60) % 4
    vectors = torch.eye(4)[labels] * 9 + torch.randn(60, 4) * 0.1
    found = evaluate_clusters(vectors, labels)
    assert found == {'NMI': pytest.approx(100), 'AMI': pytest.approx(100)}
    assert evaluate_clusters(vectors, [f'c{label}' for label in labels.tolist()]) == found


def test_chance_is_worth_nothing_adjusted():
    generator = torch.Generator().manual_seed(0)
    found = evaluate_clusters(torch.randn(400, 3, generator=generator), torch.arange(400) % 40)
    assert abs(found['AMI']) < 5 < found['NMI']


@pytest.mark.parametrize(('vectors', 'labels'), [
    (torch.randn(3, 2), [0, 1]), (torch.randn(0, 2), []), (torch.full((2, 2), torch.nan), [0, 1])])
def test_bad_input(vectors, labels):
    with pytest.raises(ValueError):
        evaluate_clusters(vectors, labels)

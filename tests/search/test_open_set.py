"""Calibrated matches in the inference model."""
from dataclasses import replace

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from torch import nn

from retrieval.evaluation import calibrate
from retrieval.inference import InferenceModel, MatchFinder


@pytest.fixture(scope='module')
def rows():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(6)[torch.arange(60) % 6]
    return centres + 0.25 * torch.randn(60, 6, generator=generator), torch.arange(60) % 6


@pytest.fixture(scope='module')
def calibration(rows):
    return calibrate(*rows, 'false_match_rate', 0.01)


def test_matches_and_probabilities(rows, calibration):
    vectors, labels = rows
    model = InferenceModel(nn.Identity(), calibration=calibration)
    x, y = vectors[:30], vectors[30:].roll(1, 0)
    x, y = torch.cat([x, x]), torch.cat([vectors[30:], y])
    cosines = torch.nn.functional.cosine_similarity(x, y)
    assert model.is_match(x, y).tolist() == (cosines >= calibration.threshold).tolist()
    probability = model.match_probability(x, y)
    assert torch.allclose(probability, calibration.probability(cosines), atol=1e-5)
    assert probability[:30].mean() > 0.8 and probability[30:].mean() < 0.1


def test_an_explicit_threshold_wins(rows, calibration):
    finder = MatchFinder(CosineSimilarity(), 0.2, calibration=calibration)
    model = InferenceModel(nn.Identity(), match_finder=finder)
    one = torch.tensor([[1., 0, 0, 0, 0, 0]])
    other = torch.tensor([[0.4, 1, 0, 0, 0, 0]])
    assert model.is_match(one, other) and not model.is_match(one, other, threshold=0.9)
    assert not InferenceModel(nn.Identity(), calibration=calibration).is_match(one, other)


def test_nobody_is_an_answer(rows, calibration):
    vectors, labels = rows
    model = InferenceModel(nn.Identity(), calibration=calibration)
    model.train_knn(vectors, labels=labels)
    stranger = -torch.ones(1, 6)
    known, nobody = model.identify(torch.cat([vectors[:1] + 0.01, stranger]), k=5)
    assert known['match'] and all(hit['label'] == 0 for hit in known['results'])
    assert known['results'][0]['probability'] > 0.9
    assert nobody == dict(match=False, results=[])


def test_classes_have_their_own_thresholds(rows, calibration):
    vectors, labels = rows
    strict = replace(calibration, class_thresholds={'0': 0.999})
    for made, known in ((calibration, True), (strict, False)):
        model = InferenceModel(nn.Identity(), calibration=made)
        model.train_knn(vectors, labels=labels)
        near = vectors[:1] + 0.1 * torch.eye(6)[1]
        assert model.identify(near)[0]['match'] is known
        assert model.identify(near, threshold=0.5)[0]['match']


def test_a_distance_counts_by_its_negative(rows):
    vectors, labels = rows
    made = calibrate(vectors, labels, similarity='euclidean')
    finder = MatchFinder(LpDistance(normalize_embeddings=False), calibration=made)
    x, y = vectors[:1], vectors[1:2]
    apart = float((x - y).norm())
    assert finder.is_match(x, y) == (-apart >= made.threshold)
    assert float(finder.match_probability(x, y)) == pytest.approx(made.probability(-apart),
                                                                  abs=1e-4)


def test_two_calibrations_contradict(calibration, rows):
    finder = MatchFinder(CosineSimilarity(), calibration=calibrate(*rows))
    with pytest.raises(ValueError, match='another calibration'):
        InferenceModel(nn.Identity(), match_finder=finder, calibration=calibration)

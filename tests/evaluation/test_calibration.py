"""Calibration, against direct optimisation, pooling by hand, and plain loops."""
import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from retrieval.evaluation import (
    MatchCalibration,
    calibrate,
    calibrate_pairs,
    choose_threshold,
    count_pairs,
    pairs_within,
)
from retrieval.evaluation.calibration import isotonic_knots, platt_scaling


def drawn(count=3000, seed=0):
    rng = np.random.default_rng(seed)
    matches = rng.random(count) < 0.2
    return 0.2 * rng.normal(size=count) + 0.3 + 0.4 * matches, matches


def test_platt_as_direct_optimisation():
    scores, matches = drawn()
    high, low = (matches.sum() + 1) / (matches.sum() + 2), 1 / ((~matches).sum() + 2)
    target = np.where(matches, high, low)

    def loss(parameters):
        z = parameters[0] * scores + parameters[1]
        return (np.logaddexp(0, -z) * target + np.logaddexp(0, z) * (1 - target)).sum()

    slope, offset = minimize(loss, [1., 0.], tol=1e-10).x
    assert platt_scaling(count_pairs(scores, matches)) == pytest.approx((slope, offset), rel=1e-3)


def test_platt_of_separable_pairs_is_finite_and_unsure():
    made = calibrate_pairs(count_pairs([0., 0.1, 0.9, 1.], [0, 0, 1, 1]))
    assert 0.5 < made.probability(1.0) < 1 and 0 < made.probability(0.0) < 0.5


def test_isotonic_as_scikit_learn_on_single_pairs():
    scores, matches = drawn(400)
    made = calibrate_pairs(count_pairs(scores, matches), method='isotonic')
    model = IsotonicRegression(out_of_bounds='clip').fit(scores, matches)
    at = np.linspace(-1, 2, 50)
    assert np.allclose(made.probability(at), model.predict(at))


def test_isotonic_pools_by_hand():
    """1 | 2 of 3 | 1 of 2 | 1: the middle two fall, so they share 3 of 5."""
    scores = [0., 1, 1, 1, 2, 2, 3]
    knots = isotonic_knots(count_pairs(scores, [0, 1, 1, 0, 1, 0, 1]))
    assert knots == [(0, 0), (1, pytest.approx(0.6)), (2, pytest.approx(0.6)), (3, 1)]


@pytest.mark.parametrize('method', ['platt', 'isotonic'])
def test_probabilities_are_the_shares_of_matches(method):
    made = calibrate_pairs(count_pairs(*drawn(20_000)), method=method)
    scores, matches = drawn(20_000, seed=1)
    probability = made.probability(scores)
    for low in np.arange(0, 1, 0.1):
        inside = (probability >= low) & (probability < low + 0.1)
        if inside.sum() > 300:
            assert matches[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.05)
    assert (np.diff(made.probability(np.sort(scores))) >= 0).all()


@pytest.mark.parametrize('method', ['platt', 'isotonic'])
def test_a_prior(method):
    pairs = count_pairs(*drawn(20_000))
    scores, matches = drawn(20_000, seed=1)
    rare = np.concatenate([scores[matches][:200], scores[~matches][:9800]])
    made = calibrate_pairs(pairs, method=method, prior=0.02)
    assert made.probability(rare).mean() == pytest.approx(0.02, abs=0.006)


def test_thresholds_by_criterion():
    pairs = count_pairs([1., 2, 3, 4, 5], [0, 1, 0, 1, 1])
    assert choose_threshold(pairs) == 2  # 6/7, before 4/5 of the threshold 4
    assert choose_threshold(pairs, 'false_match_rate', 0) == 4
    assert choose_threshold(pairs, 'false_match_rate', 0.5) == 2
    assert choose_threshold(pairs, 'precision', 0.75) == 2
    assert choose_threshold(pairs, 'precision') == 4
    made = calibrate_pairs(pairs, 'false_match_rate', 0.5, method=None)
    assert made.measured['far'] == 0.5 and made.measured['tar'] == 1
    with pytest.raises(ValueError, match='platt'):
        made.probability(1.)


def clusters(count=30, spread=(0.1, 0.5), seed=0):
    """Two tight classes and two loose ones, and one class of a single row."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, 16, generator=generator)
    rows = [centre + spread[label // 2] * torch.randn(count, 16, generator=generator)
            for label, centre in enumerate(centres)]
    return torch.cat([*rows, torch.randn(1, 16, generator=generator)]), \
        ['a'] * count + ['b'] * count + ['c'] * count + ['d'] * count + ['alone']


def test_thresholds_of_classes():
    embeddings, labels = clusters()
    made = calibrate(embeddings, labels, per_class=True)
    assert set(made.class_thresholds) == {'a', 'b', 'c', 'd'}
    for name, bar in made.class_thresholds.items():
        rows = [row for row, label in enumerate(labels) if label == name]
        assert bar == choose_threshold(pairs_within(embeddings, labels, rows=rows))
    assert made.class_thresholds['a'] > made.class_thresholds['c']
    assert made.threshold_of('alone') == made.threshold_of() == made.threshold
    mid = (made.class_thresholds['a'] + made.class_thresholds['c']) / 2
    for kind in (np.array, torch.tensor):
        assert made.is_match(kind([mid, mid]), ['a', 'c']).tolist() == [False, True]
    numbered = calibrate(embeddings, torch.tensor([ord(label[0]) - 97 for label in labels]),
                         per_class=True, label_names=['A', 'B', 'C', 'D'])
    assert set(numbered.class_thresholds) == {'A', 'B', 'C', 'D'}


def test_the_first_result_is_surer_than_any_pair():
    embeddings, labels = clusters(spread=(0.6, 1.2))
    every = calibrate(embeddings, labels)
    first = calibrate(embeddings, labels, neighbors=1)
    assert first.probability(0.6) > every.probability(0.6)
    assert every.similarity == 'cosine_similarity'
    assert calibrate(embeddings, labels, similarity='euclidean').threshold < 0


@pytest.mark.parametrize('scores', [0.5, np.array([0.1, 0.9]), torch.tensor([0.1, 0.9])])
def test_probabilities_come_in_the_kind_of_the_scores(scores):
    found = calibrate_pairs(count_pairs(*drawn())).probability(scores)
    assert type(found) is type(scores) and np.shape(found) == np.shape(scores)


@pytest.mark.parametrize('method', ['platt', 'isotonic', None])
def test_a_file(method, tmp_path):
    embeddings, labels = clusters()
    made = calibrate(embeddings, labels, method=method, per_class=True)
    made.save(tmp_path / 'match.json')
    again = MatchCalibration.load(tmp_path / 'match.json')
    assert again == made
    assert [path.name for path in tmp_path.iterdir()] == ['match.json']


@pytest.mark.parametrize('content', ['', '{', '[]', '{"format": "else"}', json.dumps(
    dict(format='retrieval.MatchCalibration', version=4, threshold=1)), json.dumps(
    dict(format='retrieval.MatchCalibration', version=2, method='tail', threshold=1)), json.dumps(
    dict(format='retrieval.MatchCalibration', version=1, bar=1)), json.dumps(
    dict(format='retrieval.MatchCalibration', version=1, threshold='high'))])
def test_a_file_of_something_else(content, tmp_path):
    (tmp_path / 'match.json').write_text(content)
    with pytest.raises(ValueError, match='match.json'):
        MatchCalibration.load(tmp_path / 'match.json')
    with pytest.raises(FileNotFoundError):
        MatchCalibration.load(tmp_path / 'nowhere.json')


@pytest.mark.parametrize('call, says', [
    (lambda p: choose_threshold(p, 'fmr'), 'false_match_rate'),
    (lambda p: choose_threshold(p, 'f1', 0.5), 'no target'),
    (lambda p: calibrate_pairs(p, method='plat'), "'platt'"),
    (lambda p: calibrate_pairs(p, prior=2), 'prior'),
    (lambda p: platt_scaling(count_pairs([1.], [1])), '1 and 0'),
    (lambda p: MatchCalibration(float('nan')), 'finite'),
    (lambda p: MatchCalibration(1., method='isotonic'), 'knots'),
])
def test_wrong_input(call, says):
    with pytest.raises(ValueError, match=says):
        call(count_pairs(*drawn(50)))

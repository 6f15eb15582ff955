"""Figures at thresholds, against plain loops and scikit-learn."""
import numpy as np
import pytest
from sklearn import metrics

from retrieval.evaluation import (
    count_pairs,
    equal_error_rate,
    figures_at,
    precision_recall_curve,
    roc_auc,
    roc_curve,
    tar_at_far,
    threshold_at_best_f1,
    threshold_at_far,
    threshold_at_precision,
)


@pytest.fixture(params=[0, 1, 2])
def data(request):
    """Scores with many ties, and which of them match."""
    rng = np.random.default_rng(request.param)
    matches = rng.random(500) < 0.3
    return np.round(rng.normal(size=500) + 1.2 * matches, 1), matches


def figures(scores, matches, bar):
    accepted = [score >= bar for score in scores]
    true = sum(a and m for a, m in zip(accepted, matches, strict=True))
    false = sum(a and not m for a, m in zip(accepted, matches, strict=True))
    tar, far = true / sum(matches), false / (len(matches) - sum(matches))
    precision = true / (true + false) if true + false else float('nan')
    f1 = 2 * true / (true + false + sum(matches))
    return tar, far, precision, f1


def test_figures_at_a_threshold(data):
    pairs = count_pairs(*data)
    for bar in (-9, -0.35, 0.2, 1, 2.05, 9):
        found = figures_at(pairs, bar)
        assert found.threshold == bar
        assert found[1:] == pytest.approx(figures(*data, bar), nan_ok=True)


def test_curves_as_scikit_learn(data):
    scores, matches = data
    pairs = count_pairs(scores, matches)
    far, tar, thresholds = metrics.roc_curve(matches, scores, drop_intermediate=False)
    curve = roc_curve(pairs)
    assert np.allclose(curve.far, far) and np.allclose(curve.tar, tar)
    assert np.allclose(curve.thresholds, thresholds)
    assert roc_auc(pairs) == pytest.approx(metrics.roc_auc_score(matches, scores))
    precision, recall, at = precision_recall_curve(pairs)
    theirs = metrics.precision_recall_curve(matches, scores)
    assert np.allclose(precision[::-1], theirs[0][:-1]) and np.allclose(at[::-1], theirs[2])
    assert np.allclose(recall[::-1], theirs[1][:-1])


def test_equal_error_rate():
    pairs = count_pairs([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])
    assert equal_error_rate(pairs) == pytest.approx(1 / 3)
    assert equal_error_rate(count_pairs([1, 2], [0, 1])) == 0
    rng = np.random.default_rng(0)
    matches = rng.random(40_000) < 0.5
    rate = equal_error_rate(count_pairs(rng.normal(size=40_000) + 2 * matches, matches))
    assert rate == pytest.approx(0.1587, abs=0.005)  # of two normals, two deviations apart


@pytest.mark.parametrize('rate', [0, 0.01, 0.05, 0.3, 1])
def test_a_threshold_for_a_false_accept_rate(data, rate):
    pairs = count_pairs(*data)
    bar = threshold_at_far(pairs, rate)
    assert figures(*data, bar)[1] <= rate
    lower = [score for score in set(data[0]) if score < bar]
    assert all(figures(*data, score)[1] > rate for score in lower)
    name = f'TAR@FAR={rate:g}'
    assert tar_at_far(pairs, [rate])[name] == pytest.approx(figures(*data, bar)[0])


def test_no_false_accept_at_all():
    bar = threshold_at_far(count_pairs([1., 2, 3], [0, 1, 0]), 0.2)
    assert bar > 3 and figures_at(count_pairs([1., 2, 3], [0, 1, 0]), bar).far == 0


@pytest.mark.parametrize('precision', [0, 0.4, 0.7, 0.8])
def test_a_threshold_for_a_precision(data, precision):
    bar = threshold_at_precision(count_pairs(*data), precision)
    mine = figures(*data, bar)
    assert mine[2] >= precision
    for score in set(data[0]):
        other = figures(*data, score)
        assert other[2] < precision or other[0] <= mine[0]


def test_a_threshold_for_the_best_f1(data):
    bar = threshold_at_best_f1(count_pairs(*data))
    best = max(figures(*data, score)[3] for score in set(data[0]))
    assert figures(*data, bar)[3] == pytest.approx(best)


@pytest.mark.parametrize('call, says', [
    (lambda: threshold_at_far(count_pairs([1.], [1]), 0.1), 'no rate'),
    (lambda: threshold_at_far(count_pairs([1., 2], [1, 0]), 1.5), 'between 0 and 1'),
    (lambda: threshold_at_precision(count_pairs([1., 2], [1, 0]), 0.9), 'highest is 0.5'),
    (lambda: threshold_at_precision(count_pairs([1.], [0]), 0.9), 'No pair'),
    (lambda: threshold_at_best_f1(count_pairs([1.], [0])), 'No pair'),
    (lambda: roc_curve(count_pairs([1.], [1])), 'needs pairs'),
])
def test_wrong_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()

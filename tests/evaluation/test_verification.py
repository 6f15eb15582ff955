"""Counting pairs, against plain loops; results at thresholds, also against scikit-learn."""
import numpy as np
import pytest
import torch
from sklearn import metrics
from torch.nn import functional

from retrieval.evaluation import (
    count_pairs,
    equal_error_rate,
    evaluate,
    pairs_within,
    precision_recall_curve,
    results_at,
    roc_auc,
    roc_curve,
    tar_at_far,
    threshold_at_best_f1,
    threshold_at_far,
    threshold_at_precision,
    verification,
)


def loop(embeddings, labels, score, rows=None, neighbors=None):
    """Scores and matches of every pair that counts."""
    found = []
    for i in range(len(embeddings)) if rows is None else rows:
        pairs = [(score(embeddings[i], embeddings[j]), labels[i] == labels[j], j)
                 for j in range(len(embeddings)) if j != i]
        if neighbors is not None:
            pairs = sorted(pairs, key=lambda pair: (-pair[0], pair[2]))[:neighbors]
        found += pairs
    return np.array([p[0] for p in found]), np.array([p[1] for p in found])


SCORES = {
    'cosine_similarity': lambda a, b: float(functional.cosine_similarity(a, b, 0)),
    'inner_product': lambda a, b: float(a @ b),
    'euclidean': lambda a, b: -float((a - b).norm()),
}


def accepted(pairs, bar):
    place = np.searchsorted(pairs.scores, bar)
    if place == len(pairs.scores):
        return 0, 0
    return pairs.true_accepts[place], pairs.false_accepts[place]


@pytest.mark.parametrize('name', SCORES)
@pytest.mark.parametrize('neighbors', [None, 3])
@pytest.mark.parametrize('rows', [None, [4, 7, 30]])
def test_pairs_of_a_set(name, neighbors, rows):
    embeddings, labels = 2 * torch.randn(40, 4), torch.arange(40) % 5
    scores, matches = loop(embeddings, labels.tolist(), SCORES[name], rows, neighbors)
    pairs = pairs_within(embeddings, labels, name, neighbors, rows=rows)
    assert pairs.num_matches == matches.sum() and pairs.num_others == (~matches).sum()
    for bar in np.quantile(scores, [0, .2, .5, .9, 1]) + 1e-4:
        assert accepted(pairs, bar) == ((matches & (scores >= bar)).sum(),
                                        (~matches & (scores >= bar)).sum())


def test_strings_and_callables():
    embeddings = torch.randn(12, 3)
    labels = ['cat', 'dog', 'eel'] * 4
    by_name = pairs_within(embeddings, labels)
    by_call = pairs_within(embeddings, labels,
                           lambda q, g: functional.normalize(q) @ functional.normalize(g).T)
    assert by_name.num_matches == by_call.num_matches == 12 * 3
    assert np.allclose(by_name.scores, by_call.scores, atol=1e-6)


@pytest.mark.parametrize('scale', [1e-3, 1., 700.])
def test_many_pairs_are_counted_in_bins(scale, monkeypatch):
    embeddings = scale * torch.randn(300, 6)
    embeddings[200:] *= 9  # bins must become wider on the way
    labels = torch.arange(300) % 7
    exact = pairs_within(embeddings, labels, 'inner_product')
    monkeypatch.setattr(verification, '_EXACT', 1000)
    monkeypatch.setattr(verification, 'TILE_BUDGET', 9000)
    binned = pairs_within(embeddings, labels, 'inner_product')
    assert binned.num_matches == exact.num_matches and binned.num_others == exact.num_others
    assert not np.array_equal(binned.scores, exact.scores)
    for edge in binned.scores[::997]:  # at an edge the counts are exact
        assert accepted(binned, edge) == accepted(exact, edge)
    widest = np.abs(exact.scores).max() / 2 ** 18
    at = np.searchsorted(exact.scores, binned.scores[10])
    assert abs(exact.scores[at] - binned.scores[10]) < widest


def test_pairs_are_counted_exactly_while_they_are_few(monkeypatch):
    embeddings, labels = torch.randn(40, 6), torch.arange(40) % 7
    exact = pairs_within(embeddings, labels)
    for most, same in ((40 * 39, True), (40 * 39 - 1, False)):
        monkeypatch.setattr(verification, '_EXACT', most)
        assert np.array_equal(pairs_within(embeddings, labels).scores, exact.scores) == same


def test_a_draw_of_queries():
    embeddings, labels = torch.randn(50, 4), torch.arange(50) % 2
    drawn = [pairs_within(embeddings, labels, max_queries=10, seed=seed) for seed in (0, 0, 1)]
    assert all(pairs.num_matches + pairs.num_others == 10 * 49 for pairs in drawn)
    assert np.array_equal(drawn[0].scores, drawn[1].scores)
    assert not np.array_equal(drawn[0].scores, drawn[2].scores)


def test_labelled_pairs():
    pairs = count_pairs([0.5, 0.1, 0.5, 0.9], [1, 0, 0, 1])
    assert pairs.scores.tolist() == [0.1, 0.5, 0.9]
    assert pairs.true_accepts.tolist() == [2, 2, 1] and pairs.false_accepts.tolist() == [2, 1, 0]
    assert '2 matches' in repr(pairs)


@pytest.mark.parametrize('call, error, says', [
    (lambda: count_pairs([1., 2], [True]), ValueError, '1 labels'),
    (lambda: count_pairs([], []), ValueError, 'at least one'),
    (lambda: count_pairs([1., float('nan')], [True, False]), ValueError, 'finite'),
    (lambda: count_pairs([1., 2], [3, 1]), TypeError, 'booleans'),
    (lambda: pairs_within(torch.randn(3, 2), [1, 2]), ValueError, '2 labels'),
    (lambda: pairs_within(torch.randn(1, 2), [1]), ValueError, 'two'),
])
def test_wrong_input(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.fixture(params=[0, 1, 2])
def data(request):
    """Scores with many ties, and which of them match."""
    rng = np.random.default_rng(request.param)
    matches = rng.random(500) < 0.3
    return np.round(rng.normal(size=500) + 1.2 * matches, 1), matches


def results(scores, matches, bar):
    accepted = [score >= bar for score in scores]
    true = sum(a and m for a, m in zip(accepted, matches, strict=True))
    false = sum(a and not m for a, m in zip(accepted, matches, strict=True))
    tar, far = true / sum(matches), false / (len(matches) - sum(matches))
    precision = true / (true + false) if true + false else float('nan')
    f1 = 2 * true / (true + false + sum(matches))
    return tar, far, precision, f1


def test_results_at_a_threshold(data):
    pairs = count_pairs(*data)
    for bar in (-9, -0.35, 0.2, 1, 2.05, 9):
        found = results_at(pairs, bar)
        assert found.threshold == bar
        assert found[1:] == pytest.approx(results(*data, bar), nan_ok=True)


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
    assert results(*data, bar)[1] <= rate
    lower = [score for score in set(data[0]) if score < bar]
    assert all(results(*data, score)[1] > rate for score in lower)
    name = f'TAR@FAR={rate:g}'
    assert tar_at_far(pairs, [rate])[name] == pytest.approx(results(*data, bar)[0])


def test_no_false_accept_at_all():
    bar = threshold_at_far(count_pairs([1., 2, 3], [0, 1, 0]), 0.2)
    assert bar > 3 and results_at(count_pairs([1., 2, 3], [0, 1, 0]), bar).far == 0


@pytest.mark.parametrize('precision', [0, 0.4, 0.7, 0.8])
def test_a_threshold_for_a_precision(data, precision):
    bar = threshold_at_precision(count_pairs(*data), precision)
    mine = results(*data, bar)
    assert mine[2] >= precision
    for score in set(data[0]):
        other = results(*data, score)
        assert other[2] < precision or other[0] <= mine[0]


def test_a_threshold_for_the_best_f1(data):
    bar = threshold_at_best_f1(count_pairs(*data))
    best = max(results(*data, score)[3] for score in set(data[0]))
    assert results(*data, bar)[3] == pytest.approx(best)


@pytest.mark.parametrize('call, says', [
    (lambda: threshold_at_far(count_pairs([1.], [1]), 0.1), 'no rate'),
    (lambda: threshold_at_far(count_pairs([1., 2], [1, 0]), 1.5), 'at least 0 and at most 1'),
    (lambda: threshold_at_precision(count_pairs([1., 2], [1, 0]), 0.9), 'highest is 0.5'),
    (lambda: threshold_at_precision(count_pairs([1.], [0]), 0.9), 'No pair'),
    (lambda: threshold_at_best_f1(count_pairs([1.], [0])), 'No pair'),
    (lambda: roc_curve(count_pairs([1.], [1])), 'needs pairs'),
])
def test_threshold_wrong_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize('rate', [0.0, 0.1, 0.5, 1.0])
def test_fnmr_at_fmr_is_one_less_tar_at_far_of_what_is_ranked(rate):
    torch.manual_seed(3)
    queries, gallery = torch.randn(7, 4), torch.randn(20, 4)
    labels, theirs = torch.arange(7) % 3, torch.arange(20) % 3
    junk = [[0, 5]] * 7
    unit = torch.nn.functional.normalize
    scores = unit(queries.double()) @ unit(gallery.double()).T
    pairs = [(float(scores[q, g]), bool(labels[q] == theirs[g]))
             for q in range(7) for g in range(20) if g not in (0, 5)]
    matches = [score for score, match in pairs if match]
    others = [score for score, match in pairs if not match]
    best = min([sum(score < threshold for score in matches) / len(matches)
                for threshold in [score for score, _ in pairs] + [2.]
                if sum(score >= threshold for score in others) <= rate * len(others)])
    found = evaluate(queries, labels, gallery, theirs, junk=junk, metrics=f'FNMR@FMR={rate:g}')
    assert found[f'FNMR@FMR={rate:g}'] == pytest.approx(100 * best)


def test_no_rate_without_pairs_that_match():
    """A NaN among the results would be compared with nothing, and refused nowhere."""
    with pytest.raises(ValueError, match='there are 0 and 4'):
        evaluate(np.eye(2), [0, 1], np.eye(2), [5, 6], metrics='FNMR@FMR=0.1',
                 empty_queries='zero')

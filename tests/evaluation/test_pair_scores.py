"""Counting pairs, against plain loops."""
import numpy as np
import pytest
import torch
from torch.nn import functional

from retrieval.evaluation import count_pairs, pair_scores, pairs_within


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
    monkeypatch.setattr(pair_scores, '_EXACT', 1000)
    monkeypatch.setattr(pair_scores, 'TILE_BUDGET', 9000)
    binned = pairs_within(embeddings, labels, 'inner_product')
    assert binned.num_matches == exact.num_matches and binned.num_others == exact.num_others
    assert not np.array_equal(binned.scores, exact.scores)
    for edge in binned.scores[::997]:  # at an edge the counts are exact
        assert accepted(binned, edge) == accepted(exact, edge)
    widest = np.abs(exact.scores).max() / 2 ** 18
    at = np.searchsorted(exact.scores, binned.scores[10])
    assert abs(exact.scores[at] - binned.scores[10]) < widest


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

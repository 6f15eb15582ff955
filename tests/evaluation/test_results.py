"""Means, tables by class, intervals and comparisons of the results of single queries."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.evaluation import (
    EmbeddingSet,
    EvaluationTask,
    QueryResults,
    compare,
    evaluate,
    rank_queries,
)

RESULTS = torch.tensor([[1.0, 0.5], [0.0, 0.25], [1.0, 1.0], [7.0, 7.0]], dtype=torch.float64)
COUNTS = torch.tensor([3, 1, 2, 0])  # the last query has nothing to find
LABELS = torch.tensor([5, 5, 9, 9])


def results(found=RESULTS, counts=COUNTS, labels=LABELS, names=()):
    return QueryResults(['Recall@1', 'mAP'], found, counts, labels, names)


def test_means():
    assert results().summary() == {
        'Recall@1': pytest.approx(200 / 3), 'mAP': pytest.approx(175 / 3), 'num_queries': 4,
        'num_skipped_queries': 1}
    assert results().summary('macro') == {
        'Recall@1': 75, 'mAP': pytest.approx((37.5 + 100) / 2), 'num_queries': 4,
        'num_skipped_queries': 1}


def test_classes_by_label_and_by_name():
    table = results().per_class()
    assert table == {5: {'Recall@1': 50, 'mAP': 37.5, 'num_queries': 2},
                     9: {'Recall@1': 100, 'mAP': 100, 'num_queries': 1}}
    names = ['?'] * 5 + ['cat'] + ['?'] * 3 + ['dog']
    assert list(results(names=names).per_class()) == ['cat', 'dog']
    vectors, words = torch.randn(30, 4), [f'class {row % 4}' for row in range(30)]
    table = rank_queries(EvaluationTask(EmbeddingSet(vectors, words))).per_class()
    assert sorted(table) == sorted(set(words))
    of_one = [row for row in range(30) if row % 4 == 2]
    relevance = [[other for other in range(30) if other % 4 == row % 4] for row in range(30)]
    alone = evaluate(vectors[of_one], None, vectors, relevance=[relevance[row] for row in of_one],
                     ids=of_one, gallery_ids=range(30))
    assert table['class 2']['mAP'] == pytest.approx(alone['mAP'])


def test_an_interval_covers_as_often_as_it_says():
    numbers = np.random.default_rng(0)
    inside = 0
    for trial in range(100):
        values = torch.from_numpy((numbers.random((80, 1)) < 0.3).astype(np.float64))
        one = QueryResults(['Recall@1'], values, torch.ones(80, dtype=torch.int64))
        low, high = one.confidence(0.9, 300, seed=trial)['Recall@1']
        inside += low <= 30 <= high
    assert 80 <= inside <= 98


def test_an_interval_against_a_plain_loop():
    values = torch.rand(50, 2, dtype=torch.float64)
    one = QueryResults(['a', 'b'], values, torch.ones(50, dtype=torch.int64))
    numbers = np.random.default_rng(1)
    means = np.stack([values.numpy()[numbers.integers(0, 50, 50)].mean(0) for _ in range(4000)])
    for level, shares in ((0.95, [0.025, 0.975]), (0.5, [0.25, 0.75])):
        for name, expected in zip('ab', np.quantile(means, shares, axis=0).T, strict=True):
            np.testing.assert_allclose(one.confidence(level, draws=4000)[name], 100 * expected,
                                       atol=1 if level > 0.9 else 0.5)
    assert one.confidence() == one.confidence() != one.confidence(seed=1)


def test_macro_intervals_draw_classes():
    same = torch.ones(4, dtype=torch.int64)
    one = QueryResults(['a'], torch.tensor([[0.0], [0], [1], [1]]).double(), same,
                       torch.tensor([0, 1, 0, 1]))
    assert one.confidence(average='macro')['a'] == (50, 50)
    assert one.confidence()['a'] == (0, 100)


def test_significance_of_a_difference():
    numbers = torch.Generator().manual_seed(0)
    first = torch.rand(200, 1, generator=numbers, dtype=torch.float64)
    ones = torch.ones(200, dtype=torch.int64)
    better = QueryResults(['mAP'], (first + 0.1 * torch.rand(200, 1, generator=numbers)), ones)
    first = QueryResults(['mAP'], first, ones)
    found = compare(first, better)['mAP']
    assert found['p_value'] < 0.001 and 4 < found['difference'] < 6
    assert compare(first, first)['mAP'] == {'difference': 0, 'p_value': 1}


def test_significance_against_all_sign_changes():
    apart = np.array([0.3, -0.1, 0.25, 0.2, -0.05, 0.4, 0.1, -0.2])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    exact = (np.abs(signs @ apart) >= abs(apart.sum()) - 1e-12).mean()
    ones = torch.ones(8, dtype=torch.int64)
    zero = QueryResults(['a'], torch.zeros(8, 1).double(), ones)
    other = QueryResults(['a'], torch.from_numpy(apart)[:, None], ones)
    assert compare(zero, other, 20000)['a']['p_value'] == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize(('call', 'says'), [
    (lambda: results().confidence(1.0), 'above 0 and below 1'),
    (lambda: results().confidence(draws=0), 'at least 1'),
    (lambda: results().summary('mean'), 'macro, micro'),
    (lambda: results(labels=None).per_class(), 'needs labels'),
    (lambda: results(counts=COUNTS * 0).summary(), 'None of 4 queries'),
    (lambda: compare(results(), results(RESULTS[:2], COUNTS[:2])), 'the same queries'),
    (lambda: compare(results(), results(counts=COUNTS + 1)), 'skip different queries'),
    (lambda: compare(results(), results(), draws=0), 'at least 1'),
])
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_empty_queries_are_left_out_or_zero_or_an_error():
    from retrieval.evaluation import EmbeddingMetrics, evaluate
    vectors, labels = torch.eye(4)[:, :2] + .1, [0, 0, 1, 2]
    given = dict(embeddings=vectors, labels=labels, metrics=['Recall@3', 'MRR'])
    assert evaluate(**given) == evaluate(**given, empty_queries='skip')
    found = evaluate(**given, empty_queries='zero')
    assert found['Recall@3'] == 50 and evaluate(**given)['Recall@3'] == 100
    assert (found['num_skipped_queries'], found['num_empty_queries']) == (0, 2)
    with pytest.raises(ValueError, match='2 of 4 queries have no relevant row .*query 2'):
        evaluate(**given, empty_queries='error')
    for make in (lambda: evaluate(**given, empty_queries='skipp'),
                 lambda: EmbeddingMetrics(empty_queries='skipp')):
        with pytest.raises(ValueError, match="Unknown empty_queries 'skipp'.*skip"):
            make()


def test_where_no_query_has_a_relevant_row():
    from retrieval.evaluation import evaluate
    given = dict(embeddings=torch.eye(2), labels=[0, 1], metrics='mAP')
    assert evaluate(**given, empty_queries='zero')['mAP'] == 0
    with pytest.raises(ValueError, match='None of 2'):
        evaluate(**given)

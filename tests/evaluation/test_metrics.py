"""Every formula against a loop that walks down the ranked list."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.evaluation import VALID_NAMES, parse_metric, parse_metrics
from retrieval.evaluation import metrics as measures
from retrieval.ranking import RelevantRanks


def walk(hits, name, k=None):
    """The figure of one query from its ranked list of booleans, by the definition in words."""
    total = sum(hits)
    found, area, precisions = 0, 0.0, []
    for place, hit in enumerate(hits, 1):
        before = found / (place - 1) if place > 1 else 1.0
        found += hit
        precisions.append(found / place)
        area += hit * (before + found / place) / 2
    at = [place for place, hit in enumerate(hits, 1) if hit]
    steps = [p * hit for p, hit in zip(precisions, hits, strict=True)]
    return {
        'Recall': lambda: float(any(hits[:k])),
        'CMC': lambda: float(any(hits[:k])),
        'Precision': lambda: sum(hits[:k]) / k,
        'mAP@': lambda: sum(steps[:k]) / min(total, k),
        'R-Precision': lambda: sum(hits[:total]) / total,
        'MAP@R': lambda: sum(steps[:total]) / total,
        'mAP': lambda: sum(steps) / total,
        'mAP-trapezoid': lambda: area / total,
        'MRR': lambda: 1 / at[0],
        'mINP': lambda: total / at[-1],
    }[name]()


def ranks_of(lists):
    ranks = [[place for place, hit in enumerate(hits, 1) if hit] for hits in lists]
    offsets = np.cumsum([0, *map(len, ranks)])
    return RelevantRanks(torch.from_numpy(offsets), torch.tensor(sum(ranks, [])),
                         torch.tensor([len(hits) for hits in lists]))


@pytest.fixture(scope='module')
def lists():
    numbers = np.random.default_rng(0)
    drawn = [(numbers.random(int(numbers.integers(1, 40))) < share).tolist()
             for share in (0.1, 0.3, 0.9) for _ in range(30)]
    return [hits for hits in drawn if any(hits)]


@pytest.mark.parametrize('name', ['R-Precision', 'MAP@R', 'mAP', 'mAP-trapezoid', 'MRR', 'mINP'])
def test_plain(lists, name):
    values = parse_metric(name).values(ranks_of(lists))
    assert values.dtype == torch.float64
    np.testing.assert_allclose(values, [walk(hits, name) for hits in lists], rtol=1e-12)


@pytest.mark.parametrize('k', [1, 2, 10, 1000])
@pytest.mark.parametrize('name', ['Recall', 'CMC', 'Precision', 'mAP'])
def test_at_k(lists, name, k):
    values = parse_metric(f'{name}@{k}').values(ranks_of(lists))
    expected = [walk(hits, 'mAP@' if name == 'mAP' else name, k) for hits in lists]
    np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_by_hand():
    ranks = ranks_of([[True, False, True, False, False, True]])
    assert float(measures.average_precision(ranks)) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert float(measures.map_at_r(ranks)) == pytest.approx((1 + 2 / 3) / 3)
    assert float(measures.r_precision(ranks)) == pytest.approx(2 / 3)
    assert float(measures.trapezoid_average_precision(ranks)) == pytest.approx(
        (1 + (1 / 2 + 2 / 3) / 2 + (2 / 5 + 3 / 6) / 2) / 3)
    assert float(measures.inverse_negative_penalty(ranks)) == pytest.approx(0.5)
    assert float(measures.precision_at_k(ranks, 20)) == pytest.approx(3 / 20)
    assert float(measures.average_precision_at_k(ranks, 2)) == pytest.approx(1 / 2)


def test_a_query_without_a_relevant_row_divides_by_nothing():
    ranks = ranks_of([[False, False], [True]])
    for name in ('R-Precision', 'MAP@R', 'mAP', 'mAP-trapezoid', 'MRR', 'mINP', 'Recall@1',
                 'Precision@2', 'mAP@2'):
        values = parse_metric(name).values(ranks)
        assert values[0] == 0 and torch.isfinite(values).all()


def test_every_valid_name_is_understood():
    for name in VALID_NAMES:
        assert parse_metric(name.replace('@K', '@7')).name == name.replace('@K', '@7')


def test_one_name_and_repeats():
    assert [measure.name for measure in parse_metrics('mAP')] == ['mAP']
    assert [measure.name for measure in parse_metrics(['mAP', 'MRR', 'mAP'])] == ['mAP', 'MRR']


@pytest.mark.parametrize('name', ['Recal@1', 'recall@1', 'Recall', 'MAP', 'map@r', '', 'MRR@3'])
def test_an_unknown_metric_lists_the_valid_ones(name):
    with pytest.raises(ValueError, match='Unknown metric .*Recall@K'):
        parse_metric(name)


@pytest.mark.parametrize('number', ['0', '-1', '1.5', 'x', '', '１', '1 ', '@2'])
def test_k_below_one_or_no_number(number):
    with pytest.raises(ValueError, match='whole number of at least 1|Unknown'):
        parse_metric(f'Recall@{number}')


@pytest.mark.parametrize('names', [[1], [None], 3])
def test_no_names(names):
    with pytest.raises(TypeError):
        parse_metrics(names)


def test_none_given():
    with pytest.raises(ValueError, match='No metric'):
        parse_metrics([])

from __future__ import annotations

import pytest

from retrieval.evaluation import VALID_NAMES, parse_metric, parse_metrics


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

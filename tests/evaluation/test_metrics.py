"""Every formula against a loop that walks down the ranked list."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from retrieval.evaluation import EmbeddingMetrics, evaluate, metric, metric_names, per_query
from retrieval.evaluation import metrics as functions
from retrieval.evaluation.metrics import metric_definition, parse_metric, parse_metrics
from retrieval.ranking import RelevantRanks
from retrieval.registry import METRICS


def walk(hits, name, k=None):
    """The result of one query from its ranked list of booleans, by the definition in words."""
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
        'Recall-share': lambda: sum(hits[:k]) / total,
        'OML-Precision': lambda: sum(hits[:k]) / min(k, total),
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
    results = parse_metric(name).results(ranks_of(lists))
    assert results.dtype == torch.float64
    np.testing.assert_allclose(results, [walk(hits, name) for hits in lists], rtol=1e-12)


@pytest.mark.parametrize('k', [1, 2, 10, 1000])
@pytest.mark.parametrize('name', ['Recall', 'CMC', 'Precision', 'mAP', 'Recall-share',
                                  'OML-Precision'])
def test_at_k(lists, name, k):
    results = parse_metric(f'{name}@{k}').results(ranks_of(lists))
    expected = [walk(hits, 'mAP@' if name == 'mAP' else name, k) for hits in lists]
    np.testing.assert_allclose(results, expected, rtol=1e-12)


@pytest.mark.parametrize('k', [1, 3, 10, 1000])
def test_ndcg_is_scikit_learns(lists, k):
    from sklearn.metrics import ndcg_score
    longer = [hits for hits in lists if len(hits) > 1]  # of one row it refuses
    expected = [ndcg_score([hits], [-np.arange(len(hits))], k=k) for hits in longer]
    np.testing.assert_allclose(parse_metric(f'NDCG@{k}').results(ranks_of(longer)), expected)


def test_auroc_is_scikit_learns(lists):
    from sklearn.metrics import roc_auc_score
    expected = [1. if all(hits) else roc_auc_score(hits, -np.arange(len(hits))) for hits in lists]
    np.testing.assert_allclose(parse_metric('AUROC').results(ranks_of(lists)), expected)


def test_the_metrics_of_the_peers_from_embeddings():
    torch.manual_seed(0)
    vectors, labels = torch.randn(60, 8), torch.arange(60) % 9
    names = ['NDCG@5', 'AUROC', 'Recall-share@5', 'OML-Precision@5', 'FNMR@FMR=0.1', 'PCF@80',
             'CMC-single-shot@2']
    found = evaluate(vectors, labels, metrics=names)
    assert list(found)[-2:] == ['num_queries', 'num_skipped_queries']
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    sums = np.zeros(2)
    for row in range(60):
        order = sorted(set(range(60)) - {row}, key=lambda other: -float(unit[row] @ unit[other]))
        hits = [bool(labels[other] == labels[row]) for other in order]
        sums += [walk(hits, 'Recall-share', 5), walk(hits, 'OML-Precision', 5)]
    assert [found['Recall-share@5'], found['OML-Precision@5']] == pytest.approx(sums * 100 / 60)
    assert all(0 < found[name] < 100 for name in names)


@pytest.mark.parametrize('name', ['FNMR@FMR=', 'FNMR@FMR=x', 'FNMR@FMR=2', 'FNMR@FMR=1.2.3'])
def test_a_rate_that_is_none(name):
    with pytest.raises(ValueError, match='R must be a rate from 0 to 1'):
        parse_metric(name)


def test_by_hand():
    ranks = ranks_of([[True, False, True, False, False, True]])
    assert float(functions.average_precision(ranks)) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert float(functions.map_at_r(ranks)) == pytest.approx((1 + 2 / 3) / 3)
    assert float(functions.r_precision(ranks)) == pytest.approx(2 / 3)
    assert float(functions.trapezoid_average_precision(ranks)) == pytest.approx(
        (1 + (1 / 2 + 2 / 3) / 2 + (2 / 5 + 3 / 6) / 2) / 3)
    assert float(functions.inverse_negative_penalty(ranks)) == pytest.approx(0.5)
    assert float(functions.precision_at_k(ranks, 20)) == pytest.approx(3 / 20)
    assert float(functions.average_precision_at_k(ranks, 2)) == pytest.approx(1 / 2)


def test_a_query_without_a_relevant_row_divides_by_nothing():
    ranks = ranks_of([[False, False], [True]])
    for name in ('R-Precision', 'MAP@R', 'mAP', 'mAP-trapezoid', 'MRR', 'mINP', 'Recall@1',
                 'Precision@2', 'mAP@2', 'NDCG@2', 'AUROC', 'Recall-share@2', 'OML-Precision@2'):
        results = parse_metric(name).results(ranks)
        assert results[0] == 0 and torch.isfinite(results).all()


def test_every_valid_name_is_understood():
    for name in metric_names():
        asked = name.replace('@K', '@7').replace('=R', '=1e-3')
        assert parse_metric(asked).name == asked


def test_one_name_and_repeats():
    assert [one.name for one in parse_metrics('mAP')] == ['mAP']
    assert [one.name for one in parse_metrics(['mAP', 'MRR', 'mAP'])] == ['mAP', 'MRR']


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


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(functions, '_REGISTERED', dict(functions._REGISTERED))


def test_a_metric_of_ones_own(registry):
    @metric('Median')
    def median_rank(ranks):
        """1 over the median rank of the relevant rows."""
        middle = ranks.order == (ranks.num_relevant[ranks.query] + 1) // 2
        return per_query(ranks, middle / ranks.ranks.double())

    @metric('Failures@K', depth=lambda k: functions.Depth(best=k))
    def failures_at_k(ranks, k):
        return 1 - functions.recall_at_k(ranks, k)

    vectors, labels = torch.randn(40, 4), torch.arange(40) % 6
    found = evaluate(vectors, labels, metrics=['Median', 'Failures@3', 'Recall@3'])
    assert found['Failures@3'] == pytest.approx(100 - found['Recall@3'])
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    medians = []
    for row in range(40):
        order = sorted(set(range(40)) - {row}, key=lambda other: -float(unit[row] @ unit[other]))
        places = [place for place, other in enumerate(order, 1) if labels[other] == labels[row]]
        medians.append(1 / places[(len(places) + 1) // 2 - 1])
    assert found['Median'] == pytest.approx(100 * np.mean(medians))
    assert EmbeddingMetrics(['Median', 'Failures@3']).metrics == ['Median', 'Failures@3']
    assert metric_names()[-2:] == ['Median', 'Failures@K']
    with pytest.raises(ValueError, match="'Failures@x': K must be"):
        parse_metric('Failures@x')


def test_a_module_that_a_config_imports(registry, tmp_path, monkeypatch):
    (tmp_path / 'metric_of_mine.py').write_text(
        'from retrieval.evaluation import metric\nfrom retrieval.evaluation.metrics import '
        "recall_at_k\nmetric('Mine@K')(lambda ranks, k: recall_at_k(ranks, k))\n")
    (tmp_path / 'config.py').write_text(
        "custom_imports = dict(imports=['metric_of_mine'])\n"
        "val_evaluator = dict(type='retrieval.EmbeddingMetrics', metrics=['Mine@5'])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = Config.fromfile(tmp_path / 'config.py')
    assert METRICS.build(config.val_evaluator).metrics == ['Mine@5']


def test_registered_wrongly(registry):
    with pytest.raises(ValueError, match="There is a metric 'mAP' already .*average_precision"):
        metric('mAP')(lambda ranks: ranks.ranks)
    with pytest.raises(TypeError, match="'Depth' has no K: give a Depth"):
        metric('Depth', depth=lambda k: functions.Depth(rows=k))
    again = functions.average_precision
    assert metric('mAP')(again) is again


@pytest.mark.parametrize(('function', 'error', 'says'), [
    (lambda ranks: ranks.precisions, ValueError, r'each of 40 queries, got the shape \(280,\)'),
    (lambda ranks: 0.5, TypeError, 'got float')])
def test_a_function_that_returns_something_else(registry, function, error, says):
    metric('Mine')(function)
    with pytest.raises(error, match=says):
        evaluate(torch.randn(40, 4), torch.arange(40) % 5, metrics='Mine')


def test_rows_that_were_not_found_add_nothing():
    ranks = RelevantRanks(torch.tensor([0, 3, 4]),
                          torch.tensor([1, 4, functions.BEYOND, functions.BEYOND]),
                          torch.tensor([5, 5]))
    assert functions.average_precision(ranks).tolist() == [(1 + 2 / 4) / 3, 0]
    assert functions.trapezoid_average_precision(ranks).tolist() == pytest.approx(
        [(1 + (1 / 3 + 2 / 4) / 2) / 3, 0])


def test_every_metric_stands_in_the_page_and_in_the_help():
    from retrieval.commands.evaluate import parser
    page = (Path(__file__).parents[2] / 'docs' / 'evaluation.md').read_text()
    # the package's own: examples of other tests in this process register metrics too
    names = {name for name, (function, _) in functions._REGISTERED.items()
             if function.__module__.startswith('retrieval.') and
             getattr(sys.modules[function.__module__], function.__name__, None) is function}
    assert len(names) > 8 and names <= set(metric_names())
    assert {f'`{name}`' for name in names} <= set(re.findall(r'`[^`\n]+`', page))
    assert names <= set(re.split(r'\s+|\.\s', parser().epilog))


@pytest.mark.parametrize('name', [*metric_names(), 'FNMR@FMR=1e-3'])
def test_every_metric_has_a_definition(name):
    said = metric_definition(name.replace('@K', '@7').replace('=R', '=0.1'))
    assert said.endswith('.') and said.count('\n') == 0 and len(said) > 20

"""Recall and average precision of ranked lists, against plain loops."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from retrieval.evaluation import RetrievalAveragePrecision, RetrievalRecall, evaluate
from retrieval.registry import METRICS
from retrieval.structures import RetrievalDataSample


def plain_recall(pred, target, k):
    found = [bool(set(p[:k]) & set(t)) for p, t in zip(pred, target, strict=True)]
    return 100 * float(np.mean(found))


def plain_precision(pred, target, k, mode):
    figures = []
    for rows, relevant in zip(pred, target, strict=False):
        found, total = 0, 0.0
        for place, row in enumerate(rows[:k]):
            if row in relevant:
                before = found / place if place else 1.0
                found += 1
                here = found / (place + 1)
                total += here if mode == 'IR' else (before + here) / 2
        figures.append(total / len(relevant))
    return 100 * float(np.mean(figures))


def drawn(seed, queries=12, rows=30):
    numbers = np.random.default_rng(seed)
    scores = numbers.permutation(queries * rows).reshape(queries, rows).astype(np.float32)
    pred = np.argsort(-scores, axis=1, kind='stable').tolist()
    target = [sorted(numbers.choice(rows, int(numbers.integers(1, 6)), replace=False).tolist())
              for _ in range(queries)]
    dense = np.zeros((queries, rows), dtype=np.int64)
    for query, relevant in enumerate(target):
        dense[query, relevant] = 1
    return scores, pred, target, dense


def test_by_hand():
    assert RetrievalRecall.calculate([[0], [1], [2], [3]], [[0, 1], [2], [1], [0, 3]], 1, True,
                                     True) == [torch.tensor(50.)]
    rows = [list(range(100))] * 3
    target = [[0, 3, 6, 8, 35], [1, 2, 54, 105], [2, 42, 205]]
    assert RetrievalAveragePrecision.calculate(rows, target, 10, True, True) == pytest.approx(
        100 * ((1 + 2 / 4 + 3 / 7 + 4 / 9) / 5 + (1 / 2 + 2 / 3) / 4 + (1 / 3) / 3) / 3)
    assert RetrievalAveragePrecision.calculate([[5, 0]], [[0]], 2, True, True,
                                               'integrate') == pytest.approx(25)


@pytest.mark.parametrize('k', [1, 4, 30, 100])
@pytest.mark.parametrize('seed', range(3))
def test_calculate(seed, k):
    scores, pred, target, dense = drawn(seed)
    forms = [(pred, target, True, True), (scores, dense, False, False),
             (torch.from_numpy(scores), torch.from_numpy(dense).float(), False, False),
             ([torch.tensor(rows) for rows in pred], dense.tolist(), True, False),
             (np.array(pred), [np.array(rows) for rows in target], True, True)]
    for ours, theirs, pred_indices, target_indices in forms:
        recall, = RetrievalRecall.calculate(ours, theirs, k, pred_indices, target_indices)
        assert float(recall) == pytest.approx(plain_recall(pred, target, k))
        for mode in ('IR', 'integrate'):
            got = RetrievalAveragePrecision.calculate(ours, theirs, k, pred_indices,
                                                      target_indices, mode)
            assert got == pytest.approx(plain_precision(pred, target, k, mode))


@pytest.mark.parametrize('seed', range(3))
def test_against_the_peer(seed, monkeypatch):
    peer = pytest.importorskip('mmpretrain.evaluation.metrics.retrieval',
                               exc_type=(ImportError, AttributeError, RuntimeError))
    if not hasattr(np, 'in1d'):
        monkeypatch.setattr(np, 'in1d', np.isin, raising=False)
    scores, pred, target, dense = drawn(seed)
    for k in (1, 5, 30):
        assert RetrievalRecall.calculate(scores, dense, (k,)) == [
            pytest.approx(float(value)) for value in
            peer.RetrievalRecall.calculate(scores, dense, (k,))]
        for mode in ('IR', 'integrate'):
            assert RetrievalAveragePrecision.calculate(pred, target, k, True, True, mode) == \
                pytest.approx(peer.RetrievalAveragePrecision.calculate(
                    [list(rows) for rows in pred], target, k, True, True, mode))


def test_calculate_leaves_queries_without_a_relevant_row_out():
    pred, target = [[0, 1], [1, 0]], [[0], []]
    assert RetrievalRecall.calculate(pred, target, 1, True, True) == [torch.tensor(100.)]
    assert RetrievalAveragePrecision.calculate(pred, target, 2, True, True) == 100
    for metric in (RetrievalRecall, RetrievalAveragePrecision):
        with pytest.raises(ValueError, match='None of 2 queries'):
            metric.calculate(pred, [[], []], 1, True, True)


def run(data_samples, *metrics, gallery=None):
    evaluator = Evaluator(list(metrics))
    for metric in evaluator.metrics:
        if gallery is not None:
            metric.set_gallery(gallery)
    evaluator.process(data_samples)
    return evaluator.evaluate(len(data_samples))


def both(topk, depth, **options):
    return RetrievalRecall(topk, **options), RetrievalAveragePrecision(depth, **options)


def ranked_samples(ranked, labels=None, prefix='q'):
    made = []
    for row, rows in enumerate(ranked):
        sample = RetrievalDataSample(metainfo={'sample_idx': row, 'sample_id': f'{prefix}{row}'})
        sample.set_pred_label(rows).set_pred_score(torch.linspace(1, 0, len(rows)))
        if labels is not None:
            sample.set_gt_label(int(labels[row]))
        made.append(sample)
    return made


def test_relevance_by_the_labels_of_the_gallery():
    queries, gallery = torch.randn(12, 4), torch.randn(40, 4)
    labels, theirs = torch.arange(12) % 5, torch.arange(40) % 5
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], gallery, dim=2)
    ranked = cosine.sort(descending=True, dim=1).indices
    held = SimpleNamespace(embeddings=gallery, labels=theirs, ids=[f'g{i}' for i in range(40)])
    found = run(ranked_samples(ranked, labels), *both((1, 5), 40), gallery=held)
    expected = evaluate(queries, labels, gallery, theirs, ('Recall@1', 'Recall@5', 'mAP'))
    assert found == {
        'search/Recall@1': pytest.approx(expected['Recall@1']),
        'search/Recall@5': pytest.approx(expected['Recall@5']),
        'search/mAP@40': pytest.approx(expected['mAP']),
        'search/Recall@1/num_skipped_queries': 0, 'search/mAP@40/num_skipped_queries': 0}


@pytest.mark.parametrize('with_self', [True, False])
def test_the_query_itself_is_neither_ranked_nor_relevant(with_self):
    vectors, labels = torch.randn(30, 4), torch.arange(30) % 12
    labels[-1] = 99  # a class of one
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors, dim=2)
    ranked = cosine.sort(descending=True, dim=1).indices
    if not with_self:
        ranked = torch.stack([rows[rows != row] for row, rows in enumerate(ranked)])
    held = SimpleNamespace(embeddings=vectors, labels=labels, ids=[f'q{i}' for i in range(30)])
    found = run(ranked_samples(ranked, labels), *both((1, 5), 30), gallery=held)
    expected = evaluate(vectors, labels, metrics=('Recall@1', 'Recall@5', 'mAP'))
    assert expected['num_skipped_queries'] > 0
    assert found['search/Recall@1'] == pytest.approx(expected['Recall@1'])
    assert found['search/Recall@5'] == pytest.approx(expected['Recall@5'])
    assert found['search/mAP@30'] == pytest.approx(expected['mAP'])
    assert found['search/mAP@30/num_skipped_queries'] == expected['num_skipped_queries']


def test_relevance_named_by_the_dataset_comes_first():
    sample = ranked_samples([[3, 1, 0, 2]], [7])[0].set_gt_indices([1, 2])
    held = SimpleNamespace(embeddings=torch.eye(4), labels=torch.full((4,), 7),
                           ids=['a', 'b', 'c', 'd'])
    found = run([sample], *both(1, 4), gallery=held)
    assert found['search/Recall@1'] == 0
    assert found['search/mAP@4'] == pytest.approx(100 * (1 / 2 + 2 / 4) / 2)


@pytest.mark.parametrize('form', ['gt_score', 'gt_label'])
def test_dense_scores_as_mmpretrain_has_them(form):
    scores, pred, target, dense = drawn(0)
    made = []
    for row in range(len(pred)):
        sample = BaseDataElement()
        sample.pred_score = torch.from_numpy(scores[row])
        if form == 'gt_score':
            sample.gt_score = torch.from_numpy(dense[row])
        else:
            sample.gt_label = torch.tensor(target[row])
        made.append(sample)
    found = run(made, *both((1, 5), 10, prefix='retrieval'))
    assert found['retrieval/Recall@1'] == pytest.approx(plain_recall(pred, target, 1))
    assert found['retrieval/Recall@5'] == pytest.approx(plain_recall(pred, target, 5))
    assert found['retrieval/mAP@10'] == pytest.approx(plain_precision(pred, target, 10, 'IR'))


def test_built_by_name():
    recall = METRICS.build({'type': 'retrieval.RetrievalRecall', 'topk': [1, 5]})
    assert recall.topk == (1, 5) and recall.prefix == 'search'
    precision = METRICS.build({'type': 'retrieval.RetrievalAveragePrecision', 'topk': 5,
                                   'mode': 'integrate', 'collect_device': 'cpu'})
    assert precision.mode == 'integrate'


@pytest.mark.parametrize(('make', 'error', 'says'), [
    (lambda: RetrievalRecall(0), ValueError, 'at least 1'),
    (lambda: RetrievalRecall((1, -5)), ValueError, 'at least 1'),
    (lambda: RetrievalRecall(()), ValueError, 'none'),
    (lambda: RetrievalRecall('1'), TypeError, 'integer'),
    (lambda: RetrievalAveragePrecision(), ValueError, 'None'),
    (lambda: RetrievalAveragePrecision(0), ValueError, 'at least 1'),
    (lambda: RetrievalAveragePrecision(5, mode='11points'), ValueError, 'IR, integrate'),
    (lambda: RetrievalRecall.calculate([[0]], [[0], [1]], 1, True, True), ValueError, '1 queries'),
    (lambda: RetrievalRecall.calculate([0], [[0]], 1, True, True), TypeError, r'pred\[0\]'),
    (lambda: RetrievalRecall.calculate(3, [[0]], 1, True, True), TypeError, 'pred must be'),
    (lambda: RetrievalRecall.calculate([[0, 1]], np.ones(3), 1, True), ValueError, 'target must'),
    (lambda: RetrievalRecall.calculate(np.full((1, 2), np.nan), [[1, 0]], 1), ValueError, 'NaN'),
])
def test_bad_input(make, error, says):
    with pytest.raises(error, match=says):
        make()


def test_bad_samples():
    sample = RetrievalDataSample(metainfo={'sample_idx': 0})
    with pytest.raises(ValueError, match='names a row more than once'):
        RetrievalRecall(2).process(None, [{'pred_label': [4, 4], 'gt_indices': [4]}])
    with pytest.raises(ValueError, match='neither pred_label'):
        RetrievalRecall(1).process(None, [sample.to_dict()])
    sample.set_pred_label([5])
    with pytest.raises(ValueError, match='no gt_label'):
        RetrievalRecall(1).process(None, [sample.to_dict()])
    metric = RetrievalRecall(1)
    metric.set_gallery(SimpleNamespace(labels=torch.zeros(3), ids=['a', 'b', 'c']))
    with pytest.raises(ValueError, match='row 5, but the gallery has 3'):
        metric.process(None, [sample.set_gt_label(0).to_dict()])
    metric.process(None, [sample.set_pred_label([1]).set_gt_label(4).to_dict()])
    with pytest.raises(ValueError, match='None of 1 queries'):
        metric.evaluate(1)




@pytest.mark.parametrize('field', ['gt_score', 'gt_indices', 'gt_label'])
def test_samples_may_be_objects(field):
    from retrieval.structures import RetrievalDataSample
    scores = torch.linspace(.95, .05, 6)
    relevant = torch.tensor([1., 0, 1, 0, 0, 1])
    sample = RetrievalDataSample().set_pred_score(scores)
    if field == 'gt_score':
        sample.set_gt_score(relevant)
    else:
        sample.set_field(torch.tensor([0, 2, 5]), field, dtype=torch.Tensor)
    results = []
    for one in (sample, sample.to_dict()):
        metric = RetrievalAveragePrecision(topk=6)
        metric.process([], [one])
        results.append(metric.evaluate(1))
    assert results[0] == results[1]
    assert results[0]['search/mAP@6'] == pytest.approx(100 * (1 + 2 / 3 + 3 / 6) / 3)


def test_empty_queries_count_as_zero_or_are_refused():
    samples = [{'sample_idx': 0, 'pred_label': [4, 7], 'gt_indices': [4]},
               {'sample_idx': 1, 'pred_label': [4, 7], 'gt_indices': []}]
    recall = RetrievalRecall(topk=1, empty_queries='zero')
    recall.process(None, samples)
    assert recall.evaluate(2) == {'search/Recall@1': 50, 'search/Recall@1/num_skipped_queries': 0,
                                  'search/Recall@1/num_empty_queries': 1}
    recall = RetrievalRecall(topk=1, empty_queries='error')
    recall.process(None, samples)
    with pytest.raises(ValueError, match='1 of 2 queries'):
        recall.evaluate(2)


def test_equal_scores_rank_by_lower_row():
    from retrieval.evaluation.search_metrics import ranked_rows
    rows = ranked_rows(torch.arange(60.).remainder(3).expand(2, 60), 60, indices=False)
    wanted = [row for rest in (2, 1, 0) for row in range(rest, 60, 3)]
    assert [one.tolist() for one in rows] == [wanted, wanted]


def test_a_gallery_without_labels():
    metric = RetrievalRecall(topk=(1,))
    metric.set_gallery(SimpleNamespace(ids=['a', 'b'], labels=None))
    assert metric._row_of == {'a': 0, 'b': 1} and metric._labels is None
    metric.set_gallery(None)
    assert metric._row_of == {} and metric._labels is None

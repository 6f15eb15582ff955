"""The metric of embeddings against `evaluate`, with and without a gallery."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import EVALUATOR, DefaultScope

from retrieval.evaluation import EmbeddingMetrics, evaluate
from retrieval.registry import METRICS
from retrieval.structures import RetrievalDataSample

NAMES = ('Recall@1', 'MAP@R', 'mAP', 'MRR')


def samples(vectors, labels=None, prefix='a', indices=None):
    made = []
    for row, vector in enumerate(vectors):
        sample = RetrievalDataSample(metainfo={'sample_idx': row, 'sample_id': f'{prefix}{row}'})
        sample.embedding = vector
        if labels is not None:
            sample.set_gt_label(int(labels[row]))
        if indices is not None:
            sample.set_gt_indices(indices[row])
        made.append(sample)
    return made


def gallery_of(vectors, labels=None, prefix='a', identified=True):
    return SimpleNamespace(embeddings=vectors, labels=labels, identified=identified,
                           ids=[f'{prefix}{row}' for row in range(len(vectors))])


def run(metric, data_samples, gallery=None, size=None):
    evaluator = Evaluator(metric)
    for one in evaluator.metrics:
        one.set_gallery(gallery)
    for start in range(0, len(data_samples), 7):
        evaluator.process(data_samples[start:start + 7])
    return evaluator.evaluate(size or len(data_samples))


def same(got, expected, prefix='embedding'):
    assert got == {f'{prefix}/{name}': pytest.approx(value) for name, value in expected.items()}


def test_leave_one_out_without_a_gallery():
    vectors, labels = torch.randn(40, 6), torch.arange(40) % 7
    same(run(EmbeddingMetrics(NAMES), samples(vectors, labels)),
         evaluate(vectors, labels, metrics=NAMES))


def test_repeated_samples_count_once():
    vectors, labels = torch.randn(40, 6), torch.arange(40) % 7
    made = samples(vectors, labels)
    same(run(EmbeddingMetrics(NAMES), [*made[10:], *made[:20]], size=40),
         evaluate(vectors, labels, metrics=NAMES))


def test_against_another_gallery():
    vectors, labels = torch.randn(40, 6), torch.arange(40) % 7
    others, theirs = torch.randn(90, 6), torch.arange(90) % 5
    same(run(EmbeddingMetrics(NAMES, average='macro'), samples(vectors, labels),
             gallery_of(others, theirs, 'g')),
         evaluate(vectors, labels, others, theirs, NAMES, average='macro'))


def test_queries_of_the_gallery_are_taken_from_it_by_id():
    vectors, labels = torch.randn(40, 6), torch.arange(40) % 7
    made = samples(torch.randn(40, 6), labels)  # what was encoded anew is not looked at
    expected = evaluate(vectors, labels, metrics=NAMES)
    same(run(EmbeddingMetrics(NAMES), made, gallery_of(vectors, labels)), expected)
    for sample in made:
        del sample.embedding
    same(run(EmbeddingMetrics(NAMES), made, gallery_of(vectors, labels)), expected)


def test_some_queries_are_in_the_gallery():
    queries, labels = torch.randn(10, 6), torch.arange(10) % 3
    gallery = torch.cat([queries[:5], torch.randn(30, 6)])
    theirs = torch.arange(35) % 3
    ids = [f'a{row}' if row < 5 else f'g{row}' for row in range(35)]
    same(run(EmbeddingMetrics(NAMES), samples(queries, labels),
             SimpleNamespace(embeddings=gallery, labels=theirs, ids=ids)),
         evaluate(queries, labels, gallery, theirs, NAMES, ids=[f'a{row}' for row in range(10)],
                  gallery_ids=ids))


def test_a_gallery_without_ids_holds_no_query():
    vectors, labels = torch.randn(12, 6), torch.arange(12) % 3
    found = run(EmbeddingMetrics('Recall@1'), samples(vectors, labels, prefix=''),
                gallery_of(vectors, labels, prefix='', identified=False))
    assert found['embedding/Recall@1'] == 100


def test_relevant_rows_named_by_the_dataset():
    queries, gallery = torch.randn(10, 6), torch.randn(30, 6)
    lists = [[query, query + 5, 29] if query else [] for query in range(10)]
    same(run(EmbeddingMetrics(NAMES), samples(queries, indices=lists), gallery_of(gallery)),
         evaluate(gallery[:10], None, gallery, metrics=NAMES, relevance=lists,
                  ids=[f'a{row}' for row in range(10)],
                  gallery_ids=[f'a{row}' for row in range(30)]))


def test_equal_numbers_of_other_pictures_are_other_samples():
    vectors, labels = torch.randn(20, 6), torch.arange(20) % 4
    made = samples(vectors, labels)
    for row, sample in enumerate(made):
        sample.set_metainfo({'sample_idx': row % 10})  # two datasets, each counting from 0
    expected = evaluate(vectors, labels, metrics=NAMES)
    same(run(EmbeddingMetrics(NAMES), made), expected)


def test_built_by_name_with_a_prefix():
    metric = METRICS.build({'type': 'retrieval.EmbeddingMetrics', 'metrics': ['Recall@1'],
                            'similarity': 'euclidean', 'prefix': 'euclid'})
    vectors, labels = torch.randn(40, 6), torch.arange(40) % 7
    same(run(metric, samples(vectors, labels)),
         evaluate(vectors, labels, metrics=['Recall@1'], similarity='euclidean'), 'euclid')


def test_the_metric_alone_is_an_evaluator_with_it():
    with DefaultScope.overwrite_default_scope('retrieval'):
        evaluator = EVALUATOR.build(dict(type='EmbeddingMetrics', metrics=['Recall@5']))
    assert [type(metric) for metric in evaluator.metrics] == [EmbeddingMetrics]
    assert evaluator.metrics[0].metrics == ['Recall@5']


@pytest.mark.parametrize(('options', 'says'), [
    ({'metrics': 'Recall@x'}, 'whole number'), ({'similarity': 'cos'}, 'cosine_similarity'),
    ({'average': 'mean'}, 'micro'), ({'metrics': 'MAP'}, 'Unknown metric')])
def test_bad_arguments(options, says):
    with pytest.raises(ValueError, match=says):
        EmbeddingMetrics(**options)


def test_bad_samples():
    vectors, labels = torch.randn(4, 3), torch.zeros(4)
    with pytest.raises(ValueError, match='given no samples'):
        EmbeddingMetrics().evaluate(0)
    with pytest.raises(ValueError, match='4 of 4 samples have no `embedding`'):
        made = samples(vectors, labels)
        for sample in made:
            del sample.embedding
        run(EmbeddingMetrics(), made)
    with pytest.raises(ValueError, match='gallery has no labels'):
        run(EmbeddingMetrics(), samples(vectors, labels), gallery_of(vectors))
    with pytest.raises(ValueError, match='differ in width'):
        run(EmbeddingMetrics(), samples([torch.ones(2), torch.ones(3)], [0, 0]))
    with pytest.raises(ValueError, match='one class a sample'):
        made = samples(vectors)
        made[0].set_gt_label([1, 2])
        run(EmbeddingMetrics(), made)
    with pytest.raises(ValueError, match='no label in common'):
        run(EmbeddingMetrics(), samples(vectors, labels), gallery_of(vectors, labels.long() + 5))


def test_tasks_are_kept_where_somebody_asks():
    vectors, labels = torch.randn(10, 4), torch.arange(10) % 3
    metric = EmbeddingMetrics(NAMES)
    run(metric, samples(vectors, labels))
    assert metric.tasks == {}  # embeddings are not held by default
    metric.keep_tasks = True
    run(metric, samples(vectors, labels), gallery_of(vectors, labels))
    task = metric.tasks['']
    assert task.shape == (10, 10) and list(task.queries.ids) == [f'a{row}' for row in range(10)]
    torch.testing.assert_close(task.query_vectors, vectors)

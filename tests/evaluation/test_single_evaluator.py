from mmengine.registry import EVALUATOR, DefaultScope

from retrieval.evaluation import EmbeddingMetrics


def test_the_metric_alone_is_an_evaluator_with_it():
    with DefaultScope.overwrite_default_scope('retrieval'):
        evaluator = EVALUATOR.build(dict(type='EmbeddingMetrics', metrics=['Recall@5']))
    assert [type(metric) for metric in evaluator.metrics] == [EmbeddingMetrics]
    assert [measure.name for measure in evaluator.metrics[0].measures] == ['Recall@5']

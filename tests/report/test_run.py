"""A run knows its level and its names, and a config is given the metrics of a report."""
import pytest
from mmengine.config import Config

from retrieval.evaluation import EmbeddingSet, EvaluationTask
from retrieval.report import Run, with_embedding_metrics


def test_the_last_level_is_looked_at(apart):
    bare = EvaluationTask(EmbeddingSet([[1., 0.], [0., 1.]], [7, 7]))
    run = Run('toy', {'easy': apart, 'hard': bare})
    assert run.level == 'hard' and run.task is bare
    assert run.query_names == run.row_names == ['0', '1']
    assert Run('toy', {'': apart}).row_names[0] == 'p/20.png'
    assert run.similarity_name == 'cosine similarity'


@pytest.mark.parametrize('given, count', [
    (dict(type='RetrievalRecall'), 2), ([dict(type='RetrievalRecall')], 2),
    (dict(type='EmbeddingMetrics'), 1), ([dict(type='retrieval.EmbeddingMetrics')], 1)])
def test_embedding_metrics_are_added_where_they_lack(given, count):
    config = with_embedding_metrics(Config(dict(test_evaluator=given)))
    evaluators = config.test_evaluator
    assert (len(evaluators) if isinstance(evaluators, list) else 1) == count
    assert sum('EmbeddingMetrics' in one['type'] for one in (
        evaluators if isinstance(evaluators, list) else [evaluators])) == 1

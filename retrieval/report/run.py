"""A run: an evaluation that was made, and all that is known of how."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation import EmbeddingMetrics, EvaluationTask
from ..evaluation.evaluate import DEFAULT_METRICS
from ..hooks import prototype_dataset
from ..similarity import resolve_similarity
from ..visualization import Pictures
from .training import Training, read_training


@dataclass(frozen=True)
class Run:
    """An evaluation and what is known of it.

    Args:
        name: what to call it.
        tasks: the evaluation of each level of the protocol; under the empty name without levels.
        metrics: their names.
        average: ``micro`` or ``macro``.
        empty_queries: ``skip``, ``zero`` or ``error``.
        source: the paper or program that defines the protocol, or nothing.
        pictures: where pictures of queries and rows are found by their ids, or None.
        logged: further results of the test, such as those of the configured search.
        config: its text.
        training: the course of its training, or None.
        facts: what else is known, by name, such as the checkpoint.
        seconds: how long its parts took, by name.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 7, 8]))
        >>> Run('toy', {'': task}).row_names
        ['0', '1', '2']
    """

    name: str
    tasks: Mapping[str, EvaluationTask]
    metrics: Sequence[str] = DEFAULT_METRICS
    average: str = 'micro'
    empty_queries: str = 'skip'
    source: str = ''
    pictures: Pictures | None = None
    logged: Mapping[str, float] = field(default_factory=dict)
    config: str = ''
    training: Training | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def level(self) -> str:
        """The level that is looked at closely: the last one, which is the hardest."""
        return list(self.tasks)[-1]

    @property
    def task(self) -> EvaluationTask:
        """The evaluation that is looked at closely."""
        return self.tasks[self.level]

    @property
    def similarity_name(self) -> str:
        """The similarity in words."""
        return resolve_similarity(self.task.similarity).name.replace('_', ' ')

    @property
    def query_names(self) -> list[str]:
        """The ids of the queries, or their numbers."""
        ids = self.task.queries.ids
        return [str(one) for one in (range(self.task.shape[0]) if ids is None else ids)]

    @property
    def row_names(self) -> list[str]:
        """The ids of the gallery's rows, or their numbers."""
        ids = (self.task.gallery or self.task.queries).ids
        return [str(one) for one in (range(self.task.shape[1]) if ids is None else ids)]


def with_embedding_metrics(config: Any) -> Any:
    """The config with :class:`~retrieval.evaluation.EmbeddingMetrics` among its test's metrics,
    which a report is made from.

    Example:
        >>> from mmengine.config import Config
        >>> with_embedding_metrics(Config(dict(test_evaluator=dict(type='Toy')))).test_evaluator
        [{'type': 'Toy'}, {'type': 'retrieval.EmbeddingMetrics'}]
    """
    given = config.test_evaluator
    given = list(given) if isinstance(given, (list, tuple)) else [given]
    if not any(str(one.get('type')).endswith('EmbeddingMetrics') for one in given):
        config.test_evaluator = [*given, dict(type='retrieval.EmbeddingMetrics')]
    return config


def run_of_test(runner: Any, checkpoint: str, name: str = '',
                trained_in: str | None = None) -> tuple[Run, dict[str, float]]:
    """Test with a Runner, and keep what a report needs.

    Args:
        runner: of a config that :func:`with_embedding_metrics` gave.
        checkpoint: what is tested.
        name: of the run; the default is that of the checkpoint.
        trained_in: the work dir whose log tells the course of the training.

    Returns:
        The run, and the test's results.
    """
    import time

    from ..distributed import unwrapped
    from ..runs.training import test

    metric = next(one for one in runner.test_loop.evaluator.metrics
                  if isinstance(one, EmbeddingMetrics))
    metric.keep_tasks = True
    start = time.monotonic()
    results = test(runner)
    took = time.monotonic() - start
    tasks, metric.tasks = metric.tasks, {}
    logged = {key: float(value) for key, value in results.items()
              if not key.startswith(f'{metric.prefix}/')}
    folder = trained_in or str(Path(checkpoint).parent)
    dataset = runner.test_dataloader.dataset
    protocol = metric.protocol
    run = Run(name or Path(checkpoint).name, tasks, metric.metrics, metric.average,
              metric.empty_queries, protocol.source if protocol else '',
              Pictures([dataset, prototype_dataset(unwrapped(runner.model))]), logged,
              runner.cfg.pretty_text, read_training(folder),
              {'data': type(dataset).__name__, 'checkpoint': str(checkpoint),
               **({'protocol': protocol.name} if protocol else {})},
              {'encoding, searching and measuring': took})
    return run, results

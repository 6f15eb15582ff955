"""Metrics of embeddings, ranked exactly, apart from what the configured search would return."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from torch import Tensor

from .. import distributed
from ..registry import EVALUATORS, METRICS
from ..similarity import SimilarityFn, resolve_similarity
from ..structures import as_labels
from .evaluate import DEFAULT_METRICS, rank_queries
from .gathered_metric import Columns, GatheredMetric
from .metrics import parse_metrics
from .protocols import Protocol, refuse_beside_protocol, resolve_protocol
from .results import (
    QueryResults,
    check_average,
    check_empty_queries,
    with_levels,
    write_per_class,
)
from .task import EmbeddingSet, EvaluationTask

Relevance = Callable[[Sequence[str], Sequence[str]], Any]


@METRICS.register_module()
class EmbeddingMetrics(GatheredMetric):
    """Metrics of the encoder alone: every query against the whole gallery, by exact ranking.

    The gallery is what the retriever's prototype became; without one every sample is a query
    against all others. Relevant are the rows that a sample's ``gt_indices`` name, else those with
    its ``gt_label``. A query does not rank its own picture (the row with its id); where all
    queries are in the gallery, their embeddings are taken from it.

    Args:
        metrics: names, as :func:`retrieval.evaluation.evaluate` takes them; the default is
            ``Recall@1``, ``MAP@R`` and ``mAP``.
        similarity: a name (the default is ``cosine_similarity``), or a callable ``(Q, D), (N, D)
            -> (Q, N)``.
        average: ``micro``, over queries (the default), or ``macro``, over classes.
        protocol: the name of a benchmark (:data:`retrieval.evaluation.PROTOCOLS`), which fixes
            all of the above and ``exclude_same``; they are then not given.
        exclude_same: columns such as ``camera`` or ``sequence``, of the samples' metainfo and the
            gallery's metadata: a query does not rank rows of its class that share its value.
        relevance: replaces labels: a callable from the ids of the queries and of the gallery's
            rows to a boolean matrix ``(Q, N)``, a callable from query rows to ``(B, N)``, or a
            list of rows for each query.
        confidence: a share such as 0.95 adds ``…/low`` and ``…/high``, bootstrap bounds over
            queries (over classes with ``macro``), to every metric.
        per_class_file: a JSON file for the results of every class, keyed by label.
        precision: ``float32`` or ``half``, as :func:`retrieval.evaluation.evaluate` takes it.
        empty_queries: ``skip``, ``zero`` or ``error``, as ``evaluate`` takes it.
        collect_device, prefix: as in MMEngine; results are named ``embedding/Recall@1``.

    Raises:
        ValueError: a metric, the similarity, the average or the protocol is unknown, or something
            is given that the protocol fixes.

    Example:
        >>> metric = EmbeddingMetrics(['Recall@1'])
        >>> metric.process(None, [
        ...     {'sample_idx': row, 'embedding': torch.tensor([1., row]), 'gt_label': [row // 2]}
        ...     for row in range(3)])
        >>> metric.evaluate(3)['embedding/num_skipped_queries']
        1
    """

    default_prefix = 'embedding'

    def __init__(self, metrics: str | Iterable[str] | None = None,
                 similarity: str | SimilarityFn | None = None, average: str | None = None,
                 protocol: str | None = None, exclude_same: str | Sequence[str] | None = None,
                 relevance: Relevance | None = None, confidence: float | None = None,
                 per_class_file: str | None = None, precision: str = 'auto',
                 empty_queries: str = 'skip',
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        self.protocol: Protocol | None = None
        if protocol is not None:
            refuse_beside_protocol(protocol, metrics=metrics, similarity=similarity,
                                   average=average, exclude_same=exclude_same, relevance=relevance)
            self.protocol = resolve_protocol(protocol)
            metrics, average = self.protocol.metrics, self.protocol.average
        self.metrics = [metric.name for metric in parse_metrics(
            DEFAULT_METRICS if metrics is None else metrics)]
        self.similarity = resolve_similarity(similarity or 'cosine_similarity')
        self.average = average or 'micro'
        check_average(self.average, labels=())  # whether samples have labels is seen later
        self.exclude_same = (exclude_same,) if isinstance(exclude_same, str) else \
            tuple(exclude_same or ())
        self.relevance = relevance
        self.confidence = confidence
        self.per_class_file = per_class_file
        self.precision = precision
        self.empty_queries = check_empty_queries(empty_queries)
        self.keep_tasks = False  # set by who wants to look closer at an evaluation
        self.tasks: dict[str, EvaluationTask] = {}
        super().__init__(collect_device=collect_device, prefix=prefix)

    def result_names(self) -> list[str]:
        """The names of the results that an evaluation has."""
        bounds = () if self.confidence is None else ('/low', '/high')
        names = [*(f'{name}{end}' for name in self.metrics for end in ('', *bounds)),
                 'num_queries', 'num_skipped_queries']
        levels = list(self.protocol.levels if self.protocol is not None else ()) or ['']
        return self.prefixed(with_levels({level: dict.fromkeys(names) for level in levels}))

    def columns_of(self, data_samples: Sequence[dict[str, Any]]) -> list[Columns]:
        """Embedding, label, listed rows, and the fields that the evaluation reads beside them."""
        return [self._columns_of(data_sample) for data_sample in data_samples]

    def _columns_of(self, data_sample: dict[str, Any]) -> Columns:
        embedding = data_sample.get('embedding')
        label, indices = data_sample.get('gt_label'), data_sample.get('gt_indices')
        if label is not None:
            label = as_labels(label, 'gt_label').cpu()
            if len(label) != 1:
                raise ValueError(f'EmbeddingMetrics wants one class a sample, got gt_label '
                                 f'{label.tolist()}: name the relevant rows in gt_indices.')
        kept = {'embedding': None if embedding is None else embedding.detach().float().cpu(),
                'label': label,
                'gt_indices': None if indices is None else as_labels(indices, 'gt_indices').cpu()}
        for name in self.exclude_same if self.protocol is None else self.protocol.sample_fields:
            if data_sample.get(name) is None:
                raise ValueError(f'A sample has no {name!r}, which this evaluation needs: the '
                                 'dataset must name it in `metadata_keys`.')
            kept[name] = data_sample.get(name)
        return kept

    def compute_metrics(self, columns: Columns) -> dict[str, float]:
        """The means in percent, with the level before each name where the protocol has levels."""
        tasks = self._tasks(columns)
        if self.keep_tasks:
            self.tasks = tasks
        results = {level: rank_queries(task, self.metrics, sharded=True,
                                       precision=self.precision,
                                       empty_queries=self.empty_queries)
                   for level, task in tasks.items()}
        if self.per_class_file is not None and distributed.rank() == 0:
            write_per_class(results, self.per_class_file)
        return with_levels({level: self._summary(one) for level, one in results.items()})

    def _summary(self, results: QueryResults) -> dict[str, float]:
        summary = results.summary(self.average)
        if self.confidence is not None:
            bounds = results.confidence(self.confidence, average=self.average)
            for name, (low, high) in bounds.items():
                summary |= {f'{name}/low': low, f'{name}/high': high}
        return summary

    def _tasks(self, columns: Columns) -> dict[str, EvaluationTask]:
        """The evaluation of each level of the protocol, or the one under the empty name."""
        queries, gallery = self._sets(columns)
        listed = list(columns['gt_indices'])
        truth = {**columns, 'gt_indices': None if all(rows is None for rows in listed) else listed}
        if self.protocol is not None:
            tasks = self.protocol.tasks(queries, gallery, truth)
        else:
            relevance = truth['gt_indices']
            if self.relevance is not None:
                theirs = columns['sample_id'] if gallery is None else self.gallery.ids
                relevance = self.relevance(columns['sample_id'], theirs)
            tasks = {'': EvaluationTask(queries, gallery, relevance,
                                        exclude_same=self.exclude_same,
                                        similarity=self.similarity)}
        labels = queries.labels, queries.labels if gallery is None else gallery.labels
        if any(side is None for side in labels) and \
                any(task.relevance is None for task in tasks.values()):
            where = 'samples have no gt_label' if labels[0] is None else 'gallery has no labels'
            raise ValueError(f'What is relevant cannot be told: the {where}, and no sample has '
                             'gt_indices.')
        return tasks

    def _sets(self, columns: Columns) -> tuple[EmbeddingSet, EmbeddingSet | None]:
        """The queries and the gallery; the queries' embeddings from it where it has them all."""
        names: list[str] = columns['sample_id']
        ids = names if all(names) else None
        labels = columns['label']
        if isinstance(labels, Tensor):
            labels = labels.reshape(-1)
        else:
            labels = None if any(label is None for label in labels) else torch.cat(labels)
        if self.gallery is None:
            return EmbeddingSet(_stacked(columns['embedding']), labels, ids, columns), None
        embeddings, own = self.gallery.embeddings, None
        if ids is not None and getattr(self.gallery, 'identified', True):
            row_of = {str(name): row for row, name in enumerate(self.gallery.ids)}
            own = [row_of.get(name, -1) for name in ids]
        found = own is not None and min(own) >= 0
        queries = EmbeddingSet(
            embeddings[torch.tensor(own, device=embeddings.device)] if found else
            _stacked(columns['embedding']), labels, ids, columns,
            getattr(self.gallery, 'label_names', None) or ())
        metadata = getattr(self.gallery, 'metadata', {})
        needed = self.exclude_same if self.protocol is None else self.protocol.exclude_same
        for name in needed:
            if metadata.get(name) is None:
                raise ValueError(f'The gallery has no metadata column {name!r}, which this '
                                 'evaluation needs: its dataset must name it in `metadata_keys`.')
        theirs = self.gallery.labels
        return queries, EmbeddingSet(
            embeddings, None if theirs is None else as_labels(theirs, 'gallery labels').cpu(),
            None if own is None else self.gallery.ids, metadata)


def _stacked(embeddings: Any) -> Tensor:
    if isinstance(embeddings, Tensor):
        return embeddings
    missing = sum(embedding is None for embedding in embeddings)
    if missing:
        raise ValueError(f'{missing} of {len(embeddings)} samples have no `embedding`: the '
                         "retriever's predict must set it, and the queries are not all in the "
                         'gallery, from which they could be taken.')
    widths = sorted({len(embedding) for embedding in embeddings})
    raise ValueError(f'The samples\' embeddings differ in width: {widths}.')


@EVALUATORS.register_module(name='EmbeddingMetrics')
def embedding_evaluator(**kwargs: Any) -> Evaluator:
    """An evaluator with :class:`EmbeddingMetrics` alone.

    MMEngine takes ``val_evaluator=dict(type=…, metrics=…)``, without a list around it, for the
    config of an evaluator, since an evaluator has an argument ``metrics`` too.
    """
    return Evaluator([EmbeddingMetrics(**kwargs)])

"""Metrics of embeddings, ranked exactly, apart from what the configured search would return."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from torch import Tensor

from .. import distributed
from ..files import write_text
from ..ranking import RowSets
from ..registry import EVALUATORS, METRICS
from ..similarity import SimilarityFn, resolve_similarity
from ..structures import as_labels
from ..tensor_file import StringColumn
from .evaluate import DEFAULT_METRICS, query_values
from .gathered_metric import Columns, GatheredMetric
from .metrics import parse_metrics
from .protocols import Level, refuse_beside_protocol, resolve_protocol
from .relevance import as_relevance, label_codes, same_as_query, same_ids, united
from .results import QueryFigures, check_average

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
        per_class_file: a JSON file for the figures of every class, keyed by label.
        precision: ``float32`` or ``half``, as :func:`retrieval.evaluation.evaluate` takes it.
        collect_device, prefix: as in MMEngine; figures are named ``embedding/Recall@1``.

    Raises:
        ValueError: a metric, the similarity, the average or the protocol is unknown, or something
            is given that the protocol fixes.
    """

    default_prefix = 'embedding'

    def __init__(self, metrics: str | Iterable[str] | None = None,
                 similarity: str | SimilarityFn | None = None, average: str | None = None,
                 protocol: str | None = None, exclude_same: str | Sequence[str] | None = None,
                 relevance: Relevance | None = None, confidence: float | None = None,
                 per_class_file: str | None = None, precision: str = 'float32',
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        self.levels: Mapping[str, Level] = {}
        if protocol is not None:
            refuse_beside_protocol(protocol, metrics=metrics, similarity=similarity,
                                   average=average, exclude_same=exclude_same, relevance=relevance)
            fixed = resolve_protocol(protocol)
            metrics, similarity, average = fixed.metrics, fixed.similarity, fixed.average
            exclude_same, self.levels = fixed.exclude_same, fixed.levels
        self.measures = parse_metrics(DEFAULT_METRICS if metrics is None else metrics)
        self.similarity = resolve_similarity(similarity or 'cosine_similarity')
        self.average = average or 'micro'
        check_average(self.average, labels=())  # whether samples have labels is seen later
        self.exclude_same = (exclude_same,) if isinstance(exclude_same, str) else \
            tuple(exclude_same or ())
        self.relevance = relevance
        self.confidence = confidence
        self.per_class_file = per_class_file
        self.precision = precision
        super().__init__(collect_device=collect_device, prefix=prefix)

    def sample(self, data_sample: dict) -> Columns:
        embedding = data_sample.get('embedding')
        label, indices = data_sample.get('gt_label'), data_sample.get('gt_indices')
        if label is not None:
            label = as_labels(label, 'gt_label')
            if len(label) != 1:
                raise ValueError(f'EmbeddingMetrics wants one class a sample, got gt_label '
                                 f'{label.tolist()}: name the relevant rows in gt_indices.')
        kept = {'embedding': None if embedding is None else embedding.detach().float().cpu(),
                'label': label if label is None else label.cpu(),
                'indices': indices if indices is None else as_labels(indices, 'gt_indices').cpu()}
        for name in self._sample_fields():
            if data_sample.get(name) is None:
                raise ValueError(f'A sample has no {name!r}, which this evaluation needs: the '
                                 'dataset must name it in `metadata_keys`.')
            kept[name] = data_sample[name]
        return kept

    def _sample_fields(self) -> set[str]:
        listed = {name for level in self.levels.values() for name in (*level.relevant, *level.junk)}
        return {*self.exclude_same, *listed}

    def measure(self, columns: Columns) -> dict[str, float]:
        task = _Task(columns, self.gallery, self.exclude_same)
        if not self.levels:
            return self._report(self._rank(task, task.relevant(self.relevance), task.left_out))
        reports: dict[str, float] = {}
        for name, level in self.levels.items():
            found = self._rank(task, task.listed(level.relevant),
                               united(task.left_out, task.listed(level.junk)))
            reports |= {f'{name}/{key}': value for key, value in self._report(found).items()}
        return reports

    def _rank(self, task: _Task, relevant: RowSets, left_out: RowSets | None) -> QueryFigures:
        values, counts = query_values(task.queries, task.rows, relevant, left_out, self.measures,
                                      self.similarity, sharded=True, precision=self.precision)
        return QueryFigures([measure.name for measure in self.measures], values, counts,
                            task.labels, task.label_names)

    def _report(self, figures: QueryFigures) -> dict[str, float]:
        summary = figures.summary(self.average)
        if self.confidence is not None:
            bounds = figures.confidence(self.confidence, average=self.average)
            for name, (low, high) in bounds.items():
                summary |= {f'{name}/low': low, f'{name}/high': high}
        if self.per_class_file is not None and distributed.rank() == 0:
            table = {str(label): values for label, values in figures.per_class().items()}
            write_text(self.per_class_file, json.dumps(table, indent=1) + '\n')
        return summary


class _Task:
    """Queries, rows and relations of one evaluation.

    Attributes:
        queries: ``(Q, D)``; None where every row is a query against all others.
        rows: ``(N, D)``.
        labels: ``(Q,)`` int64 or None; ``label_names`` by number, where the gallery has them.
        left_out: rows that are not ranked: the query's own picture, and those of its class that
            share a value of ``exclude_same``.
    """

    def __init__(self, columns: Columns, gallery: Any, exclude_same: Sequence[str]) -> None:
        self.columns, self.gallery = columns, gallery
        self.ids: list[str] = columns['sample_id']
        self.labels = _joined(columns['label'])
        self.label_names = getattr(gallery, 'label_names', None) or ()
        self.queries: Tensor | None = None
        own = None
        if gallery is None:
            self.rows = _stacked(columns['embedding'])
            self.gallery_labels = self.labels
            if all(self.ids) and len(set(self.ids)) < len(self.ids):
                own = same_ids(self.ids, self.ids)
        else:
            self.rows = gallery.embeddings
            self.gallery_labels = None if gallery.labels is None else \
                torch.as_tensor(gallery.labels).cpu()
            own = self._take_queries()
        self.left_out = united(own, *(self._same(name) for name in exclude_same))

    def _take_queries(self) -> RowSets | None:
        """Set the queries, from the gallery where it has them all; each query's own row."""
        own = None
        if getattr(self.gallery, 'identified', True) and all(self.ids):
            row_of = {str(name): row for row, name in enumerate(self.gallery.ids)}
            places = torch.tensor([row_of.get(name, -1) for name in self.ids])
            own = RowSets.from_rows(places, len(self.rows))
            if (places >= 0).all():
                self.queries = self.rows[places.to(self.rows.device)]
        if self.queries is None:
            self.queries = _stacked(self.columns['embedding'])
        return own

    def _same(self, name: str) -> RowSets | None:
        values = self.columns[name]
        if self.gallery is None:
            return same_as_query(name, values, values, self.labels, self.gallery_labels)
        theirs = getattr(self.gallery, 'metadata', {}).get(name)
        if theirs is None:
            raise ValueError(f'The gallery has no metadata column {name!r}, which this evaluation '
                             'needs: its dataset must name it in `metadata_keys`.')
        theirs = list(theirs) if isinstance(theirs, StringColumn) else theirs
        return same_as_query(name, values, theirs, self.labels, self.gallery_labels)

    def relevant(self, relevance: Relevance | None) -> RowSets:
        """The relevant rows by a callable, by the samples' lists, or by label."""
        num_queries, num_rows = len(self.ids), len(self.rows)
        if relevance is not None:
            theirs = self.ids if self.gallery is None else self.gallery.ids
            return as_relevance(relevance(self.ids, theirs), num_queries, num_rows)
        listed = self.columns['indices']
        if any(rows is not None for rows in listed):
            return RowSets.from_lists(listed, num_rows)
        if self.labels is None or self.gallery_labels is None:
            where = 'samples have no gt_label' if self.labels is None else 'gallery has no labels'
            raise ValueError(f'What is relevant cannot be told: the {where}, and no sample has '
                             'gt_indices.')
        numbers, theirs, _ = label_codes(self.labels, self.gallery_labels)
        assert theirs is not None
        return RowSets.from_labels(numbers, theirs)

    def listed(self, fields: Sequence[str]) -> RowSets:
        """The rows that any of those fields of the samples lists."""
        lists = [[row for name in fields for row in torch.as_tensor(self.columns[name][query])
                  .reshape(-1).tolist()] for query in range(len(self.ids))]
        return RowSets.from_lists(lists, len(self.rows))


@EVALUATORS.register_module(name='EmbeddingMetrics')
def embedding_evaluator(**kwargs: Any) -> Evaluator:
    """An evaluator with :class:`EmbeddingMetrics` alone.

    MMEngine takes ``val_evaluator=dict(type=…, metrics=…)``, without a list around it, for the
    config of an evaluator, since an evaluator has an argument ``metrics`` too.
    """
    return Evaluator([EmbeddingMetrics(**kwargs)])


def _joined(labels: Any) -> Tensor | None:
    if isinstance(labels, Tensor):
        return labels.reshape(-1)
    return None if any(label is None for label in labels) else torch.cat(list(labels))


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

"""Metrics of embeddings, ranked exactly, apart from what the configured search would return."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from torch import Tensor

from ..ranking import RowSets
from ..registry import EVALUATORS, METRICS
from ..similarity import SimilarityFn, resolve_similarity
from ..structures import as_labels
from .figures import QueryFigures, check_average
from .functional import DEFAULT_METRICS, evaluate
from .gathered import Columns, GatheredMetric
from .names import parse_metrics
from .query_values import query_values


@METRICS.register_module()
class EmbeddingMetrics(GatheredMetric):
    """Metrics of the encoder alone: every query against the whole gallery, by exact ranking.

    The gallery is what the retriever's prototype became; without one every sample is a query
    against all others. Relevant are the rows that a sample's ``gt_indices`` name, else those with
    its ``gt_label``. A query does not rank its own picture (the row with its id); where all
    queries are in the gallery, their embeddings are taken from it.

    Args:
        metrics: names, as :func:`retrieval.evaluation.evaluate` takes them.
        similarity: a name, or a callable ``(Q, D), (N, D) -> (Q, N)``.
        average: ``micro`` over queries or ``macro`` over classes.
        collect_device, prefix: as in MMEngine; figures are named ``embedding/Recall@1``.

    Raises:
        ValueError: a metric, the similarity or the average is unknown.
    """

    default_prefix = 'embedding'

    def __init__(self, metrics: str | Iterable[str] = DEFAULT_METRICS,
                 similarity: str | SimilarityFn = 'cosine_similarity', average: str = 'micro',
                 collect_device: str = 'cpu', prefix: str | None = None) -> None:
        self.measures = parse_metrics(metrics)
        self.similarity = resolve_similarity(similarity)
        check_average(average, labels=())  # whether samples have labels is seen later
        self.average = average
        super().__init__(collect_device=collect_device, prefix=prefix)

    def sample(self, data_sample: dict) -> Columns:
        embedding = data_sample.get('embedding')
        label, indices = data_sample.get('gt_label'), data_sample.get('gt_indices')
        if label is not None:
            label = as_labels(label, 'gt_label')
            if len(label) != 1:
                raise ValueError(f'EmbeddingMetrics wants one class a sample, got gt_label '
                                 f'{label.tolist()}: name the relevant rows in gt_indices.')
        return {'embedding': None if embedding is None else embedding.detach().float().cpu(),
                'label': label if label is None else label.cpu(),
                'indices': indices if indices is None else as_labels(indices, 'gt_indices').cpu()}

    def measure(self, columns: Columns) -> dict[str, float]:
        ids, labels = columns['sample_id'], _joined(columns['label'])
        listed = columns['indices']
        if all(rows is None for rows in listed):
            listed = None
        names = [measure.name for measure in self.measures]
        if self.gallery is None:
            return evaluate(_stacked(columns['embedding']), labels, metrics=names, ids=_known(ids),
                            similarity=self.similarity, average=self.average, relevance=listed,
                            sharded=True)
        return self._against(self.gallery, columns['embedding'], ids, labels, listed)

    def _against(self, gallery: Any, embeddings: Any, ids: list[str], labels: Tensor | None,
                 listed: Any) -> dict[str, float]:
        rows = gallery.embeddings
        queries, own = None, None
        if getattr(gallery, 'identified', True) and all(ids):
            row_of = {str(name): row for row, name in enumerate(gallery.ids)}
            places = torch.tensor([row_of.get(name, -1) for name in ids])
            own = RowSets.from_rows(places, len(rows))
            if (places >= 0).all():
                queries = rows[places.to(rows.device)]
        if queries is None:
            queries = _stacked(embeddings)
        relevant = self._relevant(gallery, labels, listed, len(ids), len(rows))
        values, counts = query_values(queries, rows, relevant, own, self.measures, self.similarity,
                                      sharded=True)
        names = [measure.name for measure in self.measures]
        return QueryFigures(names, values, counts, labels).summary(self.average)

    def _relevant(self, gallery: Any, labels: Tensor | None, listed: Any, num_queries: int,
                  num_rows: int) -> RowSets:
        if listed is not None:
            return RowSets.from_lists(listed, num_rows)
        if labels is None or gallery.labels is None:
            where = 'samples have no gt_label' if labels is None else 'gallery has no labels'
            raise ValueError(f'What is relevant cannot be told: the {where}, and no sample has '
                             'gt_indices.')
        return RowSets.from_labels(labels, torch.as_tensor(gallery.labels).cpu())


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


def _known(ids: list[str]) -> list[str] | None:
    return ids if all(ids) else None



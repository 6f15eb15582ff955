"""The evaluation protocols of the field's benchmarks, by name.

A protocol fixes everything that a result depends on beside the embeddings: the metrics in their
exact form, the similarity, what is averaged, which rows are taken out before ranking. So results
under one protocol's name can be compared, and a trapezoidal average precision is never read as a
step-wise one.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..registry import unknown_name
from .evaluate import rank_queries
from .results import with_levels
from .task import EmbeddingSet, EvaluationTask


@dataclass(frozen=True)
class Level:
    """One of several ground truths of the same queries, such as a difficulty.

    Args:
        relevant: the fields of a query that list its relevant rows of the gallery.
        junk: the fields that list rows which are taken out before ranking.
    """

    relevant: tuple[str, ...]
    junk: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """How a benchmark is evaluated.

    Args:
        name: that of the dataset.
        metrics: names, as :func:`retrieval.evaluation.evaluate` takes them.
        source: the paper or program that defines it.
        similarity: a name.
        average: ``micro`` or ``macro``.
        exclude_same: columns (``camera``, ``sequence``); a query does not rank rows of its own
            class whose value is its own.
        levels: ground truths by name, where the dataset has several.
    """

    name: str
    metrics: tuple[str, ...]
    source: str
    similarity: str = 'cosine_similarity'
    average: str = 'micro'
    exclude_same: tuple[str, ...] = ()
    levels: Mapping[str, Level] = field(default_factory=dict)

    @property
    def sample_fields(self) -> tuple[str, ...]:
        """The fields of a query: the columns of ``exclude_same`` and the lists of all levels."""
        lists = [name for level in self.levels.values() for name in (*level.relevant, *level.junk)]
        return tuple(dict.fromkeys([*self.exclude_same, *lists]))

    def tasks(self, queries: EmbeddingSet, gallery: EmbeddingSet | None = None,
              ground_truth: Mapping[str, Sequence[Any]] | None = None
              ) -> dict[str, EvaluationTask]:
        """The evaluation of each level; under the empty name where there are no levels.

        Args:
            queries, gallery: with the columns of ``exclude_same`` in their metadata.
            ground_truth: for every query the list of rows, by field: ``gt_easy``, ``gt_hard`` and
                ``gt_junk`` for the levels of revisited Oxford and Paris, ``gt_indices`` elsewhere.

        Raises:
            ValueError: a column or a list is missing.
        """
        truth = ground_truth or {}
        for name in self.exclude_same:
            for side in (queries, gallery):
                if side is not None:
                    self._needed(side.metadata, name)
        task = EvaluationTask(queries, gallery, truth.get('gt_indices'),
                              exclude_same=self.exclude_same, similarity=self.similarity)
        if not self.levels:
            return {'': task}
        # the lists say what is relevant, so the gallery's labels need not be of the queries' kind
        rows = None if gallery is None else replace(gallery, labels=None)
        return {name: replace(task, gallery=rows, relevance=self._rows(truth, level.relevant),
                              junk=self._rows(truth, level.junk))
                for name, level in self.levels.items()}

    def _rows(self, truth: Mapping[str, Sequence[Any]], fields: tuple[str, ...]) -> list[list[int]]:
        """For every query the rows that any of those fields lists."""
        return [[row for rows in lists for row in torch.as_tensor(rows).reshape(-1).tolist()]
                for lists in zip(*(self._needed(truth, name) for name in fields), strict=True)]

    def _needed(self, given: Mapping[str, Any], name: str) -> Any:
        if given.get(name) is None:
            raise ValueError(f'The protocol {self.name!r} needs {name!r}, which is not given.')
        return given[name]


_REVISITED = dict(
    metrics=('mAP-trapezoid', 'mP@1', 'mP@5', 'mP@10'),
    source='Radenović et al., Revisiting Oxford and Paris, CVPR 2018, and its evaluation program',
    levels={'easy': Level(('gt_easy',), ('gt_junk', 'gt_hard')),
            'medium': Level(('gt_easy', 'gt_hard'), ('gt_junk',)),
            'hard': Level(('gt_hard',), ('gt_junk', 'gt_easy'))})

_OWN = 'this package; each picture is searched among the others'

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (
    Protocol('CUB200', ('Recall@1', 'Recall@2', 'Recall@4', 'Recall@8', 'R-Precision', 'MAP@R'),
             'Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR '
             '2016; Musgrave et al., A Metric Learning Reality Check, ECCV 2020'),
    Protocol('Cars196', ('Recall@1', 'Recall@2', 'Recall@4', 'Recall@8', 'R-Precision', 'MAP@R'),
             'Oh Song et al., CVPR 2016; Musgrave et al., ECCV 2020'),
    Protocol('StanfordOnlineProducts', ('Recall@1', 'Recall@10', 'Recall@100', 'Recall@1000',
                                        'R-Precision', 'MAP@R'),
             'Oh Song et al., CVPR 2016; Musgrave et al., ECCV 2020'),
    Protocol('InShop', ('Recall@1', 'Recall@10', 'Recall@20', 'Recall@30', 'Recall@40',
                        'Recall@50'),
             'Liu et al., DeepFashion, CVPR 2016'),
    Protocol('INaturalist2018', ('Recall@1', 'Recall@4', 'Recall@16', 'Recall@32'),
             'Brown et al., Smooth-AP, ECCV 2020'),
    Protocol('RevisitedOxford', **_REVISITED),  # type: ignore[arg-type]
    Protocol('RevisitedParis', **_REVISITED),  # type: ignore[arg-type]
    Protocol('GoogleLandmarksV2', ('mAP@100',),
             'Weyand et al., Google Landmarks Dataset v2, CVPR 2020'),
    Protocol('Market1501', ('mAP', 'CMC@1', 'CMC@5', 'CMC@10', 'mINP'),
             'Zheng et al., Scalable Person Re-identification, ICCV 2015; mAP in the step-wise '
             'form that papers report since', exclude_same=('camera',)),
    Protocol('CUHK03', ('CMC-single-shot@1', 'CMC-single-shot@5', 'CMC-single-shot@10',
                        'CMC-single-shot@20'),
             'Li et al., DeepReID, CVPR 2014: one picture of every identity in the gallery',
             exclude_same=('camera',)),
    Protocol('VeRi776', ('mAP', 'CMC@1', 'CMC@5', 'CMC@10', 'mINP'),
             'Liu et al., A Deep Learning-Based Approach to Progressive Vehicle Re-identification, '
             'ECCV 2016', exclude_same=('camera',)),
    Protocol('Glyphs', ('Recall@1', 'MAP@R', 'R-Precision', 'mAP'), _OWN),
    Protocol('Objects', ('Recall@1', 'MAP@R', 'R-Precision', 'mAP'), _OWN),
    Protocol('Copies', ('mAP', 'Recall@1', 'Recall@10'),
             'this package; copies whose photograph is not in the gallery are left out'),
)}


def resolve_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ValueError: there is none; the message lists them.
        TypeError: it is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f'A protocol is given by its name, got {name!r}. Names: '
                        f'{", ".join(sorted(PROTOCOLS))}.')
    if name not in PROTOCOLS:
        raise ValueError(unknown_name('protocol', name, PROTOCOLS))
    return PROTOCOLS[name]


def refuse_beside_protocol(protocol: str, **given: object) -> None:
    """Raise ValueError where something is given that the protocol fixes."""
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise ValueError(f'The protocol {protocol!r} fixes {", ".join(named)}: leave '
                         f'{"it" if len(named) == 1 else "them"} out, or leave the protocol out.')


def evaluate_protocol(protocol: str, queries: EmbeddingSet, gallery: EmbeddingSet | None = None,
                      ground_truth: Mapping[str, Sequence[Any]] | None = None,
                      sharded: bool = False) -> dict[str, float]:
    """Evaluate embeddings as a benchmark does.

    Args:
        protocol: the benchmark's name, out of :data:`PROTOCOLS`.
        queries, gallery, ground_truth: as in :meth:`Protocol.tasks`.
        sharded: as in :func:`retrieval.evaluation.evaluate`.

    Returns:
        Percent by metric name, ``num_queries`` and ``num_skipped_queries``; for a protocol of
        several levels with the level before each name, as in ``hard/mAP-trapezoid``.

    Raises:
        ValueError: the protocol is unknown or needs a column or ground truth that is not given;
            or as in ``evaluate``.

    Example:
        >>> queries = EmbeddingSet([[1., 0.]], [7], metadata={'camera': [1]})
        >>> gallery = EmbeddingSet([[1., 0.], [0., 1.]], [7, 7], metadata={'camera': [1, 2]})
        >>> evaluate_protocol('Market1501', queries, gallery)['CMC@1']
        100.0
    """
    fixed = resolve_protocol(protocol)
    return with_levels({
        level: rank_queries(task, fixed.metrics, sharded=sharded).summary(fixed.average)
        for level, task in fixed.tasks(queries, gallery, ground_truth).items()})

"""All that a report says of a run, computed once."""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation import (
    EvaluationTask,
    PairResults,
    PairScores,
    QueryResults,
    equal_error_rate,
    pairs_of,
    precision_recall_curve,
    rank_queries,
    results_at,
    roc_auc,
    tar_at_far,
    threshold_at_best_f1,
)
from ..evaluation.results import with_levels
from ..progress import progress_bar
from ..similarity import resolve_similarity
from ..visualization import components, two_dimensions
from .findings import (
    Confusion,
    FirstResults,
    Hubs,
    SimilarPair,
    Suspect,
    WorstQuery,
    confusions,
    first_results,
    hubs,
    most_similar_pairs,
    ranking_curve,
    sampled,
    suspects,
    worst_queries,
)
from .run import Run

NEAR = 0.99          # of cosines
SAMPLE = 2000        # queries whose pairs are counted and whose curves are drawn
_MAP = 2000          # points of the map
_RATES = (1e-3, 1e-2)
_BINS = 60


class Similarities(NamedTuple):
    """The similarities of matches and of others, and what a threshold makes of them.

    Args:
        edges: ``(B + 1,)`` of the bins.
        matches, others: ``(B,)`` the share of either in each bin.
        num_matches, num_others: how many pairs.
        best: the results at the threshold of the highest F1.
        auc, eer: the area under the ROC curve, and the equal error rate.
        tar: TAR at some FARs, by name.
        curve: recall and precision of all pairs as the threshold falls.
    """

    edges: np.ndarray
    matches: np.ndarray
    others: np.ndarray
    num_matches: int
    num_others: int
    best: PairResults
    auc: float
    eer: float
    tar: dict[str, float]
    curve: list[tuple[float, float]]


class MapPoints(NamedTuple):
    """Embeddings in the plane.

    Args:
        points: ``(M, 2)`` in [-1, 1].
        queries: ``(M,)`` int64, the query of each point; -1 where it is a row of the gallery.
        rows: ``(M,)`` int64, the row of each point; -1 where it is a query.
    """

    points: np.ndarray
    queries: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Summary:
    """Everything that a report says of a run.

    Args:
        results: of every query by level, with ``MRR`` and ``mAP`` at the level looked at.
        means: in percent by level and metric, as :meth:`QueryResults.summary` gives them.
        intervals: 95 % bootstrap intervals by level and metric.
        recall: ``(K, percent)``.
        ranking: ``(recall, precision)`` of rankings, mean over queries.
        similarities: None where there are no pairs of both kinds.
        classes: means in percent and ``num_queries`` by class, the worst first.
        first: the first results of every query.
        worst, confused, hubs, suspects: see :mod:`retrieval.report.findings`.
        near: the threshold of near-duplicates, None where the similarity has no scale.
        pairs: the queries with their first results, the most similar pair first.
        map: embeddings in the plane.
        same_set: the queries are the gallery.
        sampled: how many queries the curves and pairs are of.
        seconds: how long each part took.
    """

    results: dict[str, QueryResults]
    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    recall: list[tuple[int, float]]
    ranking: list[tuple[float, float]]
    similarities: Similarities | None
    classes: dict[Any, dict[str, float]]
    first: FirstResults
    worst: list[WorstQuery]
    confused: list[Confusion]
    hubs: Hubs
    suspects: list[Suspect]
    near: float | None
    pairs: list[SimilarPair]
    map: MapPoints
    same_set: bool
    sampled: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def num_near(self) -> int:
        """How many pairs are near-duplicates."""
        return 0 if self.near is None else sum(pair.score >= self.near for pair in self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """The main things by name, for JSON; queries and rows by their numbers."""
        return dict(
            metrics=with_levels(self.means), confidence=with_levels(self.intervals),
            recall=[list(point) for point in self.recall], classes=self.classes,
            threshold=None if self.similarities is None else self.similarities.best._asdict(),
            worst=[one._asdict() for one in self.worst],
            confused=[one._asdict() for one in self.confused],
            suspects=[one._asdict() for one in self.suspects],
            never_found=self.hubs.never, near_duplicates=self.num_near)


def summarize(run: Run, near: float | None = None) -> Summary:
    """Compute what a report says.

    Args:
        run: the run.
        near: the similarity from which a pair is a near-duplicate; the default is 0.99 of cosines,
            and none where the similarity has no fixed scale.

    Raises:
        ValueError: as :func:`retrieval.evaluation.evaluate` raises it.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> rows = EmbeddingSet([[1., 0.], [.9, .1], [0., 1.], [.1, .9]], [7, 7, 8, 8])
        >>> summary = summarize(Run('toy', {'': EvaluationTask(rows)}))
        >>> summary.means['']['Recall@1'], summary.worst, summary.similarities.auc
        (100.0, [], 1.0)
    """
    task, seconds = run.task, dict(run.seconds)
    count = task.shape[1]
    scaled = resolve_similarity(task.similarity).normalizes
    near = NEAR if near is None and scaled else near

    bar = progress_bar('Measuring', 4, 'step')

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.monotonic()
        bar.set_postfix_str(name)
        yield
        seconds[name] = time.monotonic() - start
        bar.update()

    looked_at = [*run.metrics, 'MRR', 'mAP']
    with timed('ranking'):
        results = {level: rank_queries(one, looked_at if level == run.level else run.metrics,
                                       empty_queries=run.empty_queries)
                   for level, one in run.tasks.items()}
        means = {level: one.summary(run.average) for level, one in results.items()}
        intervals = {level: one.confidence(average=run.average) for level, one in results.items()}
    mine = results[run.level]
    with timed('first results'):
        first = first_results(task)
    part = sampled(task, SAMPLE)
    with timed('pairs and curves'):
        ranking, similarities = ranking_curve(part), similarities_of(pairs_of(part))
    with timed('map'):
        same = is_same_set(run)
        plane = map_points(task, same, scaled)
    bar.close()
    pairs = most_similar_pairs(first, run.query_names, run.row_names)
    return Summary(
        results, means, intervals, recall_curve(mine, count, run.average), ranking, similarities,
        classes_of(mine, run.metrics), first, worst_queries(task, mine), confusions(task, first),
        hubs(first, count), suspects(task, first, mine.num_relevant), near, pairs, plane, same,
        part.shape[0], seconds)


def recall_curve(results: QueryResults, num_rows: int,
                 average: str = 'micro') -> list[tuple[int, float]]:
    """Recall@K in percent for K of 1, 2, 4 up to 1024, told by the rank of the first relevant row.

    Args:
        results: with ``MRR`` among them.
        num_rows: of the gallery.
        average: ``micro`` or ``macro``.

    Example:
        >>> results = QueryResults(['MRR'], torch.tensor([[1.], [.5]]).double(), torch.ones(2))
        >>> recall_curve(results, 3)
        [(1, 50.0), (2, 100.0)]
    """
    depths = [2 ** power for power in range(11) if 2 ** power <= max(1, num_rows - 1)]
    reciprocal = results.results[:, list(results.metrics).index('MRR')]
    found = torch.stack([reciprocal >= 1 / depth for depth in depths], dim=1).double()
    names = [f'Recall@{depth}' for depth in depths]
    means = replace(results, metrics=names, results=found, of_all={}).summary(average)
    return [(depth, means[name]) for depth, name in zip(depths, names, strict=True)]


def similarities_of(pairs: PairScores) -> Similarities | None:
    """What is said of labelled pairs; None where all match or none does.

    Example:
        >>> from retrieval.evaluation import count_pairs
        >>> similarities_of(count_pairs([.9, .8, .3], [True, False, False])).best.threshold
        0.9
    """
    if not pairs.num_matches or not pairs.num_others:
        return None
    low, high = float(pairs.scores[0]), float(pairs.scores[-1])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    matches, others = (np.histogram(pairs.scores, edges, weights=side)[0] / side.sum()
                       for side in (pairs.matches, pairs.others))
    precision, recall, _ = precision_recall_curve(pairs)
    shown = np.unique(np.searchsorted(recall, np.linspace(0, 1, 300)).clip(max=len(recall) - 1))
    return Similarities(
        edges, matches, others, pairs.num_matches, pairs.num_others,
        results_at(pairs, threshold_at_best_f1(pairs)), roc_auc(pairs), equal_error_rate(pairs),
        tar_at_far(pairs, _RATES),
        list(zip(recall[shown].tolist(), precision[shown].tolist(), strict=True)))


def classes_of(results: QueryResults, metrics: Sequence[str]) -> dict[Any, dict[str, float]]:
    """The means of each class, the worst by the metrics in their order first; empty without labels.

    Example:
        >>> results = QueryResults(['mAP'], torch.tensor([[1.], [.5]]).double(),
        ...                        torch.tensor([1, 1]), torch.tensor([0, 1]), ['cat', 'dog'])
        >>> list(classes_of(results, ['mAP']))
        ['dog', 'cat']
    """
    if results.labels is None:
        return {}
    each = [name for name in metrics if name in results.metrics]
    table = results.per_class()
    return dict(sorted(table.items(), key=lambda item: tuple(item[1][name] for name in each)))


def is_same_set(run: Run) -> bool:
    """True where the queries are the gallery, or as many of the same ids.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> is_same_set(Run('toy', {'': EvaluationTask(EmbeddingSet([[1., 0.]], [7]))}))
        True
    """
    task = run.task
    if task.gallery is None:
        return True
    if task.queries.ids is None or task.gallery.ids is None:
        return False
    return set(run.query_names) == set(run.row_names)


def map_points(task: EvaluationTask, same_set: bool, normalizes: bool) -> MapPoints:
    """At most 2,000 queries, or half of them rows of a gallery apart, in the plane.

    Example:
        >>> from retrieval.evaluation import EmbeddingSet
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 7, 8]))
        >>> map_points(task, True, True).queries
        array([0, 1, 2])
    """
    sides = [(task.query_vectors, _MAP)] if same_set else [
        (task.query_vectors, _MAP // 2), (task.gallery_vectors, _MAP // 2)]
    chosen = [_drawn(len(vectors), most) for vectors, most in sides]
    vectors = torch.cat([side[rows].float().cpu() for (side, _), rows in zip(
        sides, chosen, strict=True)])
    if normalizes:
        vectors = torch.nn.functional.normalize(vectors)
    none = np.full(sum(map(len, chosen)), -1)
    queries, rows = none.copy(), none.copy()
    queries[:len(chosen[0])] = chosen[0]
    if not same_set:
        rows[len(chosen[0]):] = chosen[1]
    return MapPoints(two_dimensions(components(vectors.numpy())), queries, rows)


def _drawn(count: int, most: int) -> Tensor:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return torch.sort(order[:most]).values

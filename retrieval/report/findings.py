"""What stands behind the means: which queries fail, which classes are confused, hubs, suspects of
wrong labels, near-duplicates.

All of it is read from the first results of every query, which are searched once.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..evaluation import EmbeddingSet, EvaluationTask, QueryResults
from ..ranking import PreparedGallery, RowSets, relevant_ranks, topk
from ..ranking.row_sets import member_of

DEPTH = 10      # results of each query that are looked at
_BLOCK = 256    # queries whose relevant rows are listed at once
_FEWEST = 3     # results that can speak against a label


@dataclass(frozen=True)
class FirstResults:
    """The first k results of every query.

    Args:
        scores: ``(Q, k)`` float32, descending.
        rows: ``(Q, k)`` int64, rows of the gallery; -1 where a query has fewer.
        relevant: ``(Q, k)`` bool.
    """

    scores: Tensor
    rows: Tensor
    relevant: Tensor

    def __len__(self) -> int:
        return len(self.rows)


def first_results(task: EvaluationTask, k: int = DEPTH) -> FirstResults:
    """Search the first k results of every query, and tell which are relevant.

    Raises:
        ValueError: as :func:`retrieval.evaluation.evaluate` raises it.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> first_results(task, 1).rows.tolist(), first_results(task, 2).relevant[0].tolist()
        ([[1], [0], [1]], [False, True])
    """
    found = topk(task.query_vectors, PreparedGallery(task.gallery_vectors, task.similarity), k,
                 exclude=_not_ranked(task))
    rows = found.indices.cpu()
    return FirstResults(found.scores.cpu(), rows, _are_relevant(task, rows))


def _not_ranked(task: EvaluationTask) -> RowSets | None:
    excluded = task.excluded_rows()
    if task.gallery is not None:
        return excluded
    itself = torch.arange(task.shape[1])
    return RowSets.from_rows(itself, len(itself)).union(excluded)


def _are_relevant(task: EvaluationTask, rows: Tensor) -> Tensor:
    """Which of the rows ``(Q, k)`` are relevant to their query."""
    own, theirs = task.labels
    if task.relevance is None and own is not None and theirs is not None:
        return (theirs.cpu()[rows] == own.cpu()[:, None]) & (rows >= 0)
    relevant, count = task.relevant_rows(), task.shape[1]
    found = torch.zeros_like(rows, dtype=torch.bool)
    for start in range(0, len(rows), _BLOCK):
        part = rows[start:start + _BLOCK]
        keys = torch.arange(len(part))[:, None] * count + part
        known = relevant.keys(start, start + len(part)).cpu()
        found[start:start + len(part)] = member_of(keys, known) & (part >= 0)
    return found


class WorstQuery(NamedTuple):
    """A query, the rank of its first relevant row, those of all of them, and how many there are."""

    query: int
    first: int
    ranks: list[int]
    relevant: int


def worst_queries(task: EvaluationTask, results: QueryResults, count: int = 24,
                  shown: int = 8) -> list[WorstQuery]:
    """The queries whose first relevant row comes last; among equals the one of the lower mean
    average precision.

    Args:
        task: the evaluation.
        results: its results, with ``MRR`` and ``mAP`` among them.
        count: how many queries.
        shown: how many ranks of each.

    Example:
        >>> from retrieval.evaluation import rank_queries
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> worst_queries(task, rank_queries(task, ['MRR', 'mAP']))
        [WorstQuery(query=0, first=2, ranks=[2], relevant=1), \
WorstQuery(query=2, first=2, ranks=[2], relevant=1)]
    """
    by_name = dict(zip(results.metrics, results.results.T, strict=True))
    candidates = (results.num_relevant > 0).nonzero()[:, 0]
    order = np.lexsort((by_name['mAP'][candidates], by_name['MRR'][candidates]))
    chosen = candidates[torch.from_numpy(order[:count].copy())]
    chosen = chosen[by_name['MRR'][chosen] < 1]  # right at the first place is not a failure
    return [WorstQuery(query, int(ranks[0]), ranks[:shown].tolist(), len(ranks))
            for query, ranks in zip(chosen.tolist(), _ranks(task, chosen), strict=True)]


def _ranks(task: EvaluationTask, queries: Tensor) -> Iterator[Tensor]:
    """The ranks of the relevant rows of each of some queries, rising."""
    if not len(queries):
        return
    excluded = _not_ranked(task)
    for block in relevant_ranks(task.query_vectors[queries], PreparedGallery(
            task.gallery_vectors, task.similarity), task.relevant_rows().of(queries),
            None if excluded is None else excluded.of(queries)):
        yield from block.ranks.cpu().split(block.num_relevant.tolist())


class Confusion(NamedTuple):
    """Queries of one class whose first result is of another: how many of how many, and one."""

    label: int
    found: int
    times: int
    of: int
    query: int
    row: int


def confusions(task: EvaluationTask, first: FirstResults) -> list[Confusion]:
    """The pairs of classes that are taken for each other, the most frequent first.

    A query counts where its first result is not relevant and of another class. The example is the
    query whose wrong result is the most similar. Empty where classes are not known.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> confusions(task, first_results(task))[0]
        Confusion(label=7, found=8, times=2, of=2, query=0, row=1)
    """
    own, theirs = (None if side is None else side.cpu() for side in task.labels)
    if own is None or theirs is None or not first.rows.shape[1]:
        return []
    row = first.rows[:, 0]
    wrong = (row >= 0) & ~first.relevant[:, 0] & (theirs[row] != own)
    sizes = Counter(own.tolist())
    counts: Counter[tuple[int, int]] = Counter()
    example: dict[tuple[int, int], tuple[float, int, int]] = {}
    for query in wrong.nonzero()[:, 0].tolist():
        pair = int(own[query]), int(theirs[row[query]])
        counts[pair] += 1
        one = -float(first.scores[query, 0]), query, int(row[query])
        example[pair] = min(example.get(pair, one), one)
    return [Confusion(*pair, count, sizes[pair[0]], *example[pair][1:]) for pair, count in sorted(
        counts.items(), key=lambda item: (-item[1], -item[1] / sizes[item[0][0]], item[0]))]


class Hubs(NamedTuple):
    """How often each row is among the first k results.

    Args:
        counts: ``(N,)`` int64, the queries that find a row.
        right: ``(N,)`` int64, those of them to which it is relevant.
        skewness: of ``counts``: 0 where they spread evenly, above 1 where some rows are hubs.
        k: how many results of each query were looked at.
    """

    counts: Tensor
    right: Tensor
    skewness: float
    k: int

    @property
    def never(self) -> int:
        """How many rows no query finds."""
        return int((self.counts == 0).sum())


def hubs(first: FirstResults, num_rows: int) -> Hubs:
    """The k-occurrences of every row of the gallery (Radovanović et al., Hubs in Space, 2010).

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> hubs(first_results(task, 1), 3).counts.tolist()
        [1, 2, 0]
    """
    found = first.rows >= 0
    counts = torch.bincount(first.rows[found], minlength=num_rows)
    right = torch.bincount(first.rows[found & first.relevant], minlength=num_rows)
    apart = counts.double() - counts.double().mean()
    deviation = float(apart.square().mean().sqrt())
    skewness = float(apart.pow(3).mean()) / deviation ** 3 if deviation else 0.0
    return Hubs(counts, right, skewness, first.rows.shape[1])


class Suspect(NamedTuple):
    """A query whose neighbours are of another class: which, and how many of how many."""

    query: int
    label: int
    votes: int
    of: int
    row: int
    score: float


def suspects(task: EvaluationTask, first: FirstResults, num_relevant: Tensor) -> list[Suspect]:
    """Queries that may carry a wrong label, the surest first.

    Of the first results, as many as there are relevant rows (at least 3, at most what was
    searched), none is of the query's class, and more than half are of one other class. A class of
    its own has no relevant row to miss, so its query is no suspect.

    Args:
        task: the evaluation.
        first: its first results.
        num_relevant: ``(Q,)`` int64, relevant rows of each query.

    Example:
        >>> rows = [[1., 0.], [.99, .1], [.98, .1], [.97, .1], [0., 1.]]
        >>> task = EvaluationTask(EmbeddingSet(rows, [7, 7, 7, 8, 8]))
        >>> suspects(task, first_results(task), torch.tensor([2, 2, 2, 1, 1]))[0][:4]
        (3, 7, 3, 3)
    """
    own, theirs = (None if side is None else side.cpu() for side in task.labels)
    if own is None or theirs is None:
        return []
    depth = num_relevant.clamp(_FEWEST, max(_FEWEST, first.rows.shape[1]))
    within = torch.arange(first.rows.shape[1]) < depth[:, None]
    asked = within & (first.rows >= 0)
    strange = asked & (theirs[first.rows] != own[:, None]) & ~first.relevant
    candidates = (num_relevant > 0) & (strange.sum(1) == depth)
    found = []
    for query in candidates.nonzero()[:, 0].tolist():
        rows = first.rows[query, :int(depth[query])]
        labels, counts = torch.unique(theirs[rows], return_counts=True)
        best = int(counts.argmax())
        if 2 * int(counts[best]) > len(rows):
            place = int((theirs[rows] == labels[best]).nonzero()[0, 0])
            found.append(Suspect(query, int(labels[best]), int(counts[best]), len(rows),
                                 int(rows[place]), float(first.scores[query, place])))
    return sorted(found, key=lambda one: (-one.votes / one.of, -one.of, -one.score, one.query))


class SimilarPair(NamedTuple):
    """A query and the row of the gallery that is nearest to it."""

    query: int
    row: int
    score: float
    relevant: bool


def most_similar_pairs(first: FirstResults, queries: Sequence[Any],
                       rows: Sequence[Any]) -> list[SimilarPair]:
    """The queries with their first results, the most similar pair first.

    Args:
        first: the first results.
        queries, rows: the names of queries and of the gallery's rows, by which a pair that is
            found from both its ends is told.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> [pair[:2] for pair in most_similar_pairs(first_results(task), 'abc', 'abc')]
        [(0, 1), (2, 1)]
    """
    if not first.rows.shape[1]:
        return []
    scores = first.scores[:, 0]
    order = torch.sort(scores, descending=True, stable=True).indices
    order = order[first.rows[order, 0] >= 0]
    seen: set[frozenset[Any]] = set()
    found = []
    for query in order.tolist():
        row = int(first.rows[query, 0])
        pair = frozenset((str(queries[query]), str(rows[row])))
        if pair not in seen:
            seen.add(pair)
            found.append(SimilarPair(query, row, float(scores[query]),
                                     bool(first.relevant[query, 0])))
    return found


def sampled(task: EvaluationTask, count: int, seed: int = 0) -> EvaluationTask:
    """The evaluation of at most so many of the queries, drawn at random, over the whole gallery.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> sampled(task, 2).shape
        (2, 3)
    """
    if len(task.query_vectors) <= count:
        return task
    drawn = torch.randperm(len(task.query_vectors), generator=torch.Generator().manual_seed(seed))
    return of_queries(task, torch.sort(drawn[:count]).values)


def of_queries(task: EvaluationTask, rows: Tensor) -> EvaluationTask:
    """The evaluation of some of the queries ``(M,)`` int64 over the whole gallery.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> first_results(of_queries(task, torch.tensor([2])), 1).rows
        tensor([[1]])
    """
    excluded, (own, theirs) = _not_ranked(task), task.labels
    by_label = task.relevance is None and own is not None
    return replace(
        task, queries=EmbeddingSet(task.query_vectors[rows], None if own is None else own[rows]),
        gallery=EmbeddingSet(task.gallery_vectors, theirs),
        relevance=None if by_label else _lists(task.relevant_rows().of(rows)),
        junk=None if excluded is None else _lists(excluded.of(rows)), exclude_same=())


def _lists(sets: RowSets) -> list[Tensor]:
    return [sets.block(query, query + 1)[1] for query in range(sets.num_queries)]


def ranking_curve(task: EvaluationTask, levels: int = 21) -> list[tuple[float, float]]:
    """Interpolated precision over recall, mean over the queries that have a relevant row.

    At each level of recall a query has the highest precision at this recall or above (Manning et
    al., Introduction to Information Retrieval, 2008, chapter 8).

    Args:
        task: the evaluation.
        levels: how many levels of recall from 0 to 1.

    Returns:
        Recall and precision at each level.

    Example:
        >>> task = EvaluationTask(EmbeddingSet([[1., 0.], [.9, .1], [0., 1.]], [7, 8, 7]))
        >>> ranking_curve(task, 3)
        [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    """
    shares = np.linspace(0, 1, levels)
    total, queries = np.zeros(levels), 0
    for ranks in _ranks(task, torch.arange(len(task.query_vectors))):
        if not len(ranks):
            continue
        precisions = np.arange(1, len(ranks) + 1) / ranks.numpy()
        best = np.maximum.accumulate(precisions[::-1])[::-1]
        places = np.maximum(np.ceil(shares * len(ranks) - 1e-9).astype(int) - 1, 0)
        total += best[places]
        queries += 1
    return list(zip(shares.tolist(), (total / max(queries, 1)).tolist(), strict=True))

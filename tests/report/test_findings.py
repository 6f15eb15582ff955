"""The findings against plain loops over plain rankings."""
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import skew

from retrieval.evaluation import EmbeddingSet, EvaluationTask, rank_queries
from retrieval.report import (
    confusions,
    first_results,
    hubs,
    most_similar_pairs,
    ranking_curve,
    sampled,
    suspects,
    worst_queries,
)
from retrieval.report.findings import of_queries

from .conftest import ranking, scattered

KINDS = ['task', 'apart', 'listed']


@pytest.mark.parametrize('kind', KINDS)
def test_first_results(kind, request):
    task = request.getfixturevalue(kind)
    first = first_results(task, 7)
    for query in range(len(first)):
        expected = ranking(task, query)[:7]
        assert first.rows[query].tolist() == [row for row, _, _ in expected]
        assert first.relevant[query].tolist() == [right for _, _, right in expected]
        np.testing.assert_allclose(first.scores[query], [score for _, score, _ in expected],
                                   atol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_worst_queries_and_the_ranks_of_their_right_rows(kind, request):
    task = request.getfixturevalue(kind)
    plain = {}
    for query in range(task.shape[0]):
        ranks = [rank for rank, (_, _, right) in enumerate(ranking(task, query), 1) if right]
        if ranks and ranks[0] > 1:
            precision = np.mean([found / rank for found, rank in enumerate(ranks, 1)])
            plain[query] = (-ranks[0], precision, ranks)
    expected = sorted(plain, key=lambda query: (*plain[query][:2], query))
    found = worst_queries(task, rank_queries(task, ['MRR', 'mAP']), count=5, shown=3)
    assert [one.query for one in found] == expected[:5] and found
    for one in found:
        ranks = plain[one.query][2]
        assert (one.first, one.ranks, one.relevant) == (ranks[0], ranks[:3], len(ranks))


@pytest.mark.parametrize('kind', ['task', 'apart'])
def test_confusions(kind, request):
    task = request.getfixturevalue(kind)
    own, theirs = task.labels
    counts, best = Counter(), {}
    for query in range(task.shape[0]):
        row, score, right = ranking(task, query)[0]
        if not right and own[query] != theirs[row]:
            pair = int(own[query]), int(theirs[row])
            counts[pair] += 1
            best[pair] = max(best.get(pair, (-2, 0, 0)), (score, query, row))
    found = confusions(task, first_results(task))
    assert {(one.label, one.found): one.times for one in found} == counts and found
    assert [one.times for one in found] == sorted(counts.values(), reverse=True)
    for one in found:
        assert one.of == int((own == one.label).sum())
        assert (one.query, one.row) == best[one.label, one.found][1:]


def test_without_classes_nothing_is_confused_and_no_label_suspect(listed):
    first = first_results(listed)
    assert confusions(listed, first) == []
    assert suspects(listed, first, torch.ones(20, dtype=torch.int64)) == []


@pytest.mark.parametrize('kind', KINDS)
def test_hubs(kind, request):
    task = request.getfixturevalue(kind)
    counts, right = np.zeros(task.shape[1], int), np.zeros(task.shape[1], int)
    for query in range(task.shape[0]):
        for row, _, relevant in ranking(task, query)[:10]:
            counts[row] += 1
            right[row] += relevant
    found = hubs(first_results(task), task.shape[1])
    assert found.counts.tolist() == counts.tolist() and found.right.tolist() == right.tolist()
    assert found.never == (counts == 0).sum()
    assert found.skewness == pytest.approx(skew(counts))


def test_rows_found_alike_have_no_skewness():
    task = EvaluationTask(EmbeddingSet(np.eye(2, dtype=np.float32), [0, 0]))
    assert hubs(first_results(task), 2).skewness == 0


def test_wrong_labels_are_suspects():
    rows, labels = scattered(100, spread=0.15)
    wrong = labels.copy()
    wrong[[7, 42, 61]] = (labels[[7, 42, 61]] + 1) % 5
    task = EvaluationTask(EmbeddingSet(rows, wrong))
    results = rank_queries(task)
    found = suspects(task, first_results(task), results.num_relevant)
    assert {one.query for one in found} == {7, 42, 61}
    for one in found:
        assert one.label == labels[one.query] == wrong[one.row]
        assert one.of == 10 and one.votes > 5


def test_suspects_are_told_plainly(apart):
    num_relevant = rank_queries(apart).num_relevant
    own, theirs = apart.labels
    expected = {}
    for query in range(apart.shape[0]):
        if not num_relevant[query]:
            continue
        depth = min(max(int(num_relevant[query]), 3), 10)
        labels = [int(theirs[row]) for row, _, _ in ranking(apart, query)[:depth]]
        (label, votes), = Counter(labels).most_common(1)
        if int(own[query]) not in labels and 2 * votes > depth:
            expected[query] = (label, votes, depth)
    found = suspects(apart, first_results(apart), num_relevant)
    assert {one.query: (one.label, one.votes, one.of) for one in found} == expected


def test_one_result_does_not_speak_against_a_label():
    """Of a class of two pictures the first three results count: its own comes second."""
    rows = [[1., 0.], [.95, .3], [.98, .2], [0., 1.], [-1., 0.]]
    task = EvaluationTask(EmbeddingSet(np.array(rows, np.float32), [7, 7, 8, 8, 8]))
    found = suspects(task, first_results(task), rank_queries(task).num_relevant)
    assert 0 not in {one.query for one in found}


def test_a_class_of_one_picture_is_no_suspect():
    rows, labels = scattered(40, spread=0.1)
    labels = np.append(labels, 9)
    task = EvaluationTask(EmbeddingSet(np.vstack([rows, rows[:1] + 0.01]), labels))
    found = suspects(task, first_results(task), rank_queries(task).num_relevant)
    assert 40 not in {one.query for one in found}


def test_most_similar_pairs_are_named_once(task):
    names = task.queries.ids
    found = most_similar_pairs(first_results(task), names, names)
    firsts = {query: ranking(task, query)[0] for query in range(60)}
    pairs = {frozenset((query, row)) for query, (row, _, _) in firsts.items()}
    assert {frozenset((one.query, one.row)) for one in found} == pairs and len(found) == len(pairs)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(one.relevant == firsts[one.query][2] for one in found)


@pytest.mark.parametrize('kind', KINDS)
def test_some_queries_rank_as_among_all(kind, request):
    task = request.getfixturevalue(kind)
    rows = torch.tensor([3, 11, 19])
    part, first = of_queries(task, rows), first_results(task)
    again = first_results(part)
    assert torch.equal(again.rows, first.rows[rows])
    assert torch.equal(again.relevant, first.relevant[rows])
    results, theirs = rank_queries(task), rank_queries(part)
    assert torch.equal(results.results[rows], theirs.results)
    assert sampled(task, 1000) is task and sampled(task, 6).shape == (6, task.shape[1])


@pytest.mark.parametrize('kind', KINDS)
def test_precision_over_recall(kind, request):
    task, levels = request.getfixturevalue(kind), [0, 0.25, 0.5, 0.75, 1]
    curves = []
    for query in range(task.shape[0]):
        rights = np.array([right for _, _, right in ranking(task, query)])
        if rights.any():
            found = np.cumsum(rights)
            precision, recall = found / np.arange(1, len(rights) + 1), found / found[-1]
            curves.append([precision[recall >= level - 1e-9].max() for level in levels])
    np.testing.assert_allclose(ranking_curve(task, 5),
                               list(zip(levels, np.mean(curves, 0), strict=True)))

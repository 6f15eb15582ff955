"""What a report says of a run, against plain counts."""
import numpy as np
import pytest
import torch

from retrieval.evaluation import EmbeddingSet, EvaluationTask, count_pairs, evaluate
from retrieval.report import Run, summarize
from retrieval.report.summary import map_points, similarities_of

from .conftest import ranking


@pytest.fixture(scope='module')
def found(task):
    return summarize(Run('toy', {'': task}, ['Recall@1', 'mAP']))


def plain_precisions(task):
    values = []
    for query in range(task.shape[0]):
        rights = np.array([right for _, _, right in ranking(task, query)])
        ranks = rights.nonzero()[0] + 1
        values.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return 100 * np.array(values)


def test_means_and_intervals(task, found):
    values = plain_precisions(task)
    assert found.means['']['mAP'] == pytest.approx(values.mean())
    drawn = np.random.default_rng(0).integers(0, 60, (20_000, 60))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    assert found.intervals['']['mAP'] == pytest.approx((low, high), abs=0.6)


def test_recall_over_k(task, found):
    assert [depth for depth, _ in found.recall] == [1, 2, 4, 8, 16, 32]
    for depth, percent in found.recall:
        hits = [any(right for _, _, right in ranking(task, query)[:depth]) for query in range(60)]
        assert percent == pytest.approx(100 * np.mean(hits))


def test_similarities_with_their_threshold(task, found):
    scores, matches = zip(*((score, right) for query in range(60)
                            for _, score, right in ranking(task, query)), strict=True)
    scores, matches = np.array(scores), np.array(matches)
    said = found.similarities
    assert (said.num_matches, said.num_others) == (matches.sum(), (~matches).sum())
    assert said.matches.sum() == pytest.approx(1) and said.others.sum() == pytest.approx(1)

    def f1(threshold):
        accepted = scores >= threshold - 1e-6
        return 2 * (accepted & matches).sum() / (accepted.sum() + matches.sum())
    assert said.best.f1 == pytest.approx(max(map(f1, scores)))
    assert f1(said.best.threshold) == pytest.approx(said.best.f1)
    assert said.auc == pytest.approx(np.mean(scores[matches][:, None] > scores[~matches]), abs=1e-4)
    precision = dict(said.curve)[1.0]
    assert precision == pytest.approx(matches.sum() / (scores >= scores[matches].min()).sum())


def test_no_pairs_of_both_kinds():
    assert similarities_of(count_pairs([.5, .6], [True, True])) is None
    assert similarities_of(count_pairs([.5, .6], [False, False])) is None


def test_classes_come_worst_first(task, found):
    values, labels = plain_precisions(task), task.queries.labels
    means = {name: values[labels == label].mean()
             for label, name in enumerate(task.queries.label_names)}
    assert {name: row['mAP'] for name, row in found.classes.items()} == pytest.approx(means)
    assert next(iter(found.classes.values()))['Recall@1'] == min(
        row['Recall@1'] for row in found.classes.values())


def test_near_duplicates_are_counted(task):
    run = Run('toy', {'': task})
    pairs = {frozenset((query, row)): score for query in range(60)
             for row, score, _ in ranking(task, query)[:1]}
    for near in (0.5, 0.95):
        assert summarize(run, near).num_near == sum(score >= near for score in pairs.values())


def test_a_distance_has_no_threshold_of_duplicates(task):
    euclidean = EvaluationTask(task.queries, similarity='euclidean')
    found = summarize(Run('toy', {'': euclidean}))
    assert found.near is None and found.num_near == 0 and found.pairs


def test_levels_and_empty_queries(apart, listed):
    run = Run('toy', {'easy': listed, 'hard': listed}, ['mAP'], empty_queries='zero')
    found = summarize(run)
    assert found.means['easy'] .keys() >= {'mAP', 'num_queries'}
    assert 'MRR' not in found.means['easy']  # what only the close look needs
    assert found.classes == {}
    macro = summarize(Run('toy', {'': apart}, ['mAP'], 'macro'))
    own, theirs = apart.queries, apart.gallery
    assert macro.means['']['mAP'] == pytest.approx(evaluate(
        own.embeddings, own.labels, theirs.embeddings, theirs.labels, 'mAP', average='macro',
        ids=own.ids, gallery_ids=theirs.ids, cameras=own.metadata['camera'],
        gallery_cameras=theirs.metadata['camera'])['mAP'])
    assert not macro.same_set and (macro.map.rows >= 0).sum() == 70


def test_many_embeddings_are_sampled_on_the_map(monkeypatch):
    monkeypatch.setattr('retrieval.report.summary.components', lambda vectors: vectors)
    rows = torch.randn(3000, 4)
    plane = map_points(EvaluationTask(EmbeddingSet(rows)), True, True)
    assert len(plane.points) == 2000 == len(set(plane.queries.tolist()))
    apart = map_points(EvaluationTask(EmbeddingSet(rows), EmbeddingSet(rows)), False, False)
    assert (apart.queries >= 0).sum() == (apart.rows >= 0).sum() == 1000
    np.testing.assert_array_equal(apart.points[1000:], rows[apart.rows[1000:], :2])

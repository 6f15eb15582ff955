"""An evaluation as data, against plain loops over all pairs."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.evaluation import EmbeddingSet, EvaluationTask, evaluate
from retrieval.evaluation.task import scored_blocks
from retrieval.gallery import Gallery

QUERIES = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
ROWS = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
LABELS, THEIRS = ['a', 'b', 'c', 'a', 'z'], ['a', 'b', 'b', 'c', 'a', 'a', 'c']
CAMERAS, THEIR_CAMERAS = [1, 1, 2, 2, 1], [1, 1, 2, 2, 1, 2, 1]
IDS, THEIR_IDS = list('pqrst'), list('p1234r5')
JUNK = [[6], [], [0, 1], [], []]


@pytest.fixture
def task():
    """Five queries in seven rows, with everything that leaves rows out."""
    return EvaluationTask(EmbeddingSet(QUERIES, LABELS, IDS, {'camera': CAMERAS}),
                          EmbeddingSet(ROWS, THEIRS, THEIR_IDS, {'camera': THEIR_CAMERAS}),
                          junk=JUNK, exclude_same=('camera',))


def left_out(query, row):
    return (row in JUNK[query] or IDS[query] == THEIR_IDS[row]
            or LABELS[query] == THEIRS[row] and CAMERAS[query] == THEIR_CAMERAS[row])


def matrix(sets):
    found = np.zeros((sets.num_queries, sets.num_rows), bool)
    found[tuple(part.numpy() for part in sets.block(0, sets.num_queries))] = True
    return found


def test_labels_of_both_sides_have_the_same_numbers(task):
    assert task.shape == (5, 7) and task.label_names == ['a', 'b', 'c', 'z']
    own, theirs = task.labels
    assert own.tolist() == [0, 1, 2, 0, 3] and theirs.tolist() == [0, 1, 1, 2, 0, 0, 2]


def test_names_of_numbers_are_those_of_the_queries():
    alone = EvaluationTask(EmbeddingSet(QUERIES, range(5), label_names=list('vwxyz')))
    assert alone.label_names == list('vwxyz') and alone.shape == (5, 5)
    assert torch.equal(*alone.labels)
    assert EvaluationTask(EmbeddingSet(QUERIES)).labels == (None, None)


def test_relevant_and_excluded_rows(task):
    np.testing.assert_array_equal(matrix(task.relevant_rows()), [
        [own == their for their in THEIRS] for own in LABELS])
    np.testing.assert_array_equal(matrix(task.excluded_rows()), [
        [left_out(query, row) for row in range(7)] for query in range(5)])


def test_relevance_goes_before_labels():
    task = EvaluationTask(EmbeddingSet(QUERIES, LABELS), relevance=[[1], [], [0], [], [2]])
    assert np.argwhere(matrix(task.relevant_rows())).tolist() == [[0, 1], [2, 0], [4, 2]]


def test_without_a_gallery_only_repeated_ids_leave_out_more_than_the_query():
    assert EvaluationTask(EmbeddingSet(QUERIES, LABELS, IDS)).excluded_rows() is None
    twice = EvaluationTask(EmbeddingSet(QUERIES, LABELS, list('aabcd'))).excluded_rows()
    assert matrix(twice)[:2].tolist() == [[True, True, False, False, False]] * 2


@pytest.mark.parametrize('alone', [False, True])
@pytest.mark.parametrize('budget', [10, 10_000])
def test_all_pairs_are_scored_in_blocks(task, alone, budget, monkeypatch):
    monkeypatch.setattr('retrieval.evaluation.task.TILE_BUDGET', budget)
    if alone:
        task = EvaluationTask(task.queries)
    blocks = list(scored_blocks(task))
    assert (len(blocks) > 1) == (budget == 10)
    scores, rankable, relevant = map(torch.cat, zip(*blocks, strict=True))
    rows, labels = (QUERIES, LABELS) if alone else (ROWS, THEIRS)
    cosine = QUERIES @ rows.T / np.linalg.norm(QUERIES, axis=1)[:, None] / np.linalg.norm(
        rows, axis=1)
    np.testing.assert_allclose(scores, cosine, atol=1e-6)
    gone = np.eye(5, dtype=bool) if alone else np.array(
        [[left_out(query, row) for row in range(7)] for query in range(5)])
    np.testing.assert_array_equal(rankable, ~gone)
    np.testing.assert_array_equal(relevant, ~gone & np.array(
        [[own == their for their in labels] for own in LABELS]))


def test_a_gallery_is_a_set_with_its_labels_by_name():
    gallery = Gallery(ROWS, THEIR_IDS, labels=THEIRS, metadata={'camera': THEIR_CAMERAS})
    found = EmbeddingSet.of_gallery(gallery)
    assert list(found.labels) == THEIRS and list(found.ids) == THEIR_IDS
    assert found.metadata['camera'].tolist() == THEIR_CAMERAS
    assert EmbeddingSet.of_gallery(Gallery(ROWS)).ids is None


def test_embeddings_and_columns_are_read_from_files(tmp_path):
    np.save(tmp_path / 'rows.npy', ROWS)
    (tmp_path / 'labels.txt').write_text('\n'.join(THEIRS))
    (tmp_path / 'cameras.txt').write_text('\n'.join(map(str, THEIR_CAMERAS)))
    found = EmbeddingSet.load(str(tmp_path / 'rows.npy'), str(tmp_path / 'labels.txt'), {
        'camera': str(tmp_path / 'cameras.txt'), 'sequence': None})
    np.testing.assert_array_equal(found.embeddings, ROWS)
    assert list(found.labels) == THEIRS and found.ids is None
    assert {name: np.asarray(values).tolist() for name, values in found.metadata.items()} == {
        'camera': THEIR_CAMERAS}
    Gallery(ROWS, THEIR_IDS, labels=THEIRS, metadata={'camera': THEIR_CAMERAS}).save(
        tmp_path / 'g.safetensors')
    own = EmbeddingSet.load(str(tmp_path / 'g.safetensors'))
    assert list(own.labels) == THEIRS and list(own.ids) == THEIR_IDS
    with pytest.raises(FileNotFoundError, match='no embeddings at .*nowhere'):
        EmbeddingSet.load(str(tmp_path / 'nowhere.npy'))


@pytest.mark.parametrize(('task', 'use', 'says'), [
    (EvaluationTask(EmbeddingSet(QUERIES[:0])), 'query_vectors', 'no queries'),
    (EvaluationTask(EmbeddingSet(QUERIES), EmbeddingSet(ROWS[:, :3])), 'gallery_vectors', '4'),
    (EvaluationTask(EmbeddingSet(QUERIES, [1, 2])), 'labels', '2 entries for 5 embeddings'),
    (EvaluationTask(EmbeddingSet(QUERIES)), 'relevant_rows', 'Give labels'),
    (EvaluationTask(EmbeddingSet(QUERIES, LABELS, ['a'])), 'excluded_rows', 'ids has 1 entries'),
    (EvaluationTask(EmbeddingSet(QUERIES, LABELS), exclude_same=('camera',)), 'excluded_rows',
     'needs camera')])
def test_what_does_not_fit_is_said_where_it_is_used(task, use, says):
    with pytest.raises(ValueError, match=says):
        found = getattr(task, use)
        found()


@pytest.mark.parametrize(('options', 'message'), [
    (dict(cameras=[0, 0], gallery_cameras=['0'] * 4),
     "query's camera. Every row has the camera '0'"),
    (dict(cameras=[1, 2], gallery_cameras=[1, 1, 2, 2]), "camera. There are 2 values of camera"),
    (dict(sequences=[5, 5], gallery_sequences=[5] * 4), 'Every row has the sequence'),
    (dict(cameras=[0, 0], gallery_cameras=[0, 1, 0, 1], sequences=[0, 0],
          gallery_sequences=[1, 0, 1, 0]), 'camera or they have .*sequence'),
    (dict(junk=[[0, 1], [2, 3]]), 'they are junk'),
    (dict(gallery_labels=[5, 5, 5, 6]),
     'no label in common; the queries have 0, 1, the gallery 5, 6'),
    (dict(relevance=[[], []]), 'the relevance that is given names none')])
def test_where_nothing_is_relevant_the_error_says_why(options, message):
    given = dict(labels=[0, 1], gallery_labels=[0, 0, 1, 1]) | options
    with pytest.raises(ValueError, match=message):
        evaluate(torch.eye(4)[:2], gallery=torch.eye(4), **given)


def test_classes_of_one_row():
    with pytest.raises(ValueError, match='every class has a single row, of 3'):
        evaluate(torch.eye(3), [0, 1, 2])

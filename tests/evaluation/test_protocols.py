"""Protocols against plain loops over sorted rankings."""
from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retrieval.evaluation import (
    PROTOCOLS,
    EmbeddingMetrics,
    EmbeddingSet,
    evaluate,
    evaluate_protocol,
)
from retrieval.evaluation.protocols import Level, Protocol
from retrieval.evaluation.task import EvaluationTask

from .test_embedding_metrics import gallery_of, run, samples


def ranking(query, gallery):
    """Rows by falling cosine similarity."""
    scores = torch.nn.functional.normalize(gallery, dim=1) @ (query / query.norm())
    return torch.sort(scores, descending=True, stable=True).indices.tolist()


def revisited_loop(queries, gallery, relevant, junk):
    """Trapezoid AP and the cut precisions, one step of the ranked list at a time."""
    aps, cuts = [], []
    for query, wanted, left in zip(queries, relevant, junk, strict=True):
        if not wanted:
            continue
        ranked = [row for row in ranking(query, gallery) if row not in left]
        area, found, recall, precision = 0.0, 0, 0.0, 1.0
        for place, row in enumerate(ranked, 1):
            found += row in wanted
            new_recall, new_precision = found / len(wanted), found / place
            area += (new_recall - recall) * (precision + new_precision) / 2
            recall, precision = new_recall, new_precision
        aps.append(area)
        places = [place for place, row in enumerate(ranked, 1) if row in wanted]
        cuts.append([sum(place <= min(max(places), k) for place in places) / min(max(places), k)
                     for k in (1, 5, 10)])
    return [100 * np.mean(aps), *(100 * np.mean(cuts, axis=0))]


@pytest.fixture
def revisited():
    numbers = np.random.default_rng(3)
    queries, gallery = torch.randn(12, 5), torch.randn(60, 5)
    truth = {'gt_easy': [], 'gt_hard': [], 'gt_junk': []}
    for _ in range(12):
        rows = numbers.permutation(60)
        cut = np.sort(numbers.integers(0, 12, 3))
        for name, part in zip(truth, np.split(rows[:cut[2]], cut[:2]), strict=True):
            truth[name].append(part.tolist())
    return queries, gallery, truth


def expected_levels(queries, gallery, truth):
    easy, hard, junk = truth['gt_easy'], truth['gt_hard'], truth['gt_junk']
    joined = lambda a, b: [[*x, *y] for x, y in zip(a, b, strict=True)]  # noqa: E731
    return {'easy': revisited_loop(queries, gallery, easy, joined(junk, hard)),
            'medium': revisited_loop(queries, gallery, joined(easy, hard), junk),
            'hard': revisited_loop(queries, gallery, hard, joined(junk, easy))}


def test_revisited_levels(revisited):
    queries, gallery, truth = revisited
    found = evaluate_protocol('RevisitedOxford', EmbeddingSet(queries, ['a landmark'] * 12),
                              EmbeddingSet(gallery, range(60)), truth)  # labels do not matter
    for level, values in expected_levels(queries, gallery, truth).items():
        got = [found[f'{level}/{name}'] for name in PROTOCOLS['RevisitedOxford'].metrics]
        assert got == pytest.approx(values)
    empty = sum(not rows for rows in truth['gt_easy'])
    assert found['easy/num_skipped_queries'] == empty and found['easy/num_queries'] == 12


def test_revisited_levels_through_the_metric(revisited):
    queries, gallery, truth = revisited
    made = samples(queries, prefix='q')
    for row, sample in enumerate(made):
        sample.set_metainfo({name: lists[row] for name, lists in truth.items()})
    found = run(EmbeddingMetrics(protocol='RevisitedParis'), made, gallery_of(gallery))
    expected = evaluate_protocol('RevisitedParis', EmbeddingSet(queries), EmbeddingSet(gallery),
                                 truth)
    assert found == {f'embedding/{name}': pytest.approx(value) for name, value in expected.items()}


def test_classes_of_every_level(revisited, tmp_path):
    queries, gallery, truth = revisited
    made = samples(queries, torch.arange(12) % 2, prefix='q')
    for row, sample in enumerate(made):
        sample.set_metainfo({name: lists[row] for name, lists in truth.items()})
    path = tmp_path / 'classes.json'
    found = run(EmbeddingMetrics(protocol='RevisitedParis', per_class_file=str(path)), made,
                gallery_of(gallery))
    for level, table in json.loads(path.read_text()).items():
        mean = sum(row['mP@5'] * row['num_queries'] for row in table.values()) / sum(
            row['num_queries'] for row in table.values())
        assert found[f'embedding/{level}/mP@5'] == pytest.approx(mean)
    assert set(table) == {'0', '1'}


def market_loop(queries, labels, cameras, gallery, theirs, their_cameras):
    """Step-wise AP, CMC@1 and the inverse negative penalty without same-camera rows."""
    figures = []
    for query, label, camera in zip(queries, labels, cameras, strict=True):
        ranked = [row for row in ranking(query, gallery)
                  if not (theirs[row] == label and their_cameras[row] == camera)]
        places = [place for place, row in enumerate(ranked, 1) if theirs[row] == label]
        if places:
            precisions = [hit / place for hit, place in enumerate(places, 1)]
            figures.append([np.mean(precisions), places[0] == 1, len(places) / places[-1]])
    return (100 * np.mean(np.array(figures, dtype=float), axis=0)).tolist()


@pytest.fixture
def market():
    numbers = np.random.default_rng(1)
    queries, gallery = torch.randn(20, 4), torch.randn(80, 4)
    labels, theirs = numbers.integers(1, 7, 20), numbers.integers(0, 7, 80)
    cameras, their_cameras = numbers.integers(0, 3, 20), numbers.integers(0, 3, 80)
    return queries, labels, cameras, gallery, theirs, their_cameras


def test_market(market):
    queries, labels, cameras, gallery, theirs, their_cameras = market
    found = evaluate_protocol(
        'Market1501', EmbeddingSet(queries, labels, metadata={'camera': cameras}),
        EmbeddingSet(gallery, theirs, metadata={'camera': their_cameras}))
    assert [found[name] for name in ('mAP', 'CMC@1', 'mINP')] == pytest.approx(market_loop(*market))


def test_market_through_the_metric(market):
    queries, labels, cameras, gallery, theirs, their_cameras = market
    made = samples(queries, labels, prefix='q')
    for sample, camera in zip(made, cameras, strict=True):
        sample.set_metainfo({'camera': int(camera)})
    side = gallery_of(gallery, torch.from_numpy(theirs))
    side.metadata = {'camera': torch.from_numpy(their_cameras)}
    found = run(EmbeddingMetrics(protocol='Market1501'), made, side)
    assert [found[f'embedding/{name}'] for name in ('mAP', 'CMC@1', 'mINP')] == pytest.approx(
        market_loop(*market))
    side.metadata = {}
    with pytest.raises(ValueError, match="no metadata column 'camera'"):
        run(EmbeddingMetrics(protocol='Market1501'), made, side)
    with pytest.raises(ValueError, match="A sample has no 'camera'"):
        run(EmbeddingMetrics(protocol='Market1501'), samples(queries, labels), side)


def test_landmarks_count_over_at_most_a_hundred():
    queries, gallery = torch.randn(5, 4), torch.randn(300, 4)
    lists = [list(range(start, start + 150)) for start in range(0, 150, 30)]
    found = evaluate_protocol('GoogleLandmarksV2', EmbeddingSet(queries), EmbeddingSet(gallery),
                              {'gt_indices': lists})
    expected = []
    for query, wanted in zip(queries, lists, strict=True):
        hits, total = 0, 0.0
        for place, row in enumerate(ranking(query, gallery)[:100], 1):
            hits += row in wanted
            total += hits / place * (row in wanted)
        expected.append(total / 100)
    assert found['mAP@100'] == pytest.approx(100 * np.mean(expected))


def test_same_sequence_and_same_camera_together(market):
    queries, labels, cameras, gallery, theirs, their_cameras = market
    numbers = np.random.default_rng(5)
    own, other = numbers.integers(0, 3, 20), numbers.integers(0, 3, 80)
    junk = (labels[:, None] == theirs) & ((cameras[:, None] == their_cameras)
                                          | (own[:, None] == other))
    found = evaluate(queries, labels, gallery, theirs, ('mAP',), cameras=cameras, sequences=own,
                     gallery_cameras=their_cameras, gallery_sequences=other)
    assert found == evaluate(queries, labels, gallery, theirs, ('mAP',), junk=junk)


def test_relevance_confidence_and_classes_of_the_metric(tmp_path):
    queries, gallery = torch.randn(30, 4), torch.randn(50, 4)
    labels = torch.arange(30) % 4
    relevance = torch.rand(30, 50) > 0.8
    made = samples(queries, labels, prefix='q')
    side = gallery_of(gallery)
    seen = []
    metric = EmbeddingMetrics(
        'mAP', relevance=lambda ids, theirs: seen.append((ids, theirs)) or relevance,
        confidence=0.9, per_class_file=str(tmp_path / 'classes.json'))
    found = run(metric, made, side)
    assert seen == [([f'q{row}' for row in range(30)], side.ids)]
    assert found['embedding/mAP'] == pytest.approx(
        evaluate(queries, None, gallery, metrics='mAP', relevance=relevance)['mAP'])
    assert found['embedding/mAP/low'] < found['embedding/mAP'] < found['embedding/mAP/high']
    table = json.loads((tmp_path / 'classes.json').read_text())
    each = [evaluate(queries[labels == label], None, gallery, metrics='mAP',
                     relevance=relevance[labels == label])['mAP'] for label in range(4)]
    assert [table[str(label)]['mAP'] for label in range(4)] == pytest.approx(each)


def test_what_a_protocol_fixes_is_not_given_beside_it():
    with pytest.raises(ValueError, match='fixes metrics, average: leave them out'):
        EmbeddingMetrics('mAP', average='macro', protocol='CUB200')
    with pytest.raises(ValueError, match="Did you mean 'CUB200'"):
        EmbeddingMetrics(protocol='CUB-200')
    with pytest.raises(TypeError, match='by its name'):
        EmbeddingMetrics(protocol=SimpleNamespace())
    with pytest.raises(ValueError, match="needs 'camera'"):
        evaluate_protocol('VeRi776', EmbeddingSet(torch.ones(2, 2), [0, 0]))
    with pytest.raises(ValueError, match="needs 'gt_easy'"):
        evaluate_protocol('RevisitedOxford', EmbeddingSet(torch.ones(2, 2)),
                          EmbeddingSet(torch.ones(3, 2)))


@pytest.mark.parametrize('name', PROTOCOLS)
def test_every_protocol_can_be_built(name):
    assert EmbeddingMetrics(protocol=name).metrics == list(PROTOCOLS[name].metrics)


@pytest.mark.parametrize('kind', [Protocol, Level, EvaluationTask, EmbeddingSet])
def test_a_description_is_not_changed(kind):
    with pytest.raises(FrozenInstanceError):
        object.__new__(kind).metrics = ()

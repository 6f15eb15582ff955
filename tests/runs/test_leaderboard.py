"""The protocols of the benchmarks, run on miniatures: against evaluations that are written out."""
import json

import numpy as np
import pytest
import torch

from retrieval.evaluation import PROTOCOLS, evaluate
from retrieval.registry import DATASETS
from retrieval.retrievers import ImageToImageRetriever
from retrieval.runs.leaderboard import (
    BENCHMARKS,
    Entry,
    benchmarks_there,
    leaderboard_table,
    measure,
    read_entry,
    write_entry,
)

from ..datasets.landmark_miniatures import data_roots, make_market1501
from ..datasets.miniatures import make_objects, picture

PIPELINE = [dict(type='retrieval.LoadImage'), dict(type='Resize', scale=(6, 6)),
            dict(type='retrieval.PackInputs')]


@pytest.fixture
def model():
    made = ImageToImageRetriever(torch.nn.Flatten()).eval()
    made.search_in(pipeline=PIPELINE)
    return made


def test_every_benchmark_has_a_protocol_and_datasets(tmp_path):
    assert set(BENCHMARKS) == set(PROTOCOLS) - {'CUHK03'}, 'it has no dataset here'
    for benchmark in BENCHMARKS.values():
        for side in benchmark.sides(tmp_path):
            assert DATASETS.get(side['type']) is not None


def test_objects_are_searched_among_each_other(model, tmp_path):
    make_objects(tmp_path / 'objects', range(6))
    (_, root), = benchmarks_there(tmp_path, ['Objects'])
    entry = measure(model, 'pixels', BENCHMARKS['Objects'], root, PIPELINE, tmp_path / 'kept')
    dataset = DATASETS.build(dict(type='retrieval.Objects', data_root=str(root), split='test',
                                  pipeline=PIPELINE))
    pixels = np.stack([dataset[row]['inputs'].numpy().ravel() for row in range(len(dataset))])
    expected = evaluate(pixels.astype(np.float32), dataset.labels,
                        metrics=['Recall@1', 'MAP@R', 'R-Precision', 'mAP'])
    assert entry.metrics == pytest.approx({name: expected[name] for name in entry.metrics})
    assert (entry.queries, entry.rows, entry.width) == (30, 30, 108)
    for name, (low, high) in entry.confidence.items():
        assert low <= entry.metrics[name] <= high
    assert entry.fingerprint == model.fingerprint().as_dict()


def test_queries_of_their_own_and_the_same_camera(model, tmp_path):
    """Against a loop over the queries that leaves out what their own camera has seen."""
    make_market1501(tmp_path / 'market1501')
    (benchmark, root), = benchmarks_there(tmp_path, ['Market1501'])
    entry = measure(model, 'pixels', benchmark, root, PIPELINE, tmp_path / 'kept')
    query, gallery = (DATASETS.build(dict(side, pipeline=PIPELINE))
                      for side in benchmark.sides(root))
    unit = [torch.nn.functional.normalize(torch.stack([
        dataset[row]['inputs'].flatten().float() for row in range(len(dataset))]))
        for dataset in (query, gallery)]
    right = []
    for row in range(len(query)):
        own = gallery.labels == query.labels[row]
        left = ~(own & (np.array(gallery.metadata['camera']) == query.metadata['camera'][row]))
        if (own & left).any():
            scores = np.where(left, (unit[1] @ unit[0][row]).numpy(), -9)
            right.append(own[scores.argmax()])
    assert entry.metrics['CMC@1'] == pytest.approx(100 * np.mean(right))
    assert (entry.queries, entry.rows) == (len(query), len(gallery))


def test_relevant_rows_that_the_dataset_names(model, tmp_path):
    below = data_roots('revisited_oxford', tmp_path)['DATA_ROOT']
    (benchmark, root), = benchmarks_there(below, ['RevisitedOxford'])
    entry = measure(model, 'pixels', benchmark, root, PIPELINE, tmp_path / 'kept')
    assert {name.split('/')[0] for name in entry.metrics} == {'easy', 'medium', 'hard'}


def test_what_was_encoded_is_kept(model, tmp_path, monkeypatch):
    make_objects(tmp_path / 'objects', range(4))
    arguments = model, 'x', BENCHMARKS['Objects'], tmp_path / 'objects', PIPELINE, tmp_path / 'k'
    first = measure(*arguments)
    monkeypatch.setattr(model.image_encoder, 'forward', lambda _: pytest.fail('encoded again'))
    assert measure(*arguments) == first


def test_entries_are_read_back_and_the_best_stands_first(tmp_path):
    entries = [Entry(name, 'Copies', {'mAP': value, 'Recall@1': 1.}, {'mAP': (value - 1, value)},
                     3, 4, 5, dict(weights='a')) for name, value in (('a', 10.), ('b', 20.))]
    write_entry(entries[0], tmp_path / 'a.json')
    assert read_entry(tmp_path / 'a.json') == entries[0]
    (tmp_path / 'b.json').write_text(json.dumps(dict(encoder='b')))
    assert read_entry(tmp_path / 'b.json') is None
    lines = leaderboard_table(entries).splitlines()
    assert lines[0] == '## Copies' and lines[2] == '3 queries against 4 pictures.'
    assert lines[4] == '| encoder | numbers | mAP | Recall@1 |'
    assert lines[6:] == ['| b | 5 | 20.00 (19.0–20.0) | 1.00 |',
                         '| a | 5 | 10.00 (9.0–10.0) | 1.00 |']


def test_what_is_not_there(tmp_path):
    picture(tmp_path / 'roxford5k' / 'jpg' / 'a.jpg')
    found = benchmarks_there(tmp_path)
    assert [(one.name, root) for one, root in found] == [
        ('Glyphs', None), ('RevisitedOxford', tmp_path)]
    with pytest.raises(FileNotFoundError, match='no folder objects'):
        benchmarks_there(tmp_path, ['Objects'])
    with pytest.raises(ValueError, match='Objects'):
        benchmarks_there(tmp_path, ['Object'])
    with pytest.raises(FileNotFoundError, match='nowhere'):
        benchmarks_there(tmp_path / 'nowhere')

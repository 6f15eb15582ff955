"""The command prints and writes what `evaluate` returns."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.commands.evaluate import main
from retrieval.evaluation import (
    EmbeddingSet,
    EvaluationTask,
    compare,
    evaluate,
    evaluate_protocol,
    rank_queries,
)
from retrieval.gallery import Gallery

TOOL = Path(__file__).parents[2] / 'tools' / 'evaluate.py'
NAMES = ['Recall@1', 'Recall@10', 'Precision@10', 'R-Precision', 'MAP@R', 'mAP', 'mAP@100', 'MRR']


@pytest.fixture
def files(tmp_path):
    numbers = np.random.default_rng(0)
    kept = {}
    for name, count in (('queries', 30), ('gallery', 70)):
        kept[name] = numbers.normal(size=(count, 6)).astype(np.float32)
        kept[f'{name}_labels'] = numbers.integers(0, 8, count)
        np.save(tmp_path / f'{name}.npy', kept[name])
        np.save(tmp_path / f'{name}_labels.npy', kept[f'{name}_labels'])
    return tmp_path, kept


def run(folder, *arguments):
    main([*map(str, arguments), '--out', str(folder / 'out' / 'result.json')])
    return json.loads((folder / 'out' / 'result.json').read_text())


def test_leave_one_out(files, capsys):
    folder, kept = files
    found = run(folder, folder / 'queries.npy', '--labels', folder / 'queries_labels.npy')
    assert found == evaluate(kept['queries'], kept['queries_labels'])
    assert 'Recall@1' in capsys.readouterr().out


@pytest.mark.parametrize('average', ['micro', 'macro'])
def test_query_and_gallery(files, average):
    folder, kept = files
    found = run(folder, folder / 'queries.npy', '--labels', folder / 'queries_labels.npy',
                '--gallery', folder / 'gallery.npy', '--gallery-labels',
                folder / 'gallery_labels.npy', '--similarity', 'euclidean', '--average', average,
                '--metrics', *NAMES)
    assert found == evaluate(
        kept['queries'], kept['queries_labels'], kept['gallery'], kept['gallery_labels'], NAMES,
        'euclidean', average)
    assert list(found) == [*NAMES, 'num_queries', 'num_skipped_queries']


def test_galleries_bring_ids_labels_and_names(files):
    folder, kept = files
    vectors, labels = torch.from_numpy(kept['queries']), torch.from_numpy(kept['queries_labels'])
    names = [f'class {label}' for label in range(8)]
    ids = [f'p{row}' for row in range(30)]
    Gallery(vectors, ids, labels, names).save(folder / 'a.safetensors')
    # the same pictures and classes, the classes numbered the other way round
    Gallery(vectors, ids, 7 - labels, names[::-1]).save(folder / 'b.safetensors')
    expected = evaluate(vectors, labels)
    assert run(folder, folder / 'a.safetensors') == expected
    assert run(folder, folder / 'a.safetensors', '--gallery', folder / 'b.safetensors') == expected
    assert run(folder, folder / 'queries.npy', '--labels', folder / 'a.safetensors') == expected


def test_labels_from_a_text_file(files):
    folder, kept = files
    labels = kept['queries_labels']
    for lines in (map(str, labels), (f'name {label}' for label in labels)):
        (folder / 'labels.txt').write_text('\n'.join(lines) + '\n')
        found = run(folder, folder / 'queries.npy', '--labels', folder / 'labels.txt')
        assert found == evaluate(kept['queries'], labels)


def test_as_a_tool_with_one_error(files):
    folder, kept = files
    whole = subprocess.run(
        [sys.executable, TOOL, folder / 'queries.npy', '--labels', folder / 'queries_labels.npy',
         '--metrics', 'Recall@x'], capture_output=True, text=True)
    assert whole.returncode == 2 and whole.stdout == ''
    assert "'Recall@x': K must be a whole number" in whole.stderr
    assert 'Traceback' not in whole.stderr


@pytest.mark.parametrize(('arguments', 'says'), [
    (['nowhere.npy', '--labels', 'queries_labels.npy'], 'no embeddings at'),
    (['queries.npy'], 'give a file of them with --labels'),
    (['queries.npy', '--labels', 'nowhere.npy'], 'no labels at'),
    (['queries.npy', '--labels', 'gallery_labels.npy'], '70 entries for 30'),
    (['queries.npy', '--labels', 'broken.npy'], 'cannot be read as labels'),
    (['queries.npy', '--labels', 'objects.npy'], 'cannot be read as labels'),
    (['queries.npy', '--labels', 'fractions.npy'], 'must be integers'),
    (['broken.npy', '--labels', 'queries_labels.npy'], 'cannot be read as a gallery'),
    (['nan.npy', '--labels', 'queries_labels.npy'], 'not finite'),
    (['queries.npy', '--labels', 'queries_labels.npy', '--gallery-labels', 'x'], 'without'),
    (['queries.npy', '--labels', 'queries_labels.npy', '--gallery', 'gallery.npy'],
     '--gallery-labels'),
    (['queries.npy', '--labels', 'queries_labels.npy', '--similarity', 'cos'],
     'cosine_similarity'),
    (['queries.npy', '--labels', 'queries_labels.npy', '--average', 'mean'], 'macro'),
])
def test_bad_input(files, capsys, arguments, says):
    folder, kept = files
    (folder / 'broken.npy').write_bytes(b'\x93NUMPY nothing')
    np.save(folder / 'objects.npy', np.array([{}] * 30, dtype=object), allow_pickle=True)
    np.save(folder / 'fractions.npy', np.full(30, 0.5))
    np.save(folder / 'nan.npy', np.full((30, 2), np.nan))
    paths = [str(folder / one) if one.endswith('.npy') else one for one in arguments]
    with pytest.raises(SystemExit) as ended:
        main([*paths, '--out', str(folder / 'out.json')])
    assert ended.value.code == 2 and says in capsys.readouterr().err
    assert not (folder / 'out.json').exists()


def test_cameras_and_a_protocol(files):
    folder, kept = files
    numbers = np.random.default_rng(2)
    cameras = {name: numbers.integers(0, 3, len(kept[name])) for name in ('queries', 'gallery')}
    for name, values in cameras.items():
        np.save(folder / f'{name}_cameras.npy', values)
    sides = ['--labels', folder / 'queries_labels.npy', '--gallery', folder / 'gallery.npy',
             '--gallery-labels', folder / 'gallery_labels.npy', '--cameras',
             folder / 'queries_cameras.npy', '--gallery-cameras', folder / 'gallery_cameras.npy']
    vectors = (kept['queries'], kept['queries_labels'], kept['gallery'], kept['gallery_labels'])
    expected = evaluate(*vectors, ('mAP', 'CMC@1'), cameras=cameras['queries'],
                        gallery_cameras=cameras['gallery'])
    plain = run(folder, folder / 'queries.npy', *sides, '--metrics', 'mAP', 'CMC@1')
    assert plain == expected != evaluate(*vectors, ('mAP', 'CMC@1'))
    named = run(folder, folder / 'queries.npy', *sides, '--protocol', 'Market1501')
    assert named == evaluate_protocol(
        'Market1501', EmbeddingSet(*vectors[:2], metadata={'camera': cameras['queries']}),
        EmbeddingSet(*vectors[2:], metadata={'camera': cameras['gallery']}))
    assert named['mAP'] == expected['mAP']


def test_ground_truth_of_levels(files):
    folder, kept = files
    numbers = np.random.default_rng(4)
    truth = {name: [numbers.choice(70, 4, replace=False).tolist() for _ in range(30)]
             for name in ('gt_easy', 'gt_hard', 'gt_junk')}
    (folder / 'truth.json').write_text(json.dumps(truth))
    found = run(folder, folder / 'queries.npy', '--gallery', folder / 'gallery.npy',
                '--protocol', 'RevisitedOxford', '--ground-truth', folder / 'truth.json')
    assert found == evaluate_protocol('RevisitedOxford', EmbeddingSet(kept['queries']),
                                      EmbeddingSet(kept['gallery']), truth)
    assert 'hard/mAP-trapezoid' in found
    listed = {'gt_indices': truth['gt_easy'], 'gt_junk': truth['gt_junk']}
    (folder / 'truth.json').write_text(json.dumps(listed))
    found = run(folder, folder / 'queries.npy', '--gallery', folder / 'gallery.npy',
                '--ground-truth', folder / 'truth.json')
    assert found == evaluate(kept['queries'], None, kept['gallery'], relevance=truth['gt_easy'],
                             junk=truth['gt_junk'])


def test_confidence_classes_and_comparison(files, capsys):
    folder, kept = files
    np.save(folder / 'other.npy', kept['queries'] + np.random.default_rng(9).normal(
        size=kept['queries'].shape).astype(np.float32) / 3)
    labels = kept['queries_labels']
    found = run(folder, folder / 'queries.npy', '--labels', folder / 'queries_labels.npy',
                '--confidence', 0.9, '--per-class', folder / 'classes.json',
                '--compare', folder / 'other.npy')
    ours, other = (rank_queries(EvaluationTask(EmbeddingSet(vectors, labels)))
                   for vectors in (kept['queries'], np.load(folder / 'other.npy')))
    assert found['confidence'] == {name: list(bounds)
                                   for name, bounds in ours.confidence(0.9).items()}
    assert found['comparison'] == compare(other, ours)
    assert found['comparison']['mAP']['difference'] == pytest.approx(
        ours.summary()['mAP'] - other.summary()['mAP'])
    assert json.loads((folder / 'classes.json').read_text()) == {
        str(label): values for label, values in ours.per_class().items()}
    assert 'p = ' in capsys.readouterr().out


@pytest.mark.parametrize(('options', 'says'), [
    (['--protocol', 'InShop', '--metrics', 'mAP'], 'fixes metrics'),
    (['--protocol', 'In-Shop'], "Did you mean 'InShop'"),
    (['--protocol', 'VeRi776'], "needs 'camera'"),
    (['--gallery-cameras', 'x'], '--gallery-cameras was given without --gallery'),
    (['--compare-gallery', 'x'], 'without --compare'),
    (['--ground-truth', 'nowhere.json'], 'no ground truth'),
    (['--confidence', '2'], 'above 0 and below 1'),
])
def test_options_that_do_not_fit(files, options, says, capsys):
    folder, _ = files
    with pytest.raises(SystemExit) as stop:
        run(folder, folder / 'queries.npy', '--labels', folder / 'queries_labels.npy', *options)
    assert stop.value.code == 2 and says in capsys.readouterr().err

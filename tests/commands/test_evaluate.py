from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.commands.evaluate import main
from retrieval.evaluation import evaluate
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
    (['queries.npy', '--labels', 'gallery_labels.npy'], '70 labels for the 30'),
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

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from retrieval.commands.tune_index import main
from retrieval.gallery import Gallery
from retrieval.index import ExactIndex
from retrieval.registry import INDEXES

from .conftest import run

TOOLS = Path(__file__).parents[2] / 'tools'
ROWS, WIDTH = 1500, 16


def vectors(count, seed):
    numbers = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(30, WIDTH))
    return torch.from_numpy((centres[numbers.integers(0, 30, count)]
                             + 0.5 * numbers.normal(size=(count, WIDTH))).astype('float32'))


@pytest.fixture
def gallery(tmp_path):
    made = Gallery(vectors(ROWS, 0), ids=[f'picture {row}' for row in range(ROWS)])
    made.save(tmp_path / 'gallery.safetensors')
    return made


def tune(folder, *arguments):
    status, out, err = run('tune_index', folder / 'gallery.safetensors', '--out', folder / 'out',
                           *arguments)
    trials = folder / 'out' / 'trials.json'
    return status, out, err, json.loads(trials.read_text()) if trials.exists() else None


def test_the_winner_is_a_config_that_meets_the_budget(gallery, tmp_path):
    status, out, err, made = tune(tmp_path, '--recall', 0.9, '--num-queries', 100, '--factories',
                                  'IVF8,Flat', 'HNSW16', 'PQ4x4', 'IVF5000,Flat', '--seed', 2)
    assert status == 0, err
    assert (made['rows'], made['queries'], made['k']) == (ROWS - 100, 100, 10)
    names = {one['name'] for one in made['trials']}
    assert names == {'exact', 'IVF8,Flat', 'HNSW16', 'PQ4x4', 'PQ4x4 rescored x4',
                     'IVF5000,Flat'}  # x4 finds enough: x16 is only slower
    failed, = [one for one in made['trials'] if 'error' in one]
    assert failed['name'] == 'IVF5000,Flat' and 'at least 5000 rows' in failed['error']
    assert 'IVF5000,Flat' in out and 'failed' in out
    winner = made['winner']
    meeting = [one for one in made['trials'] if 'error' not in one and one['recall'] >= 0.9]
    assert winner == max(meeting, key=lambda one: one['queries_per_second'])
    assert Image.open(tmp_path / 'out' / 'trade_off.png').size[0] > 500
    config = Config.fromfile(tmp_path / 'out' / 'index.py').index
    assert config.to_dict() == winner['index']
    index, exact = INDEXES.build(config), ExactIndex()
    for one in (index, exact):
        one.add(gallery.embeddings, gallery.ids)
    queries = vectors(100, 5)
    found, wanted = index.search(queries, 10).ids, exact.search(queries, 10).ids
    hits = [len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)]
    assert np.mean(hits) > 0.85
    status, _, err = run('build_index', tmp_path / 'gallery.safetensors', tmp_path / 'x.index',
                         '--config', tmp_path / 'out' / 'index.py')
    assert status == 0, err


def test_nothing_meets_the_budget(gallery, tmp_path):
    status, out, _, made = tune(tmp_path, '--memory-mb', 0.001, '--factories', 'SQ8', 'HNSW8',
                                '--num-queries', 50)
    assert status == 1 and made['winner'] is None
    assert 'Nothing meets the budget (0.001 MB). Nearest:\nSQ8' in out
    assert not (tmp_path / 'out' / 'index.py').exists()
    assert (tmp_path / 'out' / 'trade_off.png').exists()


def test_a_budget_of_memory_and_of_latency(gallery, tmp_path):
    status, _, err, made = tune(tmp_path, '--memory-mb', 0.03, '--factories', 'SQ8', 'SQ4',
                                '--num-queries', 50)
    assert status == 0, err
    assert made['winner']['name'] == 'SQ8', 'the most recall that the memory allows'
    status, _, _, made = tune(tmp_path, '--latency-ms', 1e6, '--factories', 'SQ4')
    assert status == 0 and made['winner']['recall'] == 1


def test_queries_from_a_file_do_not_find_themselves(gallery, tmp_path):
    taken = Gallery(gallery.embeddings[:40], ids=[f'picture {row}' for row in range(40)])
    taken.save(tmp_path / 'queries.safetensors')
    status, _, err, made = tune(tmp_path, '--queries', tmp_path / 'queries.safetensors',
                                '--factories', 'Flat', '--k', 5)
    assert status == 0, err
    assert made['rows'] == ROWS and made['queries'] == 40
    assert [one['recall'] for one in made['trials']] == [1, 1]
    np.save(tmp_path / 'bare.npy', vectors(30, 4).numpy())
    assert tune(tmp_path, '--queries', tmp_path / 'bare.npy', '--factories', 'Flat')[0] == 0


def test_a_time_limit(gallery, tmp_path):
    status, out, _, made = tune(tmp_path, '--factories', 'SQ8', 'HNSW8', '--time-limit', 1e-9)
    assert status == 0 and 'not tried were SQ8, ' in out
    assert made['winner']['name'] == 'exact' and len(made['trials']) == 1
    assert Config.fromfile(tmp_path / 'out' / 'index.py').index.type == 'retrieval.ExactIndex'


def test_what_was_tried_is_kept_when_it_is_interrupted(gallery, tmp_path, monkeypatch, capsys):
    def interrupted(self, candidate, enough):
        raise KeyboardInterrupt
    monkeypatch.setattr('retrieval.index.tuning.Tuner.trials', interrupted)
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / 'gallery.safetensors'), '--out', str(tmp_path / 'out')])
    assert ended.value.code == 130
    assert '1 settings were tried' in capsys.readouterr().err
    assert (tmp_path / 'out' / 'trials.json').is_file()


@pytest.mark.parametrize(('arguments', 'says'), [
    (['--recall', 1.5], '--recall must be above 0 and at most 1'),
    (['--latency-ms', 0], '--latency-ms must be above 0'),
    (['--memory-mb', -1], 'above 0'), (['--k', 0], '--k must be an integer of at least 1'),
    (['--similarity', 'cos'], 'cosine_similarity'),
    (['--factories', 'Flatt'], "cannot build the factory 'Flatt'"),
    (['--queries', 'nowhere.npy'], 'no gallery at'),
])
def test_bad_input(gallery, tmp_path, arguments, says):
    status, _, err, made = tune(tmp_path, *arguments)
    assert status == 2 and says in err and made is None


def test_galleries_that_cannot_be_tuned(tmp_path):
    np.save(tmp_path / 'small.npy', vectors(50, 0).numpy())
    np.save(tmp_path / 'narrow.npy', vectors(50, 0).numpy()[:, :3])
    status, _, err = run('tune_index', tmp_path / 'small.npy', '--out', tmp_path / 'out')
    assert status == 2 and '50 rows' in err
    status, _, err = run('tune_index', tmp_path / 'small.npy', '--queries',
                         tmp_path / 'narrow.npy', '--out', tmp_path / 'out')
    assert status == 2 and '3 columns, the gallery 16' in err


def test_as_a_tool(gallery, tmp_path):
    whole = subprocess.run(
        [sys.executable, TOOLS / 'tune_index.py', tmp_path / 'gallery.safetensors', '--out',
         tmp_path / 'out', '--factories', 'HNSW8', '--threads', '1'], capture_output=True,
        text=True)
    assert whole.returncode == 0, whole.stderr
    assert 'recall at least 0.95' in whole.stdout and 'index = dict(' in whole.stdout

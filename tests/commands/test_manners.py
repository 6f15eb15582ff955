"""What all commands have in common: one JSON document, no foreign warnings, Ctrl-C in one line."""
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retrieval import progress
from retrieval.commands import command_line
from retrieval.commands.command_line import CommandParser, as_plain, reports_errors
from retrieval.commands.main import commands
from retrieval.gallery import Gallery, GalleryStore

from ..datasets.few_fonts import use_few_fonts
from .conftest import draw_classes, run
from .test_prepare_copies import photographs

MANY = torch.from_numpy(np.random.default_rng(0).normal(size=(300, 8)).astype('float32'))


@pytest.fixture
def here(config, checkpoint, gallery, folder, tmp_path, monkeypatch):
    """A folder with what the commands below name, which they run in."""
    monkeypatch.chdir(tmp_path)
    for name, target in {'config.py': config, 'trained.pth': checkpoint, 'g.safetensors': gallery,
                         'pictures': folder}.items():
        Path(name).symlink_to(target)
    Gallery(MANY, [str(row) for row in range(300)]).save('many.safetensors')
    np.save('a.npy', MANY[:40])
    np.save('labels.npy', np.arange(40) % 4)
    return tmp_path


#: What each command is called with, and what it is to answer beside ``files`` and ``seconds``.
CALLS: dict[str, tuple[str, set[str]]] = {
    'browse_dataset': ('config.py --number 3', {'pictures', 'rows', 'images'}),
    'build_index': ('many.safetensors index --factory Flat',
                    {'index', 'rows', 'bytes', 'build_seconds'}),
    'bundle': ('config.py trained.pth out.zip', {'embedding_size', 'bytes', 'metrics'}),
    'calibrate': ('g.safetensors match.json',
                  {'threshold', 'measured', 'rates', 'class_thresholds', 'skipped'}),
    'cluster': ('g.safetensors --k 3', {'clusters', 'sizes', 'images', 'alone', 'skipped'}),
    'collection': ('config.py --cfg-options model.index.type=MilvusIndex model.index.uri=here.db',
                   {'rows', 'model', 'kept', 'kept_model'}),
    'compare_galleries': ('g.safetensors g.safetensors --queries 5', {
        'switched', 'num_queries', 'k', 'overlap', 'rank_correlation', 'num_correlated',
        'changed_first', 'results', 'rows', 'only_old', 'only_new', 'differences',
        'most_changed'}),
    'configs': ('triplet --copy copies', {'configs'}),
    'demo': ('', {'results'}),
    'doctor': ('', {'errors', 'warnings', 'findings'}),
    'dump_prototype': ('config.py trained.pth new.safetensors', {'rows', 'dimension', 'skipped'}),
    'evaluate': ('a.npy --labels labels.npy --out r.json --confidence 0.9',
                 {'metrics', 'confidence'}),
    'export': ('config.py trained.pth exported --format torchscript',
               {'format', 'precision', 'bytes', 'parity'}),
    'export_glyphs': ('glyphs --data-root cache --size 8', {'images', 'classes'}),
    'find_duplicates': ('g.safetensors', {'groups', 'images', 'pairs', 'links', 'skipped'}),
    'fit_whitening': ('config.py trained.pth white.pth --dim 4',
                      {'method', 'dimensions', 'embeddings'}),
    'gallery': ('export g.safetensors copy.safetensors', {'rows'}),
    'init': ('pictures mine.py', {'config', 'table', 'warnings'}),
    'leaderboard': ('--encoders efficientnet-lite0', {'encoders', 'benchmarks', 'left_out'}),
    'migrate': ('g.safetensors new.gallery --config config.py --checkpoint trained.pth',
                {'rows', 'left', 'switched', 'skipped'}),
    'prepare_objects': ('objects', {'objects', 'views'}),
    'prepare_copies': ('copies --packages --samples --folders mine --distractors mine',
                       {'photographs', 'copies', 'gallery'}),
    'print_config': ('config.py', {'config'}),
    'report': ('a.npy --labels labels.npy', {
        'metrics', 'confidence', 'recall', 'classes', 'threshold', 'worst', 'confused', 'suspects',
        'never_found', 'near_duplicates'}),
    'search': ('g.safetensors pictures/class0/0.png --topk 3', {'queries', 'skipped'}),
    'serve': ('g.safetensors --port 0 --no-browser', {'url', 'state'}),
    'test': ('config.py trained.pth --out t.json', {'work_dir', 'metrics'}),
    'train': ('config.py --cfg-options train_cfg.max_epochs=1',
              {'work_dir', 'iterations', 'metrics'}),
    'train_on_embeddings': ('config.py trained.pth --out linear.pth --epochs 1',
                            {'before', 'after', 'training_seconds'}),
    'tune_index': ('many.safetensors --factories Flat --num-queries 20',
                   {'tried', 'left_out', 'winner', 'nearest'})}

#: The bars of these calls, of which that of rankings is drawn from the third second on.
BARS: dict[str, tuple[str, ...]] = {
    'build_index': ('Building',),
    'calibrate': ('Ranking',),
    'compare_galleries': ('Ranking',),
    'dump_prototype': ('Encoding the prototype',),
    'evaluate': ('Ranking',),
    'export': ('Comparing', 'Ranking'),
    'export_glyphs': ('Writing test', 'Writing train'),
    'find_duplicates': ('Ranking',),
    'fit_whitening': ('Extracting features',),
    'migrate': ('Encoding', 'Ranking'),
    'prepare_copies': ('Altering',),
    'prepare_objects': ('Rendering',),
    'report': ('Measuring', 'Ranking'),
    'search': ('Ranking',),
    'test': ('Encoding the prototype', 'Ranking', 'Testing'),
    'train': ('Encoding the prototype', 'Ranking', 'Training'),
    'train_on_embeddings': ('Encoding the prototype', 'Extracting features', 'Ranking',
                            'Training'),
    'tune_index': ('Ranking', 'Trying')}


def stand_in(command, monkeypatch, folder):
    """In the place of what lasts and is tested elsewhere."""
    if command == 'report':
        monkeypatch.setattr('retrieval.report.summary.two_dimensions', lambda rows: rows[:, :2])
    elif command == 'leaderboard':
        monkeypatch.setattr('retrieval.runs.leaderboard.benchmarks_there', lambda *_: [])
    elif command == 'prepare_objects':
        monkeypatch.setattr('retrieval.datasets.object_views.ObjectRenderer',
                            lambda: SimpleNamespace(objects=[]))
        monkeypatch.setattr('retrieval.datasets.object_views.licence', lambda: 'free')
    elif command == 'export_glyphs':
        use_few_fonts(monkeypatch)
    elif command == 'prepare_copies':
        photographs(folder / 'mine', 5)
    elif command == 'demo':
        demo = importlib.import_module('retrieval.commands.demo')
        one = dict.fromkeys(demo.METRICS, 50.0)
        runner = type('Runner', (), dict(
            test=lambda self: {f'embedding/{name}': value for name, value in one.items()},
            save_checkpoint=lambda self, *_, **__: None, log_dir=''))()
        for name, value in dict(
                draw=None, draw_training=None,
                baselines={'pixels': one, 'untrained': one}).items():
            monkeypatch.setattr(demo, name, lambda *_, value=value: value)
        monkeypatch.setattr('retrieval.runs.config.build_runner', lambda *_: runner)
        monkeypatch.setattr('retrieval.runs.training.train', lambda _: None)
        monkeypatch.setattr('retrieval.runs.training.test', lambda runner: runner.test())
    elif command == 'serve':
        from fastapi.testclient import TestClient

        def serve_a_moment(server, sockets):
            with TestClient(server.config.app):
                pass
        monkeypatch.setattr('uvicorn.Server.run', serve_a_moment)


def test_every_command_is_called_below():
    assert set(CALLS) == set(commands())


@pytest.mark.parametrize('command', sorted(CALLS))
def test_a_command_answers_with_one_json_document(command, here, monkeypatch):
    stand_in(command, monkeypatch, here)
    shown: list[str] = []
    real = progress._bar
    monkeypatch.setattr(progress, '_bar', lambda title, *rest: (
        shown.append(title) if title else None, real(title, *rest))[1])
    call, expected = CALLS[command]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        for category in DeprecationWarning, PendingDeprecationWarning:  # as Python does by itself
            warnings.simplefilter('ignore', category)
        status, out, err = run(command, *call.split(), '--json')
    assert status in (0, command == 'doctor'), err  # there may be errors on this machine
    found = json.loads(out)
    assert expected <= set(found)
    assert expected | {'files', 'seconds'} >= set(found) or command == 'init'
    assert ('seconds' in found) == (command != 'serve')
    if command != 'demo':
        assert all(os.path.exists(file) for file in found.get('files', []))
    assert [f'{one.filename}: {one.message}' for one in seen] == []
    assert 'Warning' not in err
    assert set(shown) == set(BARS.get(command, ()))


@pytest.mark.parametrize('command', sorted(CALLS))
def test_ctrl_c_is_one_line(command, monkeypatch):
    def interrupted(self, argv=None):
        raise KeyboardInterrupt
    monkeypatch.setattr(CommandParser, 'parse_args', interrupted)
    monkeypatch.setattr(CommandParser, 'parse_intermixed_args', interrupted)
    assert run(command) == (130, '', 'Interrupted. There is no result yet.\n')


@pytest.mark.parametrize(('call', 'kept'), [
    (f'dump_prototype {CALLS["dump_prototype"][0]}', 'What was encoded is kept'),
    (f'migrate {CALLS["migrate"][0]}',
     r'8 of 20 are encoded and kept in new.gallery: the same call goes on\.'),
    ('search mine pictures/class0/0.png --config config.py --checkpoint trained.pth',
     'What was encoded is kept'),
    ('tune_index many.safetensors --factories Flat SQ8 --num-queries 20 --out tuned',
     r'1 settings were tried: tuned/trials\.json'),
    ('build_index many.safetensors index --factory Flat', r'There is no result yet\.'),
    ('test config.py trained.pth', r'There is no result yet\.')])
def test_ctrl_c_at_work_says_what_is_kept(call, kept, here, monkeypatch):
    shutil.copytree('pictures', 'mine')
    monkeypatch.setattr('retrieval.commands.migrate._TOGETHER', 8)
    real = progress._bar

    def interrupted(title, *rest):
        bar, updates = real(title, *rest), iter(range(2))

        def update(count=1):
            if next(updates) == (title == 'Encoding'):  # in its second step
                raise KeyboardInterrupt
        if title not in (None, 'Ranking'):
            bar.update = update
        return bar
    monkeypatch.setattr(progress, '_bar', interrupted)
    status, out, err = run(*call.split())
    assert status == 130 and re.search(rf'^Interrupted\. .*{kept}.*\n\Z', err, re.M), err


@pytest.mark.parametrize(('call', 'expected'), [
    ('info g.safetensors', {'rows': 20, 'dimension': 8}), ('verify g.safetensors', {'rows': 20}),
    ('append s.gallery g.safetensors', {'rows': 20}),
    ('info t.gallery', {'shards': 1, 'removed': 0})])
def test_parts_of_gallery_answer_too(call, expected, here):
    GalleryStore.create('s.gallery')
    GalleryStore.create('t.gallery', Gallery.load('g.safetensors'))
    status, out, err = run('gallery', *call.split(), '--json')
    assert status == 0, err
    found = json.loads(out)
    assert {name: found[name] for name in expected} == expected


def test_an_answer_of_no_has_status_1(here):
    status, out, _ = run('tune_index', 'many.safetensors', '--factories', 'Flat', '--latency-ms',
                         '1e-9', '--json')
    assert status == 1 and json.loads(out)['winner'] is None and json.loads(out)['nearest']


def test_two_runs_are_compared_in_json(here):
    status, out, err = run('report', 'a.npy', 'a.npy', '--labels', 'labels.npy', '--json')
    assert status == 0, err
    assert json.loads(out)['metrics'][0]['difference'] == 0


def test_an_error_leaves_the_output_empty(capsys):
    assert run('search', 'nowhere', 'x.png', '--json')[:2] == (2, '')


def test_an_abbreviation_is_taken_too(capsys):
    assert json.loads(run('configs', 'triplet', '--js')[1])['configs']


def test_values_that_json_lacks():
    assert as_plain([float('inf'), np.float32(2), torch.ones(2), Path('x'), {1: (True, None)}]) == \
        [None, 2.0, [1.0, 1.0], 'x', {'1': [True, None]}]


def test_only_warnings_of_libraries_are_hidden():
    @reports_errors
    def command(argv):
        warnings.warn_explicit('yours', UserWarning, 'mine.py', 1, module='mine')
        warnings.warn_explicit('theirs', UserWarning, 'timm.py', 1, module='timm.models')
        warnings.warn_explicit('no library', UserWarning, 'torches.py', 1, module='torches')

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        command([])
    assert [str(one.message) for one in seen] == ['yours', 'no library']


# A real Ctrl-C ------------------------------------------------------------------------------------


@contextmanager
def started(*arguments):
    process = subprocess.Popen(
        [sys.executable, '-m', 'retrieval', *map(str, arguments)], start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ, OMP_NUM_THREADS='1'))
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.communicate()


def wait_for(condition, process, seconds=400):
    """Long enough for a machine on which others work."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'the machine is too slow, or the command stands still'
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize('command', ['train', 'dump_prototype', 'search', 'tune_index'])
def test_a_signal_at_work(command, config, checkpoint, tmp_path):
    """Sent to the whole group, as a terminal does, workers included."""
    draw_classes(tmp_path / 'pictures', each=40 if command == 'train' else 400)
    pictures = ['--cfg-options', f"train_dataloader.dataset.data_root='{tmp_path}/pictures'",
                f"model.prototype.dataset.data_root='{tmp_path}/pictures'",
                'model.prototype.num_workers=2']
    if command == 'train':
        call = ['config.py', '--work-dir', tmp_path / 'work', '--no-validate', *pictures[:2],
                'train_dataloader.num_workers=2', 'train_cfg.max_epochs=100']
        begun = (tmp_path / 'work' / 'last_checkpoint').exists  # written when that is whole
        kept = '--resume goes on from there'
    elif command == 'dump_prototype':
        call = ['config.py', checkpoint, tmp_path / 'g.safetensors', '--shard-rows', 64, *pictures]
        begun = lambda: list(tmp_path.glob('g.safetensors.parts/*.safetensors'))  # noqa: E731
        kept = 'What was encoded is kept'
    elif command == 'search':
        call = [tmp_path / 'pictures', tmp_path / 'pictures/class0/0.png']
        begun = lambda: list(tmp_path.glob('pictures/.retrieval/*.parts/*.safetensors'))  # noqa: E731
        kept = 'What was encoded is kept'
    else:
        Gallery(torch.randn(30000, 64)).save(tmp_path / 'many.safetensors')
        call = [tmp_path / 'many.safetensors', '--out', tmp_path / 'tuned']
        begun, kept = None, r'\d+ settings were tried: \S+trials.json has them'
    call = [config if one == 'config.py' else one for one in call]
    with started(command, *call) as process:
        if begun is None:
            while not process.stdout.readline().startswith('exact'):
                assert process.poll() is None
        else:
            wait_for(begun, process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=200)
    assert process.returncode == command_line.INTERRUPTED
    assert re.fullmatch(rf'Interrupted\. .*{kept}.*\n', err), err

"""The report of what a user may give, and where it goes."""
import re
import shutil

import numpy as np
import pytest
import torch

from retrieval.commands.report import found_in, split_runs
from retrieval.evaluation import evaluate
from retrieval.gallery import Gallery

from .conftest import run


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """Relative paths of default reports; the map by principal components, which is quick."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('retrieval.report.summary.two_dimensions', lambda rows: rows[:, :2])


@pytest.fixture
def embeddings(tmp_path):
    numbers = np.random.default_rng(0)
    labels = np.arange(30) % 5
    vectors = numbers.normal(size=(5, 6))[labels] + numbers.normal(size=(30, 6))
    other = vectors + 0.4 * numbers.normal(size=(30, 6))
    np.save(tmp_path / 'a.npy', vectors.astype(np.float32))
    np.save(tmp_path / 'b.npy', other.astype(np.float32))
    np.save(tmp_path / 'labels.npy', labels)
    return tmp_path, vectors.astype(np.float32), other.astype(np.float32), labels


def written(path):
    return path.read_text(encoding='utf-8')


def test_a_work_dir(work_dir, tmp_path):
    shutil.copytree(work_dir, tmp_path / 'copy')  # others count what is in it
    status, _, err = run('report', tmp_path / 'copy')
    assert status == 0, err
    text = written(tmp_path / 'copy' / 'report.html')
    assert text.count('data:image/webp') > 10 and 'id="training"' in text
    assert 'best_embedding_Recall@1' in text and 'search/' in text
    assert 'Each of 20 queries ranks 20 rows of the gallery, which are the same pictures.' in text
    assert not re.search(r'https?://', text.replace('data_root', ''))


def test_what_a_test_reports_is_what_its_work_dir_tells(config, checkpoint, tmp_path):
    tested = tmp_path / 'tested'
    status, _, err = run('test', config, checkpoint, '--work-dir', tested, '--report')
    assert status == 0, err
    first = written(tested / 'report.html')
    assert 'id="training"' in first and 'epoch_2.pth' in first  # its log is beside the checkpoint
    (tested / 'report.html').unlink()
    status, _, err = run('report', tested)
    assert status == 0, err
    again = written(tested / 'report.html')
    tiles = r'<strong>([\d.]+)</strong>'
    assert re.findall(tiles, again) == re.findall(tiles, first) and re.findall(tiles, first)


@pytest.mark.slow
def test_two_checkpoints_query_by_query(config, checkpoint, tmp_path):
    before = checkpoint.with_name('epoch_1.pth')
    status, printed, err = run('report', config, before, config, checkpoint)
    assert status == 0, err
    text = written(tmp_path / 'work_dirs' / 'comparison.html')
    line = re.search(r'mAP: ([\d.]+) -> ([\d.]+) .* queries: (\d+) better, (\d+) worse, (\d+)',
                     printed)
    assert sum(map(int, line.groups()[2:])) == 20
    assert f'<td class="number">{line[1]}</td><td class="number">{line[2]}</td>' in text


def test_embeddings_with_labels(embeddings, tmp_path):
    folder, vectors, _, labels = embeddings
    status, printed, err = run('report', folder / 'a.npy', '--labels', folder / 'labels.npy',
                               '--metrics', 'mAP', 'Recall@5')
    assert status == 0, err
    text = written(tmp_path / 'work_dirs' / 'report.html')
    assert 'work_dirs/report.html' in printed
    for name, value in evaluate(vectors, labels, metrics=['mAP', 'Recall@5']).items():
        if '_' not in name:
            assert f'<span>{name}</span><strong>{value:.2f}</strong>' in text


def test_two_embeddings_of_the_same_queries(embeddings):
    folder, vectors, other, labels = embeddings
    status, printed, err = run('report', folder / 'a.npy', folder / 'b.npy',
                               '--labels', folder / 'labels.npy')
    assert status == 0, err
    before, after = (evaluate(one, labels)['mAP'] for one in (vectors, other))
    assert f'mAP: {before:.2f} -> {after:.2f} ({after - before:+.2f}' in printed


def test_a_dumped_gallery_brings_labels_and_pictures(gallery, tmp_path):
    status, _, err = run('report', gallery, '--out', tmp_path / 'report.html')
    assert status == 0, err
    text = written(tmp_path / 'report.html')
    assert 'Each of 20 pictures is a query against all others' in text and 'data:image' in text


def test_galleries_apart_with_pictures(embeddings, folder):
    here, vectors, _, labels = embeddings
    paths = sorted(map(str, folder.rglob('*.png')))[:30]
    rows = torch.from_numpy(vectors)
    Gallery(rows[:10], paths[:10], labels[:10]).save(here / 'queries.safetensors')
    Gallery(rows, paths, labels).save(here / 'rows.safetensors')
    out = here / 'report.html'
    status, _, err = run('report', here / 'queries.safetensors', '--gallery',
                         here / 'rows.safetensors', '--out', out)
    assert status == 0, err
    assert 'Each of 10 queries ranks 30 rows of the gallery.' in written(out)
    assert 'data:image/webp' in written(out)


def test_pictures_by_ids_below_a_folder(embeddings, folder):
    here, *_ = embeddings
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob('*.png'))[:30]]
    (here / 'ids.txt').write_text('\n'.join(names))
    options = ['--labels', here / 'labels.npy', '--ids', here / 'ids.txt', '--out',
               here / 'report.html']
    status, _, err = run('report', here / 'a.npy', *options, '--images', folder)
    assert status == 0, err
    assert 'data:image/webp' in written(here / 'report.html')
    status, _, err = run('report', here / 'a.npy', *options, '--images', '/nowhere')
    assert status == 2 and 'no folder' in err


@pytest.mark.parametrize('arguments, words', [
    (['/nowhere'], 'nothing at'),
    (['{config}'], 'its checkpoint is to stand behind it'),
    (['{config}', '{checkpoint}', '--labels', 'x.npy'], '--cfg-options'),
    (['{here}/a.npy'], 'brings no labels'),
    (['{here}/a.npy', '{here}/b.npy', '{here}/a.npy'], 'got 3'),
    (['{here}/a.npy', '--out', 'report.pdf'], '.html'),
    (['{here}/a.npy', '--labels', '{here}/labels.npy', '--gallery-labels', 'x'], '--gallery'),
    (['{here}/a.npy', '{here}/b.npy', '--labels', '{here}/labels.npy', '--gallery',
      '{here}/a.npy', '--gallery-labels', '{here}/labels.npy'], '--compare-gallery'),
    (['{folder}'], 'no config'),
])
def test_mistakes(arguments, words, config, checkpoint, folder, embeddings):
    given = [one.format(config=config, checkpoint=checkpoint, folder=folder, here=embeddings[0])
             for one in arguments]
    status, _, err = run('report', *given)
    assert status == 2 and words in err, err


def test_runs_are_told_apart(config, checkpoint, work_dir):
    config, checkpoint, work_dir = map(str, (config, checkpoint, work_dir))
    assert split_runs([work_dir, config, checkpoint]) == [[work_dir], [config, checkpoint]]
    assert split_runs([work_dir, work_dir]) == [[work_dir], [work_dir]]
    found, best = found_in(work_dir)
    assert found.endswith('small.py') and 'best_embedding' in best

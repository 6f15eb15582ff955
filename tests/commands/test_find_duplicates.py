"""Copies are found, within a folder and between folders and galleries."""
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from retrieval.gallery import Gallery

from .conftest import run


@pytest.fixture
def options(config, checkpoint):
    return ['--config', config, '--checkpoint', checkpoint, '--no-cache']


def test_copies_within_a_folder(folder, options, tmp_path):
    shutil.copytree(folder, tmp_path / 'own')
    copies = {tmp_path / 'own' / f'class{n}' / '0.png': tmp_path / 'own' / f'class{n}' / 'copy.png'
              for n in (1, 4)}
    for original, copy in copies.items():
        shutil.copy(original, copy)
    status, printed, err = run('find_duplicates', tmp_path / 'own', '--threshold', 0.999999,
                               '--out', tmp_path / 'out', *options)
    assert status == 0 and '2 pairs' in printed, err
    found = json.loads((tmp_path / 'out' / 'duplicates.json').read_text())
    assert {frozenset((pair['id'], pair['other'])) for pair in found['pairs']} == {
        frozenset(map(str, pair)) for pair in copies.items()}
    assert sorted(map(sorted, found['groups'])) == sorted(
        sorted(map(str, pair)) for pair in copies.items())
    sheet = np.asarray(Image.open(tmp_path / 'out' / 'duplicates.png'))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100, 'the pictures are not there'


def test_a_leak_between_a_gallery_file_and_a_folder(gallery, folder, options, tmp_path):
    (tmp_path / 'train').mkdir()
    leaked = list(Gallery.load(gallery).ids)[7]
    shutil.copy(leaked, tmp_path / 'train' / 'leaked.png')
    Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).save(tmp_path / 'train' / 'white.png')
    status, printed, err = run('find_duplicates', gallery, tmp_path / 'train', '--threshold',
                               0.99999, '--out', tmp_path, *options)
    assert status == 0 and '1 pairs' in printed, err
    found = json.loads((tmp_path / 'duplicates.json').read_text())
    assert found['groups'] == [dict(gallery=[leaked],
                                    other=[str(tmp_path / 'train' / 'leaked.png')])]


def test_nothing_alike(gallery, tmp_path):
    status, printed, err = run('find_duplicates', gallery, '--threshold', 1.5, '--out', tmp_path)
    assert status == 0 and '0 pairs' in printed, err
    assert json.loads((tmp_path / 'duplicates.json').read_text())['pairs'] == []
    assert not (tmp_path / 'duplicates.png').exists()


@pytest.mark.parametrize('arguments, words', [
    (['/nowhere'], 'no gallery'), (['{gallery}', '/nowhere'], 'no gallery'),
    (['{gallery}', '--similarity', 'cosine'], 'cosine_similarity'),
    (['{folder}', '--checkpoint', 'x.pth'], '--config')])
def test_wrong_input(gallery, folder, tmp_path, arguments, words):
    names = dict(gallery=gallery, folder=folder)
    status, _, err = run('find_duplicates', *[a.format(**names) for a in arguments], '--out',
                         tmp_path)
    assert status == 2 and words in err and 'Traceback' not in err, err

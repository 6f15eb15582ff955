"""Copies are found, within a folder and between folders and galleries."""
import csv
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.gallery import Gallery

from ..scenes import scene
from .conftest import run


@pytest.fixture
def options(config, checkpoint):
    return ['--config', config, '--checkpoint', checkpoint, '--no-cache']


def test_copies_within_a_folder(folder, options, tmp_path):
    shutil.copytree(folder, tmp_path / 'own')
    (tmp_path / 'own' / 'class2' / 'link.png').symlink_to(tmp_path / 'own' / 'class3' / '0.png')
    (tmp_path / 'own' / 'class2' / 'broken.png').write_text('nonsense')
    copies = {tmp_path / 'own' / f'class{n}' / '0.png': tmp_path / 'own' / f'class{n}' / 'copy.png'
              for n in (1, 4)}
    for original, copy in copies.items():
        shutil.copy(original, copy)
    status, printed, err = run('find_duplicates', tmp_path / 'own', '--threshold', 0.999999,
                               '--out', tmp_path / 'out', *options)
    assert status == 0 and '2 groups of near-duplicates with 4 images' in printed, err
    found = json.loads((tmp_path / 'out' / 'duplicates.json').read_text())
    assert {frozenset((pair['id'], pair['other'])) for pair in found['pairs']} == {
        frozenset(map(str, pair)) for pair in copies.items()}
    assert sorted(map(sorted, found['groups'])) == sorted(
        sorted(map(str, pair)) for pair in copies.items())
    assert 'link.png' not in (tmp_path / 'out' / 'duplicates.json').read_text()
    assert '1 images are links' in printed and 'broken.png' in err.splitlines()[-1]
    with open(tmp_path / 'out' / 'duplicates.csv', newline='') as table:
        lines = list(csv.DictReader(table))
    assert [(line['group'], line['set'], line['id']) for line in lines] == [
        (str(number), 'gallery', name) for number, group in enumerate(found['groups'])
        for name in group]
    assert all(float(line['similarity']) > 0.9999 for line in lines)
    sheet = np.asarray(Image.open(tmp_path / 'out' / 'duplicates.png'))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100, 'the pictures are not there'


def test_a_leak_between_a_gallery_file_and_a_folder(gallery, folder, options, tmp_path):
    (tmp_path / 'train').mkdir()
    leaked = list(Gallery.load(gallery).ids)[7]
    shutil.copy(leaked, tmp_path / 'train' / 'leaked.png')
    Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).save(tmp_path / 'train' / 'white.png')
    status, printed, err = run('find_duplicates', gallery, tmp_path / 'train', '--threshold',
                               0.99999, '--out', tmp_path, *options)
    assert status == 0 and '1 groups' in printed and '1 pairs' in printed, err
    found = json.loads((tmp_path / 'duplicates.json').read_text())
    assert found['groups'] == [dict(gallery=[leaked],
                                    other=[str(tmp_path / 'train' / 'leaked.png')])]


def test_nothing_alike(gallery, tmp_path):
    status, printed, err = run('find_duplicates', gallery, '--threshold', 1.0, '--out', tmp_path)
    assert status == 0 and '0 pairs' in printed, err
    assert json.loads((tmp_path / 'duplicates.json').read_text())['pairs'] == []
    assert not (tmp_path / 'duplicates.png').exists()


@pytest.mark.parametrize('arguments, words', [
    (['/nowhere'], 'no folder or gallery'), (['{gallery}', '/nowhere'], 'no folder or gallery'),
    (['{gallery}', '--similarity', 'cosine'], 'cosine_similarity'),
    (['{folder}', '--checkpoint', 'x.pth'], '--config')])
def test_wrong_input(gallery, folder, tmp_path, arguments, words):
    names = dict(gallery=gallery, folder=folder)
    status, _, err = run('find_duplicates', *[a.format(**names) for a in arguments], '--out',
                         tmp_path)
    assert status == 2 and words in err and 'Traceback' not in err, err


def test_a_thousand_equal_frames_are_one_group(tmp_path):
    """As a film of a wall: every frame of it is named once or twice, not a thousand times."""
    Gallery(torch.ones(1000, 4), ids=[f'/nowhere/{n:04d}.png' for n in range(1000)]).save(
        tmp_path / 'g.safetensors')
    status, printed, err = run('find_duplicates', tmp_path / 'g.safetensors', '--out', tmp_path)
    assert status == 0 and '1 groups of near-duplicates with 1000 images' in printed, err
    found = json.loads((tmp_path / 'duplicates.json').read_text())
    assert len(found['groups'][0]) == 1000 and len(found['pairs']) == 999
    assert len((tmp_path / 'duplicates.csv').read_text().splitlines()) == 1001


def test_copies_are_proved(options, tmp_path):
    folder = tmp_path / 'own'
    folder.mkdir()
    for number in range(3):
        Image.fromarray(scene(number)).save(folder / f'{number}.png')
    Image.fromarray(scene(0)).save(folder / 'again.jpg', quality=40)
    Image.fromarray(scene(1)[30:230, 40:300]).save(folder / 'crop.png')
    status, printed, err = run('find_duplicates', folder, '--prove', '--threshold', -1,
                               '--out', tmp_path / 'out', *options)
    assert status == 0 and '2 groups of copies' in printed, err
    assert '1 re-encoded' in printed and '1 cropped' in printed
    with open(tmp_path / 'out' / 'duplicates.csv', newline='') as table:
        lines = {line['id'].split('/')[-1]: line for line in csv.DictReader(table)}
    assert {name: (line['action'], line['kind']) for name, line in lines.items()} == {
        '0.png': ('keep', ''), 'again.jpg': ('remove', 're-encoded'), '1.png': ('keep', ''),
        'crop.png': ('look', 'cropped')}
    assert 'again.jpg' in (tmp_path / 'out' / 'duplicates.sh').read_text()
    assert json.loads((tmp_path / 'out' / 'duplicates.json').read_text())['compared'] >= 6
    assert Image.open(tmp_path / 'out' / 'duplicates.png').height > 200


def test_what_another_set_has_already(options, tmp_path):
    have, new = tmp_path / 'have', tmp_path / 'new'
    have.mkdir(), new.mkdir()
    for number in (0, 1, 2):
        Image.fromarray(scene(number)).save(have / f'{number}.png')
    Image.fromarray(scene(0)).save(new / 'again.jpg', quality=40)
    Image.fromarray(scene(1)).resize((640, 480)).save(new / 'larger.png')
    Image.fromarray(scene(3)).save(new / 'new.png')
    (new / 'link.png').symlink_to(have / '2.png')
    status, printed, err = run('find_duplicates', new, have, '--prove', '--threshold', -1,
                               '--out', tmp_path / 'out', *options)
    assert status == 0 and '2 groups of copies' in printed, err
    with open(tmp_path / 'out' / 'duplicates.csv', newline='') as table:
        lines = {line['id'].split('/')[-1]: line for line in csv.DictReader(table)}
    assert {name: (line['action'], line['kind'], line['of'].split('/')[-1])
            for name, line in lines.items()} == {
        '0.png': ('keep', '', ''), 'again.jpg': ('remove', 're-encoded', '0.png'),
        '1.png': ('keep', '', ''), 'larger.png': ('look', 'resized', '1.png')}
    into = tmp_path / 'into'
    subprocess.run(['sh', tmp_path / 'out' / 'duplicates.sh', into], check=True)
    assert [path.name for path in into.iterdir()] == ['1-again.jpg']
    assert len(list(have.iterdir())) == 3 and (new / 'larger.png').exists()
    assert json.loads((tmp_path / 'out' / 'duplicates.json').read_text())['other'] == str(have)


@pytest.mark.parametrize(('arguments', 'says'), [
    (['--parts'], '--prove'),
    (['--prove', '--similarity', 'inner_product'], '--similarity'),
    (['--prove', '--neighbors', '0'], '--neighbors')])
def test_what_goes_not_with_a_proof(folder, arguments, says):
    status, _, err = run('find_duplicates', folder, *arguments)
    assert status == 2 and says in err

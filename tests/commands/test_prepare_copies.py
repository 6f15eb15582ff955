import csv

import numpy as np
from PIL import Image

from retrieval.datasets import CSVDataset
from retrieval.datasets.copies import ALTERATIONS

from .conftest import run


def photographs(folder, count, size=(320, 240)):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f'{number}.png')
    return folder


def test_the_table_is_a_dataset(tmp_path):
    mine = photographs(tmp_path / 'mine', 5)
    Image.open(mine / '0.png').resize((640, 480)).save(mine / 'again.jpg')
    Image.new('RGBA', (300, 300)).save(mine / 'nothing.png')
    status, printed, err = run(
        'prepare_copies', tmp_path / 'out', '--packages', '--samples', '--folders', mine,
        '--distractors', photographs(tmp_path / 'others', 3, (100, 80)))
    assert status == 0, err
    assert f'5 photographs, {5 * len(ALTERATIONS)} copies of them and a gallery of 7' in printed
    queries, gallery = (CSVDataset(str(tmp_path / 'out/copies.csv'), split=split,
                                   pipeline=[dict(type='LoadImage')])
                        for split in ('query', 'gallery'))
    assert len(gallery) == 7 and all(row['img'].ndim == 3 for row in map(queries.__getitem__,
                                                                         range(len(queries))))
    with open(tmp_path / 'out/copies.csv') as file:
        rows = list(csv.DictReader(file))
    in_gallery = {row['label'] for row in rows if row['is_gallery'] == 'True'}
    absent = {row['label'] for row in rows} - in_gallery
    assert len(absent) == 1, 'every fifth photograph has no match'


def test_what_cannot_be_had(tmp_path):
    status, _, err = run('prepare_copies', tmp_path / 'out', '--packages', 'no-such-package',
                         '--distractors')
    assert status == 2 and 'no-such-package' in err
    status, _, err = run('prepare_copies', tmp_path / 'out', '--packages', '--samples',
                         '--distractors', '--folders', photographs(tmp_path / 'few', 2))
    assert status == 2 and 'five are the least' in err
    assert not (tmp_path / 'out').exists() and not list(tmp_path.glob('.out*'))

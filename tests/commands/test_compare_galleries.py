import json
import os

import pytest
import torch

from retrieval.evaluation import compare_galleries
from retrieval.gallery import Gallery, GalleryStore, switch

from .conftest import run


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    rows, labels = torch.randn(60, 8), torch.arange(60) % 6
    ids = [f'p{row}' for row in range(60)]
    rows = rows + 2 * torch.nn.functional.one_hot(labels, 8)
    Gallery(rows, ids, labels).save(tmp_path / 'v1.safetensors')
    GalleryStore.create(tmp_path / 'v2.gallery', Gallery(rows + torch.randn(60, 8), ids, labels))
    switch(tmp_path / 'current', tmp_path / 'v1.safetensors')
    return tmp_path


def test_the_change_is_reported(folder):
    arguments = [folder / 'current', folder / 'v2.gallery', '--topk', 5, '--queries', 40]
    status, printed, err = run('compare_galleries', *arguments, '--out', folder / 'r.json')
    assert status == 0, err
    found = compare_galleries(Gallery.load(folder / 'v1.safetensors'),
                              Gallery.load(folder / 'v2.gallery'), 40, 5)
    assert printed == found.report() + '\n' and 0 < found.overlap < 1
    assert json.loads((folder / 'r.json').read_text())['overlap'] == found.overlap
    assert os.readlink(folder / 'current') == 'v1.safetensors', 'only --switch switches'


def test_switching_and_back(folder):
    v1, v2, link = folder / 'v1.safetensors', folder / 'v2.gallery', folder / 'current'
    status, printed, err = run('compare_galleries', link, v2, '--switch', link)
    assert status == 0 and f'before, to {v1}' in printed, err
    assert os.readlink(link) == 'v2.gallery' and len(Gallery.load(link)) == 60
    status, printed, err = run('compare_galleries', link, v1, '--switch', link)
    assert status == 0 and os.readlink(link) == 'v1.safetensors', err


def test_queries_of_their_own(folder):
    for name, path in (('q1', 'v1.safetensors'), ('q2', 'v2.gallery')):
        Gallery.load(folder / path).subset([3, 4, 5]).save(folder / f'{name}.safetensors')
    status, printed, err = run('compare_galleries', folder / 'current', folder / 'v2.gallery',
                               '--query-galleries', folder / 'q1.safetensors',
                               folder / 'q2.safetensors')
    assert status == 0 and 'queries: 3\n' in printed, err


@pytest.mark.parametrize('arguments, words', [
    (['--min-overlap', '99'], '--min-overlap asks for 99 %'),
    (['--max-loss', '0.5'], r'falls from'), (['--topk', '0'], 'k must be'),
    (['--similarity', 'cos'], 'cosine_similarity')])
def test_a_change_that_is_too_large_is_not_switched_to(folder, arguments, words):
    status, _, err = run('compare_galleries', folder / 'current', folder / 'v2.gallery',
                         '--switch', folder / 'current', *arguments)
    assert status == 2 and words in err and 'Traceback' not in err
    assert os.readlink(folder / 'current') == 'v1.safetensors'


def test_a_damaged_gallery_is_not_switched_to(folder):
    gallery = Gallery.load(folder / 'v1.safetensors')
    gallery = Gallery(gallery.embeddings, gallery.ids, gallery.labels,
                      metadata=dict(note=['x' * 200] * 60))
    path = folder / 'v3.safetensors'
    gallery.save(path)
    place = Gallery.load(path)._files[0].arrays['metadata.0.bytes'].begin + 50
    data = bytearray(path.read_bytes())
    data[place] ^= 1  # in a column that no comparison reads
    path.write_bytes(data)
    status, _, err = run('compare_galleries', folder / 'current', path, '--switch',
                         folder / 'current')
    assert status == 2 and 'is damaged' in err
    assert os.readlink(folder / 'current') == 'v1.safetensors'

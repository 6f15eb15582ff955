"""Searching an encoded folder without torch: the answers are the inferencer's."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from retrieval.encoded_folder import EncodedFolder, cache_beside
from retrieval.export.folder_search import FolderSearch
from retrieval.export.write_export import complete_folder
from retrieval.exported_encoder import ExportedEncoder
from retrieval.image_files import UnreadableImageError
from retrieval.retrievers import build_retriever
from retrieval.search import ImageRetrievalInferencer
from tests.commands.conftest import draw_classes
from tests.test_exported_encoder import write_export_of


def write_whole_export(folder, **changes):
    """The mean colour as an export, with what a gallery of it is known by."""
    write_export_of(folder, **changes)
    complete_folder(folder, json.loads((folder / 'export.json').read_text()))
    return folder


@pytest.fixture(scope='module')
def export(tmp_path_factory):
    return write_whole_export(tmp_path_factory.mktemp('export') / 'mean')


@pytest.fixture
def folder(tmp_path):
    draw_classes(tmp_path / 'pictures', classes=4, each=3)
    return str(tmp_path / 'pictures')


def encoded(folder, export):
    """The inferencer, which has encoded the folder, and the file of what it encoded."""
    opened, cache = ExportedEncoder(export), cache_beside(folder, 'mean')
    model = build_retriever(opened.config, device='cpu')
    return ImageRetrievalInferencer(model, folder, cache, pipeline=opened.pipeline,
                                    on_unreadable='skip'), cache


def rounded(answers):
    return [[{**hit, 'score': round(hit['score'], 3)} for hit in answer['results']]
            for answer in answers]


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product'])
def test_the_answers_are_those_of_the_inferencer(folder, tmp_path, similarity):
    export = write_whole_export(tmp_path / 'mean', similarity=similarity)
    inferencer, cache = encoded(folder, export)
    Image.new('RGB', (30, 20), (200, 90, 10)).save(tmp_path / 'other.png')
    images = [f'{folder}/class2/1.png', str(tmp_path / 'other.png')]
    found = FolderSearch.open(folder, cache, export)(images, topk=5)
    expected = inferencer(images, topk=5)
    assert [answer['query'] for answer in found] == images
    assert rounded(found) == rounded(expected)
    assert found[0]['results'][0]['label'].startswith('class')
    assert images[0] not in [hit['id'] for hit in found[0]['results']]


def test_more_results_than_there_are(folder, export):
    _, cache = encoded(folder, export)
    search = FolderSearch.open(folder, cache, export)
    assert len(search([f'{folder}/class0/0.png'], topk=99)[0]['results']) == 11


def test_of_equal_scores_the_lower_row_comes_first(folder, export, tmp_path):
    for name in 'ba':
        Image.new('RGB', (8, 8), 'red').save(f'{folder}/class1/{name}.png')
    Image.new('RGB', (8, 8), 'red').save(tmp_path / 'red.png')
    inferencer, cache = encoded(folder, export)
    query = str(tmp_path / 'red.png')
    found = FolderSearch.open(folder, cache, export)([query], topk=4)[0]['results']
    assert [hit['id'][-5] for hit in found[:2]] == ['a', 'b']
    assert [hit['row'] for hit in found] == [
        hit['row'] for hit in inferencer(query, topk=4)[0]['results']]


@pytest.mark.parametrize('change', ['new', 'changed', 'gone', 'unreadable', 'no cache', 'damaged',
                                    'other export', 'geometry', 'euclidean'])
def test_what_is_left_to_torch(folder, export, tmp_path, change):
    if change == 'unreadable':
        (tmp_path / 'pictures/class0/9.png').write_bytes(b'cut')
    _, cache = encoded(folder, export)
    asked = export
    if change == 'new':
        Image.new('RGB', (8, 8)).save(f'{folder}/class0/new.png')
    elif change == 'changed':
        os.utime(f'{folder}/class0/0.png', (5, 5))
    elif change == 'gone':
        os.unlink(f'{folder}/class0/0.png')
    elif change == 'no cache':
        cache.unlink()
    elif change == 'damaged':
        data = bytearray(cache.read_bytes())
        data[len(data) // 2] ^= 1
        cache.write_bytes(data)
    elif change in ('other export', 'geometry', 'euclidean'):
        changes = {'other export': dict(pipeline=[
            dict(type='LoadImage'), dict(type='Resize', scale=[4, 4]), dict(type='CenterCrop',
                 crop_size=4), dict(type='PackInputs')]),
            'geometry': dict(geometry=None), 'euclidean': dict(similarity='euclidean')}
        asked = write_whole_export(tmp_path / 'asked', **changes[change])
    assert FolderSearch.open(folder, cache, asked) is None


def test_a_query_that_cannot_be_read(folder, export, tmp_path):
    _, cache = encoded(folder, export)
    search = FolderSearch.open(folder, cache, export)
    (tmp_path / 'cut.png').write_bytes(b'cut')
    images = [str(tmp_path / 'cut.png'), f'{folder}/class0/0.png']
    with pytest.raises(UnreadableImageError, match='cut.png'):
        search(images)
    first, second = search(images, on_unreadable='skip')
    assert 'cut.png' in first['error'] and len(second['results']) == 10


def test_the_rows_of_a_folder_are_arrays(folder, export):
    inferencer, cache = encoded(folder, export)
    facts = ExportedEncoder(export).manifest
    rows = EncodedFolder.open(cache, folder, list(inferencer.model.gallery.ids),
                              facts['fingerprint'], facts['settings'])
    gallery = inferencer.model.gallery
    np.testing.assert_array_equal(rows.embeddings, gallery.embeddings.numpy())
    assert rows.ids == list(gallery.ids) and len(rows) == len(gallery) == 12
    assert [rows.label_name(row) for row in (0, 11)] == ['class0', 'class3']


@pytest.mark.slow
def test_the_command_imports_neither_torch_nor_the_engine(folder, export, tmp_path):
    encoded(folder, export)
    program = ('import sys; from retrieval.commands.search import main;'
               'main(sys.argv[1:]); heavy = {"torch", "mmengine", "matplotlib", "pandas", "cv2"};'
               'assert not heavy & set(sys.modules), heavy & set(sys.modules)')
    done = subprocess.run(
        [sys.executable, '-c', program, folder, f'{folder}/class1/0.png', '--encoder', export,
         '--out', tmp_path / 'out'], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '12 images as before' in done.stdout
    assert (tmp_path / 'out/rankings.png').is_file()

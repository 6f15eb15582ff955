"""The script that is copied beside an export and needs nothing of this package."""
import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from retrieval.exported_encoder import fitted
from tests.commands.conftest import draw_classes
from tests.test_exported_encoder import picture, write_export_of

script = pytest.importorskip('retrieval.export.search_script')

GEOMETRY = [['resize_edge', 24, 'short', 'SAMPLE'], ['crop', 20, 16, 'SAMPLE']]


@pytest.mark.parametrize('steps', [
    GEOMETRY, [['resize_edge', 90, 'long', 'BICUBIC']], [['resize_edge', 30, 'width', 'BILINEAR']],
    [['resize', 120, 80, 'SAMPLE'], ['crop', 21, 30, 'SAMPLE']]])
def test_pixels_are_those_of_the_package(steps, tmp_path):
    Image.fromarray(picture()).save(tmp_path / 'a.png')
    found = script.pixels(tmp_path / 'a.png', dict(image=[3, 0, 0], geometry=steps))
    np.testing.assert_array_equal(found[0], fitted(picture(), steps))


def test_pixels_are_upright_on_white_and_grey_where_it_is_asked_for(tmp_path):
    pixels = np.zeros((2, 4, 4), np.uint8)
    pixels[:, :2] = [10, 20, 30, 255]
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    found = script.pixels(tmp_path / 'a.png', dict(image=[3, 0, 0], geometry=[]))
    assert found.shape == (1, 3, 2, 4) and found[0, :, 0].T.tolist() == [
        [10, 20, 30], [10, 20, 30], [255, 255, 255], [255, 255, 255]]
    turned = Image.fromarray(pixels[..., :3])
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / 'b.png', exif=turned.getexif())
    grey = script.pixels(tmp_path / 'b.png', dict(image=[1, 0, 0], geometry=[]))
    assert grey.shape == (1, 1, 4, 2)


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_it_finds_what_a_loop_finds(similarity, tmp_path, monkeypatch):
    """The model is the mean colour less 100."""
    write_export_of(tmp_path / 'mean', similarity=similarity, image=[3, 4, 4])
    draw_classes(tmp_path / 'pictures', classes=3, each=2)
    (tmp_path / 'pictures' / 'notes.txt').touch()
    monkeypatch.setattr(script, 'HERE', tmp_path / 'mean')
    facts = json.loads((tmp_path / 'mean' / 'export.json').read_text())
    paths = sorted((tmp_path / 'pictures').rglob('*.png'))
    rows = np.concatenate([script.pixels(path, facts).mean((2, 3)) - 100 for path in paths])
    found = script.search(str(tmp_path / 'pictures'), [str(paths[3]), str(paths[0])], 4)
    for query, results in zip((3, 0), found, strict=True):
        one = rows[query]
        scores = {'cosine_similarity': rows @ one / np.linalg.norm(rows, axis=1)
                  / np.linalg.norm(one), 'inner_product': rows @ one,
                  'euclidean': -np.linalg.norm(rows - one, axis=1)}[similarity]
        order = np.argsort(-scores)[:4]
        assert [path for _, path in results] == [str(paths[row]) for row in order]
        np.testing.assert_allclose([score for score, _ in results], scores[order], rtol=1e-4,
                                   atol=1e-3)
    assert len(script.search(str(tmp_path / 'pictures'), [str(paths[0])], 99)[0]) == 6


@pytest.mark.slow
def test_the_search_script_needs_no_torch(tmp_path, export, model, dataset, pictures):
    """In an environment of its own, where there is neither torch nor this package."""
    venv.create(tmp_path / 'env', with_pip=True)
    python = tmp_path / 'env' / 'bin' / 'python'
    constraints = Path(__file__).parents[2] / 'requirements' / 'constraints.txt'
    subprocess.run([python, '-m', 'pip', 'install', '-q', '-c', constraints, 'onnxruntime',
                    'numpy', 'pillow', 'faiss-cpu'], check=True, env={})
    query = dataset.get_data_info(0)['img_path']
    answer = subprocess.run([python, '-I', export / 'search.py', pictures, query], check=True,
                            capture_output=True, text=True, env={}).stdout.splitlines()
    absent = subprocess.run([python, '-I', '-c', 'import torch'], capture_output=True, check=False)
    assert absent.returncode != 0
    inputs = torch.stack([dataset[row]['inputs'] for row in range(len(dataset))])
    with torch.no_grad():
        rows = nn.functional.normalize(model.image_encoder((inputs.float() - 120) / 60))
    scores, places = (rows @ rows[0]).topk(5)
    found = [line.split() for line in answer[1:]]
    assert answer[0] == query
    assert [path for _, path in found] == [dataset.get_data_info(row)['img_path']
                                           for row in places.tolist()]
    np.testing.assert_allclose([float(score) for score, _ in found], scores, atol=2e-3)

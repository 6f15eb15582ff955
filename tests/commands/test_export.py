"""retrieval export, as it is typed."""
import json

import pytest

from .conftest import run


def test_an_export_of_a_config(config, checkpoint, tmp_path):
    out = tmp_path / 'exported'
    status, printed, err = run('export', config, checkpoint, out, '--format', 'torchscript')
    assert status == 0, err
    assert 'cosine to torch on 20 pictures: least 1.000000' in printed
    assert 'mAP: ' in printed
    assert f'{out}: torchscript, fp32' in printed
    assert json.loads((out / 'export.json').read_text())['embedding_size'] == 8


def test_pictures_of_a_folder(config, checkpoint, folder, tmp_path):
    status, printed, err = run('export', config, checkpoint, tmp_path / 'exported', '--format',
                               'torchscript', '--pictures', folder)
    assert status == 0, err
    assert 'on 40 pictures' in printed


def test_an_encoder_without_pictures(tmp_path):
    status, _, err = run('export', '--encoder', 'efficientnet-lite0', tmp_path / 'exported')
    assert status == 2
    assert 'give --pictures FOLDER' in err


def test_what_is_refused_before_anything_is_loaded(tmp_path):
    status, _, err = run('export', 'absent.py', 'absent.pth', tmp_path / 'x', '--format', 'onxx')
    assert status == 2
    assert "'onxx'" in err and 'onnx' in err
    (tmp_path / 'taken').write_text('')
    status, _, err = run('export', 'absent.py', 'absent.pth', tmp_path / 'taken')
    assert status == 2
    assert 'is there already' in err


@pytest.mark.slow
def test_a_folder_is_searched_with_an_export(config, checkpoint, folder, tmp_path):
    """By its path in the place of an encoder, in whole and then again without torch."""
    import shutil

    shutil.copytree(folder, tmp_path / 'pictures')
    out = tmp_path / 'exported'
    status, _, err = run('export', config, checkpoint, out)
    assert status == 0, err
    query = tmp_path / 'pictures/class3/0.png'
    answers = []
    for turn in ('first', 'second', 'third'):
        status, printed, err = run('search', tmp_path / 'pictures', query, '--encoder', out,
                                   '--out', tmp_path / turn, *(['--no-cache'] if turn == 'third'
                                                               else []))
        assert status == 0, err
        answers.append(json.loads((tmp_path / turn / 'results.json').read_text()))
        assert (tmp_path / turn / 'rankings.png').is_file()
    first, second, third = (found[0]['results'] for found in answers)
    assert first == third and len(first) == 10
    # a grey value in the pixels changes the order of scores that differ in the third digit
    for one, other in zip(first, second, strict=True):
        assert abs(one['score'] - other['score']) < 0.01
        assert set(one) == set(other) and other['label'] == other['id'].split('/')[-2]

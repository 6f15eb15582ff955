"""`retrieval bundle`, and every command that takes what it wrote."""
import json

import pytest

from retrieval.runs.bundle import Bundle, is_bundle

from .conftest import run


@pytest.fixture(scope='module')
def calibration(gallery, tmp_path_factory):
    path = tmp_path_factory.mktemp('calibration') / 'calibration.json'
    status, _, err = run('calibrate', gallery, path)
    assert status == 0, err
    return path


@pytest.fixture(scope='module')
def bundle(config, checkpoint, gallery, calibration, tmp_path_factory):
    out = tmp_path_factory.mktemp('bundle') / 'small'
    status, printed, err = run('bundle', config, '--gallery', gallery, checkpoint, out,
                               '--calibration', calibration)
    assert status == 0 and '8 numbers an image' in printed and 'Recall@1' in printed, err
    return out


def test_metrics_that_were_measured_stand_in_the_card(config, checkpoint, tmp_path):
    (tmp_path / 'metrics.json').write_text(json.dumps({'embedding/Recall@1': 91.25, 'num_x': 3}))
    status, _, err = run('bundle', config, checkpoint, tmp_path / 'out.zip', '--metrics',
                         tmp_path / 'metrics.json')
    assert status == 0 and is_bundle(tmp_path / 'out.zip'), err
    opened = Bundle.open(tmp_path / 'out.zip')
    assert opened.manifest['metrics'] == {'embedding/Recall@1': 91.25}
    card = (opened.folder / 'README.md').read_text()
    assert '| embedding/Recall@1 | 91.25 |' in card and 'the test set of small.py' in card
    (tmp_path / 'metrics.json').write_text('[1]')
    status, _, err = run('bundle', config, checkpoint, tmp_path / 'other', '--metrics',
                         tmp_path / 'metrics.json')
    assert status == 2 and 'is no JSON of metrics' in err and not (tmp_path / 'other').exists()


def test_what_is_missing_is_said(config, bundle, tmp_path):
    assert 'wants the checkpoint' in run('bundle', config, tmp_path / 'out')[2]
    assert 'Which model?' in run('bundle', tmp_path / 'out')[2]
    assert 'is there already' in run('bundle', config, bundle)[2]


def test_a_preset_and_its_errors(tmp_path):
    status, printed, err = run('bundle', '--encoder', 'efficientnet-lite0', tmp_path / 'lite0')
    assert status == 0 and '1280 numbers an image' in printed, err
    status, _, err = run('bundle', '--encoder', 'dino-small', tmp_path / 'x')
    assert status == 2 and "Did you mean 'dinov" in err
    status, _, err = run('bundle', '--encoder', 'resnet50', tmp_path / 'gone.pth', tmp_path / 'x')
    assert status == 2 and 'gone.pth' in err

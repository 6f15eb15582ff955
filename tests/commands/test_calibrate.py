"""A calibration from a gallery's labels, which search takes."""
import json

import pytest

from retrieval.evaluation import MatchCalibration, calibrate
from retrieval.gallery import Gallery

from .conftest import run


def test_a_calibration_is_written_and_used(gallery, folder, tmp_path):
    out = tmp_path / 'match.json'
    status, printed, err = run('calibrate', gallery, out, '--criterion', 'false_match_rate',
                               '--target', 0.1, '--per-class')
    assert status == 0 and 'TAR@FAR=0.01' in printed and 'classes have thresholds' in printed, err
    opened = Gallery.load(gallery)
    made = calibrate(opened.embeddings, opened.labels, 'false_match_rate', 0.1)
    written = MatchCalibration.load(out)
    assert written.threshold == made.threshold and written.measured['far'] <= 0.1
    assert set(written.class_thresholds) == set(opened.label_names)
    status, _, err = run('search', gallery, folder / 'class0' / '0.png', '--calibration', out,
                         '--out', tmp_path)
    assert status == 0, err
    for hit in json.loads((tmp_path / 'results.json').read_text())[0]['results']:
        assert hit['score'] >= written.threshold_of(hit['label']) - 1e-6
        assert hit['probability'] == pytest.approx(written.probability(hit['score']), abs=1e-4)


def test_a_gallery_without_labels(gallery, tmp_path):
    Gallery(Gallery.load(gallery).embeddings).save(tmp_path / 'bare.safetensors')
    status, _, err = run('calibrate', tmp_path / 'bare.safetensors', tmp_path / 'x.json')
    assert status == 2 and 'no labels' in err


def test_a_calibration_without_labels(config, checkpoint, folder, gallery, tmp_path):
    out = tmp_path / 'tail.json'
    named = ['--config', config, '--checkpoint', checkpoint, '--no-cache']
    status, printed, err = run('calibrate', folder, out, '--without-labels', *named)
    assert status == 0 and 'altered pictures' in printed and 'estimated from' in printed, err
    written = MatchCalibration.load(out)
    assert written.method == 'tail' and written.measured['altered'] == 40
    status, _, err = run('search', gallery, folder / 'class0' / '0.png', '--calibration', out,
                         '--out', tmp_path)
    assert status == 0, err
    status, printed, err = run('calibrate', gallery, out, '--without-labels', '--criterion',
                               'no_match', '--target', 0.1, '--strangers', gallery)
    assert status == 0 and 'at most 10.0% of the queries without' in printed, err
    assert 'as the pictures without' in printed


@pytest.mark.parametrize(('options', 'message'), [
    (['--without-labels', '--per-class'], '--per-class is of a calibration on labels'),
    (['--without-labels', '--criterion', 'f1'], 'Unknown criterion without labels'),
    (['--without-labels', '--criterion', 'coverage'], 'give the folder'),
    (['--strangers', 'x'], 'for --without-labels'),
])
def test_what_does_not_go_together(gallery, tmp_path, options, message):
    status, _, err = run('calibrate', gallery, tmp_path / 'x.json', *options)
    assert status == 2 and message in err and not (tmp_path / 'x.json').exists()

"""A checkpoint is tested: what is written and drawn. Wrong input is in test_train.py, with that of
training.
"""
import json

import pytest

from .conftest import run


def test_metrics_are_written(config, checkpoint, tmp_path):
    out = tmp_path / 'metrics.json'
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--out', out)
    assert status == 0, err
    metrics = json.loads(out.read_text())
    assert metrics['embedding/num_queries'] == 20
    assert metrics['embedding/Recall@1'] == pytest.approx(metrics['search/Recall@1'])


def test_predictions_are_written_and_drawn(config, checkpoint, tmp_path, folder):
    out = tmp_path / 'predictions.json'
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--out', out,
                         '--out-item', 'pred', '--show-dir', tmp_path / 'show')
    assert status == 0, err
    entries = json.loads(out.read_text())
    assert len(entries) == 20 and [len(e['pred_label']) for e in entries] == [10] * 20
    for entry in entries:
        assert entry['sample_id'] not in entry['pred_id']
        assert entry['pred_score'] == sorted(entry['pred_score'], reverse=True)
        assert all(name.startswith(str(folder)) for name in entry['pred_id'])
    assert (tmp_path / 'show' / 'rankings.png').stat().st_size > 1000


def test_a_config_with_nothing_to_test(config, checkpoint, tmp_path):
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--cfg-options',
                         'test_dataloader=None')
    assert status == 2 and 'nothing to test' in err and '--data' in err


def test_an_error_of_the_report_comes_first(config, checkpoint, tmp_path):
    status, _, err = run('test', config, checkpoint, '--work-dir', tmp_path, '--report', 'x.txt')
    assert status == 2 and '.html' in err and list(tmp_path.iterdir()) == []

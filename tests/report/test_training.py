"""The course of a training from its log."""
import json

import pytest

from retrieval.report import read_training


def write(folder, name, entries, end=''):
    path = folder / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, entries)) + '\n' + end)


def test_losses_validations_and_time(tmp_path):
    write(tmp_path, '1', [
        {'embedding/mAP': 10., 'embedding/num_queries': 7, 'step': 0},
        {'loss': 4., 'loss_arc': 4., 'time': .5, 'epoch': 1, 'step': 10, 'lr': 1.},
        {'embedding/mAP': 20., 'step': 1}], end='{"loss": 3, "st')
    write(tmp_path, '2', [{'loss': 2., 'loss_arc': 2., 'time': .25, 'epoch': 2, 'step': 20,
                           'memory': 300}, {'embedding/mAP': 30., 'step': 2}])
    write(tmp_path, '3', [{'embedding/mAP': 31., 'step': 0}])  # a test
    found = read_training(tmp_path)
    assert found.losses == {'loss': [(10, 4.), (20, 2.)]}
    assert found.validations == {'embedding/mAP': [(0, 10.), (1, 20.), (2, 30.)]}
    assert found.seconds == pytest.approx(10 * .5 + 10 * .25) and found.memory == 300
    assert found.unit == 'epoch'


def test_terms_of_a_loss_and_iterations(tmp_path):
    write(tmp_path, '1', [{'loss': 4., 'loss_a': 3., 'b_loss': 1., 'time': 1., 'step': 5}])
    found = read_training(tmp_path)
    assert list(found.losses) == ['loss', 'loss_a', 'b_loss'] and found.unit == 'iteration'


def test_no_training(tmp_path):
    write(tmp_path, '1', [{'embedding/mAP': 1., 'step': 0}])
    assert read_training(tmp_path) is None

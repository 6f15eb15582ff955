import json

import pytest

from ..datasets.miniatures import make_objects
from .conftest import run


@pytest.fixture(scope='module')
def bundle(config, checkpoint, tmp_path_factory):
    """The small model as a bundle."""
    from retrieval.runs.write_bundle import write_bundle
    return write_bundle(tmp_path_factory.mktemp('board') / 'small', str(config),
                        str(checkpoint)).folder


def test_a_table_of_an_encoder(bundle, tmp_path):
    make_objects(tmp_path / 'data' / 'objects', range(4))
    arguments = ('leaderboard', '--encoders', bundle, 'resnet51', '--data-root', tmp_path / 'data',
                 '--benchmarks', 'Objects', '--out', tmp_path / 'out', '--num-workers', 0)
    status, _, err = run(*arguments)
    assert status == 2 and "'resnet51'" in err and not (tmp_path / 'out').exists()
    arguments = [one for one in arguments if one != 'resnet51']
    status, printed, err = run(*arguments)
    assert status == 0, err
    assert 'on Objects: Recall@1' in printed
    table = (tmp_path / 'out' / 'leaderboard.md').read_text()
    assert '## Objects' in table and '| small | 8 | ' in table.replace(str(bundle), 'small')
    kept = tmp_path / 'out' / 'results' / 'small' / 'Objects.json'
    held = json.loads(kept.read_text())
    held['metrics']['Recall@1'] = 12.34
    kept.write_text(json.dumps(held))
    status, printed, _ = run(*arguments)
    assert status == 0 and '12.34' in printed, 'what is there is not measured again'
    held['fingerprint']['weights'] = 'another'
    kept.write_text(json.dumps(held))
    assert '12.34' not in run(*arguments)[1]


def test_data_that_is_not_whole_is_said(bundle, tmp_path):
    (tmp_path / 'objects').mkdir()
    status, _, err = run('leaderboard', '--encoders', bundle, '--data-root', tmp_path,
                         '--benchmarks', 'Objects', '--out', tmp_path / 'out')
    assert status == 2 and 'Nothing was measured.' in err and '<- data_root' in err
    assert 'on Objects: ' in err and not (tmp_path / 'out' / 'leaderboard.md').exists()


def test_an_encoder_without_weights_is_left_out(bundle, tmp_path, monkeypatch):
    make_objects(tmp_path / 'objects', range(4))
    monkeypatch.setattr('retrieval.encoders.backbones.default.find_spec', lambda name: None)
    arguments = ('leaderboard', '--data-root', tmp_path, '--benchmarks', 'Objects', '--out',
                 tmp_path / 'out', '--num-workers', 0, '--json', '--encoders',
                 'efficientnet-lite1')
    status, printed, err = run(*arguments, bundle)
    outcome = json.loads(printed)
    assert status == 0 and outcome['encoders'] == [str(bundle)], err
    assert 'left out: efficientnet-lite1: EfficientNetLite1 needs its weights' in err
    assert outcome['left_out'] == [
        line.removeprefix('left out: ') for line in err.splitlines() if 'left out: ' in line]
    assert '## Objects' in (tmp_path / 'out' / 'leaderboard.md').read_text()
    status, _, err = run(*arguments)
    assert status == 2 and 'Nothing was measured. efficientnet-lite1: ' in err

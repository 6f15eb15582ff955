from retrieval.config.reading import read_config
from retrieval.config.shipped import config_names

from .conftest import run

NAME = 'triplet/resnet50-triplet_150e_cub200'


def test_it_lists_all_and_those_with_parts():
    assert run('configs')[1].splitlines() == config_names()
    assert run('configs', 'triplet', 'cub')[1].split() == [NAME]
    status, _, err = run('configs', 'tripplet')
    assert status == 2 and "Did you mean 'triplet'" in err


def test_copies_read_as_the_originals(tmp_path):
    out = tmp_path / 'own'
    status, printed, _ = run('configs', NAME, '--copy', out)
    copied = out / f'{NAME}.py'
    assert status == 0 and printed.split() == [str(copied)]
    assert read_config(copied).to_dict() == read_config(NAME).to_dict()
    assert sorted(path.name for path in out.iterdir()) == ['_base_', 'triplet']

    assert run('configs', NAME, '--copy', out)[0] == 0  # as it stands there already
    copied.write_text(copied.read_text() + 'topk = 3\n')
    status, _, err = run('configs', '--copy', out)
    assert status == 2 and 'was changed' in err and NAME in err
    assert not (out / 'arcface').exists() and 'topk = 3' in copied.read_text()

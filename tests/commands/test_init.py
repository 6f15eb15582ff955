import json

import pytest

from retrieval.commands.init import main
from retrieval.commands.train import main as train

from .conftest import draw_classes


def test_it_writes_a_config_and_writes_none_over(tmp_path, monkeypatch, capsys):
    draw_classes(tmp_path / 'pictures')
    monkeypatch.chdir(tmp_path)
    main(['pictures', '--json'])
    said = capsys.readouterr()
    assert json.loads(said.out)['config'] == 'pictures.py' and 'classes for testing' in said.err
    before = (tmp_path / 'pictures.py').read_text()
    with pytest.raises(SystemExit) as ended:
        main(['pictures', '--test-share', '0.25'])
    assert ended.value.code == 2 and 'already' in capsys.readouterr().err
    assert (tmp_path / 'pictures.py').read_text() == before


@pytest.mark.slow
def test_what_it_writes_trains(tmp_path, monkeypatch):
    draw_classes(tmp_path / 'pictures')
    monkeypatch.chdir(tmp_path)
    main(['pictures'])
    train(['pictures.py', '--cfg-options', 'train_cfg.max_epochs=1'])
    assert list((tmp_path / 'work_dirs' / 'pictures').glob('best_*.pth'))

"""A run's training as somebody sees it who watches."""
import io
import sys

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from retrieval.runs.training import train

from ..commands.conftest import run
from ..hooks.conftest import _close_workers  # noqa: F401
from ..hooks.running import BUILT
from ..hooks.running import config as toy


class Terminal(io.StringIO):
    def isatty(self):
        return True


def build(work_dir, **options):
    BUILT.append(Runner.from_cfg(Config(toy(work_dir, **options))))
    return BUILT[-1]


@pytest.mark.parametrize('watched', [True, False])
def test_a_bar_from_the_start_where_somebody_watches(watched, tmp_path, monkeypatch):
    stream = Terminal() if watched else io.StringIO()
    monkeypatch.setattr(sys, 'stderr', stream)
    train(build(tmp_path))
    assert ('Training:   0%' in stream.getvalue()) == watched
    assert ('/18' in stream.getvalue() and 'batch/s' in stream.getvalue()) == watched


def test_an_interruption_says_what_is_kept(tmp_path):
    stopped = build(tmp_path, by_epoch=False, hooks=[dict(type='StopAt', iteration=2)])
    with pytest.raises(KeyboardInterrupt, match=r'iteration 2 of 18.*iter_2\.pth.*--resume'):
        train(stopped)
    stopped = build(tmp_path / 'new', hooks=[dict(type='StopAt', iteration=2)])
    with pytest.raises(KeyboardInterrupt, match='no checkpoint yet'):
        train(stopped)


def test_an_interruption_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    import torch

    real, written = torch.save, []

    def save(content, *rest, **options):
        written.append(content)
        if len(written) == 3:
            raise KeyboardInterrupt
        real(content, *rest, **options)
    monkeypatch.setattr(torch, 'save', save)
    with pytest.raises(KeyboardInterrupt, match=r'_2\.pth.*--resume'):
        train(build(tmp_path))


def test_features_that_diverge_end_the_command(config, checkpoint, tmp_path):
    status, _, err = run('train_on_embeddings', config, checkpoint, '--out', tmp_path / 'o.pth',
                         '--work-dir', tmp_path, '--epochs', '4', '--lr', '1e30')
    assert status == 2 and 'not finite' in err and 'Traceback' not in err, err
    assert not (tmp_path / 'o.pth').exists()

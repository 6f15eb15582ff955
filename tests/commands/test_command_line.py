"""The command line: every command is found, answers quickly, and stands in tools/ and README."""
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.commands.command_line import refuse_special_files, reports_errors, with_home
from retrieval.commands.main import commands

from .conftest import run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('command', sorted(commands()))
def test_special_files_are_no_arguments(command, tmp_path):
    """A pipe that nobody writes to: refused, not waited for."""
    os.mkfifo(tmp_path / 'pipe')
    for arguments in (['x', tmp_path / 'pipe'], [f'--labels={tmp_path}/pipe'], ['/dev/zero', 'x']):
        status, _, err = run(command, *map(str, arguments))
        assert status == 2, command
        assert 'only files are read' in err or 'usage:' in err
    with pytest.raises(ValueError, match='a device: only files'):
        refuse_special_files(['--cfg-options', 'a.b=/dev/zero'])


@pytest.mark.parametrize('kind', [ValueError, OSError])
def test_an_error_of_a_worker_is_one_message(capsys, kind):
    @reports_errors
    def command(argv=None):
        raise kind('Caught ValueError in DataLoader worker process 1.\nOriginal Traceback (most '
                   'recent call last):\n  File "x.py", line 1, in y\n    raise ValueError("z")\n'
                   'package.ValueError: the box is empty\n  its second line\n')

    with pytest.raises(SystemExit):
        command([])
    assert capsys.readouterr().err.splitlines()[:2] == [
        f'{kind.__name__}: the box is empty', '  its second line']


@pytest.mark.parametrize('argument, found', [
    ('~/a', '{}/a'), ('~', '{}'), ('--out=~/a', '--out={}/a'), ('data_root=~/a', 'data_root={}/a'),
    ('a=b~c', 'a=b~c'), ('x/~/y', 'x/~/y'), ('text with ~', 'text with ~')])
def test_a_tilde_is_the_users_folder(argument, found, monkeypatch):
    monkeypatch.setenv('HOME', '/home/somebody')
    assert with_home(argument) == found.format('/home/somebody')


@pytest.mark.parametrize(('encoding', 'printed'), [
    ('utf-8', b'caf\xe9 K\xc3\xb6ln\n'), ('ascii', b'caf\\udce9 K\\xf6ln\n')])
def test_a_command_prints_names_of_any_bytes(monkeypatch, encoding, printed):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(buffer, encoding=encoding))

    @reports_errors
    def command(argv=None):
        print(os.fsdecode(b'caf\xe9'), 'Köln')
    command([])
    sys.stdout.flush()
    assert buffer.getvalue() == printed


def test_threads_that_wait_do_not_spin():
    """Unless the user says how; it has to be set before torch is loaded."""
    code = 'import retrieval.commands.command_line, os, sys; assert "torch" not in sys.modules\n' \
           'print(os.environ["OMP_WAIT_POLICY"])'
    for given, expected in ({}, 'PASSIVE'), (dict(OMP_WAIT_POLICY='ACTIVE'), 'ACTIVE'):
        environment = {**{name: value for name, value in os.environ.items()
                          if name != 'OMP_WAIT_POLICY'}, **given}
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                              env=environment)
        assert done.stdout.split() == [expected], done.stderr


def test_the_end_of_another_process_is_one_message(capsys, monkeypatch):
    import torch.distributed

    said = 'gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:54444'
    for error in (RuntimeError(said), torch.distributed.DistNetworkError('recv, got 0 bytes')):
        @reports_errors
        def command(argv=None, error=error):
            raise error
        monkeypatch.delenv('RETRIEVAL_TRACEBACK', raising=False)
        with pytest.raises(SystemExit) as end:
            command([])
        printed = capsys.readouterr().err
        assert end.value.code == 2 and 'another process of this run has ended' in printed

    @reports_errors
    def other(argv=None):
        raise RuntimeError('a fault of ours')
    with pytest.raises(RuntimeError, match='of ours'):
        other([])

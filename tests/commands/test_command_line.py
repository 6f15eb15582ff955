"""The command line: every command is found, answers quickly, and stands in tools/ and README."""
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.commands.command_line import refuse_special_files, reports_errors, with_home
from retrieval.commands.main import commands

from .conftest import run

ROOT = Path(__file__).parents[2]


def test_help_answers_without_torch():
    code = """
import sys
from retrieval.commands.main import commands, main
for name in commands():
    assert 'torch' not in sys.modules, name
    try:
        main([name, '--help'])
    except SystemExit as end:
        assert end.code == 0, name
assert 'torch' not in sys.modules, name
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f'usage: {name}' in done.stdout for name in commands())


def test_an_unknown_command_names_the_nearest():
    status, _, err = run('main', 'serch')
    assert status == 2 and 'search' in err
    status, out, _ = run('main', '--help')
    assert status == 0 and all(name in out for name in commands())
    assert run('main', '--version')[1].strip()


def test_every_command_says_in_one_line_what_it_does():
    for name, summary in commands().items():
        assert re.fullmatch(r'[A-Z].{5,92}\.', summary), f'{name}: {summary!r}'


def test_tools_are_the_commands():
    """One wrapper, the same for all."""
    wrappers = {path.stem: path.read_text() for path in (ROOT / 'tools').glob('*.py')}
    assert set(wrappers) == set(commands())
    assert len(set(wrappers.values())) == 1
    done = subprocess.run([sys.executable, ROOT / 'tools' / 'print_config.py', '--help'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'usage: print_config' in done.stdout, done.stderr


def test_the_readme_lists_the_commands():
    rows = re.findall(r'^\| `retrieval (\w+)', (ROOT / 'README.md').read_text(), re.M)
    assert sorted(rows) == sorted(commands())


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, '-m', 'retrieval', 'dump-prototype'],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'usage: dump_prototype' in done.stderr, done.stderr


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


def test_paths_of_configs_may_begin_at_home(config, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(config.parent))
    status, out, err = run('print_config', f'~/{config.name}', '--cfg-options',
                           "train_dataloader.dataset=dict(data_root='~/pictures')")
    assert status == 0 and f"data_root='{config.parent}/pictures'" in out, err


@pytest.mark.parametrize('gallery, query, says', [
    ('nowhere', 'x.jpg', "no folder or gallery 'nowhere'"),
    ('nowhere.safetensors', 'x.jpg', "no gallery 'nowhere.safetensors'"),
    ('.', 'x.jpg', "no image 'x.jpg'"), ('.', 'photos/', "no image or folder 'photos/'")])
def test_what_is_missing_is_called_what_it_is(gallery, query, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, err = run('search', gallery, query)
    assert status == 2 and says in err


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

"""``retrieval COMMAND``: each is found, answers quickly, and stands in tools/ and README."""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.commands import main as module
from retrieval.commands.main import commands, usage

from .conftest import run

ROOT = Path(__file__).parents[2]


def test_every_module_with_a_main_is_a_command():
    assert {'train', 'test', 'search'} <= set(commands())
    assert not {'main', 'folders', 'command_line'} & set(commands())
    lines = usage().splitlines()
    assert lines[0].startswith('usage: retrieval COMMAND') and len(lines) == len(commands()) + 2


@pytest.mark.parametrize('name', ['print_config', 'print-config'])
def test_the_rest_of_the_arguments_are_the_commands(name, monkeypatch):
    from retrieval.commands import print_config
    given = []
    monkeypatch.setattr(print_config, 'main', lambda *argv: given.append((argv, sys.argv[1:])))
    module.main([name, 'a.py', '--x'])
    assert given[0][0] == (['a.py', '--x'],)
    monkeypatch.setattr(sys, 'argv', ['retrieval', name, 'b.py'])
    module.main()
    assert given[1] == ((), ['b.py']), 'the process is this command'


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

import subprocess
import sys

import pytest

from retrieval.commands.main import COMMANDS

from .conftest import run


@pytest.mark.parametrize('name', sorted(COMMANDS))
def test_help_answers_without_torch(name):
    code = (f"import sys; from retrieval.commands.main import main\n"
            f"try: main([{name!r}, '--help'])\n"
            f"except SystemExit as e: assert e.code == 0\n"
            f"assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'usage' in done.stdout, done.stderr


def test_an_unknown_command_names_the_nearest():
    status, _, err = run('main', 'serch')
    assert status == 2 and 'search' in err
    status, out, _ = run('main', '--help')
    assert status == 0 and all(name in out for name in COMMANDS)
    assert run('main', '--version')[1].strip()

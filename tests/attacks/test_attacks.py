"""A small part of each attack; `make attack` runs them whole."""
import re

import pytest

from . import __main__ as runner
from . import mutants
from .attack import ATTACKS, Tally, run_cases

runner.load()
# the others of a kind do the same again, or take long to begin
QUICK = {'drawn cases: evaluate, every metric and option': 30,
         'drawn cases: top-k at odd shapes': 20, 'drawn cases: range search': 20,
         'drawn cases: rerankers': 20,
         'drawn cases: samplers on 1 to 5 processes': 40, 'state machines: galleries and stores': 3,
         'state machines: indexes': 5, 'SIGKILL during changes of a store': 3,
         'SIGKILL while an index is built': 3, 'threads at ExactIndex': 1}


def tried(name, count, seconds=60):
    tally = Tally(count, seconds, 7)
    ATTACKS[name].run(tally)
    assert tally.failures == []
    return tally.done


@pytest.mark.parametrize('name', QUICK)
def test_a_small_part(name):
    seconds = 0.3 if name.startswith('threads') else 60
    assert tried(name, QUICK[name], seconds) >= QUICK[name]


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in ATTACKS if name not in QUICK
                                  and not name.startswith(('threads', 'mixed'))])
def test_a_small_part_of_the_others(name):
    assert tried(name, 3, 120) >= 1


def test_what_crashes_hangs_or_is_wrong_is_counted():
    import ctypes
    import time

    def check(case):
        if case == 'crash':
            ctypes.string_at(0)
        elif case == 'hang':
            time.sleep(60)
        elif case == 'error':
            raise KeyError('x')
        return 'wrong' if case == 'wrong' else None
    tally = Tally(9, 60, 0)
    run_cases(tally, check, ['fine', 'crash', 'fine', 'hang', 'wrong', 'error', 'fine'],
              seconds=0.5)
    assert tally.done == 7 and len(tally.failures) == 4
    assert [re.sub('.*: ', '', one) for one in tally.failures] == [
        'ended with -11', 'hung for 0.5 s', 'wrong', "'x'"]


def test_rows_of_the_table_are_replaced(tmp_path, monkeypatch):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{runner.BEGIN}\n{runner.END}\nafter\n')
    monkeypatch.setattr(runner, 'PAGE', page)
    row = dict(attack='one', done=1234, what='cases', failed=0, seconds=5, seed=0, day='d',
               notes='n')
    runner.write_table([row, {**row, 'attack': 'two'}])
    runner.write_table([{**row, 'done': 7}])
    text = page.read_text()
    assert text.startswith('before') and text.endswith('after\n')
    assert '| one | 7 | cases |' in text and '| two | 1,234 |' in text and '1,234 | cases' in text
    assert text.count('| one |') == 1


def test_changes_of_code():
    source = 'def f(a, b=1):\n    """1 < 2"""\n    if a < b and not a:\n        return a + 1\n'
    made = {mutants.changed(source, number)[1] for number in range(7)}
    assert made == {'1  →  2', 'a < b  →  a <= b', 'not a  →  not not a', 'a + 1  →  a - 1',
                    'a < b and (not a)  →  a < b or not a', 'return a + 1  →  return None'}


def test_the_lines_that_a_change_runs():
    import ast
    tree = ast.parse('A = 1\nclass C:\n    x = 2\n    def f(self, a=3):\n        if a:\n'
                     '            b = (4 +\n                 a)\n        return b\n')
    lines = [mutants.lines_of(tree, line) for line in range(1, 9)]
    assert lines[1:] == [range(3, 9), range(3, 9), range(5, 9), range(5, 6), range(6, 8),
                         range(6, 8), range(8, 9)] and 8 in lines[0]

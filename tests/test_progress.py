"""A bar where somebody watches, silence elsewhere."""
import io
import sys

import pytest

from retrieval import progress
from retrieval.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(monkeypatch, stream, title='Encoding'):
    monkeypatch.setattr(sys, 'stderr', stream)
    with progress_bar(title, 40) as bar:
        bar.update(10)
        bar.refresh()
        return stream.getvalue()


def test_a_terminal_shows_what_is_done_the_rate_and_the_time_left(monkeypatch):
    shown = drawn(monkeypatch, Terminal())
    assert 'Encoding:   0%' in shown.split('\r')[1]  # before anything is done
    assert '10/40' in shown and 'image/s' in shown and '<' in shown


@pytest.mark.parametrize('case', ['no terminal', 'no title', 'another process'])
def test_it_is_quiet_elsewhere(monkeypatch, case):
    if case == 'another process':
        monkeypatch.setattr(progress, 'rank', lambda: 1)
    stream = io.StringIO() if case == 'no terminal' else Terminal()
    assert drawn(monkeypatch, stream, None if case == 'no title' else 'Encoding') == ''

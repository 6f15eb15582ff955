"""A bar where somebody watches, silence elsewhere."""
import io
import sys

import pytest
import torch
from tqdm import tqdm

from retrieval import distributed, progress
from retrieval.progress import counted, progress_bar, showing
from retrieval.ranking import (
    Depth,
    PreparedGallery,
    RowSets,
    ranks_among_themselves,
    relevant_ranks,
    topk,
    within,
)


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
        monkeypatch.setattr(distributed, 'rank', lambda: 1)
    stream = io.StringIO() if case == 'no terminal' else Terminal()
    assert drawn(monkeypatch, stream, None if case == 'no title' else 'Encoding') == ''


@pytest.mark.parametrize('inside', [True, False])
def test_work_that_turns_out_long_has_a_bar_inside_of_a_command(monkeypatch, inside):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    with showing():
        assert list(counted('Ranking', 'abc', 3)) == list('abc')
    assert sys.stderr.getvalue() == ''  # it was not long
    monkeypatch.setattr(progress, '_SECONDS', 0)
    with showing(inside):
        assert next(counted('Ranking', 'abc', 3)) == 'a'
    assert ('Ranking:   0%' in sys.stderr.getvalue()) == inside


def test_exact_rankings_are_counted(monkeypatch):
    rows = torch.randn(700, 4, generator=torch.Generator().manual_seed(0))
    sets = RowSets.from_rows(torch.arange(700).flip(0), 700)

    def ranked():
        return [topk(rows, rows, 3).indices.tolist(), within(rows, rows, 0.9).indices.tolist(),
                *([one.ranks.tolist() for one in found] for found in (
                    relevant_ranks(rows, rows, sets),
                    ranks_among_themselves(PreparedGallery(rows), sets, Depth(rows=3))))]

    plain, titles = ranked(), []
    monkeypatch.setattr(progress, '_bar', lambda title, total, *_: titles.append((title, total)) or
                        tqdm(total=total, disable=True))
    with showing():
        assert ranked() == plain
    assert [title for title, _ in titles] == ['Ranking'] * 4

"""Work in the background."""
import threading

import pytest

from retrieval.server.background import Background, Progress


def test_it_is_made_once_and_told_of_until_it_is_there():
    go, calls = threading.Event(), []

    def work(key, progress):
        progress.begin('counting', 3)
        progress.advance(2)
        calls.append(key)
        go.wait(10)
        return key + 1
    background = Background(work)
    assert isinstance(background(1, wait=False), Progress)
    while not calls:
        pass
    told = background(1, wait=False).as_dict()
    assert (told['step'], told['done'], told['total'], told['running']) == ('counting', 2, 3, True)
    assert background(2, wait=False).as_dict()['step'] == 'waiting'  # of another key: not begun
    go.set()
    assert background(1, wait=True) == 2 and background(1, wait=False) == 2
    assert background(2, wait=True) == 3 and calls == [1, 2]


def test_what_failed_is_told_once_and_begun_anew():
    calls = []

    def work(key, progress):
        calls.append(key)
        if len(calls) == 1:
            raise ValueError('no')
        return 'yes'
    background = Background(work)
    with pytest.raises(ValueError, match='no'):
        background(1, wait=True)
    assert background(1, wait=True) == 'yes' and calls == [1, 1]

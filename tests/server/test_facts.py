"""Facts of pictures: read once, kept between runs, and read again where a file has changed."""
import os
import threading

import pytest
from PIL import Image

from retrieval.server import facts as module
from retrieval.server.facts import PictureFacts


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Opens the facts of a folder with two pictures, and counts what is read."""
    read, given = [], module.read_facts
    monkeypatch.setattr(module, 'read_facts', lambda path: read.append(path) or given(path))
    for name, width in (('a', 30), ('b', 40)):
        Image.new('RGB', (width, 20)).save(tmp_path / f'{name}.png')
    opened = []

    def make():
        opened.append(PictureFacts(tmp_path / 'facts.sqlite', lambda name: None if name == 'none'
                                   else str(tmp_path / f'{name}.png')))
        return opened[-1]
    yield make, read
    for one in opened:
        one.close()


def test_a_file_is_read_once_and_after_a_restart_not_at_all(made):
    make, read = made
    facts = make()
    assert facts.known('a') is None and not facts.any
    assert facts.of('a').width == 30 == facts.of('a').width == facts.known('a').width
    assert facts.any and len(read) == 1
    facts.close()
    again = make()
    assert again.known('a').width == 30 and again.of('a').height == 20 and len(read) == 1


def test_a_changed_file_is_read_again(made, tmp_path):
    make, read = made
    facts = make()
    facts.of('a')
    Image.new('RGB', (7, 7)).save(tmp_path / 'a.png')
    os.utime(tmp_path / 'a.png', (5, 5))
    assert facts.known('a').width == 30, 'as far as is known'
    assert facts.of('a').width == 7 and len(read) == 2


def test_nothing_is_known_of_what_is_not_there_or_no_picture(made, tmp_path):
    facts = made[0]()
    (tmp_path / 'text.png').write_text('text')
    assert [facts.of(name) for name in ('none', 'gone', 'text')] == [None] * 3


def test_many_are_read_until_told_to_stop(made):
    facts, stop = made[0](), threading.Event()
    facts.read(['a', 'gone', 'b'], stop)
    assert facts.version == 1 and facts.known('b').width == 40
    facts.read(['a', 'b'], stop)
    assert facts.version == 1, 'nothing more is known'
    stop.set()
    made[1].clear()
    facts.read(['gone'], stop)
    assert made[1] == []


def test_nothing_to_read_is_read_too(made):
    facts = made[0]()
    facts.read([], threading.Event())
    assert facts.version == 1


def test_names_that_are_no_text(made, tmp_path):
    name = os.fsdecode(b'caf\xe9')
    Image.new('RGB', (5, 5)).save(tmp_path / 'x.png')
    os.rename(tmp_path / 'x.png', tmp_path / f'{name}.png')
    assert made[0]().of(name).width == 5
    assert made[0]().known(name).width == 5

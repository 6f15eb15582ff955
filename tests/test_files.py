import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from retrieval.files import folder_lock
from retrieval.gallery import GalleryStore

from .gallery.examples import example

HOLD = '''
import sys, time
from retrieval.files import folder_lock
with folder_lock(sys.argv[1], 1):
    print('held', flush=True)
    time.sleep(60)
'''


@pytest.fixture
def holder(tmp_path):
    store = GalleryStore.create(tmp_path / 'x.gallery', example(2))
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(store.path)], text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'held\n'
    yield store, process
    process.kill()
    process.wait()


def test_the_second_writer_gets_one_error(holder):
    store, process = holder
    store.timeout = 0.2
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=rf'process \(number {process.pid}\).*waited 0.2 s'):
        store.append(example(1, 'b'))
    assert 0.2 <= time.monotonic() - start < 10
    assert len(store.load()) == 2, 'readers need no lock'


def test_a_dead_writer_holds_nothing(holder):
    store, process = holder
    store.timeout = 30
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
    store.append(example(1, 'b'))
    assert len(store) == 3


def test_threads_exclude_each_other(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(10):
            with folder_lock(tmp_path, 30):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 30 and max(most) == 1

import copy
import pickle
import threading

import numpy as np
import pytest

from retrieval.index import ExactIndex
from retrieval.index.lock import ReadersWriterLock


def started(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def in_time(event):
    assert event.wait(30)


def test_readers_are_together_and_a_writer_is_alone():
    lock, together, values = ReadersWriterLock(), threading.Barrier(4), [0]

    def read():
        with lock.read():
            together.wait(30)  # all four hold it, or this raises

    for thread in [started(read) for _ in range(4)]:
        thread.join(30)
    assert not together.broken

    def write():
        for _ in range(500):
            with lock.write():
                before = values[0]
                values[0] = -1
                values[0] = before + 1

    def look():
        for _ in range(500):
            with lock.read():
                seen.append(values[0])

    seen = []
    for thread in [started(target) for target in (write, look, write, look)]:
        thread.join(60)
    assert values == [1000] and min(seen) >= 0


def test_a_waiting_writer_goes_before_later_readers_and_they_before_the_next_writer():
    lock, order = ReadersWriterLock(), []
    first, done = threading.Event(), threading.Event()

    def waits(how, name):
        def run():
            with getattr(lock, how)():
                order.append(name)
        return run

    def hold():
        with lock.read():
            first.set()
            done.wait(30)

    holder = started(hold)
    in_time(first)
    writer = started(waits('write', 'writer'))
    while not lock._waiting:
        pass
    reader = started(waits('read', 'reader'))
    while not lock._queued:
        pass
    second = started(waits('write', 'second writer'))
    while lock._waiting < 2:
        pass
    done.set()
    for thread in (holder, writer, reader, second):
        thread.join(30)
    assert set(order[:2]) <= {'writer', 'second writer', 'reader'} and len(order) == 3
    assert order[0] != 'reader' and order[1] == 'reader'


def test_a_thread_may_take_it_again_but_not_change_what_it_reads():
    lock = ReadersWriterLock()
    with lock.write(), lock.read(), lock.write():
        pass
    with (lock.read(), lock.read(), pytest.raises(RuntimeError, match='within its own search'),
          lock.write()):
        pass
    with lock.write():
        pass
    for again in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
        assert isinstance(again, ReadersWriterLock) and again is not lock


def test_a_filter_may_look_at_the_index_and_not_change_it():
    index = ExactIndex()
    index.add(np.eye(3), ['a', 'b', 'c'])
    found = index.search(np.eye(3)[:1], 3, filter=lambda name: name in index and name != 'b')
    assert found.ids == [['a', 'c']]
    with pytest.raises(RuntimeError, match='within its own search'):
        index.search(np.eye(3)[:1], 3, filter=lambda name: index.remove(['a']))
    index.remove(['a'])
    assert list(index.ids) == ['b', 'c']
    assert copy.deepcopy(index).search(np.eye(3)[1:2], 1).ids == [['b']]

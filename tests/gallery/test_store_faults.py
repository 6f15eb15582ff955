"""Crashes at every step, kills at any moment, full disks, two writers: old or new, never between.
"""
import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import time

import pytest
import torch

from retrieval import files as storage
from retrieval.gallery import Gallery, GalleryStore

from .examples import contents, example, rows_of

CHANGES = {
    'append': lambda store: store.append(example(3, 'b', seed=1)),
    'remove': lambda store: store.remove(['a1', 'c0']),
    'update': lambda store: store.update(example(4, 'a', seed=2).subset([0, 3])),
    'compact': lambda store: store.compact(),
    'export': lambda store: store.export(store.path.parent / 'out.safetensors'),
}


def base(folder):
    store = GalleryStore.create(folder / 'x.gallery', example(4, 'a'))
    store.append(example(2, 'c', seed=3))
    store.remove(['a2'])
    return store


class Crash(BaseException):
    """The machine stops here: nothing that would clean up is run any more."""


class Machine:
    """Counts the steps that reach the disk, and stops before the chosen one.

    After the crash every further step fails, as in a process that is gone. What was written and
    not synced is lost: such files are cut in half, which is one of the things that may happen.
    """

    def __init__(self, monkeypatch, stop_at):
        self.steps, self.stop_at, self.down = 0, stop_at, False
        self.unsynced, self.renamed = set(), []
        for owner, name in ((os, 'fsync'), (os, 'replace'), (os, 'unlink'), (os, 'chmod'),
                            (os, 'ftruncate'), (os, 'pwrite')):
            self.wrap(monkeypatch, owner, name)
        real = storage.write_all

        def write_all(handle, data):
            self.step()
            view = memoryview(data).cast('B')
            half = len(view) // 2
            self.unsynced.add(os.fstat(handle.fileno()).st_ino)
            real(handle, view[:half])
            self.step()
            real(handle, view[half:])
        for module in ('tensor_file', 'files'):
            monkeypatch.setattr(f'retrieval.{module}.write_all', write_all)

    def wrap(self, monkeypatch, owner, name):
        real = getattr(owner, name)

        def wrapped(*arguments, **kwargs):
            self.step()
            if name == 'fsync':
                status = os.fstat(arguments[0])
                self.unsynced.discard(status.st_ino)
                self.renamed = [] if os.path.isdir(f'/proc/self/fd/{arguments[0]}') \
                    else self.renamed
            if name == 'replace':
                assert os.stat(arguments[0]).st_ino not in self.unsynced, 'renamed before synced'
                assert not self.renamed, f'{arguments[1]} may outlive {self.renamed}'
                self.renamed.append(os.fspath(arguments[1]))
            return real(*arguments, **kwargs)
        monkeypatch.setattr(owner, name, wrapped)

    def step(self):
        if self.down or self.steps == self.stop_at:
            self.down = True
            raise Crash
        self.steps += 1

    def lose(self, folder):
        for path in folder.iterdir():
            if path.stat().st_ino in self.unsynced:
                path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def run_until(monkeypatch, folder, change, stop_at):
    """Make a change on a copy that stops before a step; whether it came to its end."""
    with monkeypatch.context() as patched:
        machine = Machine(patched, stop_at)
        with contextlib.suppress(Crash):
            change(GalleryStore(folder / 'x.gallery'))
            assert not machine.renamed and not machine.unsynced, 'acknowledged and not on the disk'
        down = machine.down
    machine.lose(folder / 'x.gallery')
    return not down


@pytest.mark.parametrize('name', CHANGES)
def test_a_crash_before_any_step_leaves_the_old_or_the_new_state(monkeypatch, tmp_path, name):
    """With one crash at each step of a change in turn; the next writer finds everything whole."""
    shutil.copytree(base(tmp_path).path, tmp_path / 'base')
    (tmp_path / 'new').mkdir()
    shutil.copytree(tmp_path / 'base', tmp_path / 'new' / 'x.gallery')
    old = contents(GalleryStore(tmp_path / 'base').load())
    CHANGES[name](GalleryStore(tmp_path / 'new' / 'x.gallery'))
    new = contents(GalleryStore(tmp_path / 'new' / 'x.gallery').load())
    seen, stop_at, ended = [], 0, False
    while not ended:
        folder = tmp_path / str(stop_at)
        folder.mkdir()
        shutil.copytree(tmp_path / 'base', folder / 'x.gallery')
        ended = run_until(monkeypatch, folder, CHANGES[name], stop_at)
        store = GalleryStore.open(folder / 'x.gallery', timeout=0)
        store.verify()
        found = contents(store.load())
        assert found in (old, new), stop_at
        seen.append(found == new)
        store.append(example(1, 'z'))  # the next writer works, and cleans
        belongs = {'lock', 'manifest.json', *(s.file for s in store.state.shards),
                   *(s.removed.file for s in store.state.shards if s.removed)}
        assert {path.name for path in store.path.iterdir()} == belongs
        stop_at += 1
        shutil.rmtree(folder)
    assert len(seen) > 10 and seen == sorted(seen), 'the new state went away again'


def test_a_crash_while_a_store_is_made(monkeypatch, tmp_path):
    stop_at, ended = 0, False
    while not ended:
        folder = tmp_path / str(stop_at)
        (folder / 'x.gallery').mkdir(parents=True)
        ended = run_until(monkeypatch, folder, lambda store: GalleryStore.create(
            store.path, example(4, 'a')), stop_at)
        if not (folder / 'x.gallery' / 'manifest.json').exists():
            GalleryStore.create(folder / 'x.gallery', example(4, 'a'))
        assert contents(Gallery.load(folder / 'x.gallery')) == contents(example(4, 'a'))
        stop_at += 1
    assert stop_at > 10


def forked(action):
    """Start an action in a child process; the child's number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_and_say(path, seed, out):
    """Change a store again and again; each change that has come to its end is a line."""
    store = GalleryStore(path)
    for step in range(1000):
        prefix = f'{seed}-{step}-'
        store.append(example(3, prefix, seed=step))
        os.write(out, f'append {prefix}\n'.encode())
        store.remove([f'{prefix}1'])
        os.write(out, f'remove {prefix}\n'.encode())
        if step % 3 == 2:
            store.compact()
            os.write(out, f'compact {prefix}\n'.encode())


def test_killed_writers_lose_nothing_that_was_acknowledged(tmp_path):
    """Writers are killed at random moments while a reader looks on."""
    store = GalleryStore.create(tmp_path / 'x.gallery', example(2, 'base'))
    rng = random.Random(0)
    expected = {'base0', 'base1'}
    for round_ in range(6):
        said, out = os.pipe()
        child = forked(lambda round_=round_, out=out: write_and_say(store.path, round_, out))
        os.close(out)
        first = os.read(said, 1)
        end = time.monotonic() + rng.uniform(0, 0.15)
        while time.monotonic() < end:
            assert len(store.load().ids) >= len(expected)
        os.kill(child, signal.SIGKILL)
        with open(said, 'rb') as pipe:
            lines = (first + pipe.read()).decode().splitlines()
        assert exit_code(child) == -signal.SIGKILL
        acknowledged = [line.split() for line in lines]
        for what, prefix in acknowledged:
            if what == 'append':
                expected |= {f'{prefix}{n}' for n in range(3)}
            elif what == 'remove':
                expected.discard(f'{prefix}1')
        store.verify()
        found = set(store.load().ids)
        # beyond what was acknowledged at most one more change may have come through
        last, doubtful = acknowledged[-1], found ^ expected
        following = f'{round_}-{int(last[1].split("-")[1]) + 1}-'
        allowed = [set(), {f'{following}{n}' for n in range(3)}, {f'{last[1]}1'}]
        assert doubtful in allowed, (last, doubtful)
        expected = found
    assert rows_of(store.load())['base1'] == rows_of(example(2, 'base'))['base1']


def test_two_writers_take_turns(tmp_path):
    store = GalleryStore.create(tmp_path / 'x.gallery', example(2, 'base'))

    def write(name):
        own = GalleryStore(store.path, timeout=60)
        for step in range(15):
            own.append(example(2, f'{name}-{step}-'))

    writers = [forked(lambda name=name: write(name)) for name in 'pq']
    assert [exit_code(writer) for writer in writers] == [0, 0]
    expected = {f'{name}-{step}-{n}' for name in 'pq' for step in range(15) for n in range(2)}
    assert set(store.load().ids) == expected | {'base0', 'base1'}


def limited(limit, action):
    """The exit code of an action in a process whose files may not grow beyond a limit; 7 where it
    says that there is no room.
    """
    def run():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            action()
        except OSError as error:
            os._exit(7 if error.errno == errno.EFBIG and 'no room' in str(error) else 2)
    return exit_code(forked(run))


def test_a_disk_that_is_full(tmp_path):
    """A file system that takes no more than some bytes of a file, at several limits."""
    store = base(tmp_path)
    old, names = contents(store.load()), sorted(os.listdir(store.path))
    for limit in (10, 100, 1000):
        for name in ('append', 'update', 'compact', 'export'):
            assert limited(limit, lambda name=name: CHANGES[name](store)) == 7, (limit, name)
            assert contents(store.load()) == old and sorted(os.listdir(store.path)) == names
    assert sorted(os.listdir(tmp_path)) == ['x.gallery']


def failing_at(nth, real, code, calls):
    """``real``, but the call after ``nth`` others raises an error of the disk."""
    def call(*arguments):
        calls.append(arguments)
        if len(calls) == nth + 1:
            raise OSError(code, os.strerror(code))
        return real(*arguments)
    return call


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize('name', ['fsync', 'replace'])
def test_an_error_of_the_disk_at_any_call(monkeypatch, tmp_path, name, code):
    store = base(tmp_path)
    old = contents(store.load())
    for nth in range(20):
        calls, failed = [], False
        with monkeypatch.context() as patched:
            patched.setattr(os, name, failing_at(nth, getattr(os, name), code, calls))
            try:
                store.append(example(3, 'b', seed=1))
            except OSError as error:
                assert error.errno == code
                failed = True
                if 'no room' in str(error):
                    assert contents(store.load()) == old
        store.verify()
        if len(store) != 5:  # where the last sync failed, the step had been taken
            assert list(store.load().ids) == [*old['ids'], 'b0', 'b1', 'b2']
            store.remove(['b0', 'b1', 'b2'])
        assert rows_of(store.load()) == rows_of(base(tmp_path / str(nth)).load())
        assert not [path for path in store.path.iterdir() if path.name.startswith('.')]
        if not failed:
            break
    assert nth == len(calls) >= 2


def test_a_gallery_file_on_a_full_disk(tmp_path):
    path = tmp_path / 'g.safetensors'
    example(3).save(path)
    large = Gallery(torch.randn(1000, 64))
    assert limited(50_000, lambda: large.save(path)) == 7
    assert contents(Gallery.load(path)) == contents(example(3))
    assert os.listdir(tmp_path) == ['g.safetensors']

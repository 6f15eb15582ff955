"""Against a Milvus server as it is deployed: killed, released, filled up.

`make test-milvus` installs one and runs these; they are left out elsewhere.
"""
import contextlib
import os
import shutil
import subprocess
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from retrieval.index import ExactIndex, MilvusError, MilvusIndex, MilvusUnavailable

from .server import Server

HOME = os.environ.get('RETRIEVAL_TEST_MILVUS_HOME')
pytestmark = pytest.mark.skipif(not HOME, reason='RETRIEVAL_TEST_MILVUS_HOME names no Milvus')
WIDTH = 8


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    """One that may be killed."""
    own = Server(Path(HOME), tmp_path_factory.mktemp('milvus'))
    own.start()
    yield own
    own.stop()


def vectors_of(ids, version=0):
    """Another vector for each id and version."""
    return np.stack([np.random.default_rng([int(one), version]).normal(size=WIDTH)
                     for one in ids]).astype(np.float32)


def opened(uri, name, **options):
    return MilvusIndex(uri, name, **{'timeout': 10.0, 'retries': 1000, 'patience': 200.0,
                                     **options})


def content(uri, name):
    """The vectors of all ids, each once, as a new client reads them."""
    with contextlib.closing(opened(uri, name)) as index:
        ids = [int(one) for one in index.ids]
        store = index._store
        assert len(set(ids)) == len(ids) == store._count(store.own)
        return dict(zip(ids, index.reconstruct(range(len(ids))).numpy(), strict=True))


@pytest.mark.slow
def test_a_server_killed_during_every_kind_of_work(server):
    """Nothing that was acknowledged is lost, no id is there twice, and the work goes on."""
    names = {work: f'{work}_{uuid.uuid4().hex[:8]}' for work in ('add', 'upsert', 'remove')}
    indexes = {work: opened(server.uri, name) for work, name in names.items()}
    for index in indexes.values():
        index.add(vectors_of(range(1000)), range(1000))
    searcher = opened(server.uri, names['upsert'])
    done = dict.fromkeys(('add', 'upsert', 'remove', 'search'), 0)
    stop, failures = threading.Event(), []

    def add(turn):
        ids = range(1000 + 20 * turn, 1020 + 20 * turn)
        indexes['add'].add(vectors_of(ids), ids)

    def upsert(turn):
        indexes['upsert'].upsert(vectors_of(range(20), turn + 1), range(20))

    def remove(turn):
        if turn < 150:
            indexes['remove'].remove(range(5 * turn, 5 * turn + 5))

    def search(turn):
        assert searcher.search(vectors_of([500 + turn % 400]), 1).ids == [[str(500 + turn % 400)]]

    def work(what):
        try:
            while not stop.is_set():
                what(done[what.__name__])
                done[what.__name__] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(what,), daemon=True)  # whatever fails here
               for what in (add, upsert, remove, search)]
    for thread in threads:
        thread.start()
    while min(done.values()) < 3 and not failures:
        time.sleep(0.02)
    server.kill()
    acknowledged = dict(done)
    server.start()
    end = time.monotonic() + 150
    while any(done[one] < acknowledged[one] + 2 for one in done) and not failures and (
            time.monotonic() < end):
        time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join(200)
    for index in (*indexes.values(), searcher):
        index.close()
    assert not failures, failures
    assert all(done[one] >= acknowledged[one] + 2 for one in done), (acknowledged, done)
    found = content(server.uri, names['add'])
    assert sorted(found) == list(range(1000 + 20 * done['add']))
    np.testing.assert_array_equal(np.stack([found[one] for one in sorted(found)]),
                                  vectors_of(sorted(found)))
    found = content(server.uri, names['upsert'])
    assert sorted(found) == list(range(1000))
    np.testing.assert_array_equal(np.stack([found[one] for one in range(20)]),
                                  vectors_of(range(20), done['upsert']))
    found = content(server.uri, names['remove'])
    assert sorted(found) == list(range(5 * min(done['remove'], 150), 1000))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 600 MB, in memory."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=600m', 'tmpfs', str(folder)],
                      check=False, capture_output=True).returncode:
        pytest.skip('nothing may be mounted here')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize('killed', [False, True])
def test_a_full_disk_under_the_server(small_disk, killed):
    """One error, of the disk or of a server that cannot be reached over it; when there is room
    again the work goes on, and nothing is lost.
    """
    own = Server(Path(HOME), small_disk / 'data')
    own.start()
    try:
        rows = np.random.default_rng(0).normal(size=(600_000, 128)).astype(np.float32)
        index, ballast = opened(own.uri, 'full', retries=3, patience=40.0), small_disk / 'ballast'
        index.add(rows[:500], range(500))
        ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 12 * 2 ** 20))
        done = 500
        with pytest.raises(MilvusError, match='No space left on device|Is it running'):
            while True:
                index.add(rows[done:done + 500], range(done, done + 500))
                done += 500
        if killed:
            own.kill()
        ballast.unlink()
        index.close()
        try:
            if killed:
                raise MilvusUnavailable('killed')
            with contextlib.closing(opened(own.uri, 'full', patience=20.0)) as index:
                index.upsert(rows[done:done + 500], range(done, done + 500))
        except MilvusUnavailable:  # it may also have ended by itself, for want of room
            own.stop()
            own.start()
            with contextlib.closing(opened(own.uri, 'full', patience=90.0)) as index:
                index.upsert(rows[done:done + 500], range(done, done + 500))
        with contextlib.closing(opened(own.uri, 'full')) as index:
            ids = [int(one) for one in index.ids]
            assert sorted(ids) == list(range(done + 500))
            np.testing.assert_array_equal(index.reconstruct(range(len(ids))), rows[ids])
    finally:
        own.stop()


def test_vectors_of_sixteen_bits_are_kept(new_milvus, monkeypatch):
    """2.3 searches them wrongly, for which it is refused, but it keeps them as later ones do."""
    monkeypatch.setattr('retrieval.index.milvus.index.check_dtype', lambda *_: None)
    index = new_milvus(collection='halves', dtype='float16')
    index.add(vectors_of(range(30)), range(30))
    index.refresh()
    assert list(index.ids) == [str(row) for row in range(30)]
    np.testing.assert_array_equal(index.reconstruct(range(30)),
                                  vectors_of(range(30)).astype(np.float16).astype(np.float32))
    assert index.search(vectors_of([3]), 30).indices.shape == (1, 30)
    with pytest.raises(ValueError, match='has float16 for `dtype`, and this index wants float32'):
        len(new_milvus(collection='halves'))


def test_a_released_collection_is_loaded_again(new_milvus):
    index = new_milvus()
    index.add(vectors_of(range(50)), range(50))
    store = index._store
    for use in (lambda: index.search(vectors_of([7]), 1).ids == [['7']], index.is_current,
                lambda: len(index.reconstruct([3])) == 1):
        store.connection.call('flush', store.own)
        store.connection.call('release_collection', store.own)
        assert use()


def test_an_expression_that_it_cannot_read(new_milvus):
    index = new_milvus()
    index.add(vectors_of(range(3)), range(3))
    with pytest.raises(ValueError, match="refused 'query'"):
        index._store.connection.call('query', index._store.own, filter='row ===')


@pytest.mark.parametrize('index_params', [
    dict(index_type='HNSW', params=dict(M=16, efConstruction=100)),
    dict(index_type='IVF_FLAT', params=dict(nlist=16)), dict(index_type='AUTOINDEX')])
def test_approximate_indexes(new_milvus, index_params):
    index = new_milvus(index_params=index_params, search_params=dict(ef=100, nprobe=16))
    ids = range(2000)
    rows, exact = vectors_of(ids), ExactIndex()
    index.add(rows, ids)
    exact.add(rows, ids)
    found, wanted = (one.search(rows[:20] + 0.1, 10).ids for one in (index, exact))
    assert np.mean([len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True)]) > 9


def test_an_index_that_it_does_not_have(new_milvus):
    index = new_milvus(index_params=dict(index_type='NO_SUCH'))
    with pytest.raises((ValueError, MilvusError), match='NO_SUCH|index type'):
        index.add(vectors_of(range(3)), range(3))
    assert not len(new_milvus(collection='none'))

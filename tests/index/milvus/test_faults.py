"""A server that is down, slow or loses the connection midway: an error or a retry that ends."""
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid

import numpy as np
import pytest

from retrieval.index import ExactIndex, MilvusError, MilvusIndex, MilvusUnavailable

from .cutting_proxy import CuttingProxy

pytest.importorskip('milvus_lite')

WIDTH, BATCH = 32, 50
QUICK = dict(timeout=5.0, retries=4, patience=30.0, batch_size=BATCH)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Retries follow sooner than where a server has to come up again."""
    monkeypatch.setattr('retrieval.index.milvus.connection.FIRST_PAUSE', 0.02)


@pytest.fixture
def server(tmp_path):
    """The port of a Milvus server: the one that RETRIEVAL_TEST_MILVUS names, or an embedded one."""
    if uri := os.environ.get('RETRIEVAL_TEST_MILVUS'):
        yield int(uri.rpartition(':')[2])
        return
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    running, database, port = start_server_in_thread(str(tmp_path / 'server'))
    yield port
    running.stop(0).wait()
    database.close()


@pytest.fixture
def proxy(server):
    between = CuttingProxy(server)
    yield between
    between.down()


@pytest.fixture
def opened():
    name = f'faults_{uuid.uuid4().hex[:8]}'
    with contextlib.ExitStack() as stack:
        yield lambda uri, **options: stack.enter_context(contextlib.closing(
            MilvusIndex(uri, **{**QUICK, 'collection': name, **options})))


@pytest.fixture(scope='module')
def vectors():
    return np.random.default_rng(0).normal(size=(400, WIDTH)).astype(np.float32)


def names(count, start=0):
    return [f'picture {row}' for row in range(start, start + count)]


def check(index, vectors, ids):
    """The index holds these rows, each once, and finds what an exact search finds; as it knows
    them, and as it reads them anew.
    """
    assert list(index.ids) == ids
    index.refresh()
    assert list(index.ids) == ids
    store = index._store
    assert store.connection.call('query', store.own, filter='', output_fields=['count(*)'],
                                  consistency_level='Session')[0] == {
        'count(*)': len(ids)}
    exact = ExactIndex()
    exact.add(vectors, ids)
    queries = vectors[:3] + 0.1
    assert index.search(queries, 20).ids == exact.search(queries, 20).ids


def free_port():
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        return unused.getsockname()[1]


def test_nobody_listens():
    began = time.monotonic()
    with pytest.raises(MilvusUnavailable, match=r'3 attempts in .*Is it running') as caught:
        MilvusIndex(f'http://127.0.0.1:{free_port()}', timeout=1, retries=2)
    assert isinstance(caught.value, ConnectionError) and time.monotonic() - began < 10


def test_messages_do_not_tell_the_password():
    uri = f'http://root:secret@127.0.0.1:{free_port()}'
    with pytest.raises(MilvusUnavailable) as caught:
        MilvusIndex(uri, token='root:secret', retries=0)
    assert 'secret' not in str(caught.value) and '127.0.0.1' in str(caught.value)


def test_patience_ends_the_retries():
    began = time.monotonic()
    with pytest.raises(MilvusUnavailable):
        MilvusIndex(f'http://127.0.0.1:{free_port()}', timeout=1, retries=1000, patience=0.8)
    assert 0.3 < time.monotonic() - began < 10


def test_a_server_that_never_answers():
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(MilvusUnavailable, match='3 attempts'):
            MilvusIndex(f'http://127.0.0.1:{silent.getsockname()[1]}', timeout=0.2, retries=2)
        assert 0.6 < time.monotonic() - began < 10


@pytest.mark.parametrize('what', ['request', 'reply'])
@pytest.mark.parametrize('after_bytes', [1, 5000, 20000])
def test_a_connection_lost_while_adding(proxy, opened, vectors, what, after_bytes):
    """Whether the rows or only the answer were lost, each row is in once."""
    index = opened(proxy.uri)
    index.add(vectors[:10], names(10))
    proxy.cut(after_bytes, what, times=2)
    index.add(vectors[10:], names(390, 10))
    assert proxy.cuts == 2
    check(index, vectors, names(400))


def test_a_server_that_stays_away_midway(proxy, server, opened, vectors):
    index = opened(proxy.uri, retries=2)
    index.add(vectors[:10], names(10))
    proxy.cut(20_000, stay_down=True)
    with pytest.raises(MilvusUnavailable, match='`upsert` with the same arguments') as caught:
        index.add(vectors[10:], names(390, 10))
    written = caught.value.written
    assert 0 < written < 390 and written % BATCH == 0 and caught.value.total == 390
    assert f'Of 390 rows the first {written} are in' in str(caught.value)
    for call in (lambda: index.search(vectors[:1], 1), lambda: len(index),
                 lambda: index.add(vectors[:1], ['x']), lambda: index.remove(['picture 0'])):
        with pytest.raises(MilvusUnavailable):
            call()
    direct = opened(f'http://127.0.0.1:{server}')  # what was acknowledged is there
    assert list(direct.ids)[:10 + written] == names(10 + written)
    check(direct, vectors[:len(direct)], list(direct.ids))
    proxy.up()
    check(index, vectors[:len(direct)], list(direct.ids))
    index.upsert(vectors[10:], names(390, 10))
    check(index, vectors, names(400))


def test_a_slow_server_is_asked_again(proxy, opened, vectors):
    """Answers fail to come for a while: what was asked is asked again, and done once."""
    index = opened(proxy.uri, retries=8)
    index.add(vectors[:100], names(100))
    index._store.connection.timeout = 0.5
    proxy.silent = True
    timer = threading.Timer(1.2, lambda: setattr(proxy, 'silent', False))
    timer.start()
    index.add(vectors[100:], names(300, 100))
    assert not timer.is_alive()
    check(index, vectors, names(400))


def test_a_slow_line(proxy, opened, vectors):
    index = opened(proxy.uri)
    proxy.slow(0.005)
    index.add(vectors, names(400))
    check(index, vectors, names(400))


def test_a_server_that_stays_too_slow(proxy, opened, vectors):
    index = opened(proxy.uri, retries=1)
    index.add(vectors, names(400))
    index._store.connection.timeout = 0.4
    proxy.silent = True
    began = time.monotonic()
    with pytest.raises(MilvusUnavailable, match='longer `timeout`'):
        index.search(vectors[:2], 5)
    assert 0.8 < time.monotonic() - began < 10


def test_a_server_that_is_started_again(tmp_path, opened, vectors):
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    folder = str(tmp_path / 'server')
    running, database, port = start_server_in_thread(folder)
    index = opened(f'http://127.0.0.1:{port}')
    index.add(vectors[:300], names(300))
    for use in (lambda: index.search(vectors[:1], 1), lambda: index.remove(['picture 299']),
                lambda: index.add(vectors[299:300], ['picture 299'])):
        running.stop(0).wait()
        database.close()
        running, database, _ = start_server_in_thread(folder, port=port)
        use()
    check(index, vectors[:300], names(300))
    running.stop(0).wait()
    database.close()


def test_a_search_while_the_server_is_away(proxy, opened, vectors):
    index = opened(proxy.uri, retries=1)
    index.add(vectors, names(400))
    proxy.down()
    with pytest.raises(MilvusUnavailable, match="'search'"):
        index.search(vectors[:2], 5)
    proxy.up()
    check(index, vectors, names(400))


@pytest.mark.parametrize('what', ['request', 'reply'])
def test_a_connection_lost_while_removing(proxy, opened, vectors, what):
    index = opened(proxy.uri)
    index.add(vectors, names(400))
    proxy.cut(1, what)
    index.remove(names(100, 300))
    assert proxy.cuts == 1
    check(index, vectors[:300], names(300))


def test_a_removal_that_is_not_finished(proxy, opened, vectors):
    index = opened(proxy.uri, retries=0)
    index.add(vectors, names(400))
    proxy.cut(1, 'reply', stay_down=True)
    with pytest.raises(MilvusUnavailable):
        index.remove(names(100, 300))
    proxy.up()
    assert list(index.ids) in (names(300), names(400))
    check(index, vectors[:len(index)], list(index.ids))


@pytest.mark.parametrize('after_bytes', [1, 3000, 12_000, 30_000, 60_000])
def test_a_replacement_that_fails_leaves_the_old_rows(proxy, server, opened, vectors, after_bytes):
    index = opened(proxy.uri, retries=1)
    index.replace(vectors[:100], names(100))
    proxy.cut(after_bytes, stay_down=True)
    with pytest.raises(MilvusUnavailable):
        index.replace(vectors, names(400))
    direct = opened(f'http://127.0.0.1:{server}')
    check(direct, vectors[:100], names(100))
    proxy.up()
    index.replace(vectors, names(400))
    check(index, vectors, names(400))
    own = index._store.own
    left = index._store.connection.call('list_collections')  # nothing is left behind
    assert [one for one in left if one.startswith(index._store.name)] == [own]


@pytest.mark.parametrize('method', [
    'create_collection', 'create_index', 'create_alias', 'alter_alias', 'drop_alias',
    'drop_collection', 'load_collection', 'insert', 'delete', 'flush'])
def test_an_answer_that_is_lost(new_milvus, vectors, monkeypatch, method):
    """Each step was carried out, and its repetition, which Milvus may refuse, is no error."""
    from pymilvus import MilvusClient, MilvusException
    true, lost = getattr(MilvusClient, method), []

    def call(client, *args, **kwargs):
        result = true(client, *args, **kwargs)
        if len(lost) < 9 and args not in lost:  # of each call the first answer
            lost.append(args)
            raise MilvusException(2, 'connection lost')
        return result

    index = new_milvus()
    monkeypatch.setattr('retrieval.index.milvus.connection.FIRST_PAUSE', 0.01)
    monkeypatch.setattr('retrieval.index.milvus.rows._FLUSH_ROWS', 300)
    monkeypatch.setattr(MilvusClient, method, call)
    index.replace(vectors[:50], names(50))
    index.replace(vectors[:300], names(300))
    index.add(vectors[300:], names(100, 300))
    index.remove(names(10))
    other = new_milvus()
    other.add(vectors, names(400))
    assert lost or method == 'flush' and not index._store.connection.embedded
    monkeypatch.undo()
    check(index, vectors[10:], names(390, 10))
    check(other, vectors, names(400))


@pytest.mark.parametrize('what', ['request', 'reply'])
@pytest.mark.parametrize('after_bytes', [1, 1200, 3000])
def test_a_connection_lost_while_a_collection_is_made(proxy, opened, vectors, what, after_bytes):
    """The steps that cannot be repeated (create, name) are recognised as done."""
    proxy.cut(after_bytes, what, times=1)
    index = opened(proxy.uri)
    index.replace(vectors[:100], names(100))
    index.add(vectors[100:], names(300, 100))
    index.replace(vectors[::-1], names(400)) if what == 'request' else None
    check(index, vectors[::-1] if what == 'request' else vectors, names(400))


KILLED = '''
    import os, signal, sys
    import numpy as np
    from retrieval.index import MilvusIndex
    index = MilvusIndex(sys.argv[1], batch_size=100)
    vectors = np.random.default_rng(1).normal(size=(3000, 8)).astype('float32')
    for start in range(0, 3000, 500):
        index.add(vectors[start:start + 500], range(start, start + 500))
        print(start + 500, flush=True)
    index.remove(range(100))
    print('removed', flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
'''


def test_what_was_added_outlives_a_killed_process(tmp_path, opened):
    code = textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path / 'a.db')], check=False,
                          capture_output=True, text=True)
    assert done.stdout.split() == ['500', '1000', '1500', '2000', '2500', '3000', 'removed']
    vectors = np.random.default_rng(1).normal(size=(3000, 8)).astype(np.float32)
    index = opened(str(tmp_path / 'a.db'), collection='retrieval')
    check(index, vectors[100:], [str(row) for row in range(100, 3000)])


@pytest.mark.parametrize('code, text, kind', [
    (65535, 'failed to create query plan: cannot parse expression: a ==, error: …', ValueError),
    (1100, 'failed to create query plan: cannot parse expression: a ==', ValueError),
    (65535, 'cannot parse expression: name == "no available datacoord"', ValueError),
    (65535, 'disk broke', MilvusError),
])
def test_what_a_server_cannot_parse_is_a_value_error(new_milvus, monkeypatch, code, text, kind):
    from pymilvus import MilvusClient, MilvusException
    index = new_milvus(metadata=dict(n='int'))
    index.add(np.eye(3), ['a', 'b', 'c'], metadata=dict(n=[1, 2, 3]))
    calls = []

    def search(self, *args, **kwargs):
        calls.append(1)
        raise MilvusException(code, text)

    monkeypatch.setattr(MilvusClient, 'search', search)
    with pytest.raises(kind, match=text[:20]) as caught:
        index.search(np.eye(3), 1, filter='n == 1')
    assert len(calls) == 1 and type(caught.value) is kind


@pytest.mark.parametrize('code, text', [
    (65535, 'find no available rootcoord, check rootcoord state'),
    (65535, 'find no available querycoord, check querycoord state'),
    (1, 'service not ready[querycoord=3: Initializing]')])
def test_a_server_whose_parts_are_starting_is_asked_again(new_milvus, monkeypatch, code, text):
    from pymilvus import MilvusClient, MilvusException
    index = new_milvus()
    index.add(np.eye(3), ['a', 'b', 'c'])
    search, failures = MilvusClient.search, []

    def failing(self, *args, **kwargs):
        if len(failures) < 2:
            failures.append(1)
            raise MilvusException(code, text)
        return search(self, *args, **kwargs)

    monkeypatch.setattr(MilvusClient, 'search', failing)
    monkeypatch.setattr('retrieval.index.milvus.connection.FIRST_PAUSE', 0.01)
    assert index.search(np.eye(3)[:1], 1).ids == [['a']] and len(failures) == 2


@pytest.mark.parametrize('how', ['channel', 'client'])
def test_a_connection_that_another_thread_has_closed_is_made_anew(new_milvus, how):
    """pymilvus does so by itself where it connects again: it swaps the channel under the others."""
    index = new_milvus()
    index.add(np.eye(3), ['a', 'b', 'c'])
    client = index._store.connection._clients[0]
    (client if how == 'client' else client._handler._channel).close()
    assert index.search(np.eye(3)[:1], 1).ids == [['a']]


def test_rows_are_inserted_once_where_the_answer_is_lost(new_milvus, vectors, monkeypatch):
    """pymilvus would insert them again by itself, and a server takes an id twice."""
    import grpc
    from pymilvus.grpc_gen.milvus_pb2_grpc import MilvusServiceStub

    class Lost(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

        def details(self):
            return 'connection lost'

    class Stub(MilvusServiceStub):
        def __init__(self, channel):
            super().__init__(channel)
            self.insert, self.Insert = self.Insert, self.lost

        def lost(self, request, **options):
            done = self.insert(request, **options)
            sent.append(request.num_rows)
            if sent == [10, 50]:
                raise Lost
            return done
    monkeypatch.setattr('pymilvus.grpc_gen.milvus_pb2_grpc.MilvusServiceStub', Stub)
    index, sent = new_milvus(), []
    index.add(vectors[:10], names(10))
    index.add(vectors[10:60], names(50, 10))
    assert sent == [10, 50]
    check(index, vectors[:60], names(60))

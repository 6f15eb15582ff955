"""Calls, retries that end, and the end of a connection, with a client that does as it is told;
against servers that are down or slow they are in test_faults.py.
"""
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.index import MilvusIndex
from retrieval.index.milvus.connection import (
    Connection,
    MilvusError,
    MilvusUnavailable,
    is_embedded,
)

pytest.importorskip('pymilvus')


class Refusal(Exception):
    """As pymilvus and gRPC raise."""

    def __init__(self, code, message='said so', **more):
        super().__init__(message)
        self.code, self.message = code, message
        self.__dict__.update(more)


class Status(SimpleNamespace):
    """A status of gRPC."""


@pytest.fixture
def client(monkeypatch):
    """What the next calls of ``query`` do: an error is raised, anything else returned; what was
    called is in ``asked``.
    """
    shared = SimpleNamespace(answers=[], asked=[], made=0, closed=0)

    class Client:
        def __init__(self, address, token, **options):
            shared.made, shared.address, shared.token = shared.made + 1, address, token
            self._handler = SimpleNamespace(_on_rpc_error=lambda error: 'it connects anew')

        def get_server_version(self, timeout):
            return 'v2.4.0'

        def query(self, *args, timeout, **options):
            shared.asked.append(('query', args, options))
            answer = shared.answers.pop(0) if shared.answers else 'rows'
            if isinstance(answer, Exception):
                shared.told = self._handler._on_rpc_error(answer)
                raise answer
            return answer

        def upsert(self, *args, timeout):
            shared.asked.append(('upsert', args, {}))
            return 'upserted'

        def load_collection(self, name, timeout):
            shared.asked.append(('load_collection', (name,), {}))

        def close(self):
            shared.closed += 1

    monkeypatch.setattr('retrieval.index.milvus.connection.load_pymilvus',
                        lambda: SimpleNamespace(MilvusClient=Client))
    monkeypatch.setattr('retrieval.index.milvus.connection.FIRST_PAUSE', 0.001)
    return shared


@pytest.fixture
def connection(client):
    made = Connection('http://root:secret@nowhere:19530', 'token', retries=2)
    yield made
    made.close()


@pytest.mark.parametrize(('uri', 'embedded'), [
    ('./a.db', True), ('http://x:19530', False), ('unix:/tmp/x', False)])
def test_databases_and_addresses(uri, embedded):
    assert is_embedded(uri) == embedded


@pytest.mark.parametrize(('uri', 'error', 'says'), [
    ('localhost:19530', ValueError, "'http://localhost:19530'"), (5, TypeError, 'a path or an')])
def test_what_is_neither(uri, error, says):
    with pytest.raises(error, match=says):
        is_embedded(uri)


def test_a_call_is_the_clients(connection, client):
    assert connection.version == 'v2.4.0' and connection.uri == 'http://nowhere:19530'
    assert client.address.startswith('http://root:secret@') and client.token == 'token'
    assert connection.call('query', 'own', filter='x') == 'rows'
    assert client.asked == [('query', ('own',), dict(filter='x'))] and client.made == 1


PASSING = [Refusal(lambda: Status(name='UNAVAILABLE')), Refusal(2), Refusal(8),
           Refusal(1, 'service not ready'), Refusal(65535, 'no available shard'),
           Refusal(7, retriable=True)]


@pytest.mark.parametrize('error', PASSING, ids=lambda error: f'{error.message}')
def test_what_passes_is_tried_again_over_a_new_connection(error, connection, client):
    client.answers = [error, error]
    assert connection.call('query', 'own') == 'rows'
    assert len(client.asked) == 3 and client.made == 3 and client.closed == 2


def test_what_must_not_be_repeated_is_done_otherwise(connection, client):
    client.answers = [Refusal(2)]
    assert connection.call('query', 'own', again='upsert') == 'upserted'
    assert [method for method, *_ in client.asked] == ['query', 'upsert']
    assert not hasattr(client, 'told'), 'the error came through before it could be repeated'
    client.answers = [Refusal(2)]
    assert connection.call('query', 'own') == 'rows' and client.told == 'it connects anew'


def test_a_collection_that_is_not_loaded_is_loaded(connection, client):
    client.answers = [Refusal(101)]
    assert connection.call('query', 'own') == 'rows' and client.made == 1
    assert [method for method, *_ in client.asked] == ['query', 'load_collection', 'query']


def test_retries_end(connection, client):
    client.answers = [Refusal(2, 'cut off')] * 9
    with pytest.raises(MilvusUnavailable, match=r"3 attempts .*cut off.*Is it running") as got:
        connection.call('query', 'own')
    assert isinstance(got.value, ConnectionError) and 'secret' not in str(got.value)
    assert len(client.asked) == 3


def test_patience_ends_before_the_retries(client):
    client.answers = [Refusal(2)] * 99
    made = Connection('http://x:1', retries=99, patience=0.01)
    began = time.monotonic()
    with pytest.raises(MilvusUnavailable):
        made.call('query', 'own')
    assert len(client.asked) < 10 and time.monotonic() - began < 5


@pytest.mark.parametrize(('error', 'kind', 'says'), [
    (Refusal(lambda: Status(name='UNAUTHENTICATED')), PermissionError, 'user:password'),
    (Refusal(100), MilvusError, 'no longer has the collection'),
    (Refusal(1100, 'bad  field'), ValueError, "refused 'query': 1100: bad field"),
    (Refusal(65535, 'cannot parse expression: a =='), ValueError, 'parse'),
    (Refusal(7, is_input_error=True), ValueError, 'refused'),
    (Refusal(65535, 'disk broke'), MilvusError, 'failed at .query.: 65535: disk broke'),
    (KeyError('own'), KeyError, 'own')])
def test_other_errors_are_said_at_once(error, kind, says, connection, client):
    client.answers = [error]
    with pytest.raises(kind, match=says) as got:
        connection.call('query', 'own')
    assert type(got.value) is kind and len(client.asked) == 1


def test_a_closed_connection(client, tmp_path):
    from tempfile import TemporaryDirectory
    made, folder = Connection('http://x:1'), TemporaryDirectory(dir=tmp_path)
    made.owns(folder)
    assert not made.closed and len(list(tmp_path.iterdir())) == 1
    made.close()
    made.close()
    assert made.closed and client.closed == 1 and not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='is closed'):
        made.call('query', 'own')


def test_errors_of_changes_say_how_far_they_came():
    error = MilvusError('half', 3, 7)
    assert (str(error), error.written, error.total) == ('half', 3, 7)


def test_the_server_ends_with_the_last_index(tmp_path):
    pytest.importorskip('milvus_lite')
    from milvus_lite.server_manager import server_manager_instance as manager
    uri = str(tmp_path / 'a.db')
    one, other = MilvusIndex(uri), MilvusIndex(uri)
    vectors = np.random.default_rng(0).normal(size=(60, 8))
    one.add(vectors, range(60))
    one.close()
    assert len(other) == 60 and uri in manager._servers
    with pytest.raises(ValueError, match='closed'):
        one.search(vectors[:1], 1)
    other.close()
    other.close()
    assert uri not in manager._servers
    index = MilvusIndex(uri)
    assert len(index) == 60
    del index
    assert uri not in manager._servers  # left to the garbage collector
    loaded = MilvusIndex.load(_saved(tmp_path))
    folder = loaded._store.connection.uri
    assert len(loaded) == 60
    loaded.close()
    assert folder not in manager._servers


def _saved(folder):
    index = MilvusIndex(str(folder / 'a.db'))
    index.save(folder / 'saved')
    index.close()
    return folder / 'saved'


@pytest.mark.slow
def test_a_database_that_another_process_has_open(tmp_path):
    uri = str(tmp_path / 'a.db')
    index = MilvusIndex(uri)
    code = f'from retrieval.index import MilvusIndex; MilvusIndex({uri!r})'
    done = subprocess.run([sys.executable, '-c', code], check=False, capture_output=True, text=True)
    assert 'One process at a time' in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr.split('MilvusError')[-1]
    index.close()
    (tmp_path / 'file.db').write_text('x')
    with pytest.raises(ValueError, match='is a file'):
        MilvusIndex(str(tmp_path / 'file.db'))


@pytest.mark.parametrize('package', ['pymilvus', 'milvus_lite'])
def test_what_is_not_installed(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}.*pip install 'retrieval\[milvus\]'"):
        MilvusIndex(str(tmp_path / 'a.db'))

"""The connection to Milvus, embedded or a server: deadlines, and retries that end."""
from __future__ import annotations

import logging
import os
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...compat import load_pymilvus

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds; each pause is twice the one before
_PASSING = {'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED', 'ABORTED', 'INTERNAL', 'UNKNOWN'}
_CONNECT_FAILED, _RATE_LIMIT, _NOT_LOADED = 2, 8, 101
_REFUSED_CODES = {6, 1100, 1101}  # the server found the request itself wrong
_UNSPECIFIC = {1, 65535}  # whatever has no code of its own: only the text says what it is
_UNPARSED = re.compile(r'parse expression|create \w+ plan|invalid expression', re.I)
_STARTING = re.compile(r'no available \w*coord|service not ready|not healthy|is initializing|'
                       r'wait for loading|nodes not enough|node not found|channel not available|'
                       r'no available shard|shard delegator|Retry timeout', re.I)
# pymilvus connects anew by itself, under the calls of other threads
_CLOSED = re.compile(r'closed channel|should create connection first|no channel in handler', re.I)
_GONE_CODES = {4, 100}  # there is no such collection
_LOGGERS = ('pymilvus.decorators', 'pymilvus.client.connection_manager',
            'pymilvus.client.grpc_handler')
# gRPC waits longer and longer before it tries an address again; here the pauses are ours.
_CHANNEL = {'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1000,
            'grpc.use_local_subchannel_pool': 1}


class MilvusError(OSError):
    """Milvus could not do what it was asked.

    Args:
        message: what happened and what to do.
        written: of a change of several rows, how many are certainly in the collection.
        total: how many there were to change.
    """

    def __init__(self, message: str, written: int = 0, total: int = 0) -> None:
        super().__init__(message)
        self.written, self.total = written, total


class MilvusUnavailable(MilvusError, ConnectionError):
    """The server is down, too slow, or lost the connection, and retrying did not help."""


def is_embedded(uri: str) -> bool:
    """True where the address is a database file of this machine.

    Raises:
        TypeError: it is no string or path.
        ValueError: it is neither such a file nor an address.
    """
    if not isinstance(uri, (str, os.PathLike)):
        raise TypeError(f'uri must be a path or an address, got {uri!r}.')
    if '://' in str(uri) or str(uri).startswith('unix:'):
        return False
    if not str(uri).endswith('.db'):
        raise ValueError(f'uri={str(uri)!r} is neither a database file nor an address: write a '
                         "path that ends in .db, such as './gallery_milvus.db', or an address "
                         "such as 'http://localhost:19530'.")
    return True


class Connection:
    """Calls to a Milvus server; what passes (down, slow, cut off) is tried again, for a while.

    Args:
        uri: a path that ends in ``.db`` (the embedded Milvus is started in this process), or the
            address of a server.
        token: ``user:password`` or a key, where the server asks for one.
        timeout: seconds that one attempt may take.
        retries: how often a call is tried again.
        patience: seconds after which no call is tried again.

    Raises:
        ImportError: pymilvus, or for a file milvus-lite, is not installed.
        MilvusUnavailable: the server cannot be reached.
        MilvusError: the database file cannot be opened.
        PermissionError: the server refuses the token.
    """

    def __init__(self, uri: str, token: str | None = None, timeout: float = 30.0, retries: int = 5,
                 patience: float = 120.0) -> None:
        self.embedded = is_embedded(uri)
        self._address, self.token = str(uri), token
        self.uri = re.sub(r'(?<=//)[^/]*@', '', str(uri))  # as messages may show it
        self.timeout, self.retries, self.patience = timeout, retries, patience
        _require('pymilvus')
        self._server = _Server(self._address) if self.embedded else None
        self._clients: list[Any] = []  # the client, where there is one
        self._connecting = threading.Lock()
        self._folders: list[TemporaryDirectory[str]] = []
        self._finalizer = weakref.finalize(
            self, _close, self._clients, self._server, self._folders, os.getpid())
        self.version: str = self.call('get_server_version')

    def close(self) -> None:
        """End the connection, and the embedded server with the last connection to it."""
        self._finalizer()

    def owns(self, folder: TemporaryDirectory[str]) -> None:
        """Remove the folder when the connection is closed."""
        self._folders.append(folder)

    @property
    def server_version(self) -> tuple[int, int] | None:
        """Of a server, such as ``(2, 4)``; None of milvus-lite."""
        found = re.match(r'v?(\d+)\.(\d+)', self.version)
        return None if found is None else (int(found[1]), int(found[2]))

    @property
    def closed(self) -> bool:
        """True where :meth:`close` was called."""
        return not self._finalizer.alive

    def call(self, method: str, *args: Any, again: str | None = None, **kwargs: Any) -> Any:
        """The result of ``MilvusClient.<method>``. The method must be one that may be repeated.

        Args:
            again: the method of further attempts, where it must not: the first may have come
                through, and only its answer have been lost.

        Raises:
            MilvusUnavailable: the server is down, slow or lost the connection each time.
            ValueError: the server refused the request.
            MilvusError: it failed otherwise.
        """
        if self.closed:
            raise ValueError('This Milvus index is closed: build it again.')
        spent, pause, attempt = 0.0, FIRST_PAUSE, 0
        while True:
            attempt += 1
            client: Any = None
            began, limit = time.monotonic(), max(min(self.timeout, self.patience - spent), 0.05)
            try:
                client = self._client(limit)
                with _quiet(), _repeated_here(again is not None):
                    chosen = method if attempt == 1 else again or method
                    return getattr(client, chosen)(*args, timeout=limit, **kwargs)
            except Exception as error:
                left = client is not None and client not in self._clients
                if not (_passes(error) or left):
                    raise _explained(error, method, self.uri) from error
                self._recover(error, client, args)
                # Longer than that it does not wait: this process was stopped, or the machine.
                spent += min(time.monotonic() - began, 2 * limit)
                if attempt > self.retries or spent + pause >= self.patience:
                    raise MilvusUnavailable(
                        f'Milvus at {self.uri} did not answer {method!r}: {attempt} attempts in '
                        f'{spent:.1f} s, the last ended with {_reason(error)}. Is it running and '
                        'reachable? Start it or correct `uri`; where it is only slow, give a '
                        'longer `timeout` or a smaller `batch_size`.') from error
            time.sleep(pause)
            spent += pause
            pause = min(2 * pause, LONGEST_PAUSE)

    def _client(self, limit: float) -> Any:
        with self._connecting:
            if not self._clients:
                MilvusClient = load_pymilvus().MilvusClient
                address = self._server.address if self._server else self._address
                options = {**_CHANNEL, 'grpc.min_reconnect_backoff_ms': int(1000 * self.timeout)}
                client = MilvusClient(address, token=self.token or '', timeout=limit,
                                      dedicated=True, grpc_options=options)
                _hand_errors_on(client._handler)
                self._clients.append(client)
            return self._clients[0]

    def _recover(self, error: Exception, client: Any, args: tuple[Any, ...]) -> None:
        """Make ready for another attempt: load the collection, or connect anew, where no other
        thread has done so.
        """
        if _code(error) == _NOT_LOADED and client is not None:  # the server was started again
            with suppress(Exception), _quiet():
                client.load_collection(args[0], timeout=self.timeout)
            return
        with self._connecting:
            if client in self._clients:
                self._clients.remove(client)
                with suppress(Exception):
                    client.close()


def _require(package: str) -> Any:
    # Workers of a dataloader are forked and make no calls; gRPC need not stop its threads for it.
    os.environ.setdefault('GRPC_ENABLE_FORK_SUPPORT', '0')
    try:
        return load_pymilvus() if package == 'pymilvus' else __import__(package)
    except ImportError as error:
        raise ImportError(f'MilvusIndex needs {package}, which is not installed: write '
                          "`pip install 'retrieval[milvus]'`.") from error


class _Server:
    """The embedded server of one database; it serves every index of this process on it."""

    _users: Counter[str] = Counter()
    _lock = threading.Lock()

    def __init__(self, path: str) -> None:
        _require('milvus_lite')
        from milvus_lite.server_manager import server_manager_instance as manager
        self.path = str(Path(path).absolute())
        if Path(self.path).is_file():
            raise ValueError(f'{path!r} is a file, and the embedded Milvus keeps its database in a '
                             'folder of that name: give another path.')
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            with _heard('milvus_lite.server_manager') as said:
                address = manager.start_and_get_uri(self.path)
            if address is None:
                raise MilvusError(
                    f'The Milvus database {path!r} could not be opened: '
                    f'{"; ".join(said) or "no reason was given"}. One process at a time can have '
                    'it open: close the other, or start one server for all with `milvus-lite '
                    'server --data-dir …` and give its address as `uri`.')
            self.address: str = address
            self._users[self.path] += 1

    def close(self) -> None:
        """Leave the server; the last one stops it."""
        from milvus_lite.server_manager import server_manager_instance as manager
        with self._lock:
            self._users[self.path] -= 1
            if self._users[self.path] == 0:
                manager.release_server(self.path)


def _close(clients: list[Any], server: _Server | None, folders: list[TemporaryDirectory[str]],
           owner: int) -> None:
    if os.getpid() != owner:  # a forked worker has no part in its parent's connection
        return
    while clients:
        with suppress(Exception):
            clients.pop().close()
    if server is not None:
        server.close()
    for folder in folders:
        folder.cleanup()


def _code(error: BaseException) -> Any:
    """The gRPC status of an error, or pymilvus's number, or None."""
    code = getattr(error, 'code', None)
    return code() if callable(code) else code


def _origin(error: BaseException) -> BaseException:
    """The error behind one that says that it could not connect, which may name itself as cause."""
    cause = error.__context__ if error.__cause__ in (None, error) else error.__cause__
    if _code(error) == _CONNECT_FAILED and cause is not None and _code(cause) is not None:
        return cause
    return error


def _passes(error: BaseException) -> bool:
    """True where the same call may succeed later."""
    code = _code(_origin(error))
    if hasattr(code, 'name') and not isinstance(code, int):
        return code.name in _PASSING
    if code in _UNSPECIFIC and not _is_unparsed(error) and (
            _CLOSED.search(_reason(error)) or _STARTING.search(_reason(error))):
        return True  # the parts of a server that was started again come up one after another
    return (code in (_CONNECT_FAILED, _RATE_LIMIT, _NOT_LOADED)
            or bool(getattr(error, 'retriable', False)))


def _is_unparsed(error: BaseException) -> bool:
    """True where the server did not understand an expression."""
    return _code(_origin(error)) in _UNSPECIFIC and bool(_UNPARSED.search(_reason(error)))


def _reason(error: BaseException) -> str:
    error = _origin(error)
    code = _code(error)
    text = getattr(error, 'message', None) or getattr(error, 'details', lambda: None)() or error
    return f'{getattr(code, "name", code)}: {" ".join(str(text).split())[:300]}'


def _explained(error: Exception, method: str, uri: str) -> Exception:
    """An error that is not worth another attempt, as one of ours."""
    code = _code(_origin(error))
    if getattr(code, 'name', '') in ('UNAUTHENTICATED', 'PERMISSION_DENIED'):
        return PermissionError(f'Milvus at {uri} refuses the token: give `token="user:password"` '
                               'or the key that the server was set up with.')
    if code in _GONE_CODES:
        return MilvusError(f'Milvus at {uri} no longer has the collection (another process '
                           f'replaced or dropped it): open the index again. ({_reason(error)})')
    if code in _REFUSED_CODES or getattr(error, 'is_input_error', False) or _is_unparsed(error):
        return ValueError(f'Milvus refused {method!r}: {_reason(error)}')
    if code is None:
        return error
    return MilvusError(f'Milvus at {uri} failed at {method!r}: {_reason(error)}')


_repeating = threading.local()  # whether this thread's call is repeated here alone


@contextmanager
def _repeated_here(alone: bool) -> Iterator[None]:
    """Without the repetitions that pymilvus makes by itself inside a call, of the same method."""
    _repeating.alone = alone
    try:
        yield
    finally:
        _repeating.alone = False


def _hand_errors_on(handler: Any) -> None:
    """Let the errors of calls that are repeated here alone through.

    pymilvus tells its connection of an error, and then repeats the call: an insertion too, of
    which only the answer was lost. Milvus takes its rows a second time, and a query of 2.3 finds
    neither.
    """
    told = handler._on_rpc_error

    def on_error(error: Exception) -> Any:
        if getattr(_repeating, 'alone', False):
            raise error
        return told(error)
    handler._on_rpc_error = on_error


_silent = threading.local()  # how many calls this thread is in


def _audible(record: logging.LogRecord) -> bool:
    return not getattr(_silent, 'calls', 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that pymilvus logs for errors that are raised as well."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    _silent.calls = getattr(_silent, 'calls', 0) + 1
    for logger in loggers:
        logger.addFilter(_audible)  # added once, however often
    try:
        yield
    finally:
        _silent.calls -= 1


@contextmanager
def _heard(name: str) -> Iterator[list[str]]:
    """The errors that a logger is told of, instead of what it would print."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                error = record.exc_info[1] if record.exc_info else None
                said.append(str(error or record.getMessage()))

    logger, listener = logging.getLogger(name), Listener()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.propagate = before

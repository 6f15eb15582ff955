"""Who may ask what: the host, the token, where a page comes from, and how much is read."""
from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BYTES = 64 * 2 ** 20
BODY_SECONDS = 60.0
COOKIE = 'retrieval_token'
TITLES = {400: 'Bad request', 401: 'No token', 403: 'Not allowed', 404: 'Not found',
          405: 'Wrong method', 408: 'Too slow', 409: 'Cannot be changed', 413: 'Too large',
          415: 'Wrong media type', 422: 'Not understood', 500: 'Internal error', 503: 'Busy'}
_WRITES = ('/v1/items', '/v1/feedback', '/v1/training', '/v1/model')
_OPEN = ('/healthz', '/readyz')  # to whom supervises the process
_HEADERS = [
    (b'content-security-policy', b"default-src 'self'; object-src 'none'; "
     b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b'x-content-type-options', b'nosniff'), (b'referrer-policy', b'same-origin'),
    (b'cross-origin-resource-policy', b'same-origin'),
    (b'cross-origin-opener-policy', b'same-origin'), (b'x-frame-options', b'DENY')]


def problem(status: int, detail: str) -> dict[str, Any]:
    """An error as RFC 9457 has it.

    Example:
        >>> problem(404, 'There is no row 7.')['title']
        'Not found'
    """
    return dict(type='about:blank', title=TITLES.get(status, 'Error'), status=status,
                detail=detail)


class Metrics:
    """Counts requests, as Prometheus reads them."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: Counter[tuple[str, str]] = Counter()

    def text(self, gauges: MutableMapping[str, float]) -> str:
        """The counts, and some gauges by name, in the text format."""
        lines = ['# TYPE retrieval_requests_total counter']
        lines += [f'retrieval_requests_total{{method="{method}",path="{path}",status="{status}"}} '
                  f'{count}' for (method, path, status), count in sorted(self.requests.items())]
        lines.append('# TYPE retrieval_request_seconds_total counter')
        lines += [f'retrieval_request_seconds_total{{method="{method}",path="{path}"}} {value:.6f}'
                  for (method, path), value in sorted(self.seconds.items())]
        for name, value in gauges.items():
            lines += [f'# TYPE retrieval_{name} gauge', f'retrieval_{name} {value:g}']
        return '\n'.join(lines) + '\n'


class Guard:
    """Stands before the app, and adds the headers that keep a page to itself.

    Args:
        app: the app behind.
        host: where it listens.
        token: what writing, and reading where ``read_token`` is None, asks for; None on loopback.
        read_token: what is enough for reading.
        metrics: counts what is asked.
        names: further host names under which it is reached.
    """

    def __init__(self, app: Any, host: str = '127.0.0.1', token: str | None = None,
                 read_token: str | None = None, metrics: Metrics | None = None,
                 names: Collection[str] = ()) -> None:
        self.names = {'localhost', '127.0.0.1', '::1', host.lower(), *map(str.lower, names)}
        self.app, self.host, self.token, self.read_token = app, host, token, read_token
        self.metrics = metrics or Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        headers: dict[str, str] = {}
        for name, value in scope['headers']:
            headers.setdefault(name.decode('latin-1'), value.decode('latin-1'))

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
                own = {name for name, _ in message.get('headers', [])}
                message = dict(message, headers=[
                    *message.get('headers', []), *(one for one in _HEADERS if one[0] not in own)])
            await send(message)

        try:
            refusal = self.refusal(scope, headers)
            if refusal is not None:
                await _refuse(sending, *refusal)
                return
            if await self._take_token(scope, sending):
                return
            await self.app(scope, _limited(receive), sending)
        finally:
            route = scope.get('route')
            key = (scope['method'] if scope['method'].isalpha() else '-',
                   getattr(route, 'path', '-'))
            self.metrics.requests[(*key, status)] += 1
            self.metrics.seconds[key] += time.perf_counter() - start  # type: ignore[assignment]

    def refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason where a request is refused, else None."""
        host = headers.get('host', '')
        if not self.known_host(host):
            return 403, (f'This server does not answer to the host {host[:100]!r}: open it under '
                         'the address that it printed when it started.')
        method, path = scope['method'], scope['path']
        if method not in ('GET', 'HEAD', 'OPTIONS'):
            origin = headers.get('origin')
            if (origin is not None and urlsplit(origin).netloc.lower() != host.lower()) or \
                    headers.get('sec-fetch-site') in ('cross-site', 'same-site'):
                return 403, 'A page of another site asked for this, which is refused.'
        length = headers.get('content-length', '0')
        if not length.isdecimal() or int(length) > MAX_BYTES:
            return 413, f'A body may have up to {MAX_BYTES:,} bytes, got {length[:30]}.'
        if self.token is None or path in _OPEN:
            return None
        query = parse_qs(scope.get('query_string', b'').decode('latin-1'))
        given = [*([headers['authorization'][7:]] if headers.get(
            'authorization', '').lower().startswith('bearer ') else []),
            *_cookies(headers), *(query.get('token', []) if path == '/' else [])]
        if any(_same(one, self.token) for one in given):
            return None
        writes = method not in ('GET', 'HEAD', 'OPTIONS') and path.startswith(_WRITES)
        if self.read_token is not None and any(_same(one, self.read_token) for one in given):
            return (403, 'This token is for reading alone.') if writes else None
        return 401, ('This server wants its token: the header "Authorization: Bearer TOKEN", or '
                     'open /?token=TOKEN once in the browser.')

    def known_host(self, host: str) -> bool:
        """True for the names under which this server is reached; others are a page that has its
        own name lead here (DNS rebinding).
        """
        try:
            name = urlsplit(f'//{host}').hostname or ''
        except ValueError:
            return False
        if name in self.names:
            return True
        if self.host in ('0.0.0.0', '::', ''):  # noqa: S104  (what it listens on is compared)
            try:
                return bool(ipaddress.ip_address(name))
            except ValueError:
                return name in (socket.gethostname().lower(), socket.getfqdn().lower())
        return False

    async def _take_token(self, scope: Scope, send: Send) -> bool:
        """Turn the token of ``/?token=…`` into a cookie, and leave it out of the address."""
        query = parse_qs(scope.get('query_string', b'').decode('latin-1'))
        if self.token is None or scope['path'] != '/' or 'token' not in query:
            return False
        token = query['token'][-1]
        if not any(_same(token, one) for one in (self.token, self.read_token) if one):
            return False
        cookie: SimpleCookie = SimpleCookie()
        cookie[COOKIE] = token
        for name, value in (('httponly', 'true'), ('samesite', 'Strict'), ('path', '/')):
            cookie[COOKIE][name] = value
        await send({'type': 'http.response.start', 'status': 303, 'headers': [
            (b'location', b'/'), (b'content-length', b'0'),
            (b'set-cookie', cookie[COOKIE].OutputString().encode('latin-1'))]})
        await send({'type': 'http.response.body', 'body': b''})
        return True


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode('utf-8', 'replace'), token.encode())


def _cookies(headers: dict[str, str]) -> list[str]:
    try:
        found = SimpleCookie(headers.get('cookie', '')).get(COOKIE)
    except CookieError:
        return []
    return [found.value] if found else []


def _limited(receive: Receive) -> Receive:
    """The body, as long as it is neither too large nor too slow."""
    seen, end = 0, time.monotonic() + BODY_SECONDS
    whole = False

    async def limited() -> MutableMapping[str, Any]:
        nonlocal seen, whole
        if whole:  # what comes now is that the client hangs up
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
        except asyncio.TimeoutError:
            raise HTTPException(408, f'The body did not come within {BODY_SECONDS:g} s.') from None
        seen += len(message.get('body', b''))
        whole = not message.get('more_body', False)
        if seen > MAX_BYTES:
            raise HTTPException(413, f'A body may have up to {MAX_BYTES:,} bytes.')
        return message
    return limited


async def _refuse(send: Send, status: int, detail: str) -> None:
    body = json.dumps(problem(status, detail)).encode()
    headers = [(b'content-type', b'application/problem+json'),
               (b'content-length', str(len(body)).encode())]
    if status == 401:
        headers.append((b'www-authenticate', b'Bearer'))
    await send({'type': 'http.response.start', 'status': status, 'headers': headers})
    await send({'type': 'http.response.body', 'body': body})

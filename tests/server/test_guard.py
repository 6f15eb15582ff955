"""Who may ask what."""
import asyncio

import pytest

from retrieval.server import guard
from retrieval.server.app import create_app

from .conftest import COLOURS, ask, jpeg, picture


def test_other_hosts_and_pages_are_refused(client):
    """DNS rebinding, and a page of another site that writes."""
    for host in ('evil.example', 'evil.example:8000', '127.0.0.1.evil.example', '[', ''):
        assert client.get('/v1/info', headers=dict(host=host)).status_code == 403
    for host in ('localhost:1', '127.0.0.1', '[::1]:8000'):
        assert client.get('/v1/info', headers=dict(host=host)).status_code == 200
    body = jpeg(picture(COLOURS['red'], 0))
    for headers in (dict(origin='https://evil.example'), dict(origin='null'),
                    {'sec-fetch-site': 'cross-site'}, dict(origin='http://127.0.0.1:9')):
        assert client.post('/v1/uploads', content=body, headers=headers).status_code == 403
    own = dict(origin='http://127.0.0.1:8000', host='127.0.0.1:8000')
    assert client.post('/v1/uploads', content=body, headers=own).status_code == 200


def test_headers_keep_the_page_to_itself(client):
    for path in ('/v1/info', '/v1/nothing', '/docs'):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers['content-security-policy']
        assert 'unsafe' not in headers['content-security-policy']
        assert headers['x-content-type-options'] == 'nosniff'
        assert 'access-control-allow-origin' not in headers


def test_a_token_is_asked_for(folder_service):
    with pytest.raises(ValueError, match='--token'):
        create_app(folder_service, host='0.0.0.0')  # noqa: S104
    for token in ('', 'two words', 'söcret'):
        with pytest.raises(ValueError, match='token'):
            create_app(folder_service, token=token)
    client = ask(folder_service, host='0.0.0.0', token='s3cret', read_token='look')  # noqa: S104
    refused = client.get('/v1/info')
    assert refused.status_code == 401 and refused.headers['www-authenticate'] == 'Bearer'
    assert client.get('/healthz').status_code == 200

    def bearer(token):
        return {'authorization': b'Bearer ' + token.encode()}
    assert client.get('/v1/info', headers=bearer('wrong')).status_code == 401
    assert client.get('/v1/info?token=look').status_code == 401  # an address is kept in logs
    assert client.get('/v1/info', headers=bearer('look')).status_code == 200
    assert client.post('/v1/search', json={}, headers=bearer('look')).status_code == 200
    for path in ('/v1/items', '/v1/feedback', '/v1/training', '/v1/model'):
        assert client.post(path, json={}, headers=bearer('look')).status_code == 403
    assert client.get('/v1/info', headers=bearer('s3cret')).status_code == 200


def test_a_link_makes_a_cookie(folder_service):
    client = ask(folder_service, token='s3cret')
    assert client.get('/?token=wrong').status_code == 401
    opened = client.get('/?token=s3cret', follow_redirects=False)
    assert opened.status_code == 303 and opened.headers['location'] == '/'
    cookie = opened.headers['set-cookie'].lower()
    assert 'httponly' in cookie and 'samesite=strict' in cookie
    assert client.get('/v1/info').status_code == 200  # the client keeps the cookie


def test_bodies_are_bounded(client, monkeypatch):
    monkeypatch.setattr(guard, 'MAX_BYTES', 1000)
    assert client.post('/v1/uploads', content=b'x' * 1001).status_code == 413
    pieces = iter([b'x' * 600, b'x' * 600])  # without a length
    assert client.post('/v1/uploads', content=pieces).status_code == 413
    assert client.post('/v1/search', content=iter([b'{', b' ' * 2000])).status_code == 413
    assert client.post('/v1/uploads', headers={'content-length': '-1'}).status_code == 413


def test_a_body_that_does_not_come_ends(folder_service, monkeypatch):
    monkeypatch.setattr(guard, 'BODY_SECONDS', 0.05)
    app, sent = create_app(folder_service), []
    pieces = [dict(type='http.request', body=b'x', more_body=True)]

    async def receive():
        if pieces:
            return pieces.pop()
        return await asyncio.sleep(60)

    async def send(message):
        sent.append(message)
    scope = dict(type='http', method='POST', path='/v1/uploads', raw_path=b'/v1/uploads',
                 query_string=b'', headers=[(b'host', b'localhost')], http_version='1.1',
                 scheme='http', server=('127.0.0.1', 8000), client=('127.0.0.1', 1), root_path='')
    asyncio.run(app(scope, receive, send))
    assert sent[0]['status'] == 408

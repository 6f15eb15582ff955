"""A client of the server, for programs."""
from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class ServerError(RuntimeError):
    """The server refused something; ``status`` and ``detail`` say what.

    Example:
        >>> ServerError(404, 'There is no row 7.').status
        404
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f'{status}: {detail}')
        self.status, self.detail = status, detail


class Client:
    """The server's interface as methods; see docs/serving.md.

    Args:
        url: of the server.
        token: where it wants one.
        http: an ``httpx2.Client`` to ask through, in the place of an own one.
        timeout: seconds that an answer may take.

    Example:
        >>> with Client('http://127.0.0.1:8000') as client:
        ...     client.url
        'http://127.0.0.1:8000'
    """

    def __init__(self, url: str = 'http://127.0.0.1:8000', token: str | None = None,
                 http: Any = None, timeout: float = 60.0) -> None:
        if http is None:
            try:
                import httpx2
            except ImportError as error:
                raise ImportError("The client wants httpx2: pip install 'retrieval[web]'."
                                  ) from error
            http = httpx2.Client(timeout=timeout)
        self.url, self.http = url.rstrip('/'), http
        self._headers = {} if token is None else {'authorization': f'Bearer {token}'}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer to a request.

        Raises:
            ServerError: the server refused it.
        """
        answer = self.http.request(method, self.url + path, headers={
            **self._headers, **options.pop('headers', {})}, **options)
        if answer.status_code >= 400:
            try:
                detail = answer.json()['detail']
            except (ValueError, KeyError, TypeError):
                detail = answer.text[:200]
            raise ServerError(answer.status_code, detail)
        return answer

    def info(self) -> dict[str, Any]:
        """What is served, how far the encoding is, and what one can filter by."""
        return self._ask('GET', '/v1/info').json()

    def upload(self, picture: str | os.PathLike[str] | bytes) -> str:
        """Send a picture to search with; returns the name of the upload."""
        return self._ask('POST', '/v1/uploads', content=_bytes(picture)).json()['upload']

    def search(self, *queries: Any, **options: Any) -> dict[str, Any]:
        """Search; without queries list the rows.

        Args:
            queries: each a picture (a path or bytes), the number of a row, or a dict such as
                ``dict(row=3, box=[0, 0, .5, .5], weight=-1)`` or ``dict(text='a red bicycle')``.
            options: ``k``, ``offset``, ``filter``, ``rerank``, ``stack``, ``sort``.
        """
        parts = [self._part(query) for query in queries]
        return self._ask('POST', '/v1/search', json=dict(queries=parts, **options)).json()

    def _part(self, query: Any) -> dict[str, Any]:
        if isinstance(query, Mapping):
            return dict(query)
        return dict(row=query) if isinstance(query, int) else dict(upload=self.upload(query))

    def embed(self, query: Any) -> list[float]:
        """The embedding of a picture, a row or an upload, given as to :meth:`search`."""
        return self._ask('POST', '/v1/embed', json=self._part(query)).json()['embedding']

    def add(self, items: Sequence[Mapping[str, Any]] = (),
            pictures: Sequence[str | os.PathLike[str]] = (), replace: bool = False) -> list[str]:
        """Add rows with vectors, or picture files under their names; returns the ids."""
        if pictures:
            files = [('picture', (Path(path).name, _bytes(path))) for path in pictures]
            return self._ask('POST', '/v1/items', files=files,
                             data=dict(replace=str(replace).lower())).json()['ids']
        body = dict(items=list(map(dict, items)), replace=replace)
        return self._ask('POST', '/v1/items', json=body).json()['ids']

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows of a store by id."""
        self._ask('DELETE', '/v1/items', json=dict(ids=list(ids)))

    def item(self, row: int) -> dict[str, Any]:
        """Everything that is known of a row."""
        return self._ask('GET', f'/v1/items/{row}').json()

    def image(self, row: int) -> bytes:
        """The picture of a row."""
        return self._ask('GET', f'/v1/image/{row}').content

    def thumbnail(self, row: int, size: int = 256) -> bytes:
        """The picture of a row as a JPEG, so many pixels high."""
        return self._ask('GET', f'/v1/thumbnail/{row}', params=dict(size=size)).content

    def duplicates(self, threshold: float = 0.95) -> list[dict[str, Any]]:
        """Groups of near-duplicates."""
        return self._ask('POST', '/v1/duplicates', json=dict(threshold=threshold)).json()['groups']

    def reload(self, wait: bool = True) -> dict[str, Any]:
        """Load the model again, or the better one, beside the one that is served.

        Args:
            wait: until it is encoded and compared; else ask :meth:`reload_state`.

        Returns:
            ``state`` (running, ready, failed), ``use`` (old, new, both), ``share`` of the rows
            that are encoded, ``agreement`` of the others, ``comparison``, ``error``.
        """
        found = self._ask('POST', '/v1/model/reload').json()
        while wait and found['state'] == 'running':
            time.sleep(0.2)
            found = self.reload_state()
        return found

    def reload_state(self) -> dict[str, Any]:
        """How far a reload is, what would change, and which model is served."""
        return self._ask('GET', '/v1/model/reload').json()

    def use(self, which: str) -> dict[str, Any]:
        """Switch in one step: ``new`` or ``old`` model or ``both``, ``trained`` or ``original``."""
        return self._ask('POST', '/v1/model', json=dict(use=which)).json()

    def mark(self, query: Any, row: int, right: bool) -> dict[str, Any]:
        """Mark a result as right or wrong."""
        body = dict(query=self._part(query), row=row, right=right)
        return self._ask('POST', '/v1/feedback', json=body).json()


def _bytes(picture: str | os.PathLike[str] | bytes) -> bytes:
    return picture if isinstance(picture, bytes) else Path(picture).read_bytes()

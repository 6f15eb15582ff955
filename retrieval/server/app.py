"""The HTTP interface of a service: FastAPI."""
from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Body, FastAPI, Request, Response
from fastapi import Path as InPath
from fastapi import Query as InQuery
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..gallery import FingerprintError
from ..image_files import UnreadableImageError
from ..index import MilvusError
from .background import Background, Progress
from .batching import BusyError, NoEncoderError
from .changes import Changes, NotWritableError, ReadOnlyError
from .changing import NothingToSwitchError
from .export import duplicate_groups, exported, plan_file, proved_groups
from .feedback import Feedback
from .guard import Guard, Metrics, problem
from .map import EmbeddingMap
from .pictures import NoPictureError, UnknownUploadError, as_jpeg, fitting_size
from .reload import Reload
from .service import Query, Service, UnknownRowError
from .shared_index import RowsChangedError

PAGE = Path(__file__).with_name('page')
_PARTS = 64  # pictures and fields of one form
_STATUS: list[tuple[type[Exception], int]] = [
    (UnknownRowError, 404), (UnknownUploadError, 404), (NoPictureError, 404),
    (ReadOnlyError, 403), (NotWritableError, 409), (NothingToSwitchError, 409),
    (NoEncoderError, 409), (RowsChangedError, 503), (MilvusError, 503),
    (BusyError, 503), (TimeoutError, 503), (FingerprintError, 503),
    (UnreadableImageError, 422), (ValueError, 422), (TypeError, 422)]
Row = Annotated[int, InPath(description='The number of a row, as results have it.',
                            ge=0, lt=2 ** 53)]
Handle = Annotated[int, Field(ge=0, lt=2 ** 53)]
Model = TypeVar('Model', bound=BaseModel)


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid')


class QueryPart(_Strict):
    """One of row, id, upload, vector and text."""

    row: Handle | None = None
    id: str | None = None
    upload: str | None = None
    vector: Annotated[list[FiniteFloat], Field(max_length=65536)] | None = None
    text: Annotated[str, Field(min_length=1, max_length=2000, description='Words, where the '
                               'encoder has a text tower (`words` of /v1/info).')] | None = None
    box: Annotated[list[FiniteFloat], Field(
        min_length=4, max_length=4,
        description='[left, top, width, height] in shares of the picture.')] | None = None
    weight: Annotated[FiniteFloat, Field(description='Below 0 for what is not wanted.')] = 1.0

    def query(self) -> Query:
        """As the service takes it."""
        return Query(**self.model_dump())


class Search(_Strict):
    """Without queries the rows are listed."""

    queries: list[QueryPart] = Field([], max_length=32)
    k: int = Field(50, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=10_000_000)
    filter: dict[str, Any] | Annotated[str, Field(max_length=10_000)] = Field(
        {}, description='By field a list of values, or {min, max}; or a text such as '
        '`price<20 and brand in (a, b)`.')
    rows: list[Handle] | None = Field(None, max_length=1_000_000,
                                      description='Only these, such as a part of the map.')
    rerank: bool | None = Field(None, description='By default as the model is configured.')
    stack: bool = Field(True, description='Near-identical hits stand behind the best of them.')
    sort: Literal['score', 'date', 'folder'] = 'score'


class Item(_Strict):
    """A row to add."""

    id: str
    vector: Annotated[list[FiniteFloat], Field(max_length=65536)]
    label: str | int | None = None
    metadata: dict[str, str | int | float] | None = None


class Items(_Strict):
    """Rows to add."""

    items: list[Item] = Field(max_length=10_000)
    replace: bool = False


class Ids(_Strict):
    """Rows by id."""

    ids: list[str] = Field(max_length=10_000)


class Threshold(_Strict):
    """How similar duplicates are."""

    threshold: Annotated[FiniteFloat | None, Field(
        description='By default 0.95; with prove 0.5, from which pictures are compared.')] = None
    prove: bool = Field(False, description='Compare the pictures: each is named by what it is of '
                        'the best one, such as `resized`, and `sure` where nothing of it is lost.')


class Group(_Strict):
    """A group of duplicates: the row to keep, and the others."""

    keep: Handle
    others: list[Handle] = Field(max_length=10_000)


class Plan(_Strict):
    """What should be kept."""

    groups: list[Group] = Field(max_length=100_000)
    format: Literal['csv', 'json'] = 'csv'


class Mark(_Strict):
    """A result that is right or wrong."""

    query: QueryPart
    row: Handle
    right: bool


class Use(_Strict):
    """Which embeddings are searched: those of a projection, or of a model that was loaded; with
    ``both`` those of two models as one, while the new one encodes.
    """

    use: Literal['trained', 'original', 'new', 'old', 'both']


class Export(_Strict):
    """Which rows, and how."""

    rows: list[Handle] = Field(max_length=10_000)
    format: Literal['csv', 'json', 'zip'] = 'csv'


def create_app(service: Service, host: str = '127.0.0.1', token: str | None = None,
               read_token: str | None = None,
               on_start: Callable[[], None] | None = None,
               reload: Reload | None = None, names: Collection[str] = ()) -> Guard:
    """The app of a service, behind its guard.

    Args:
        service: what is served.
        host: where it will listen.
        token: asked of every request; of one from this machine to this machine it may be None.
        read_token: is enough for reading.
        on_start: is called when the server starts.
        reload: loads another model.
        names: further host names under which it is reached, such as that of a proxy.

    Raises:
        ValueError: it listens beyond this machine, and there is no token.

    Example:
        >>> create_app(None, host='0.0.0.0')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...
    """
    if host not in ('localhost', '127.0.0.1', '::1') and token is None:
        raise ValueError(f'--host {host} lets other machines in: give --token too, which they must '
                         'know.')
    for one in (token, read_token):
        if one is not None and not re.fullmatch(r'[\w.~+/=-]+', one, re.ASCII):
            raise ValueError('A token has letters, digits and . _ ~ + / = - alone, such as what '
                             '`openssl rand -hex 16` prints.')
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if on_start is not None:
            on_start()
        yield
        await run_in_threadpool(service.close)
        if reload is not None:
            await run_in_threadpool(reload.close)

    app = FastAPI(title='retrieval', version=__version__, lifespan=lifespan, docs_url=None,
                  redoc_url=None, strict_content_type=False, responses={
                      status: {'content': _PROBLEM, 'description': text} for status, text in (
                          (400, 'Broken.'),
                          (401, 'The token is missing.'), (403, 'Not from there, or not with this '
                           'token.'), (404, 'There is no such thing.'), (408, 'Too slow.'),
                          (409, 'What is served cannot be changed so.'),
                          (413, 'Too large.'), (422, 'Not understood.'), (503, 'Busy.'))})
    app.openapi = lambda: _with_schemas(app)  # type: ignore[method-assign]
    _add_errors(app)
    _add_searches(app, service)
    _add_pictures(app, service)
    _add_changes(app, service)
    _add_models(app, service, reload or Reload(service))
    _add_reports(app, service)
    _add_state(app, service, metrics)
    if PAGE.is_dir():
        app.mount('/', StaticFiles(directory=PAGE, html=True), name='page')
    return Guard(app, host, token, read_token, metrics, names)


_PROBLEM = {'application/problem+json': {'schema': {'$ref': '#/components/schemas/Problem'}}}


def _with_schemas(app: FastAPI) -> dict[str, Any]:
    """The description of the app, with the bodies that it reads itself."""
    schema = FastAPI.openapi(app)
    known = schema.setdefault('components', {}).setdefault('schemas', {})
    for model in (Problem, QueryPart, Item):
        known.setdefault(model.__name__, model.model_json_schema())
    for methods in schema['paths'].values():
        for one in methods.values():
            one['responses']['422'] = {'description': 'Not understood.', 'content': _PROBLEM}
    return schema


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, detail: str) -> JSONResponse:
        headers = {'retry-after': '1'} if status == 503 else None
        return JSONResponse(problem(status, detail), status, headers,
                            media_type='application/problem+json')

    @app.exception_handler(HTTPException)
    def _http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, str(error.detail))

    @app.exception_handler(ClientDisconnect)
    def _gone(_: Request, error: ClientDisconnect) -> JSONResponse:
        return answer(400, 'The client hung up.')

    @app.exception_handler(RequestValidationError)
    def _fields(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, _said(error.errors()))

    @app.exception_handler(ValidationError)
    def _body(_: Request, error: ValidationError) -> JSONResponse:
        return answer(422, _said(error.errors()))

    def known(_: Request, error: Exception) -> JSONResponse:
        return answer(next(status for kind, status in _STATUS if isinstance(error, kind)),
                      str(error))
    for kind, _ in _STATUS:
        app.add_exception_handler(kind, known)

    @app.exception_handler(Exception)
    def _unknown(_: Request, error: Exception) -> JSONResponse:
        return answer(500, 'The server failed; its own log says where.')


def _said(errors: Any) -> str:
    """What pydantic found, on one line."""
    found = [f'{".".join(str(part) for part in one["loc"] if part != "body") or "the body"}: '
             f'{one["msg"]}' for one in errors]
    return '; '.join(found[:5])


async def _form(request: Request) -> tuple[list[UploadFile], dict[str, str], FormData]:
    """The pictures and the fields of a form."""
    form = await request.form(max_files=_PARTS, max_fields=_PARTS, max_part_size=2 ** 20)
    pictures = [value for value in form.values() if isinstance(value, UploadFile)]
    return pictures, {name: value for name, value in form.items() if isinstance(value, str)}, form


def _is_form(request: Request) -> bool:
    return request.headers.get('content-type', '').startswith('multipart/form-data')


async def _json(request: Request, model: type[Model]) -> Model:
    return model.model_validate_json(await request.body() or b'{}')


def _either(model: type[BaseModel], what: str) -> dict[str, Any]:
    """The description of a body that is JSON or a form with pictures."""
    schema = model.model_json_schema(ref_template='#/components/schemas/{model}')
    schema.pop('$defs', None)
    return {'requestBody': {'required': True, 'content': {
        'application/json': {'schema': schema},
        'multipart/form-data': {'schema': {'type': 'object', 'description': what, 'properties': {
            'picture': {'type': 'array', 'items': {'type': 'string', 'format': 'binary'}}}}}}}}


_BYTES = {'requestBody': {'required': True, 'content': {
    'application/octet-stream': {'schema': {'type': 'string', 'format': 'binary'}}}}}


def _add_searches(app: FastAPI, service: Service) -> None:
    @app.post('/v1/search', response_model=dict[str, Any], openapi_extra=_either(
        Search, 'Pictures as queries; k, offset, stack and the others as fields.'))
    async def search(request: Request) -> JSONResponse:
        """Search with rows, uploads, words, vectors and parts of pictures; or list the rows."""
        if _is_form(request):
            service.encoder.check()
            pictures, fields, form = await _form(request)
            values: dict[str, Any] = dict(fields)
            for name in ('filter', 'queries'):
                if name in values and (name != 'filter' or values[name].lstrip()[:1] == '{'):
                    values[name] = _parsed(values[name], name)
            wanted = Search.model_validate(values)
            names = [(await run_in_threadpool(service.uploads.add, await one.read()))[0]
                     for one in pictures]
            await form.close()
            wanted.queries += [QueryPart(upload=name) for name in names]
        else:
            wanted = await _json(request, Search)
        options = {name: getattr(wanted, name) for name in (
            'k', 'offset', 'filter', 'rerank', 'stack', 'sort')}
        return await run_in_threadpool(lambda: JSONResponse(service.search(
            [one.query() for one in wanted.queries], among=wanted.rows, **options)))

    @app.post('/v1/uploads', openapi_extra=_BYTES)
    async def upload(request: Request) -> dict[str, Any]:
        """Send a picture, as the body itself, to search with; it is kept for some days."""
        service.encoder.check()
        name, width, height = await run_in_threadpool(service.uploads.add, await request.body())
        return dict(upload=name, width=width, height=height)

    @app.post('/v1/embed', openapi_extra={'requestBody': {'required': True, 'content': {
        **_BYTES['requestBody']['content'],  # type: ignore[dict-item]
        'application/json': {'schema': {'$ref': '#/components/schemas/QueryPart'}}}}})
    async def embed(request: Request) -> dict[str, Any]:
        """The embedding of a picture (the body itself), or of an upload or a row (JSON)."""
        if request.headers.get('content-type', '').startswith('application/json'):
            query = (await _json(request, QueryPart)).query()
        else:
            data = await request.body()
            query = Query(upload=(await run_in_threadpool(service.uploads.add, data))[0])
        return await run_in_threadpool(service.embed, query)


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f'{name} must be JSON, got {text[:100]!r}.') from None


def _picture_response(request: Request, data: Callable[[], tuple[bytes, str]],
                      tag: str) -> Response:
    headers = {'etag': f'"{tag}"', 'cache-control': 'private, no-cache'}
    if request.headers.get('if-none-match') == f'"{tag}"':
        return Response(status_code=304, headers=headers)
    content, media_type = data()
    return Response(content, media_type=media_type, headers=headers)


_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {'content': {'image/*': {}}, 'description': 'The picture.'},
    304: {'description': 'The client has it.'}}


def _add_pictures(app: FastAPI, service: Service) -> None:
    @app.get('/v1/uploads/{upload}', response_class=Response, responses=_PICTURE)
    def uploaded(upload: str, request: Request) -> Response:
        """The picture that was sent, made anew, without its metadata."""
        service.uploads.path(upload)
        return _picture_response(request, lambda: (
            as_jpeg(service.uploads.read(upload), 88, (1600, 1600)), 'image/jpeg'), upload)

    @app.get('/v1/image/{row}', response_class=Response, responses=_PICTURE)
    def image(row: Row, request: Request) -> Response:
        """The picture of a row, in full size."""
        name = service.name_of(row)
        return _picture_response(request, lambda: service.pictures.original(name),
                                 service.pictures.tag(name, 0))

    @app.get('/v1/thumbnail/{row}', response_class=Response, responses=_PICTURE)
    def thumbnail(row: Row, request: Request,
                  size: Annotated[int, InQuery(ge=1, le=4096)] = 256) -> Response:
        """The picture of a row, so many pixels high, without its metadata and place."""
        name, height = service.name_of(row), fitting_size(size)
        return _picture_response(
            request, lambda: (service.pictures.thumbnail(name, height), 'image/jpeg'),
            service.pictures.tag(name, height))


Wait = Annotated[bool, InQuery(
    description='False: answer at once, with 202 and how far it is until it is there.')]
_RUNNING: dict[int | str, dict[str, Any]] = {202: {
    'description': 'It is being made: ask again.', 'model': dict[str, Any]}}


def _so_far(found: Any) -> Any:
    """A result as it is, a progress as 202."""
    return JSONResponse(found.as_dict(), 202) if isinstance(found, Progress) else found


def _add_changes(app: FastAPI, service: Service) -> None:
    changes = Changes(service)

    @app.post('/v1/items', openapi_extra=_either(
        Items, 'Pictures to add, under their file names; replace as a field.'))
    async def add(request: Request) -> dict[str, Any]:
        """Add rows: all of them or none, on the disk when this answers."""
        changes.check_writable()
        if _is_form(request):
            pictures, fields, form = await _form(request)
            items: list[dict[str, Any]] = [
                dict(id=one.filename, picture=await one.read(), label=fields.get('label'))
                for one in pictures]
            await form.close()
            replace = fields.get('replace', '').lower() in ('1', 'true', 'yes')
        else:
            wanted = await _json(request, Items)
            items, replace = [one.model_dump() for one in wanted.items], wanted.replace
        ids = await run_in_threadpool(changes.add, items, replace)
        return dict(ids=ids, generation=service.generation)

    @app.delete('/v1/items')
    def remove(ids: Annotated[Ids, Body()]) -> dict[str, Any]:
        """Remove rows of a store by id: all of them or none."""
        changes.remove(ids.ids)
        return dict(removed=len(ids.ids), generation=service.generation)


def _add_models(app: FastAPI, service: Service, reload: Reload) -> None:
    changes, feedback = Changes(service), Feedback(service)

    @app.post('/v1/feedback')
    def mark(given: Mark) -> dict[str, Any]:
        """Mark a result as right or wrong."""
        changes.check_writable()
        return feedback.mark(given.query.query(), given.row, given.right)

    @app.get('/v1/feedback')
    def marks() -> dict[str, Any]:
        """How many marks there are, and which embeddings are searched."""
        return feedback.counts()

    @app.post('/v1/training', response_model=dict[str, Any], responses=_RUNNING)
    def train(wait: Wait = True) -> Any:
        """Train a projection on the marks, and hold it beside."""
        changes.check_writable()
        return _so_far(feedback.train(wait))

    @app.post('/v1/model')
    def use(given: Use) -> dict[str, Any]:
        """Search by the trained projection or as before; by the new model, the old, or both."""
        changes.check_writable()
        return feedback.use(given.use) if given.use in ('trained', 'original') else \
            reload.use(given.use)

    @app.post('/v1/model/reload', status_code=202)
    def load() -> dict[str, Any]:
        """Load the model again, or the better one, encode and compare in the background."""
        changes.check_writable()
        return reload.begin()

    @app.get('/v1/model/reload')
    def loaded() -> dict[str, Any]:
        """How far that is, how well rankings agree, what changes, and which model is served."""
        return reload.state()


def _file(content: bytes, media_type: str, name: str) -> Response:
    return Response(content, media_type=media_type,
                    headers={'content-disposition': f'attachment; filename="{name}"'})


def _add_reports(app: FastAPI, service: Service) -> None:
    embedding_map = EmbeddingMap(service)

    @app.get('/v1/items/{row}')
    def item(row: Row) -> dict[str, Any]:
        """Everything that is known of a row."""
        return service.item(row)

    grouping = Background(lambda key, progress: dict(groups=(
        proved_groups if key[2] else duplicate_groups)(service, key[1], progress)))

    @app.post('/v1/duplicates', response_model=dict[str, Any], responses=_RUNNING)
    def duplicates(given: Threshold, wait: Wait = True) -> Any:
        """Groups of near-duplicates, each with the best one; nothing is changed."""
        threshold = given.threshold
        if threshold is None:
            threshold = 0.5 if given.prove else 0.95
        return _so_far(grouping((service.current().generation, threshold, given.prove), wait))

    @app.post('/v1/duplicates/plan', response_class=Response)
    def plan(given: Plan) -> Response:
        """A file that says what to keep and what could go; nothing is deleted."""
        groups = [(group.keep, group.others) for group in given.groups]
        return _file(*plan_file(service, groups, given.format))

    @app.get('/v1/map', response_model=dict[str, Any], responses={
        **_RUNNING, 200: {'content': {'application/vnd.apache.parquet': {}}}})
    def points(wait: Wait = True, format: Literal['json', 'parquet'] = 'json') -> Any:
        """The embeddings in two dimensions: base64 of float32 (x, y), in the order of ``rows``."""
        if format == 'parquet':
            return _file(embedding_map.parquet(), 'application/vnd.apache.parquet', 'map.parquet')
        return _so_far(embedding_map(wait))

    @app.post('/v1/export', response_class=Response)
    def export(given: Export) -> Response:
        """Rows as a file."""
        return _file(*exported(service, given.rows, given.format))


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get('/v1/info')
    def info() -> dict[str, Any]:
        """What is served, how far the encoding is, and what one can filter by."""
        return service.info()

    @app.get('/healthz')
    def healthz() -> dict[str, str]:
        """The process answers."""
        return dict(status='ok')

    @app.get('/readyz')
    def readyz() -> dict[str, str]:
        """Searches are answered; 503 before the first pictures are encoded."""
        if service.present() is None:
            raise HTTPException(503, 'Nothing is encoded yet.')
        return dict(status='ready')

    @app.get('/metrics', response_class=PlainTextResponse)
    def figures() -> str:
        """For Prometheus."""
        batches, items = service.encoder.batcher.sizes
        return metrics.text(dict(
            images=len(service.snapshot or ()), encoding_done=service.encoding.done,
            encoding_total=service.encoding.total, batches=batches, encoded_queries=items,
            waiting=service.encoder.batcher.queue.qsize()))

    @app.get('/docs', response_class=HTMLResponse, include_in_schema=False)
    def docs() -> str:
        """The interface as a plain page."""
        return _docs(app.openapi())


def _docs(schema: dict[str, Any]) -> str:
    """The paths of an OpenAPI description as a page without scripts."""
    rows = [f'<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code></td>'
            f'<td>{html.escape(one.get("description", ""))}</td></tr>'
            for path, methods in schema['paths'].items() for method, one in methods.items()]
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>retrieval: the '
            'interface</title></head><body><main><h1>retrieval</h1><p>The whole description, for '
            'programs: <a href="/openapi.json">openapi.json</a>.</p><table><thead><tr><th>method'
            f'</th><th>path</th><th>what it does</th></tr></thead><tbody>{"".join(rows)}</tbody>'
            '</table></main></body></html>')

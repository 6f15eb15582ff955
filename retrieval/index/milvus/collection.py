"""The Milvus collection of an index: its fields and limits, and the names that lead to it.

An index called ``products`` is the alias ``products`` of a collection ``products_rows_…`` (filled
by ``add``) or ``products_gallery_…`` (filled by ``replace``): an alias can be moved to a new
collection in one step. A second alias, ``products_is_<digest>``, says that the collection holds
exactly the rows of that digest; it is taken away before the rows change. A third,
``products_keeps_…``, says that the collection stays when the name is led to another one, so that
it can be led back; where the name leads is the one thing that a switch changes.

Its fields are the id, the row's serial number, the vector and the metadata columns: whole numbers,
numbers, truth values and strings. Its properties say which model made the vectors.
"""
from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
from torch import Tensor

from ...compat import load_pymilvus
from ...gallery.fingerprint import Fingerprint
from ...registry import unknown_name
from ...similarity import SIMILARITIES
from .connection import Connection, MilvusError, MilvusUnavailable
from .vectors import DTYPES, FIELDS

ID, ROW, EMBEDDING = 'id', 'row', 'embedding'
METRICS = {'cosine_similarity': 'COSINE', 'inner_product': 'IP', 'euclidean': 'L2'}
BY_METRIC = {metric: SIMILARITIES[name] for name, metric in METRICS.items()}
EMBEDDED_INDEXES = ('AUTOINDEX', 'FLAT', 'HNSW', 'HNSW_SQ', 'IVF_FLAT', 'IVF_SQ8')
MOST_RESULTS = 16_384  # of one query, Milvus's limit on top-k
WIDTHS = range(2, 32_769)
KINDS = {'int': 'INT64', 'float': 'DOUBLE', 'bool': 'BOOL', 'str': 'VARCHAR'}
MOST_BYTES = 65_535  # of a string
_KEYS_SINCE = (2, 4)  # 2.3 files what `upsert` writes under another key, where no filter finds it
_FINGERPRINT, _DIGEST = 'retrieval.fingerprint', 'retrieval.digest'  # properties
_PYTHON = {'int': int, 'float': float, 'bool': bool, 'str': str}
Columns = dict[str, tuple[str, list[Any]]]  # by name: the kind and a value for each row


def declared(metadata: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The kinds of the columns that a constructor was given: names or Python types.

    Raises:
        TypeError: it is no mapping.
        ValueError: a kind or a name is none that there is.
    """
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise TypeError("metadata must map a column's name to its kind, got "
                        f'{type(metadata).__name__}: write metadata=dict(label="int").')
    kinds = {name: str(getattr(kind, '__name__', kind)) for name, kind in metadata.items()}
    for kind in kinds.values():
        if kind not in KINDS:
            raise ValueError(unknown_name('kind of a metadata column', kind, KINDS))
    return dict(zip(_field_names(kinds), kinds.values(), strict=True))


def field_name(name: Any) -> str:
    """A column's name as a Milvus field: what is no letter, digit or underscore becomes one, and
    one is added to the names ``id``, ``row`` and ``embedding``.
    """
    name = re.sub(r'\W', '_', str(name), flags=re.ASCII)
    name = f'_{name}' if not name or name[0].isdigit() else name
    return f'{name}_' if name in (ID, ROW, EMBEDDING) else name


def _field_names(names: Iterable[Any]) -> list[str]:
    names = list(names)
    fields = [field_name(name) for name in names]
    if len(set(fields)) != len(fields):
        twice = next(one for one in fields if fields.count(one) > 1)
        both = [name for name, one in zip(names, fields, strict=True) if one == twice]
        raise ValueError(f'The metadata columns {both} would both be the field {twice!r}: rename '
                         'one.')
    return fields


def as_columns(metadata: Mapping[str, Any] | None, count: int,
               kinds: Mapping[str, str] | None) -> Columns:
    """The columns of ``count`` rows.

    Args:
        metadata: by name an array, tensor or sequence of ``count`` values, or None.
        kinds: the columns that there must be, or None where they are whatever is given.

    Raises:
        TypeError: values are of no kind that Milvus has, or of mixed kinds.
        ValueError: a column is missing, unknown or of another length or kind; a number is NaN or
            does not fit 64 bits; a string is too long.
    """
    given = dict(metadata or {})
    fields = _field_names(given)
    columns = {name: (_kind(name, values), _values(values))
               for name, values in zip(fields, given.values(), strict=True)}
    if kinds is not None:
        _check_names(columns, kinds)
        columns = {name: (kind, columns[name][1] if kind == columns[name][0] else
                          _converted(name, *columns[name], kind))
                   for name, kind in kinds.items()}
    for name, (kind, values) in columns.items():
        if len(values) != count:
            raise ValueError(f'The metadata column {name!r} has {len(values)} values for {count} '
                             'embeddings: give one each.')
        _check_values(name, kind, values)
    return columns


def _check_names(columns: Columns, kinds: Mapping[str, str]) -> None:
    for name in columns:
        if name not in kinds:
            raise ValueError(
                unknown_name('metadata column', name, kinds) if kinds else
                f'The collection has no metadata columns, got {name!r}: build another one, with '
                f'metadata=dict({name}="{columns[name][0]}").')
    missing = [name for name in kinds if name not in columns]
    if missing:
        raise ValueError(f'The metadata column {missing[0]!r} is missing: every row of this '
                         f'collection has {", ".join(kinds)}. Give metadata={{"{missing[0]}": …}}.')


def _values(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, (Tensor, np.ndarray)) else list(values)


def _kind(name: str, values: Any) -> str:
    if isinstance(values, Tensor):
        values = values.numpy()
    if isinstance(values, np.ndarray) and values.dtype.kind in 'iufb':
        return {'i': 'int', 'u': 'int', 'f': 'float', 'b': 'bool'}[values.dtype.kind]
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f'The metadata column {name!r} must be a sequence of values, got '
                        f'{values!r}.')
    found = {_kind_of(value) for value in values}
    if found <= {'int', 'float'} and 'float' in found:
        return 'float'
    if len(found) > 1 or None in found:
        odd = next(value for value in values if _kind_of(value) != _kind_of(next(iter(values))) or
                   _kind_of(value) is None)
        raise TypeError(f'The metadata column {name!r} must hold values of one kind (whole '
                        f'numbers, numbers, truth values or strings), got {odd!r} among them.')
    return str(found.pop()) if found else 'str'


def _kind_of(value: Any) -> str | None:
    if isinstance(value, (bool, np.bool_)):
        return 'bool'
    if isinstance(value, (int, np.integer)):
        return 'int'
    if isinstance(value, (float, np.floating)):
        return 'float'
    return 'str' if isinstance(value, str) else None


def _converted(name: str, kind: str, values: list[Any], wanted: str) -> list[Any]:
    if values and (kind, wanted) != ('int', 'float'):
        raise ValueError(f'The metadata column {name!r} holds {wanted}, got {kind} '
                         f'({values[0]!r}): convert it.')
    return values


def _check_values(name: str, kind: str, values: list[Any]) -> None:
    for row, value in enumerate(values):
        value = values[row] = _PYTHON[kind](value)
        if kind == 'int' and not -2 ** 63 <= value < 2 ** 63:
            raise ValueError(f'The metadata column {name!r} holds {value}, which does not fit 64 '
                             'bits: keep it as a string.')
        if kind == 'float' and not math.isfinite(value):
            raise ValueError(f'The metadata column {name!r} holds {value} in row {row}: Milvus '
                             'takes finite numbers only.')
        if kind == 'str':
            size = len(value.encode('utf-8', 'surrogateescape'))
            if size > MOST_BYTES:
                raise ValueError(f'The metadata column {name!r} holds a string of {size:,} bytes '
                                 f'in row {row}, and Milvus takes {MOST_BYTES:,}: shorten it.')
            if not value.isascii():
                _check_text(name, row, value)


def _check_text(name: str, row: int, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f'The metadata column {name!r} holds {value!r} in row {row}, which is no '
                         'valid text: Milvus takes UTF-8 only.') from error


@dataclass(frozen=True)
class Layout:
    """The fields and settings of a collection.

    Args:
        width: the number of columns of the vectors.
        metric: Milvus's name of the similarity.
        columns: the kind (``int``, ``float``, ``bool``, ``str``) of every metadata column.
        id_length: the most bytes of an id.
        index_type: Milvus's index over the vectors.
        index_params: its parameters.
        dtype: of the vectors.
        partition_key: the column by whose values Milvus keeps rows apart, or None.
        fingerprint: of the model that made the vectors, as far as it is known.
    """

    width: int
    metric: str
    columns: Mapping[str, str] = field(default_factory=dict)
    id_length: int = 1024
    index_type: str = 'FLAT'
    index_params: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = 'float32'
    partition_key: str | None = None
    fingerprint: Fingerprint = Fingerprint()


def checked_name(name: Any) -> str:
    """``name`` as that of a collection. Raises ValueError where Milvus could not take it."""
    if not isinstance(name, str) or not re.fullmatch(r'[A-Za-z_]\w{0,199}', name, re.ASCII):
        raise ValueError(f'collection={name!r} is no name that Milvus takes: write letters, digits '
                         'and underscores (at most 200), not beginning with a digit.')
    return name


def checked_index_params(given: Mapping[str, Any] | None,
                         embedded: bool) -> tuple[str, dict[str, Any]]:
    """The type and the parameters of Milvus's index.

    Raises:
        ValueError: it names the metric, which the similarity decides, or unknown keys; or a type
            that the embedded Milvus lacks (a server says so itself).
    """
    params = dict(given or {})
    if 'metric_type' in params:
        raise ValueError('index_params names a metric_type, which `similarity` decides: leave it '
                         'out.')
    kind, inner = params.pop('index_type', 'FLAT'), params.pop('params', {})
    if params:
        raise ValueError(unknown_name('key of index_params', next(iter(params)),
                                      ('index_type', 'params')))
    if embedded and kind not in EMBEDDED_INDEXES:  # it would take any name, and build nothing
        raise ValueError(unknown_name('index_type of the embedded Milvus', kind, EMBEDDED_INDEXES))
    return str(kind), dict(inner)


def check_width(width: int) -> None:
    """Raises ValueError where Milvus has no vectors so wide."""
    if width not in WIDTHS:
        raise ValueError(f'embeddings have {width} columns, and Milvus takes {WIDTHS[0]} to '
                         f'{WIDTHS[-1]:,}: reduce them, or use ExactIndex.')


def check_ids(names: list[str], id_length: int) -> None:
    """Raises ValueError for an id that is too long, or is no text that can be sent."""
    for name in names:
        try:
            size = len(name.encode())
        except UnicodeEncodeError as error:
            raise ValueError(f'The id {name!r} is no valid text: Milvus takes UTF-8 only. Rename '
                             'the file.') from error
        if size > id_length:
            raise ValueError(
                f'The id {name[:40]!r}… has {size:,} bytes, and this collection takes {id_length:,}'
                f': shorten it, or build the index with id_length={size} (at most '
                f'{MOST_BYTES:,}).')


def check_server(key: str | None, connection: Connection) -> None:
    """Raises ValueError where the server keeps replaced rows under another partition key."""
    version = connection.server_version
    if key is not None and version is not None and version < _KEYS_SINCE:
        raise ValueError(f'Milvus at {connection.uri} is {connection.version}, which keeps rows '
                         'that are replaced under another partition key than their own: leave '
                         f'partition_key out, or use a server from {_KEYS_SINCE[0]}.'
                         f'{_KEYS_SINCE[1]} on.')


def check_partition_key(key: str | None, kinds: Mapping[str, str]) -> None:
    """Raises ValueError where no column of whole numbers or strings has that name."""
    if key is None or kinds.get(key) in ('int', 'str'):
        return
    if key in kinds:
        raise ValueError(f'partition_key={key!r} is a metadata column of {kinds[key]}, and Milvus '
                         'keeps rows apart by whole numbers or strings: name another column.')
    raise ValueError(unknown_name('metadata column (partition_key)', key, kinds) if kinds else
                     f'partition_key={key!r} is a metadata column, and there is none: give '
                     f'metadata={{"{key}": …}} with the rows.')


def create(connection: Connection, name: str, kind: str, layout: Layout,
           digest: str = '') -> str:
    """Make and load an empty collection for the index ``name``; it is its own name.

    Args:
        digest: of the rows that it is to hold, where that is known.
    """
    index = load_pymilvus().milvus_client.IndexParams()
    index.add_index(EMBEDDING, index_name=EMBEDDING, index_type=layout.index_type,
                    metric_type=layout.metric, params=dict(layout.index_params))
    own = f'{name}_{kind}_{uuid4().hex[:16]}'  # new, so whoever answers "it exists" made it for us
    try:
        _unless(lambda: connection.call('has_collection', own), connection, 'create_collection',
                own, schema=_schema(layout), consistency_level='Strong',
                properties={_FINGERPRINT: json.dumps(layout.fingerprint.as_dict())} | (
                    {_DIGEST: digest} if digest else {}))
        _unless(lambda: connection.call('list_indexes', own), connection, 'create_index', own,
                index, sync=False)  # it is empty
        connection.call('load_collection', own)
    except ValueError:  # the server is there, and does not want such a collection
        connection.call('drop_collection', own)
        raise
    return own


def _unless(done: Callable[[], Any], connection: Connection, method: str, *args: Any,
            **kwargs: Any) -> None:
    """Call what must not be done twice: where a repeated call fails since the first was carried
    out and only its answer lost, ``done()`` is true.
    """
    try:
        connection.call(method, *args, **kwargs)
    except MilvusUnavailable:
        raise
    except (ValueError, MilvusError):
        if not done():
            raise


def _schema(layout: Layout) -> Any:
    pymilvus = load_pymilvus()
    DataType, FieldSchema = pymilvus.DataType, pymilvus.FieldSchema
    fields = [FieldSchema(ID, DataType.VARCHAR, is_primary=True, max_length=layout.id_length),
              FieldSchema(ROW, DataType.INT64),
              FieldSchema(EMBEDDING, getattr(DataType, FIELDS[layout.dtype]), dim=layout.width)]
    for name, kind in layout.columns.items():
        length = {'max_length': MOST_BYTES} if kind == 'str' else {}
        fields.append(FieldSchema(name, getattr(DataType, KINDS[kind]),
                                  is_partition_key=name == layout.partition_key, **length))
    return pymilvus.CollectionSchema(fields, auto_id=False, enable_dynamic_field=False)


def find(connection: Connection, name: str) -> str | None:
    """The collection that an index is the alias of, or None.

    Raises:
        ValueError: a collection itself, which no index made, has that name.
    """
    if not connection.call('has_collection', name):
        return None
    try:
        return connection.call('describe_alias', name)['collection_name']
    except MilvusUnavailable:
        raise
    except (ValueError, MilvusError) as error:
        raise ValueError(f'Milvus at {connection.uri} has a collection {name!r} that no '
                         'MilvusIndex made: give another name as `collection`.') from error


def read_layout(connection: Connection, own: str) -> Layout:
    """The layout of a collection that is there.

    Raises:
        ValueError: it is no collection of a MilvusIndex.
    """
    kinds = {milvus: kind for kind, milvus in KINDS.items()}
    described = connection.call('describe_collection', own)
    fields = {one['name']: one for one in described['fields']}
    types = {name: getattr(one['type'], 'name', '') for name, one in fields.items()}
    vectors = types.get(EMBEDDING, '')
    needed = {ID: 'VARCHAR', ROW: 'INT64',
              EMBEDDING: vectors if vectors in DTYPES else 'FLOAT_VECTOR'}
    columns = {name: kinds.get(kind) for name, kind in types.items() if name not in needed}
    if any(types.get(name) != kind for name, kind in needed.items()) or None in columns.values():
        raise ValueError(f'The Milvus collection {own!r} has the fields {types}, and a MilvusIndex '
                         f'has {needed} and metadata: give another name as `collection`.')
    index = connection.call('describe_index', own, EMBEDDING)
    if not index:
        raise ValueError(f'The Milvus collection {own!r} has no index over its vectors: it was '
                         'not made by a MilvusIndex, or not to the end. Give another name.')
    return Layout(int(fields[EMBEDDING]['params']['dim']), str(index['metric_type']),
                  {name: str(kind) for name, kind in columns.items()},
                  int(fields[ID]['params']['max_length']), str(index['index_type']),
                  dtype=DTYPES[vectors], partition_key=next(
                      (name for name, one in fields.items() if one.get('is_partition_key')), None),
                  fingerprint=_fingerprint(own, described.get('properties', {})))


def _fingerprint(own: str, properties: Mapping[str, str]) -> Fingerprint:
    try:
        return Fingerprint.from_dict(json.loads(properties.get(_FINGERPRINT, '{}')))
    except (ValueError, AttributeError) as error:
        raise ValueError(f'The property {_FINGERPRINT!r} of the Milvus collection {own!r} is no '
                         'fingerprint of a model: fill it again.') from error


def claim(connection: Connection, name: str, layout: Layout) -> str:
    """Make an empty collection and give it a name that was free.

    Raises:
        MilvusError: another process has taken the name meanwhile.
    """
    own = create(connection, name, 'rows', layout)
    try:
        _unless(lambda: find(connection, name) == own, connection, 'create_alias', own, name)
    except (ValueError, MilvusError) as error:
        if not isinstance(error, MilvusUnavailable) and find(connection, name) is not None:
            connection.call('drop_collection', own)
            raise MilvusError(f'Another process has made the collection {name!r} meanwhile: call '
                              '`refresh` and add again.') from error
        raise
    return own


def point(connection: Connection, name: str, own: str) -> None:
    """Make the index ``name`` the alias of a collection, in one step."""
    if connection.call('has_collection', name):
        connection.call('alter_alias', own, name)
    else:
        _unless(lambda: find(connection, name) == own, connection, 'create_alias', own, name)


def seal(connection: Connection, name: str, own: str, digest: str) -> None:
    """Note that the collection holds exactly the rows of ``digest``."""
    note = f'{name}_is_{digest}'
    if connection.call('has_collection', note):
        connection.call('alter_alias', own, note)
    else:
        _unless(lambda: is_sealed(connection, name, own, digest), connection, 'create_alias', own,
                note)


def is_sealed(connection: Connection, name: str, own: str, digest: str) -> bool:
    """True where the collection holds exactly the rows of ``digest``."""
    return f'{name}_is_{digest}' in connection.call('list_aliases', own)['aliases']


def unseal(connection: Connection, name: str, own: str) -> None:
    """Take the note away before the rows change.

    Raises:
        MilvusError: another process has led the name to another collection.
    """
    aliases = connection.call('list_aliases', own)['aliases']
    if name not in aliases:
        raise MilvusError(f'Another process has led the name {name!r} at {connection.uri} to other '
                          'rows than those that are open here: call `refresh` and look at them '
                          'before you change them.')
    _drop_notes(connection, [alias for alias in aliases if alias.startswith(f'{name}_is_')])


def _drop_notes(connection: Connection, aliases: Iterable[str]) -> None:
    for alias in aliases:
        _unless(partial(_is_free, connection, alias), connection, 'drop_alias', alias)


def _is_free(connection: Connection, name: str) -> bool:
    return not connection.call('has_collection', name)


def is_gallery(name: str, own: str) -> bool:
    """True where the collection was written by ``replace``, not filled by ``add``."""
    return own.startswith(f'{name}_gallery_')


def digest(layout: Layout, vectors: np.ndarray, names: list[str], columns: Columns) -> str:
    """32 hexadecimal digits of the rows and of what the collection is made of."""
    parts = hashlib.blake2b(digest_size=16)
    parts.update(repr((layout.width, layout.metric, layout.index_type, layout.id_length,
                       sorted(layout.index_params.items()), layout.dtype, layout.partition_key,
                       layout.fingerprint, names, columns)).encode())
    parts.update(np.ascontiguousarray(vectors).data)
    return parts.hexdigest()


def drop(connection: Connection, name: str, own: str) -> None:
    """Drop a collection and the notes on it; its index must have been pointed elsewhere."""
    _drop_notes(connection, [alias for alias in connection.call('list_aliases', own)['aliases']
                             if alias.startswith((f'{name}_is_', _keeping(name, own)))])
    connection.call('drop_collection', own)


def keep(connection: Connection, name: str, own: str) -> None:
    """Note that the collection stays when the name is led to another one."""
    note = _keeping(name, own)
    if not connection.call('has_collection', note):
        _unless(lambda: find(connection, note) == own, connection, 'create_alias', own, note)


def _keeping(name: str, own: str) -> str:
    return f'{name}_keeps_{own[-16:]}'


def kept(connection: Connection, name: str) -> list[str]:
    """The collections that the name led to before and can be led back to; mostly one at the most.
    """
    return [own for own in _others(connection, name, 'rows|gallery|copy')
            if not _is_free(connection, _keeping(name, own))]


def unfinished(connection: Connection, name: str, kind: str, digest: str) -> str | None:
    """A collection that ``replace`` began to fill with the rows of ``digest``, and did not."""
    for own in abandoned(connection, name):
        described = connection.call('describe_collection', own)
        if own.startswith(f'{name}_{kind}_') and (
                described.get('properties', {}).get(_DIGEST) == digest) and (
                connection.call('describe_index', own, EMBEDDING)):
            connection.call('load_collection', own)
            return own
    return None


def abandoned(connection: Connection, name: str) -> list[str]:
    """Collections that ``replace`` began and never led the name to, since it was killed; or that
    it was killed before it dropped them.
    """
    return [own for own in _others(connection, name, 'gallery|copy')
            if _is_free(connection, _keeping(name, own))]


def _others(connection: Connection, name: str, kinds: str) -> Iterator[str]:
    """The collections of an index but for the one that its name leads to."""
    current = find(connection, name)
    pattern = re.compile(rf'{re.escape(name)}_({kinds})_[0-9a-f]{{16}}')
    return (own for own in connection.call('list_collections')
            if pattern.fullmatch(own) and own != current)

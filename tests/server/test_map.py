"""The map: neighbours stay together, colours are those of the rows, and Parquet holds the same."""
import base64
import io

import numpy as np
import pytest

from retrieval.gallery import Gallery
from retrieval.server.service import Source

from ..visualization.test_embedding_map import nearest_is_of_its_kind, three_heaps
from .conftest import ask


def decoded(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture
def service(services, tmp_path):
    vectors, kinds = three_heaps()
    return services(Source('g', tmp_path / 'state'), Gallery(
        vectors, [f'/data/{"abc"[kind]}/{row}.png' for row, kind in enumerate(kinds)],
        labels=['xyz'[kind] for kind in kinds]))


def test_map(service):
    client, (_, kinds) = ask(service), three_heaps()
    while (answer := client.get('/v1/map?wait=false')).status_code == 202:
        assert answer.json()['running'] and answer.json()['step']
    found = answer.json()
    points = decoded(found['points'], '<f4').reshape(-1, 2)
    assert points.shape == (60, 2) and np.isfinite(points).all() and abs(points).max() == 1
    assert nearest_is_of_its_kind(points, kinds) == 1
    colours = {one['name']: (one['values'], decoded(one['codes'], '<i4'))
               for one in found['colours']}
    assert list(colours) == ['label', 'folder', 'cluster']
    values, codes = colours['label']
    assert [values[code] for code in codes[:4]] == ['x', 'y', 'z', 'x'] and len(codes) == 60
    clusters = colours['cluster'][1]
    for cluster in set(clusters.tolist()):  # none spans two heaps
        assert len(set(kinds[clusters == cluster])) == 1
    assert client.get('/v1/map').json() == found  # made once


def test_parquet_is_the_map(service):
    parquet = pytest.importorskip('pyarrow.parquet', reason='wants pyarrow')
    client = ask(service)
    answer = client.get('/v1/map?format=parquet')
    assert answer.headers['content-disposition'].endswith('"map.parquet"')
    table = parquet.read_table(io.BytesIO(answer.content)).to_pydict()
    points = decoded(client.get('/v1/map').json()['points'], '<f4').reshape(-1, 2)
    assert {'id', 'name', 'x', 'y', 'label', 'cluster'} <= set(table)
    assert table['id'][:2] == ['a/0.png', 'b/1.png'] and table['name'][1] == '1.png'
    assert table['label'][:3] == ['x', 'y', 'z']
    np.testing.assert_array_equal(np.c_[table['x'], table['y']], points)

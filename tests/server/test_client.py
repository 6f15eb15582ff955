"""The client, over the app itself."""
import io

import pytest
from PIL import Image

from retrieval.server import Client, ServerError

from .conftest import COLOURS, URL, ask, jpeg, picture


def test_a_program_searches_and_adds(folder_service, folder, tmp_path):
    client = Client(URL, http=ask(folder_service))
    assert client.info()['images'] == 12
    query = tmp_path / 'query.jpg'
    query.write_bytes(jpeg(picture(COLOURS['green'], 1)))
    found = client.search(query, k=2, stack=False)['results']
    assert [hit['folder'] for hit in found] == ['green', 'green']
    row = found[0]['row']
    assert client.search(row, dict(row=row, box=[0, 0, 1, .5], weight=.5), k=1)['results']
    assert len(client.embed(query)) == len(client.embed(row)) == 12
    assert Image.open(io.BytesIO(client.image(row))).size == (60, 40)
    assert client.item(row)['id'] == found[0]['id'] and client.thumbnail(row)[:2] == b'\xff\xd8'
    assert client.add(pictures=[query]) == ['query.jpg'] and client.info()['images'] == 13
    assert client.mark(row, client.search()['results'][0]['row'], False)['wrong'] == 1
    assert client.duplicates(0.9)
    with pytest.raises(ServerError, match='There is no row 4711') as caught:
        client.search(4711)
    assert caught.value.status == 404


def test_rows_of_a_store(store_service):
    client = Client(URL, http=ask(store_service, token='secret'), token='secret')
    item = dict(id='new', vector=[1.0] * 12, label='x', metadata=dict(year=1))
    assert client.add([item]) == ['new']
    client.remove(['new'])
    assert client.info()['images'] == 5
    with pytest.raises(ServerError, match='401'):
        Client(URL, http=ask(store_service, token='secret')).info()

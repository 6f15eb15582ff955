"""Both models of a reload, searched as one while the new one encodes."""
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from retrieval.datasets import ImageList
from retrieval.gallery import Gallery, GalleryStore
from retrieval.retrievers import ImageToImageRetriever
from retrieval.retrievers.model_change import ModelChange
from retrieval.server.follow import follow_folder, follow_store
from retrieval.server.reload import Reload
from retrieval.server.served import Served
from retrieval.server.service import Source

from .conftest import COLOURS, PIPELINE, ask, jpeg, picture, write_pictures
from .test_reload import Brightness, first, loaded


class Gated(Brightness):
    """Encodes one batch, keeps what it saw, and waits before the second until it is let through.

    ``fails``: the second batch cannot be encoded.
    """

    def __init__(self, fails=False):
        super().__init__()
        self._seen, self.gate, self._fails = [], threading.Event(), fails  # no settings

    def forward(self, inputs):
        if threading.current_thread().name == 'reload':
            if len(self._seen) >= 16:
                assert self.gate.wait(30)
                if self._fails:
                    raise RuntimeError('no more memory')
            self._seen += inputs.mean((1, 2, 3)).tolist()
        return super().forward(inputs)


@pytest.fixture
def large(services, tmp_path, monkeypatch):
    """A service of 24 pictures; one part is kept for each batch of 16."""
    from retrieval.retrievers import encoded_file
    monkeypatch.setattr(encoded_file, '_LOST_SECONDS', (0, 0))
    write_pictures(tmp_path / 'pictures', 8)
    service = services(Source('pictures', tmp_path / 'state', str(tmp_path / 'pictures')),
                       cache=tmp_path / 'cache.safetensors')
    follow_folder(service).refresh()
    return service


def served_anew(encoder, cache, pipeline=PIPELINE, **options):
    return Served(ImageToImageRetriever(encoder, topk=10).eval(), pipeline, cache=cache, **options)


@pytest.fixture
def gated(large, tmp_path):
    """A reload that has begun, and has encoded 16 pictures."""
    with begun(large, Gated(), tmp_path / 'new.safetensors') as reload:
        yield reload


@contextmanager
def begun(service, encoder, cache, **options):
    reload = Reload(service, lambda: served_anew(encoder, cache, **options))
    reload.encoder = encoder
    reload.begin()
    wait_until(lambda: reload.state()['agreement'] is not None)
    try:
        yield reload
    finally:
        encoder.gate.set()
        reload._thread.join(30)
        reload.close()


def wait_until(holds, timeout=20):
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def use(client, which, status=200):
    answer = client.post('/v1/model', json=dict(use=which))
    assert answer.status_code == status, answer.json()
    return answer.json()


def ranking(client, k=100, **query):
    found = client.post('/v1/search', json=dict(queries=[query], k=k, stack=False)).json()
    return {hit['id']: hit['score'] for hit in found['results']}


def by_hand(change, ids, asked):
    """The scores of a row's picture against the others, by the change of models."""
    row = int(change.gallery.ids.find([asked])[0])
    scores = change.gallery.embeddings @ change.queries([row])[0]
    return {name.rpartition('pictures/')[2]: float(score) for name, score in
            zip(ids, scores, strict=True) if name != asked}


def test_what_is_shown_most_is_encoded_first(large, tmp_path):
    ids = list(large.current().ids)
    large.returned.update({ids[20]: 5, ids[3]: 2, ids[23]: 9})
    with begun(large, Gated(), tmp_path / 'new.safetensors') as reload:
        wanted = [ids[row] for row in [23, 20, 3, *(row for row in range(24)
                                                    if row not in (23, 20, 3))]]
        items = [ImageList([name], pipeline=PIPELINE)[0]['inputs'] for name in wanted]
        assert reload.encoder._seen == pytest.approx([float(item.float().mean())
                                                     for item in items[:16]])
        reload.encoder.gate.set()
        reload._thread.join(30)
        assert list(reload._pair.new.gallery.ids) == ids


def test_both_models_are_searched_while_the_new_one_encodes(large, gated, tmp_path):
    client, ids = ask(large, reload=gated), list(large.current().ids)
    state, row = client.get('/v1/model/reload').json(), first(client, id='red/1.png')['row']
    assert (state['state'], state['use'], state['done']) == ('running', 'old', 16)
    assert state['share'] == pytest.approx(16 / 24) and 0 <= state['agreement'] <= 1
    assert state['comparison']['rows'] == [16, 16]
    use(client, 'new', 409)
    old = large.served
    assert use(client, 'both')['use'] == 'both'

    new = gated._pair.both._encoded
    assert list(new.ids) == ids[:16]
    change = ModelChange(old.gallery, new)
    for asked in (ids[2], ids[20]):  # one that is encoded anew, and one that is mapped
        expected = by_hand(change, ids, asked)
        assert ranking(client, id=asked.rpartition('pictures/')[2]) == pytest.approx(
            expected, abs=1e-5)
    # rows that both have: the mean of the cosines of both models, times the same for all
    length = (1 + float(change.map.unseen(old.gallery.embeddings[2:3]).square().sum()) / 2) ** 0.5
    cosine = [nn.functional.normalize(one) for one in (old.gallery.embeddings, new.embeddings)]
    found = ranking(client, id='blue/2.png')
    assert found['blue/0.png'] == pytest.approx(sum(
        float(one[2] @ one[0]) for one in cosine) / 2 / length, abs=1e-5)
    # a picture is encoded by both, as its row is, with what the map does not know beside it
    sent = client.post('/v1/uploads', content=Path(ids[2]).read_bytes()).json()['upload']
    vector = client.post('/v1/embed', json=dict(upload=sent)).json()
    assert torch.tensor(vector['embedding']).numpy() == pytest.approx(change.join(
        new.embeddings[2:3], old.gallery.embeddings[2:3])[0].numpy(), abs=1e-5)
    info = client.get('/v1/info').json()
    assert info['fingerprint'] == vector['fingerprint'] != old.fingerprint
    assert (info['images'], info['model']) == (24, 'Sequential and Gated')
    assert first(client, id='red/1.png')['row'] == row

    # what else is asked meanwhile
    assert client.post('/v1/search', json=dict(queries=[dict(vector=[1.] * 12)])).json()[
        'detail'] == 'A vector has 26 finite numbers here, got 12.'
    assert client.post('/v1/search', json=dict(queries=[dict(text='red')])).status_code == 422
    assert client.post('/v1/model/reload').json()['state'] == 'running'
    assert client.post('/v1/duplicates', json={}).status_code == 200
    mark = dict(query=dict(id='red/1.png'), row=row, right=True)
    assert client.post('/v1/feedback', json=mark).json()['right'] == 1
    for refused in (client.post('/v1/training'), client.post('/v1/model', json=dict(
            use='original'))):
        assert refused.status_code == 409 and 'Both models' in refused.json()['detail']

    # pictures that come and go; the new one is not asked
    Path(ids[0]).unlink()
    client.post('/v1/items', files=[('picture', ('late.jpg', jpeg(picture(COLOURS['red'], 1))))])
    found = ranking(client, id='late.jpg')
    assert len(found) == 23 and 'blue/0.png' not in found and max(found, key=found.get) in (
        'red/0.png', 'red/1.png', 'red/2.png')
    late = f'{large.source.folder}/late.jpg'
    mapped = ModelChange(old.gallery, new, learned=change.map)
    assert found == pytest.approx(by_hand(mapped, old.gallery.ids, late), abs=1e-5)
    assert len(gated.encoder._seen) == 16 and client.get('/v1/model/reload').json()['use'] == 'both'

    assert use(client, 'old')['use'] == 'old' and large.served is old
    use(client, 'both')
    gated.encoder.gate.set()
    gated._thread.join(30)
    state = client.get('/v1/model/reload').json()
    assert (state['state'], state['use']) == ('ready', 'both')
    assert state['share'] == pytest.approx(23 / 24)  # late.jpg is mapped until the switch
    mapped = ModelChange(old.gallery, gated._pair.new.gallery)
    assert ranking(client, id='late.jpg') == pytest.approx(
        by_hand(mapped, old.gallery.ids, late), abs=1e-5)
    assert client.post('/v1/model/reload').status_code == 409
    assert use(client, 'new')['use'] == 'new' and 'late.jpg' in ranking(client, id='red/1.png')
    assert len(client.post('/v1/embed', json=dict(id='late.jpg')).json()['embedding']) == 2
    picture(COLOURS['green'], 9).save(Path(ids[2]).with_name('later.png'))
    assert use(client, 'both')['share'] == pytest.approx(24 / 25)
    assert 'blue/later.png' in ranking(client, id='red/1.png')
    assert use(client, 'old')['use'] == 'old' and client.get('/v1/info').json()['images'] == 25


def test_the_old_model_answers_where_too_few_pictures_are_left(large, gated):
    client = ask(large, reload=gated)
    use(client, 'both')
    for path in list(Path(large.source.folder, 'blue').iterdir()):
        path.unlink()
    large.refresh()
    state = client.get('/v1/model/reload').json()
    assert (state['use'], state['share'], state['agreement']) == ('old', 0.5, None)
    assert large.served is gated._pair.old and len(ranking(client, id='red/1.png')) == 15


def test_every_answer_is_of_one_state(large, gated):
    client = ask(large, reload=gated)
    gated.encoder.gate.set()
    gated._thread.join(30)
    wholes = []
    for which in ('old', 'new', 'both'):
        use(client, which)
        wholes.append(ranking(client, id='green/3.png'))
    assert len({tuple(one.values()) for one in wholes}) == 3
    found, stop = [], threading.Event()

    def searching():
        while not stop.is_set():
            found.append(ranking(client, id='green/3.png'))
    threads = [threading.Thread(target=searching) for _ in range(3)]
    for thread in threads:
        thread.start()
    for which in ('new', 'both', 'old', 'both', 'new', 'old', 'both') * 2:
        use(client, which)
        reached = len(found)
        wait_until(lambda reached=reached: len(found) > reached + 3)
    stop.set()
    for thread in threads:
        thread.join()
    seen = [min(range(3), key=lambda state: sum(abs(wholes[state][name] - score)
            for name, score in one.items())) for one in found]
    assert set(seen) == {0, 1, 2}
    for state, one in zip(seen, found, strict=True):
        assert one == pytest.approx(wholes[state], abs=2e-6)


def test_each_model_sees_a_picture_as_it_is_used_to(large, tmp_path):
    pipeline = [PIPELINE[0], dict(type='Resize', scale=(8, 8)), PIPELINE[2]]
    with begun(large, Gated(), tmp_path / 'new.safetensors', pipeline=pipeline) as reload:
        client, old = ask(large, reload=reload), large.served
        use(client, 'both')
        pair, ids = reload._pair, list(large.current().ids)
        sent = client.post('/v1/uploads', content=Path(ids[2]).read_bytes()).json()['upload']
        vector = client.post('/v1/embed', json=dict(upload=sent)).json()['embedding']
        encoded = pair.both._encoded
        assert ids[2] in encoded.ids
        change = ModelChange(old.gallery, encoded)
        assert torch.tensor(vector).numpy() == pytest.approx(change.join(
            encoded.embeddings[2:3], old.gallery.embeddings[2:3])[0].numpy(), abs=1e-5)
        assert ranking(client, id='red/1.png') == pytest.approx(
            by_hand(change, ids, next(one for one in ids if 'red/1.png' in one)), abs=1e-5)


def test_the_line_without_labels_is_that_of_the_rows_of_both(large, tmp_path, monkeypatch):
    from retrieval.server import served
    lines = []
    monkeypatch.setattr(served, 'calibrate_without_labels', lambda rows, *_, **__: lines.append(
        tuple(rows.shape)))
    with begun(large, Gated(), tmp_path / 'new.safetensors', cut=('expected', None)) as reload:
        use(ask(large, reload=reload), 'both')
    assert lines[0] == (24, 26)


def test_a_failure_while_both_are_searched_leaves_the_old_model(large, tmp_path):
    with begun(large, Gated(fails=True), tmp_path / 'new.safetensors') as reload:
        client, old = ask(large, reload=reload), large.served
        before = ranking(client, id='red/1.png')
        use(client, 'both')
        reload.encoder.gate.set()
        reload._thread.join(30)
        state = client.get('/v1/model/reload').json()
        assert (state['state'], state['use'], state['error']) == ('failed', 'old', 'no more memory')
        assert large.served is old and ranking(client, id='red/1.png') == before
        use(client, 'both', 409)
        reload.encoder._fails, reload.encoder._seen = False, []
        assert loaded(client, reload)['state'] == 'ready' and len(reload.encoder._seen) == 8


def test_a_stop_in_the_middle_loses_nothing(large, services, tmp_path):
    with begun(large, Gated(), tmp_path / 'new.safetensors') as reload:
        use(ask(large, reload=reload), 'both')
        large.stop.set()
        reload.encoder.gate.set()
        reload._thread.join(30)
    service = services(large.source, cache=tmp_path / 'cache.safetensors')
    follow_folder(service).refresh()
    again = Gated()
    reload = Reload(service, lambda: served_anew(again, tmp_path / 'new.safetensors'))
    assert loaded(ask(service, reload=reload), reload)['share'] == 1 and not again._seen
    reload.close()


def test_ten_pictures_are_needed(services, tmp_path):
    write_pictures(tmp_path / 'pictures', 3)
    service = services(Source('pictures', tmp_path / 'state', str(tmp_path / 'pictures')),
                       cache=tmp_path / 'cache.safetensors')
    follow_folder(service).refresh()
    reload = Reload(service, lambda: served_anew(Brightness(), tmp_path / 'new.safetensors'))
    client = ask(service, reload=reload)
    use(client, 'both', 409)
    state = loaded(client, reload)
    assert state['share'] == 1 and state['agreement'] is None
    refused = client.post('/v1/model', json=dict(use='both'))
    assert refused.status_code == 409 and '9 pictures' in refused.json()['detail']
    reload.close()


def test_both_stores_as_they_are(services, tmp_path):
    torch.manual_seed(0)
    rows, ids = torch.randn(30, 12), [f'{number:02}' for number in range(30)]
    stores = [GalleryStore.create(tmp_path / 'old.gallery', Gallery(rows, ids)),
              GalleryStore.create(tmp_path / 'new.gallery', Gallery(rows[:20, :7], ids[:20]))]
    service = services(Source('s', tmp_path / 'state'), stores[0].load(copy=True), store=stores[0])
    follow_store(service)
    reload = Reload(service, lambda: Served(ImageToImageRetriever(
        nn.Flatten(), stores[1].load(copy=True), topk=10).eval(), [], store=stores[1]))
    client = ask(service, reload=reload)
    assert loaded(client, reload)['share'] == pytest.approx(2 / 3)
    use(client, 'both')
    expected = by_hand(ModelChange(stores[0].load(), stores[1].load()), ids, '25')
    assert ranking(client, id='25') == pytest.approx(expected, abs=1e-5)
    item = dict(id='g', vector=[1.] * 7)
    for refused in (client.post('/v1/items', json=dict(items=[item])),
                    client.request('DELETE', '/v1/items', json=dict(ids=['03']))):
        assert refused.status_code == 409 and 'Two stores' in refused.json()['detail']
    stores[1].append(Gallery(rows[20:, :7], ids[20:]))  # another process goes on
    stores[0].remove(['00'])
    service.refresh()
    change = ModelChange(stores[0].load(), stores[1].load())
    assert ranking(client, id='25') == pytest.approx(by_hand(change, ids[1:], '25'), abs=1e-5)
    state = client.get('/v1/model/reload').json()
    assert state['share'] == 1 and state['agreement'] == pytest.approx(change.map.agreement)
    use(client, 'old')
    assert client.get('/v1/info').json()['images'] == 29
    reload.close()

"""What changes in a folder or store is served soon after."""
import torch

from retrieval.gallery import Gallery
from retrieval.server.follow import follow_folder
from retrieval.server.service import Source

from .conftest import COLOURS, ask, picture


def listed(service):
    return [hit['id'] for hit in service.search(k=100)['results']]


def test_added_changed_and_removed_files(folder_service, folder):
    before = folder_service.generation
    folder_service.refresh()
    assert folder_service.generation == before  # nothing changed
    picture(COLOURS['blue'], 4).save(folder / 'blue' / 'new.png')
    (folder / 'green' / '0.png').unlink()
    picture(COLOURS['blue'], 0).save(folder / 'red' / '1.png')
    folder_service.refresh()
    names = listed(folder_service)
    assert 'blue/new.png' in names and 'green/0.png' not in names and len(names) == 12
    found = ask(folder_service).post('/v1/search', json=dict(
        queries=[dict(id='red/1.png')], k=1, stack=False)).json()['results'][0]
    assert found['id'] == 'blue/0.png' and found['score'] > 0.9999


def test_a_second_start_encodes_nothing(folder_service, services, folder, tmp_path, monkeypatch):
    from retrieval.retrievers import encoded_file
    service = services(Source('again', tmp_path / 'state2', str(folder)),
                       cache=tmp_path / 'cache.safetensors')
    follow_folder(service)
    monkeypatch.setattr(encoded_file, 'encode_batch', None)
    service.refresh()
    assert listed(service) == listed(folder_service)


def test_what_is_encoded_is_served_while_the_rest_is(services, folder, tmp_path, monkeypatch):
    from retrieval.retrievers import encoded_file
    monkeypatch.setattr(encoded_file, '_LOST_SECONDS', (0, 0))  # a part after each batch
    service, seen = services(Source('p', tmp_path / 'state', str(folder)),
                             cache=tmp_path / 'cache.safetensors'), []
    publish = service.publish

    def noting(gallery):
        publish(gallery)
        seen.append((len(gallery), service.encoding.running, service.encoding.total))
    service.publish = noting
    for number in range(4, 16):
        picture(COLOURS['red'], number).save(folder / 'red' / f'{number:02}.png')
    follow_folder(service).refresh()
    assert seen[0] == (16, True, 24) and seen[-1][:2] == (24, True)
    assert not service.encoding.running and service.encoding.done == 24


def test_unreadable_pictures_are_named(folder_service, folder):
    (folder / 'red' / 'broken.png').write_bytes(b'no picture')
    folder_service.refresh()
    info = folder_service.info()
    assert [one['name'] for one in info['unreadable']] == ['red/broken.png']
    assert info['images'] == 12 and str(folder) not in str(info['unreadable'])


def test_an_emptied_folder(folder_service, folder):
    for path in folder.rglob('*.png'):
        path.unlink()
    folder_service.refresh()
    assert listed(folder_service) == [] and folder_service.info()['images'] == 0
    picture(COLOURS['red'], 0).save(folder / 'one.png')
    folder_service.refresh()
    assert listed(folder_service) == ['one.png']


def test_a_store_that_another_process_changes(store_service):
    new = Gallery(torch.ones(1, 12), ['new'], ['x'], ['x', 'y'], metadata=dict(year=[2024]))
    store_service.served.store.append(new)
    store_service.refresh()
    assert 'new' in listed(store_service)

"""From the command line to answers."""
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.commands.serve import listen, open_service, other_model, parser
from retrieval.gallery import Gallery, GalleryStore
from retrieval.server import Client

from .conftest import run


@pytest.fixture
def opened():
    """Opens the services of some arguments, and ends them."""
    services = []

    def open_(*arguments):
        service, follower, _ = open_service(parser().parse_args(list(map(str, arguments))))
        services.append(service)
        if follower is not None:
            follower.refresh()
        return service
    yield open_
    for service in services:
        service.close()


def test_a_gallery_file(opened, gallery):
    service = opened(gallery)
    info = service.info()
    assert info['images'] == 20 and not info['writable'] and info['has_pictures']
    first = service.search(k=1)['results'][0]
    assert first['id'] == '/'.join(Gallery.load(gallery).ids[0].split('/')[-2:])
    assert service.pictures.thumbnail(service.name_of(first['row']), 128)[:2] == b'\xff\xd8'
    path = Gallery.load(gallery).ids[3]
    assert abs(service.search([_upload(service, path)], k=1)['results'][0]['score'] - 1) < 1e-4


def service_query(**given):
    from retrieval.server.service import Query
    return Query(**given)


def _upload(service, path):
    return service_query(upload=service.uploads.add(Path(path).read_bytes())[0])


def test_a_store_can_be_written_to(opened, gallery, tmp_path):
    GalleryStore.create(tmp_path / 'g.gallery', Gallery.load(gallery))
    assert opened(tmp_path / 'g.gallery').info()['writable']
    assert not opened(tmp_path / 'g.gallery', '--read-only').info()['writable']


def test_a_line_without_labels(opened, gallery, folder, config, checkpoint):
    for source in ([gallery], [config, checkpoint]):
        service = opened(*source, '--cut', 'auto')
        found = service.search([service_query(row=0)], k=20)
        assert service.info()['calibrated'] and found['threshold'] is not None
        matches = [hit['match'] for hit in found['results']]
        assert matches == sorted(matches, reverse=True) and matches[0]
        assert not opened(*source).info()['calibrated']
    for more, message in ((('--cut', '2'), 'auto, or a share'), (
            ('--cut', 'auto', '--calibration', 'x.json'), 'both say where to cut')):
        with pytest.raises(ValueError, match=message):
            opened(gallery, *more)


def test_a_config_with_its_checkpoint(opened, config, checkpoint):
    service = opened(config, checkpoint)
    assert service.info()['images'] == 20 and service.info()['has_pictures']


def test_a_folder_with_a_model_of_its_own(opened, folder, config, checkpoint):
    service = opened(folder, '--config', config, '--checkpoint', checkpoint)
    try:
        assert service.info()['images'] == 40 and not service.info()['encoding']['running']
        names = [hit['id'] for hit in service.search(k=2)['results']]
        assert names == ['class0/0.png', 'class0/1.png'] and 'path' not in service.item(0)
    finally:
        import shutil
        shutil.rmtree(folder / '.retrieval')


def test_better_weights_are_loaded_again(folder, config, checkpoint, tmp_path):
    """The file that the command named has been replaced; a second reload takes turns."""
    import shutil

    import torch
    shutil.copytree(folder, tmp_path / 'f', ignore=lambda *_: ['.retrieval'])
    ours, other = tmp_path / 'best.pth', tmp_path / 'other.pth'
    shutil.copyfile(checkpoint, ours)
    arguments = [tmp_path / 'f', '--config', config, '--checkpoint', ours]
    service, follower, reload = open_service(parser().parse_args(list(map(str, arguments))))
    try:
        follower.refresh()
        before = service.fingerprint
        state = torch.load(checkpoint, weights_only=True)
        weights = state.get('state_dict', state)
        for name in weights:
            if weights[name].is_floating_point():
                weights[name] = weights[name] + 0.1 * torch.randn_like(weights[name]).abs()
        torch.save(state, other)
        other.replace(ours)
        for number in range(2):
            reload.begin()
            reload._thread.join(60)
            found = reload.state()
            assert found['state'] == 'ready', found['error']
            assert found['comparison']['rows'] == (40, 40)
            assert bool(found['comparison']['differences']) == (number == 0)
            reload.use('new')
        assert service.fingerprint != before and service.info()['images'] == 40
        kept = sorted(path.name for path in (tmp_path / 'f' / '.retrieval').glob('*.safetensors'))
        assert len(kept) == 2 and kept[0].endswith('.new.safetensors')
    finally:
        service.close()
        reload.close()


def test_another_encoder_is_named_as_the_first_one(folder):
    one = parser().parse_args([str(folder), '--reload', 'efficientnet-lite1'])
    other = other_model(one, True)
    assert (other.encoder, other.config, other.checkpoint) == ('efficientnet-lite1', None, None)
    one = parser().parse_args([str(folder), '--config', 'c.py', '--reload', 'new.pth'])
    other = other_model(one, True)
    assert (other.encoder, other.config, other.checkpoint) == (None, 'c.py', 'new.pth')


def test_paths_are_shown_where_they_are_asked_for(opened, gallery):
    service = opened(gallery, '--show-paths')
    assert service.item(0)['path'] == Gallery.load(gallery).ids[0]


def test_wrong_arguments(folder, tmp_path, monkeypatch):
    monkeypatch.delenv('RETRIEVAL_TOKEN', raising=False)
    for arguments, said in (
            ([folder, '--reload', 'a', 'b', 'c'], '--reload takes'),
            ([tmp_path / 'absent'], 'There is no'), ([folder, '--host', '0.0.0.0'], '--token'),
            ([folder, '--read-token', 'x'], '--token'), ([folder, '--config', 'x.py'], 'together'),
            ([folder, '--cfg-options', 'a=1'], '--config')):
        status, _, err = run('serve', *arguments)
        assert status == 2 and said in err, err


def test_a_port_that_is_taken():
    with listen('127.0.0.1', 0, 8000) as one:
        port = one.getsockname()[1]
        one.listen()
        with pytest.raises(OSError, match='--port'):
            listen('127.0.0.1', port, 8000)
        with listen('127.0.0.1', port, port) as other:  # the default port gives way
            assert other.getsockname()[1] != port


def test_one_command_and_a_picture_finds_its_like(folder, config, checkpoint, tmp_path):
    """A process of its own, as a person starts it, until Ctrl-C."""
    (tmp_path / 'pictures').symlink_to(folder)
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, '-m', 'retrieval', 'serve', str(tmp_path / 'pictures'), '--port', '0',
         '--config', str(config), '--checkpoint', str(checkpoint), '--no-cache'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': root, 'PYTHONUNBUFFERED': '1'})
    try:
        line = process.stdout.readline()
        url = re.search(r'http://127\.0\.0\.1:\d+', line)[0]
        with Client(url) as client:
            import time
            end = time.monotonic() + 30
            while client.info()['encoding']['running'] or not client.info()['images']:
                assert time.monotonic() < end
                time.sleep(0.05)
            found = client.search(folder / 'class3' / '2.png', k=1)['results'][0]
            assert found['id'] == 'class3/2.png' and found['score'] > 0.9999
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert re.fullmatch(r'Interrupted\. The server has ended; what it was given .*kept in '
                            r'.*\n', process.stderr.read())
    finally:
        process.kill()
        process.communicate()

"""Files that are written whole or not at all, and the lock of a folder."""
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile

import faiss
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from retrieval.files import (
    folder_lock,
    kind_of_file,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)
from retrieval.gallery import GalleryStore

from .gallery.examples import example


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / 'g.safetensors'
    path.write_text('old')

    def fails(name):
        with open(name, 'w') as handle:
            handle.write('half')
        raise OSError('No space left on device')
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, fails)
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['g.safetensors']


def test_a_written_file_has_the_usual_permissions(tmp_path):
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / 'f', lambda name: open(name, 'w').close())
        assert stat.S_IMODE((tmp_path / 'f').stat().st_mode) == 0o644
    finally:
        os.umask(umask)


def test_bytes_and_texts(tmp_path):
    write_bytes(tmp_path / 'new' / 'b', b'\x00\xff')
    write_text(tmp_path / 't', 'ü\n')
    assert (tmp_path / 'new' / 'b').read_bytes() == b'\x00\xff'
    assert (tmp_path / 't').read_bytes() == b'\xc3\xbc\n'
    write_text(tmp_path / 't', '')
    assert (tmp_path / 't').read_bytes() == b'' and len(os.listdir(tmp_path)) == 2


HOLD = '''
import sys, time
from retrieval.files import (
    folder_lock,
    kind_of_file,
    write_atomically,
    write_bytes,
    write_text,
)
with folder_lock(sys.argv[1], 1):
    print('held', flush=True)
    time.sleep(60)
'''


@pytest.fixture
def holder(tmp_path):
    store = GalleryStore.create(tmp_path / 'x.gallery', example(2))
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(store.path)], text=True,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == 'held\n'
    yield store, process
    process.kill()
    process.wait()


def test_the_second_writer_gets_one_error(holder):
    store, process = holder
    store.timeout = 0.2
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=rf'process \(number {process.pid}\).*waited 0.2 s'):
        store.append(example(1, 'b'))
    assert 0.2 <= time.monotonic() - start < 10
    assert len(store.load()) == 2, 'readers need no lock'


def test_a_dead_writer_holds_nothing(holder):
    store, process = holder
    store.timeout = 30
    threading.Timer(0.3, os.kill, (process.pid, signal.SIGKILL)).start()
    store.append(example(1, 'b'))
    assert len(store) == 3


def test_threads_exclude_each_other(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(10):
            with folder_lock(tmp_path, 30):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 30 and max(most) == 1


def written_kinds(folder):
    """Files as their libraries write them, and a part of what each must be called."""
    picture, rows = Image.new('RGB', (9, 7)), np.eye(3, dtype='float32')
    for name in ('png', 'jpg', 'gif', 'bmp', 'tiff', 'webp'):
        picture.save(folder / f'p.{name}')
        yield f'p.{name}', 'a picture'
    np.save(folder / 'e.npy', rows)
    np.savez(folder / 'e.npz', labels=[0, 1], embeddings=rows)
    torch.save(torch.eye(2), folder / 'e.pth')
    torch.save(torch.eye(2), folder / 'old.pth', _use_new_zipfile_serialization=False)
    save_file({'x': rows}, folder / 'e.safetensors')
    index = faiss.IndexFlatIP(3)
    faiss.write_index(index, str(folder / 'i.faiss'))
    with zipfile.ZipFile(folder / 'a.zip', 'w') as archive:
        archive.writestr('a.txt', 'a')
    yield from (('e.npy', 'an array of NumPy'), ('e.npz', "(.npz), 'labels', 'embeddings'"),
                ('e.pth', 'torch.save'), ('old.pth', 'pickle'), ('e.safetensors', 'safetensors'),
                ('i.faiss', 'faiss'), ('a.zip', 'ZIP'))
    for name, data, part in (
            ('l.txt', b'cat\ndog\n', "a text file that begins with 'cat'"),
            ('t.csv', b'\xef\xbb\xbfpath;label\r\na;1\r\n', "'path', 'label'"),
            ('j', b'{"a": 1}', 'JSON'), ('h.pth', b'<!DOCTYPE html><html>', 'web page'),
            ('none', b'', 'empty'), ('cut.npz', b'PK\3\4abc', 'cut short'),
            ('lfs.pth', b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
            ('u.txt', 'cat\n'.encode('utf-16'), 'UTF-16'),
            ('w', b'K\xf6ln\n', 'not in UTF-8'), ('x', bytes(range(200)), 'unknown')):
        (folder / name).write_bytes(data)
        yield name, part


def test_a_file_is_known_by_how_it_begins(tmp_path):
    wrong = {name: (kind_of_file(tmp_path / name), part)
             for name, part in list(written_kinds(tmp_path))
             if part not in kind_of_file(tmp_path / name)}
    assert not wrong
    os.mkfifo(tmp_path / 'pipe')  # opening it would wait for ever
    assert [kind_of_file(tmp_path / name) for name in ('pipe', '.', 'no')] == [
        'a special file', 'a folder', 'missing']


def test_names_of_any_bytes_survive_text_and_json(tmp_path):
    name = os.fsdecode(b'caf\xe9 \xc3\xa9.png')
    write_text(tmp_path / 'a.csv', name)
    assert (tmp_path / 'a.csv').read_bytes() == b'caf\xe9 \xc3\xa9.png'
    write_json(tmp_path / 'a.json', {'name': name, 'city': 'Köln'})
    text = (tmp_path / 'a.json').read_text(encoding='utf-8')  # sound UTF-8
    assert json.loads(text) == {'name': name, 'city': 'Köln'} and 'Köln' in text

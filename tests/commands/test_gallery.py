import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.commands.gallery import main
from retrieval.gallery import Gallery, GalleryStore

from .conftest import run

TOOL = Path(__file__).parents[2] / 'tools' / 'gallery.py'


def example(count, prefix, **kwargs):
    return Gallery(torch.nn.functional.normalize(torch.randn(count, 4)), **{**dict(
        ids=[f'{prefix}{row}' for row in range(count)], labels=[row % 2 for row in range(count)],
        label_names=['cat', 'dog'], metadata=dict(camera=range(count), city=['Bern'] * count),
        similarity='euclidean', source=dict(checkpoint='x.pth', versions=dict(torch='9'))),
        **kwargs})


@pytest.fixture
def folder(tmp_path):
    example(5, 'a').save(tmp_path / 'a.safetensors')
    example(3, 'b').save(tmp_path / 'b.safetensors')
    GalleryStore.create(tmp_path / 's.gallery', example(4, 's'))
    return tmp_path


def ids(path):
    return list(Gallery.load(path).ids)


def test_info(folder):
    status, printed, err = run('gallery', 'info', folder / 'a.safetensors')
    assert status == 0, err
    lines = dict(line.split(':', 1) for line in printed.splitlines())
    values = {name: value.strip() for name, value in lines.items()}
    assert values['rows'] == '5' and values['dimension'] == '4' and values['dtype'] == 'float32'
    assert values['similarity'] == 'euclidean' and values['normalised'] == 'yes'
    assert values['ids'] == "such as 'a0'" and values['labels'] == "2 classes, such as 'cat'"
    assert values['metadata'] == 'camera, city' and values['weights'] == 'unknown'
    assert values['checkpoint'] == 'x.pth' and 'torch' in values['versions']
    GalleryStore.open(folder / 's.gallery').remove(['s1'])
    status, printed, _ = run('gallery', 'info', folder / 's.gallery')
    assert status == 0 and '1 shards, 1 removed rows' in printed
    Gallery(torch.ones(2, 2)).save(folder / 'bare.safetensors')
    status, printed, _ = run('gallery', 'info', folder / 'bare.safetensors')
    assert status == 0 and 'ids:            none' in printed and 'normalised:     no' in printed


def test_verify(folder):
    path = folder / 'a.safetensors'
    status, printed, _ = run('gallery', 'verify', path)
    assert status == 0 and '5 rows are as they were written' in printed
    place = Gallery.load(path)._files[0].arrays['embeddings'].begin
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    status, printed, err = run('gallery', 'verify', path)
    assert status == 2 and 'is damaged' in err and printed == ''


def test_merge_filter_and_export(folder):
    out = folder / 'out.safetensors'
    status, printed, err = run('gallery', 'merge', out, folder / 'a.safetensors',
                               folder / 's.gallery', '--dtype', 'float16')
    assert status == 0 and '9 rows' in printed, err
    assert ids(out) == [*(f'a{n}' for n in range(5)), *(f's{n}' for n in range(4))]
    assert Gallery.load(out).dtype == 'float16'
    small = folder / 'small.safetensors'
    status, _, err = run('gallery', 'filter', out, small, '--where', 'label=dog', '--where',
                         'camera>=1 and camera < 3')
    assert status == 0, err
    assert ids(small) == ['a1', 's1']
    (folder / 'ids.txt').write_text('s2\na4\n')
    status, _, err = run('gallery', 'filter', out, folder / 'new.gallery', '--ids',
                         folder / 'ids.txt')
    assert status == 0, err
    assert ids(folder / 'new.gallery') == ['s2', 'a4']
    assert GalleryStore.open(folder / 'new.gallery').state.dtype == 'float16'
    status, _, err = run('gallery', 'export', folder / 's.gallery', small, '--dtype', 'int8')
    assert status == 0 and ids(small) == ['s0', 's1', 's2', 's3'], err
    assert Gallery.load(small).dtype == 'int8'


def test_a_store_is_changed_in_place(folder):
    store = folder / 's.gallery'
    (folder / 'ids.txt').write_text('s0\na3\n')
    example(1, 's', metadata=dict(camera=[77], city=['Chur'])).save(folder / 's.safetensors')
    steps = [(('append', store, folder / 'a.safetensors', folder / 'b.safetensors'), '12 rows'),
             (('update', store, folder / 's.safetensors'), '12 rows'),
             (('remove', store, '--ids', folder / 'ids.txt'), '10 rows'),
             (('compact', store), '10 rows, 1 shards')]
    for arguments, words in steps:
        status, printed, err = run('gallery', *arguments)
        assert status == 0 and words in printed, err
        if arguments[0] == 'update':
            loaded = Gallery.load(store)
            assert loaded.describe(loaded.rows['s0']) == dict(camera=77, city='Chur')
    assert set(ids(store)) == {'s1', 's2', 's3', 'a0', 'a1', 'a2', 'a4', 'b0', 'b1', 'b2'}


@pytest.mark.parametrize('arguments, words', [
    (['info', '{}/none.safetensors'], 'no gallery'), (['info', '{}'], 'no gallery store'),
    (['append', '{}/a.safetensors', '{}/b.safetensors'], 'export'),
    (['append', '{}/s.gallery', '{}/s.gallery'], "'s0', 's1'"),
    (['remove', '{}/s.gallery', '--ids', '{}/none.txt'], 'none.txt'),
    (['remove', '{}/s.gallery', '--ids', '{}/wrong.txt'], "does not hold 'x9'"),
    (['filter', '{}/a.safetensors', '{}/o.safetensors', '--where', 'colour'], 'was expected'),
    (['filter', '{}/a.safetensors', '{}/o.safetensors', '--where', 'camra=1'], 'camera'),
    (['filter', '{}/a.safetensors', '{}/o.safetensors', '--where', 'camera=99'], 'No row'),
    (['merge', '{}/o.safetensors', '{}/a.safetensors', '{}/a.safetensors'], 'occurs twice'),
    (['export', '{}/a.safetensors', '{}/o.npy'], '.safetensors'),
    (['export', '{}/a.safetensors', '{}/s.gallery'], 'already')])
def test_wrong_input_gets_one_message(folder, arguments, words):
    (folder / 'wrong.txt').write_text('s0\nx9\n')
    status, _, err = run('gallery', *[text.format(folder) for text in arguments])
    assert status == 2 and words in err and 'Traceback' not in err, err
    assert not list(folder.glob('o.*')) and len(GalleryStore.open(folder / 's.gallery')) == 4


def test_as_a_tool(folder):
    done = subprocess.run([sys.executable, TOOL, 'verify', folder / 'a.safetensors'],
                          capture_output=True, text=True)
    assert done.returncode == 0 and '5 rows' in done.stdout, done.stderr


def test_import(tmp_path, capsys):
    np.save(tmp_path / 'emb.npy', np.eye(3, dtype=np.float32))
    (tmp_path / 'items.csv').write_text('sku,brand,price\na,Fiat,9.5\nb,Seat,30\nc,Fiat,12\n')
    main(['import', str(tmp_path / 'emb.npy'), '--table', str(tmp_path / 'items.csv'),
          '--id', 'sku', '--label', 'brand', '--numbers', 'price'])
    assert '2 classes' in capsys.readouterr().out
    gallery = Gallery.load(tmp_path / 'emb.safetensors')
    assert list(gallery.ids) == list('abc') and gallery.metadata['price'].tolist() == [9.5, 30, 12]
    with pytest.raises(SystemExit):
        main(['import', str(tmp_path / 'emb.npy')])  # it would write over that

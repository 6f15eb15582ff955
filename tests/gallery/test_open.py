"""Files of earlier releases and of others."""
import json
import os
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from retrieval.gallery import Gallery, GalleryStore, is_gallery, switch
from retrieval.string_column import StringColumn

from .examples import contents, example

ROWS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def write_version_1(path, **changes):
    """A file as the first release wrote it, without a checksum."""
    ids = StringColumn.from_strings('abcde')
    city = StringColumn.from_strings(['Bern', '', '日', 'x', 'y'])
    names = StringColumn.from_strings(['cat', 'dog'])
    manifest = dict(format='retrieval-gallery', version=1, identified=True,
                    fingerprint=dict(weights='w', preprocessor='p', pipeline=None),
                    skipped={'bad': 'cut'}, source=dict(checkpoint='x', versions={}),
                    columns=['city', 'camera'], **changes)
    text = torch.frombuffer(bytearray(json.dumps(manifest).encode()), dtype=torch.uint8)
    save_file({'embeddings': ROWS, 'ids.bytes': ids.data, 'ids.offsets': ids.offsets,
               'labels': torch.tensor([0, 1, 0, 1, 0]), 'label_names.bytes': names.data,
               'label_names.offsets': names.offsets, 'metadata.0.bytes': city.data,
               'metadata.0.offsets': city.offsets, 'metadata.1': torch.arange(5),
               'manifest': text}, path, metadata=dict(format='retrieval-gallery', version='1'))


def test_files_of_version_1(tmp_path):
    write_version_1(tmp_path / 'old.safetensors')
    old = Gallery.load(tmp_path / 'old.safetensors')
    assert torch.equal(old.embeddings, ROWS) and list(old.ids) == list('abcde')
    assert [old.label_name(row) for row in range(3)] == ['cat', 'dog', 'cat']
    assert old.describe(2) == dict(city='日', camera=2) and old.skipped == {'bad': 'cut'}
    assert old.fingerprint.weights == 'w' and old.fingerprint.pooling is None
    old.save(tmp_path / 'new.safetensors')
    new = Gallery.load(tmp_path / 'new.safetensors')
    new.verify()
    assert new.describe(2) == old.describe(2) and torch.equal(new.embeddings, ROWS)


def test_plain_tensors_and_arrays(tmp_path):
    torch.save(ROWS, tmp_path / 'a.pth')
    torch.save(torch.nn.Parameter(ROWS), tmp_path / 'b.pt')
    torch.save(ROWS.bfloat16(), tmp_path / 'c.pth')
    torch.save(ROWS, tmp_path / 'd.pth', _use_new_zipfile_serialization=False)
    np.save(tmp_path / 'e.npy', ROWS.numpy().astype(np.float64))
    np.save(tmp_path / 'f.npy', np.asfortranarray(ROWS.numpy().astype(np.float16)))
    np.savez(tmp_path / 'g.npz', ROWS.numpy())
    for path in sorted(tmp_path.iterdir()):
        loaded = Gallery.load(path)
        torch.testing.assert_close(loaded.embeddings, ROWS, atol=0.02, rtol=0.01)
        assert not loaded.identified and not loaded.embeddings.requires_grad


def test_what_mmpretrain_dumps(tmp_path):
    """Its retriever saves its buffer of prototypes, a float32 tensor (N, D)."""
    class Retriever(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer('prototype_vecs', ROWS, persistent=False)
    torch.save(Retriever().prototype_vecs, tmp_path / 'proto.pth')
    assert torch.equal(Gallery.load(tmp_path / 'proto.pth').embeddings, ROWS)


def test_tensors_with_ids_and_labels(tmp_path):
    torch.save(dict(features=ROWS, paths=list('abcde'), targets=torch.arange(5)),
               tmp_path / 'a.pth')
    np.savez(tmp_path / 'b.npz', embeddings=ROWS.numpy(), ids=np.array(list('abcde')),
             labels=np.arange(5))
    for name in ('a.pth', 'b.npz'):
        loaded = Gallery.load(tmp_path / name)
        assert list(loaded.ids) == list('abcde') and loaded.labels.tolist() == [0, 1, 2, 3, 4]
        assert torch.equal(loaded.embeddings, ROWS)
    names = np.array(['dog', 'cat', 'dog', 'x', 'x'])
    np.savez(tmp_path / 'c.npz', feats=ROWS.numpy(), label=names)
    loaded = Gallery.load(tmp_path / 'c.npz')
    assert [loaded.label_name(row) for row in range(4)] == ['dog', 'cat', 'dog', 'x']
    torch.save(dict(vectors=ROWS, labels=[1, 0, 1, 0, 0], classes=['no', 'yes']),
               tmp_path / 'd.pth')
    assert Gallery.load(tmp_path / 'd.pth').label_name(0) == 'yes'


def test_what_is_no_gallery_is_refused(tmp_path):
    save_file(dict(x=torch.zeros(2)), tmp_path / 'x.safetensors')
    save_file(dict(embeddings=ROWS, manifest=torch.zeros(3, dtype=torch.uint8)),
              tmp_path / 'y.safetensors')
    write_version_1(tmp_path / 'z.safetensors')
    data = (tmp_path / 'z.safetensors').read_bytes()
    (tmp_path / 'z.safetensors').write_bytes(data.replace(b'"version": 1', b'"version": 2'))
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    torch.save(dict(state_dict={}, meta=3), tmp_path / 'y.pth')
    torch.save(eval, tmp_path / 'evil.pth')
    np.save(tmp_path / 'evil.npy', np.array([print], dtype=object), allow_pickle=True)
    np.savez(tmp_path / 'evil.npz', embeddings=np.array([print], dtype=object))
    np.savez(tmp_path / 'x.npz', ids=np.arange(3), labels=np.arange(3))
    torch.save(dict(embeddings=ROWS, ids=list('abc')), tmp_path / 'short.pth')
    (tmp_path / 'text.pth').write_text('hello')
    for name, words in {'x.safetensors': 'no gallery', 'y.safetensors': 'damaged',
                        'z.safetensors': 'no checksums', 'x.pth': 'must be a tensor',
                        'y.pth': "'state_dict', 'meta'", 'evil.pth': 'evil.pth',
                        'evil.npy': 'allow_pickle', 'evil.npz': 'allow_pickle',
                        'x.npz': "'ids', 'labels'",
                        'short.pth': 'short.pth.*ids has 3 entries for 5',
                        'text.pth': 'cannot be read'}.items():
        with pytest.raises(ValueError, match=words):
            Gallery.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='dump_prototype'):
        Gallery.load(tmp_path / 'none.safetensors')
    with pytest.raises(FileNotFoundError, match='no gallery store'):
        Gallery.load(tmp_path)


def test_what_counts_as_a_gallery(tmp_path):
    from retrieval.gallery import GalleryStore
    example().save(tmp_path / 'g.safetensors')
    GalleryStore.create(tmp_path / 'g.gallery', example())
    assert is_gallery(tmp_path / 'g.safetensors') and is_gallery(tmp_path / 'g.gallery')
    assert not is_gallery(tmp_path) and not is_gallery(tmp_path / 'none')


def test_a_switch_leads_to_the_new_gallery(tmp_path):
    example(3).save(tmp_path / 'v1.safetensors')
    GalleryStore.create(tmp_path / 'v2.gallery', example(4, seed=1))
    link = tmp_path / 'current'
    assert switch(link, tmp_path / 'v1.safetensors') is None
    assert contents(Gallery.load(link)) == contents(example(3))
    assert switch(link, tmp_path / 'v2.gallery') == tmp_path / 'v1.safetensors'
    assert contents(Gallery.load(link)) == contents(example(4, seed=1))
    opened = GalleryStore.open(link)
    switch(link, tmp_path / 'v1.safetensors')
    assert len(opened.load()) == 4, 'a store that is open follows no switch'
    assert os.readlink(link) == 'v1.safetensors'
    tmp_path.rename(tmp_path.with_name('moved'))
    assert len(Gallery.load(tmp_path.with_name('moved') / 'current')) == 3
    assert sorted(path.name for path in tmp_path.with_name('moved').iterdir()) == [
        'current', 'v1.safetensors', 'v2.gallery']


def test_a_link_of_a_suffix_that_means_nothing_is_followed(tmp_path):
    example(3).save(tmp_path / 'v1.safetensors')
    switch(tmp_path / 'live.pth', tmp_path / 'v1.safetensors')
    assert len(Gallery.load(tmp_path / 'live.pth')) == 3


def test_what_cannot_be_switched(tmp_path):
    example(3).save(tmp_path / 'v1.safetensors')
    with pytest.raises(FileExistsError, match='gallery itself'):
        switch(tmp_path / 'v1.safetensors', tmp_path / 'v1.safetensors')
    with pytest.raises(FileNotFoundError, match='none'):
        switch(tmp_path / 'current', tmp_path / 'none')
    switch(tmp_path / 'current', tmp_path / 'v1.safetensors')
    with pytest.raises(ValueError, match='itself'):
        switch(tmp_path / 'current', tmp_path / 'current')
    assert len(Gallery.load(tmp_path / 'current')) == 3


def test_readers_see_one_or_the_other(tmp_path):
    for name, count in (('a', 3), ('b', 5)):
        example(count).save(tmp_path / f'{name}.safetensors')
    link = tmp_path / 'current'
    switch(link, tmp_path / 'a.safetensors')
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            seen.add(len(Gallery.load(link)))
    reader = threading.Thread(target=read)
    reader.start()
    for step in range(200):
        switch(link, tmp_path / f'{"ab"[step % 2]}.safetensors')
    done.set()
    reader.join()
    assert seen == {3, 5}


def test_the_link_is_never_missing(tmp_path, monkeypatch):
    for name in 'ab':
        example(3).save(tmp_path / f'{name}.safetensors')
    link = tmp_path / 'current'
    switch(link, tmp_path / 'a.safetensors')
    real, looked = os.replace, []

    def replace(source, target):
        looked.append(os.readlink(link))
        real(source, target)
    monkeypatch.setattr(os, 'replace', replace)
    switch(link, tmp_path / 'b.safetensors')
    assert looked == ['a.safetensors'] and os.readlink(link) == 'b.safetensors'


def write_others(folder):
    """Files of other kinds, with what each seems to be."""
    import argparse

    from PIL import Image
    Image.new('RGB', (4, 4)).save(folder / 'picture', 'PNG')
    (folder / 'table').write_text('path,label\na.png,0\n')
    (folder / 'page').write_text('<!DOCTYPE html><html></html>')
    (folder / 'empty').touch()
    (folder / 'settings').write_text('{"a": 1}')
    torch.save({'embeddings': ROWS, 'args': argparse.Namespace(x=1)}, folder / 'namespace')
    return {'picture': 'a picture .PNG.',
            'table': "a table .CSV. with the columns 'path', 'label'", 'page': 'a web page',
            'empty': 'an empty file', 'settings': 'JSON',
            'namespace': 'names argparse.Namespace'}


@pytest.mark.parametrize('suffix', ['', '.safetensors', '.pth', '.npy'])
def test_a_file_of_another_kind_is_named_as_what_it_seems_to_be(tmp_path, suffix):
    for name, seems in write_others(tmp_path).items():
        path = (tmp_path / name).rename(tmp_path / f'{name}{suffix}')
        if (name, suffix) == ('namespace', '.safetensors'):
            seems = 'torch.save'
        with pytest.raises(ValueError, match=seems) as caught:
            Gallery.load(path)
        assert str(path) in str(caught.value) and 'weights_only' not in str(caught.value)


def test_vectors_are_read_by_what_they_are_and_not_by_their_name(tmp_path):
    np.save(tmp_path / 'a.npy', ROWS.numpy())
    torch.save(ROWS, tmp_path / 'b.pth')
    np.savez(tmp_path / 'c.npz', embeddings=ROWS.numpy())
    example(5).save(tmp_path / 'd.safetensors')
    for name in ('a.npy', 'b.pth', 'c.npz', 'd.safetensors'):
        path = (tmp_path / name).rename(tmp_path / f'{name}.bin')
        assert len(Gallery.load(path)) == 5

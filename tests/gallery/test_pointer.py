import os
import threading

import pytest

from retrieval.gallery import Gallery, GalleryStore, switch

from .examples import contents, example


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

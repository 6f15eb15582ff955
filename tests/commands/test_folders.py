"""Folders and galleries as commands name them, and what is told of them."""
import argparse
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from retrieval.commands import folders
from retrieval.commands.folders import (
    FolderEncoder,
    add_folder_options,
    add_parts_options,
    cache_name,
    check_exists,
    config_dataset,
    folder_encoder,
    gallery_checkpoint,
    gallery_config,
    gallery_file,
    is_folder,
    list_unreadable,
    open_vectors,
    with_local_rerank,
    with_parts,
    write_sheet,
)
from retrieval.gallery import Gallery

from .conftest import run

MODEL = dict(type='retrieval.ImageToImageRetriever', image_encoder=dict(
    type='retrieval.ImageEncoder', backbone=dict(type='retrieval.TimmBackbone',
                                                 model_name='resnet10t')))


def options(*given, parts=True):
    parser = argparse.ArgumentParser()
    add_folder_options(parser)
    if parts:
        add_parts_options(parser)
    return parser.parse_args(given)


def gallery(**source):
    return Gallery(np.eye(2), ['a.png', 'b.png'], source=source)


def test_options():
    found = options('--encoder', 'x', '--no-cache', '--strict', '--parts', '--rerank', 'local')
    assert (found.encoder, found.no_cache, found.strict, found.parts, found.rerank) == (
        'x', True, True, True, 'local')
    parser = argparse.ArgumentParser()
    add_parts_options(parser, rerank=False)
    assert vars(parser.parse_args([])) == dict(parts=False)


def test_names_under_which_is_kept_what_was_encoded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('own.py').touch()
    assert cache_name('own.py', 'epoch_2.pth', None) == 'own-epoch_2.pth'
    assert cache_name('owner/model') == 'owner-model' and cache_name(None) == ''


def test_the_default_encoder():
    assert folder_encoder(options()) == FolderEncoder()
    with pytest.raises(ValueError, match='--cfg-options change a config'):
        folder_encoder(options('--cfg-options', 'a=1'))


@pytest.mark.parametrize('given', [['--config', 'c.py'], ['--checkpoint', 'x.pth']])
def test_a_config_and_a_checkpoint_go_together(given):
    with pytest.raises(ValueError, match='--config and --checkpoint together'):
        folder_encoder(options(*given))


def test_a_named_encoder(monkeypatch):
    asked = []

    def named(config, checkpoint, encoder, **more):
        asked.append((config, checkpoint, encoder, more))
        return Config(dict(model=dict(MODEL))), 'weights'
    monkeypatch.setattr('retrieval.runs.named_model.named_model', named)
    monkeypatch.setattr('retrieval.runs.named_model.names_bundle', lambda name: False)
    found = folder_encoder(options('--encoder', 'owner/x', '--trust', '--rerank', 'local'))
    assert (found.name, found.checkpoint, found.calibration) == ('owner-x', 'weights', None)
    assert asked == [(None, None, 'owner/x', dict(options=None, trust=True))]
    assert found.config.model.rerank == [dict(type='retrieval.LocalRerank')]
    assert folder_encoder(options('--encoder', 'owner/x', '--parts')).name == 'owner-x-parts'


def test_parts_are_pooled_of_the_map():
    config = Config(dict(model=dict(MODEL), test_dataloader=dict(dataset=dict(pipeline=[]))))
    with_parts(config)
    assert config.model.image_encoder.pooling == dict(
        type='retrieval.PartsPooling', pooling=dict(type='retrieval.GlobalAveragePooling'))
    assert config.model.index.type == 'retrieval.PartsIndex'
    assert config.test_dataloader.dataset.pipeline == []
    with_parts(config, whole_pictures=True)
    assert 'crop' not in str(config.test_dataloader.dataset.pipeline).lower()
    assert len(config.test_dataloader.dataset.pipeline) == 3
    pooled = Config(dict(model=dict(image_encoder=dict(pooling=None))))
    with pytest.raises(ValueError, match='--parts wants an ImageEncoder that pools'):
        with_parts(pooled)


def test_a_reranker_comes_last(tmp_path):
    config = Config(dict(model=dict(rerank=[dict(type='Other')])))
    with_local_rerank(config)
    assert [one['type'] for one in config.model.rerank] == ['Other', 'retrieval.LocalRerank']
    with_local_rerank(config, str(tmp_path))
    assert config.model.rerank[2].kept == str(tmp_path / '.retrieval' / 'local-features.sqlite')


def test_what_is_a_folder_and_what_is_there(tmp_path):
    assert is_folder(tmp_path) and not is_folder(tmp_path / 'no')
    (tmp_path / 'file').touch()
    assert not is_folder(tmp_path / 'file')
    check_exists(str(tmp_path / 'file'))
    for name, what in (('x', 'folder or gallery'), ('x.safetensors', 'gallery')):
        with pytest.raises(FileNotFoundError, match=f'There is no {what} '):
            check_exists(str(tmp_path / name))


def test_a_signal_ends_in_order_and_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, folders._ends_in_order():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_unreadable_images_are_listed_once(capsys):
    one = SimpleNamespace(skipped={'a.png': 'is no picture', 'b.png': "'b.png' is cut off"})
    list_unreadable(one, None, one)
    assert capsys.readouterr().err.splitlines()[1:] == ['  a.png: is no picture',
                                                        "  'b.png' is cut off"]
    list_unreadable(SimpleNamespace(skipped={}))
    assert capsys.readouterr().err == ''


def test_a_sheet_with_gaps(tmp_path, monkeypatch):
    Image.new('RGB', (5, 5), 'red').save(tmp_path / 'a.png')
    name, drawn = str(tmp_path / 'a.png'), []
    monkeypatch.setattr('retrieval.visualization.draw_image_grid', lambda *given, **more:
                        drawn.append((*given, more)))
    assert write_sheet([[(name, 'best')], [('', ''), (name, '')]], [], [name],
                       tmp_path / 's.png', 2, 'title')
    images, captions, path, more = drawn[0]
    assert captions == ['a.png\nbest', '', '', 'a.png'] and more == dict(columns=2, title='title')
    assert [image.getpixel((0, 0)) for image in images] == [(255, 0, 0), (255,) * 3, (255,) * 3,
                                                            (255, 0, 0)]
    path.touch()
    assert not write_sheet([[('gone.png', '')]], [], [], path, 2, 'title')
    assert not path.exists(), 'an old sheet is not left beside new results'


def test_vectors_of_a_file(tmp_path):
    path = str(tmp_path / 'g.safetensors')
    gallery().save(path)
    found, dataset = open_vectors(path, options())
    assert list(found.ids) == ['a.png', 'b.png'] and dataset is None
    gallery(settings='no JSON').save(path)
    assert open_vectors(path, options())[1] is None, 'the vectors are of use all the same'
    with pytest.raises(ValueError):
        open_vectors(path, options('--trust'))
    assert gallery_file(path) == path
    with pytest.raises(FileNotFoundError):
        open_vectors(str(tmp_path / 'nowhere'), options())


def test_the_config_of_a_gallery(config):
    named = gallery_config(gallery(), 'g', options('--config', str(config), '--cfg-options',
                                                   'model.topk=3'))
    assert named.model.topk == 3 and named.filename == str(config)
    with pytest.raises(ValueError, match="'g' does not say as data which config made it: give"):
        gallery_config(gallery(), 'g', options())
    with pytest.raises(ValueError, match="names 'own.py', a program: give that"):
        gallery_config(gallery(config_file='own.py'), 'g', options())


def test_the_weights_of_a_gallery(tmp_path):
    own = gallery(checkpoint='x.pth')
    with pytest.raises(FileNotFoundError, match="'x.pth', which is not there any more"):
        gallery_checkpoint(own, str(tmp_path / 'g'), options())
    (tmp_path / 'x.pth').touch()
    assert gallery_checkpoint(own, str(tmp_path / 'g'), options()) == str(tmp_path / 'x.pth')
    elsewhere = gallery(checkpoint='/nowhere/x.pth')  # of a folder that was moved
    assert gallery_checkpoint(elsewhere, str(tmp_path / 'g'), options()) == str(tmp_path / 'x.pth')
    assert gallery_checkpoint(own, 'g', options('--checkpoint', 'y.pth')) == 'y.pth'
    with pytest.raises(ValueError, match='does not say which checkpoint made it'):
        gallery_checkpoint(gallery(), 'g', options())


def test_the_dataset_of_a_prototype(tmp_path):
    def of(prototype):
        return config_dataset(Config(dict(model=dict(prototype=prototype))))
    image = np.zeros((2, 2, 3), np.uint8)
    assert of('g.safetensors') is None and of(None) is None
    assert len(of(dict(dataset=dict(type='retrieval.ImageList', images=[image], pipeline=[])))) == 1
    assert of(dict(dataset=dict(type='retrieval.ImageFolder', data_root='/nowhere',
                                pipeline=[]))) is None, 'its files are elsewhere by now'


@pytest.mark.parametrize('gallery, query, says', [
    ('nowhere', 'x.jpg', "no folder or gallery 'nowhere'"),
    ('nowhere.safetensors', 'x.jpg', "no gallery 'nowhere.safetensors'"),
    ('.', 'x.jpg', "no image 'x.jpg'"), ('.', 'photos/', "no image or folder 'photos/'")])
def test_what_is_missing_is_called_what_it_is(gallery, query, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, err = run('search', gallery, query)
    assert status == 2 and says in err

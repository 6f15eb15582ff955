"""Which prototypes are encoded already, and the dataset of the others."""
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from retrieval.datasets import ImageFolder, ImageList
from retrieval.gallery import Gallery
from retrieval.index import ExactIndex
from retrieval.search.prototypes import as_dataset, holds_vectors, is_image_list, is_pipeline

from .pictures import PIPELINE, picture, write


@pytest.fixture
def folder(tmp_path):
    for seed in range(4):
        write(tmp_path / 'photos' / 'ab'[seed % 2] / f'{seed}.png', seed)
    return tmp_path / 'photos'


@pytest.mark.parametrize(('value', 'pipeline', 'images'), [
    (PIPELINE, True, False), (tuple(PIPELINE), True, False), ([], False, True),
    (['a.png'], False, True), ([picture(0), Image.new('RGB', (2, 2))], False, True),
    (picture(0), False, True), (Image.new('RGB', (2, 2)), False, True),
    (np.eye(3), False, False), ([3], False, False), ([dict(scale=3)], False, False),
    ('a.png', False, False), (None, False, False)])
def test_pipelines_and_lists_of_images(value, pipeline, images):
    assert is_pipeline(value) == pipeline and is_image_list(value) == images


def test_what_is_encoded_already(folder, tmp_path):
    gallery = Gallery(torch.eye(2), 'ab')
    gallery.save(tmp_path / 'g.safetensors')
    for one in (gallery, torch.eye(2), np.eye(2), ExactIndex(), tmp_path / 'g.safetensors',
                str(tmp_path / 'g.safetensors'), str(tmp_path / 'photos' / 'a' / '0.png')):
        assert holds_vectors(one)  # of a file that is none the gallery says so
    for one in (folder, str(folder), picture(0), [picture(0)], dict(type='x')):
        assert not holds_vectors(one)
    with pytest.raises(FileNotFoundError, match='no folder or gallery .*nowhere'):
        holds_vectors(tmp_path / 'nowhere')


def test_sub_folders_are_classes_unless_an_image_lies_beside_them(folder):
    classes = as_dataset(f'{folder}/.', PIPELINE, 'raise')
    assert isinstance(classes, ImageFolder) and list(classes.metainfo['classes']) == ['a', 'b']
    write(folder / 'loose.png', 9)
    loose = as_dataset(folder, PIPELINE, 'raise')
    assert type(loose) is ImageList and len(loose) == 5


def test_images_datasets_and_loaders(folder):
    images = [picture(0), picture(1)]
    made = as_dataset(images, PIPELINE, 'skip')
    assert len(made) == 2 and made[1]['inputs'].shape == (3, 6, 6)
    assert made.on_unreadable == 'skip'
    own = ImageList(images, pipeline=PIPELINE)
    assert as_dataset(own, PIPELINE, 'raise') is own
    assert as_dataset(DataLoader(own), PIPELINE, 'raise') is own


def test_configs_get_the_pipeline_unless_they_have_their_own(folder):
    config = dict(type='retrieval.ImageFolder', data_root=str(folder))
    for given in (config, dict(dataset=config, batch_size=2)):
        assert as_dataset(given, PIPELINE, 'raise')[0]['inputs'].shape == (3, 6, 6)
    other = [PIPELINE[0], dict(type='Resize', scale=(4, 4)), PIPELINE[2]]
    assert as_dataset(dict(config, pipeline=other), PIPELINE, 'raise')[0]['inputs'].shape == (
        3, 4, 4)
    assert 'pipeline' not in config, 'what was given is left as it is'


@pytest.mark.parametrize(('prototype', 'error', 'says'), [
    (3, TypeError, 'got int'), ([3], TypeError, 'a list with a int in it'),
    (np.eye(3, dtype=int), TypeError, 'got ndarray'),
    (dict(batch_size=3), ValueError, 'a dataset with a type.*got the keys batch_size')])
def test_what_is_no_prototype(prototype, error, says):
    with pytest.raises(error, match=says):
        as_dataset(prototype, PIPELINE, 'raise')

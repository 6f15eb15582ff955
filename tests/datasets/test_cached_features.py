import pickle

import numpy as np
import pytest
import torch

from retrieval.datasets import UnreadableImageError
from retrieval.gallery import Gallery
from retrieval.registry import TRANSFORMS

from .toys import Toy


@pytest.fixture
def file(tmp_path):
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype('float32')
    path = tmp_path / 'features.safetensors'  # in another order than the dataset's
    Gallery(rows, ids=[f's{n}' for n in range(8, -1, -1)], skipped={'s9': 'torn'}).save(path)
    return path


def pipeline(file):
    return [dict(type='retrieval.LoadCachedFeatures', file=str(file)),
            dict(type='retrieval.PackInputs')]


def test_features_come_by_identity_and_annotations_stay(file):
    dataset = Toy(9, pipeline=pipeline(file))
    rows = Gallery.load(file).embeddings
    for number in range(9):
        item = dataset[number]
        assert torch.equal(item['inputs'], rows[8 - number][:, None, None])
        assert item['data_samples'].gt_label.item() == number % 3
        assert item['data_samples'].camera == number * 10
    again = pickle.loads(pickle.dumps(dataset))  # what a loader worker gets
    assert torch.equal(again[3]['inputs'], dataset[3]['inputs'])


def test_an_image_without_features(file):
    with pytest.raises(UnreadableImageError, match='torn'):
        Toy(10, pipeline=pipeline(file))[9]
    assert Toy(10, pipeline=pipeline(file), on_unreadable='skip')[9]['data_samples'].unreadable
    with pytest.raises(ValueError, match="no features of 's10'"):
        Toy(11, pipeline=pipeline(file))[10]
    step = TRANSFORMS.build(dict(type='retrieval.LoadCachedFeatures', file='missing.safetensors'))
    with pytest.raises(FileNotFoundError):
        step.transform(dict(sample_id='s1'))

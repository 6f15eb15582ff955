import numpy as np
import pytest
import torch

from retrieval.datasets import PackInputs
from retrieval.structures import RetrievalDataSample

from .toys import Toy


@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 1), (4, 5, 3)])
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_inputs(shape, dtype):
    image = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    inputs = PackInputs()({'img': image})['inputs']
    want = image.reshape(4, 5, -1).transpose(2, 0, 1)
    np.testing.assert_array_equal(inputs.numpy(), want)
    assert inputs.is_contiguous() and inputs.numpy().dtype == dtype


def test_views_and_flipped_images():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    flipped = PackInputs()({'img': image[:, ::-1]})['inputs']
    np.testing.assert_array_equal(flipped[0].numpy(), image[:, ::-1])
    views = PackInputs()({'img': [image, image[:2]]})['inputs']
    assert [tuple(view.shape) for view in views] == [(1, 3, 4), (1, 2, 4)]
    assert PackInputs()({'img': torch.zeros(2, 3, 4)})['inputs'].shape == (2, 3, 4)


def test_annotations():
    sample = PackInputs()({
        'img': np.zeros((2, 2), np.uint8), 'gt_label': 7, 'gt_indices': [3, 5],
        'gt_score': [0.25, 0.75], 'sample_idx': 4, 'sample_id': 'x', 'img_path': 'p',
        'box': (1, 2, 3, 4), 'ori_shape': (9, 9), 'img_shape': (2, 2), 'other': 1})['data_samples']
    assert isinstance(sample, RetrievalDataSample)
    assert sample.gt_label.tolist() == [7] and sample.gt_label.dtype == torch.int64
    assert sample.gt_indices.tolist() == [3, 5] and sample.gt_score.tolist() == [0.25, 0.75]
    assert set(sample.metainfo_keys()) == {'sample_idx', 'sample_id', 'img_path', 'box',
                                           'ori_shape', 'img_shape'}
    assert sample.box == (1, 2, 3, 4) and sample.sample_idx == 4


def test_nothing_is_made_up():
    sample = PackInputs(input_key='x', meta_keys=('other', 'absent'))(
        {'x': np.zeros((2, 2), np.uint8), 'other': 0, 'sample_id': 'y'})['data_samples']
    assert sample.metainfo_keys() == ['other'] and sample.keys() == []


def test_metadata_of_the_dataset_comes_along():
    sample = Toy(pipeline=[{'type': 'PackInputs'}])[3]['data_samples']
    assert sample.camera == 30 and 'camera' in sample.metainfo_keys()
    assert sample.sample_idx == 3 and sample.sample_id == 's3'


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match=r"no image under 'img'.*LoadImage"):
        PackInputs()({'gt_label': 1})
    with pytest.raises(ValueError, match=r'\(H, W\) or \(H, W, C\)'):
        PackInputs()({'img': np.zeros(3, np.uint8)})

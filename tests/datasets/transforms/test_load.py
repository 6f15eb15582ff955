import os
import pickle
import subprocess

import mmcv
import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.datasets import (
    CropBox,
    LoadImage,
    LoadImageFromFile,
    PackInputs,
    UnreadableImageError,
    build_pipeline,
)
from retrieval.gallery import Gallery
from retrieval.registry import TRANSFORMS
from retrieval.structures import RetrievalDataSample

from ..photos import photo
from ..toys import Toy

PIXELS = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)


@pytest.fixture
def path(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    return str(tmp_path / 'a.png')


def test_loads_a_file(path):
    results = TRANSFORMS.build({'type': 'LoadImage'})({'img_path': path})
    np.testing.assert_array_equal(results['img'], PIXELS)
    assert results['ori_shape'] == results['img_shape'] == (8, 10)
    bgr = LoadImage('bgr')({'img_path': path})['img']
    np.testing.assert_array_equal(bgr, PIXELS[..., ::-1])


def test_takes_the_picture_that_is_there():
    gray = PIXELS[..., 0]
    assert LoadImage('gray')({'img': gray})['img'].shape == (8, 10, 1)
    assert LoadImage()({'img': gray})['img'].shape == (8, 10, 3)
    np.testing.assert_array_equal(LoadImage('bgr')({'img': PIXELS})['img'], PIXELS[..., ::-1])
    assert LoadImage('gray')({'img': PIXELS})['img'].shape == (8, 10, 1)
    with pytest.raises(TypeError, match="image 'x'"):
        LoadImage()({'img': np.zeros((2, 2)), 'sample_id': 'x'})


def test_bad_arguments_and_inputs(tmp_path):
    with pytest.raises(ValueError, match="'rgb'"):
        LoadImage(color='RGB ')
    with pytest.raises(ValueError, match='`img_path` or an `img`'):
        LoadImage()({'gt_label': 3})
    with pytest.raises(UnreadableImageError, match=r'absent\.png'):
        LoadImage()({'img_path': str(tmp_path / 'absent.png')})


def test_cuts_the_box_out(path):
    results = LoadImage()({'img_path': path, 'box': (2, 1, 5, 7)})
    np.testing.assert_array_equal(results['img'], PIXELS[1:7, 2:5])
    assert results['ori_shape'] == (8, 10) and results['img_shape'] == (6, 3)
    whole = LoadImage(crop_box=False)({'img_path': path, 'box': (2, 1, 5, 7)})
    assert whole['img'].shape == (8, 10, 3)
    np.testing.assert_array_equal(CropBox()(whole)['img'], PIXELS[1:7, 2:5])


def test_margin_fractions_and_edges():
    def cut(box, margin=0.):
        return CropBox(margin)({'img': PIXELS, 'box': box})['img']
    np.testing.assert_array_equal(cut((2, 2, 6, 4), 0.5), PIXELS[1:5, 0:8])
    np.testing.assert_array_equal(cut((1.2, 2.7, 3.1, 4.0)), PIXELS[2:4, 1:4])
    np.testing.assert_array_equal(cut((-3, -1, 4, 99)), PIXELS[:, :4])
    assert CropBox()({'img': PIXELS})['img'] is PIXELS


@pytest.mark.parametrize('box', [(5, 1, 5, 4), (5, 1, 2, 4), (1, 4, 3, 2), (10, 0, 12, 3),
                                 (-4, 0, 0, 3), (5.2, 1, 5.2, 4), (0, float('nan'), 3, 3),
                                 (0, 0, float('inf'), 3)])
def test_empty_boxes_are_errors(box):
    with pytest.raises(ValueError, match=r"The box .* of image 'a\.png' is (empty|outside)"):
        CropBox()({'img': PIXELS, 'box': box, 'img_path': 'a.png'})


def test_box_errors_name_the_image():
    with pytest.raises(ValueError, match=r"'a\.png' is outside .* 10 x 8 pixels"):
        CropBox()({'img': PIXELS, 'box': (20, 20, 30, 30), 'img_path': 'a.png'})
    with pytest.raises(ValueError, match='cut out already'):
        CropBox()(LoadImage()({'img': PIXELS, 'box': (0, 0, 3, 3)}))
    with pytest.raises(ValueError, match='margin'):
        CropBox(-1)


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


@pytest.mark.parametrize('kind', [
    'LoadImageFromFile', 'mmcv.LoadImageFromFile', mmcv.transforms.LoadImageFromFile])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_mmcvs_loader_opens_pictures_only(tmp_path, monkeypatch, capfd, kind, backend):
    monkeypatch.setattr(subprocess, 'Popen', None)  # no program is started
    load = build_pipeline([{'type': kind, 'imdecode_backend': backend}])
    Image.fromarray(photo()).save(tmp_path / 'a.png', icc_profile=b'no profile')
    image = load({'img_path': str(tmp_path / 'a.png')})
    np.testing.assert_array_equal(image['img'][..., ::-1], photo())
    assert image['ori_shape'] == photo().shape[:2] and not capfd.readouterr().err
    (tmp_path / 'eps.jpg').write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'
                                       b'%%EndComments\n%%EOF\n')
    os.mkfifo(tmp_path / 'pipe.jpg')
    for name, reason in (('eps.jpg', 'no known image format'), ('pipe.jpg', 'a named pipe'),
                         ('gone.jpg', 'There is no image')):
        with pytest.raises(UnreadableImageError, match=f'{name}.*{reason}|{reason}.*{name}'):
            load({'img_path': str(tmp_path / name)})
        assert LoadImageFromFile(ignore_empty=True)({'img_path': str(tmp_path / name)}) is None

import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import CropBox, LoadImage, UnreadableImageError
from retrieval.registry import TRANSFORMS

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

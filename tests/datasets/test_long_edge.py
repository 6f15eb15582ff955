import numpy as np
import pytest

from retrieval.datasets import LimitLongEdge, LoadImage
from retrieval.registry import TRANSFORMS

from .toys import save


@pytest.mark.parametrize('size, whole, want', [
    ((100, 50), None, (40, 20)), ((50, 100), None, (20, 40)), ((40, 7), None, (40, 7)),
    ((30, 20), None, (30, 20)),
    ((30, 20), (80, 50), (15, 10)),  # by the factor of the picture that the box was cut from
    ((30, 20), (30, 40), (30, 20)), ((1, 50), (400, 50), (1, 5))])
def test_sizes(size, whole, want):
    results = {'img': np.zeros((*size, 3), np.uint8), 'img_shape': size}
    if whole:
        results.update(ori_shape=whole, box_is_cropped=True)
    step = TRANSFORMS.build({'type': 'LimitLongEdge', 'limit': 40})
    results = step(results)
    assert results['img'].shape == (*want, 3) and results['img_shape'] == want


def test_a_box_that_the_loader_cut_out(tmp_path):
    path = save(tmp_path / 'x.png', size=(80, 50))
    for box, want in (((10, 10, 40, 30), (10, 15)), (None, (25, 40))):
        results = LoadImage()({'img_path': str(path), 'box': box})
        assert LimitLongEdge(40)(results)['img_shape'] == want


def test_a_picture_that_was_read_at_half_its_size():
    results = {'img': np.zeros((50, 40, 3), np.uint8), 'ori_shape': (100, 80)}
    assert LimitLongEdge(50)(results)['img'].shape == (50, 40, 3)


def test_areas_are_averaged():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    found = LimitLongEdge(2, 'area')({'img': image})['img']
    np.testing.assert_allclose(found[..., 0], image.reshape(2, 2, 2, 2).mean(axis=(1, 3)), atol=1)


@pytest.mark.parametrize('arguments', [{'limit': 0}, {'limit': 'x'}, {'limit': True},
                                       {'limit': 9, 'interpolation': 'cubik'}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match='limit must be|Unknown interpolation'):
        LimitLongEdge(**arguments)

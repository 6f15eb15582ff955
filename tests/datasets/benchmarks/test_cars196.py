import os

import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import Cars196
from retrieval.registry import DATASETS

from ..miniatures import CARS_FIELDS, make_cars196, write_cars_annotations

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
ROWS = [(98, (3, 4, 12, 15)), (99, (1, 1, 24, 24)), (1, (2, 2, 3, 3)), (196, (1, 1, 2, 2)),
        (98, (1, 1, 5, 6))]


@pytest.fixture
def root(tmp_path):
    return make_cars196(tmp_path, ROWS)


def names(dataset):
    return [os.path.basename(entry['img_path']) for entry in dataset._entries()]


def test_classes_up_to_98_are_for_training(root):
    dataset = DATASETS.build({'type': 'Cars196', 'data_root': str(root), 'pipeline': PIPELINE})
    assert names(dataset) == ['000001.jpg', '000003.jpg', '000005.jpg']
    assert dataset.labels.tolist() == [1, 0, 1] and dataset.labels.dtype == np.int64
    assert dataset.label_names == ['Car 1', 'Car 98']
    assert dataset[1]['data_samples'].gt_label.tolist() == [0]
    assert dataset[1]['data_samples'].img_path == str(root / 'car_ims' / '000003.jpg')


def test_the_others_are_for_testing(root):
    dataset = Cars196(root, split='test')
    assert names(dataset) == ['000002.jpg', '000004.jpg']
    assert dataset.labels.tolist() == [0, 1] and dataset.label_names == ['Car 99', 'Car 196']


def test_boxes_count_from_zero_and_hold_their_last_pixel(root):
    dataset = Cars196(root, use_boxes=True, pipeline=PIPELINE)
    assert [entry['box'] for entry in dataset._entries()] == [
        (2, 3, 12, 15), (1, 1, 3, 3), (0, 0, 5, 6)]
    whole = np.asarray(Image.open(root / 'car_ims' / '000001.jpg')).transpose(2, 0, 1)
    inside = whole[:, 4 - 1:15, 3 - 1:12]  # MATLAB's 4:15, 3:12
    np.testing.assert_array_equal(dataset[0]['inputs'].numpy(), inside)
    assert 'box' not in Cars196(root).get_data_info(0)


def test_one_image_alone(tmp_path):
    dataset = Cars196(make_cars196(tmp_path, ROWS[:1]))
    assert dataset.labels.tolist() == [0] and dataset.label_names == ['Car 98']


def test_missing_files(root):
    (root / 'cars_annos.mat').rename(root / 'annos.mat')
    with pytest.raises(FileNotFoundError, match='is missing: cars_annos.mat') as error:
        Cars196(root)
    assert 'cars196/             <- data_root' in str(error.value)


def test_images_that_are_not_there(root):
    (root / 'car_ims' / '000003.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='names 3 images, of which 1 .*000003'):
        Cars196(root)
    assert len(Cars196(root, split='test')) == 2 and len(Cars196(root, check_files=False)) == 3


@pytest.mark.parametrize('content', [b'', b'no matlab', b'MATLAB 5.0 MAT-file' + b'\0' * 200,
                                     b'\x80\x04K\x01.'])
def test_what_is_no_matlab_file(root, content):
    (root / 'cars_annos.mat').write_bytes(content)
    with pytest.raises(ValueError, match='cannot be read as a MATLAB|no variable') as error:
        Cars196(root)
    assert '<- data_root' in str(error.value)


def test_a_file_that_is_cut_off(root):
    content = (root / 'cars_annos.mat').read_bytes()
    (root / 'cars_annos.mat').write_bytes(content[:len(content) // 2])
    with pytest.raises(ValueError, match='cannot be read as a MATLAB|no variable'):
        Cars196(root)


def test_the_annotations_of_the_development_kit_are_refused(root):
    fields = [field.replace('relative_im_path', 'fname') for field in CARS_FIELDS]
    write_cars_annotations(root / 'cars_annos.mat', [('1.jpg', 1, 1, 2, 2, 1, 0)], ['A'], fields)
    with pytest.raises(ValueError, match='have the fields fname.* and not relative_im_path'):
        Cars196(root)


@pytest.mark.parametrize(('row', 'expected'), [
    (('car_ims/1.jpg', 1, 1, 2, 2, 0, 0), 'has the class 0, but there are 3'),
    (('car_ims/1.jpg', 1, 1, 2, 2, 4, 0), 'has the class 4, but there are 3'),
    (('car_ims/1.jpg', 1, 1, 2, 2, 'x', 0), 'no integer'),
    (('car_ims/1.jpg', 1, 1, 2, np.array([1, 2]), 1, 0), 'no integer')])
def test_malformed_annotations(root, row, expected):
    write_cars_annotations(root / 'cars_annos.mat', [row], ['A', 'B', 'C'])
    with pytest.raises(ValueError, match=expected):
        Cars196(root)


def test_other_variables(root):
    from scipy.io import savemat
    savemat(root / 'cars_annos.mat', {'something': np.ones(3)})
    with pytest.raises(ValueError, match='no variable annotations and no class_names'):
        Cars196(root)
    savemat(root / 'cars_annos.mat', {'annotations': np.ones(3), 'class_names': np.ones(3)})
    with pytest.raises(ValueError, match='and not relative_im_path, class'):
        Cars196(root)

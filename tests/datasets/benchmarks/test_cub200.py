import os

import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import CUB200
from retrieval.registry import DATASETS

from ..miniatures import make_cub200, write

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
ROWS = [
    (100, '100.Brown_Pelican/b.jpg', (1.0, 2.0, 3.0, 4.0)),
    (101, '101.White_Pelican/a.jpg', (0.0, 0.0, 24.0, 24.0)),
    (3, '003.Sooty_Albatross/a.jpg', (5.0, 6.0, 10.0, 12.0)),
    (200, '200.Common_Yellowthroat/a.jpg', (2.5, 3.5, 4.0, 4.0)),
    (100, '100.Brown_Pelican/a.jpg', (2.0, 3.0, 4.0, 5.0)),
]


@pytest.fixture
def root(tmp_path):
    return make_cub200(tmp_path, ROWS)


def names(dataset, root):
    return [os.path.relpath(name, root / 'images') for name in
            (entry['img_path'] for entry in dataset._entries())]


def test_classes_up_to_100_are_for_training(root):
    dataset = DATASETS.build({'type': 'CUB200', 'data_root': str(root), 'pipeline': PIPELINE})
    assert names(dataset, root) == ['100.Brown_Pelican/b.jpg', '003.Sooty_Albatross/a.jpg',
                                    '100.Brown_Pelican/a.jpg']
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.label_names == ['Sooty_Albatross', 'Brown_Pelican']
    item = dataset[1]
    assert item['inputs'].shape == (3, 24, 24) and item['data_samples'].gt_label.tolist() == [0]
    assert item['data_samples'].sample_id == str(root / 'images' / '003.Sooty_Albatross/a.jpg')


def test_the_others_are_for_testing(root):
    dataset = CUB200(root, split='test')
    assert names(dataset, root) == ['101.White_Pelican/a.jpg', '200.Common_Yellowthroat/a.jpg']
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.label_names == ['White_Pelican', 'Common_Yellowthroat']


def test_boxes_are_corners_and_are_cut_out(root):
    dataset = CUB200(root, use_boxes=True, pipeline=PIPELINE)
    assert [entry['box'] for entry in dataset._entries()] == [
        (1, 2, 4, 6), (5, 6, 15, 18), (2, 3, 6, 8)]
    item = dataset[1]
    whole = np.asarray(Image.open(root / 'images' / ROWS[2][1])).transpose(2, 0, 1)
    np.testing.assert_array_equal(item['inputs'].numpy(), whole[:, 6:18, 5:15])
    assert item['data_samples'].box == (5, 6, 15, 18)
    test = CUB200(root, split='test', use_boxes=True)  # of half a pixel, the whole belongs to it
    assert test.get_data_info(1)['box'] == (2.5, 3.5, 6.5, 7.5)


def test_boxes_are_read_only_where_they_are_used(root):
    (root / 'bounding_boxes.txt').unlink()
    assert 'box' not in CUB200(root).get_data_info(0)
    with pytest.raises(FileNotFoundError, match='is missing: bounding_boxes.txt'):
        CUB200(root, use_boxes=True)


def test_rows_are_joined_by_image_id_not_by_line(root):
    lines = (root / 'image_class_labels.txt').read_text().splitlines()
    write(root / 'image_class_labels.txt', *reversed(lines))
    assert CUB200(root).labels.tolist() == [1, 0, 1]


def test_missing_parts_are_named_together(root):
    (root / 'images.txt').unlink()
    (root / 'image_class_labels.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'images\.txt, image_class_labels\.txt') as error:
        CUB200(root)
    assert 'CUB_200_2011/                <- data_root' in str(error.value)


def test_the_folder_above_leads_to_the_right_one(tmp_path):
    make_cub200(tmp_path / 'CUB_200_2011', ROWS)
    with pytest.raises(FileNotFoundError, match=r"CUB_200_2011': give that as data_root"):
        CUB200(tmp_path)


def test_images_that_are_not_there(root):
    (root / 'images' / ROWS[0][1]).unlink()
    (root / 'images' / ROWS[4][1]).unlink()
    with pytest.raises(FileNotFoundError, match=r'names 3 images, of which 2 .*Pelican/b\.jpg'):
        CUB200(root)
    assert len(CUB200(root, split='test')) == 2
    assert len(CUB200(root, check_files=False)) == 3


@pytest.mark.parametrize(('file', 'line', 'expected'), [
    ('images.txt', '6 a.jpg b', 'line 6 has 3 cells'),
    ('images.txt', 'x 001.A/a.jpg', 'no integer'),
    ('images.txt', '5 001.A/a.jpg', '1 image ids stand in it more than once'),
    ('images.txt', '6 001.A/a.jpg', 'no row for 1 of the 6 images of images.txt, the first is 6'),
    ('image_class_labels.txt', '5 7', '1 image ids stand in it more than once'),
    ('image_class_labels.txt', '6 x', 'numbers are wanted'),
    ('bounding_boxes.txt', '6 1 2 3', 'line 6 has 4 cells and not 5'),
    ('bounding_boxes.txt', '6 1 2 3 nan', 'not finite')])
def test_malformed_files(root, file, line, expected):
    with open(root / file, 'a') as stream:
        stream.write(line + '\n')
    with pytest.raises(ValueError, match=expected) as error:
        CUB200(root, use_boxes=True)
    assert '<- data_root' in str(error.value)


@pytest.mark.parametrize('label', ['0', '201', '1.5', '-3'])
def test_classes_outside_of_the_200(root, label):
    write(root / 'image_class_labels.txt', '1 100', '2 101', f'3 {label}', '4 200', '5 100')
    with pytest.raises(ValueError, match=f'the class of image 3 is {label}; it must be an integer'):
        CUB200(root)

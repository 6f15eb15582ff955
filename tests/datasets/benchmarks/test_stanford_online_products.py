import os

import pytest

from retrieval.datasets import StanfordOnlineProducts
from retrieval.registry import DATASETS

from ..miniatures import make_products

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
TRAIN = [(10, 1, 'bicycle_final/110_0.JPG'), (9, 2, 'coffee_maker_final/330_0.JPG'),
         (10, 1, 'bicycle_final/110_1.JPG')]
TEST = [(11319, 1, 'bicycle_final/251_2.JPG'), (11319, 1, 'bicycle_final/251_3.JPG'),
        (22634, 12, 'toaster_final/1_0.JPG')]


@pytest.fixture
def root(tmp_path):
    return make_products(tmp_path, TRAIN, TEST)


def test_train(root):
    dataset = DATASETS.build({'type': 'StanfordOnlineProducts', 'data_root': str(root),
                              'pipeline': PIPELINE})
    assert [os.path.relpath(name, root) for name in dataset.sample_ids] == [row[2] for row in TRAIN]
    assert dataset.labels.tolist() == [1, 0, 1]  # by number: 9 comes before 10
    assert dataset.label_names == ['9', '10']
    assert dataset.metadata == {'super_class': ['bicycle', 'coffee_maker', 'bicycle']}
    assert dataset[1]['data_samples'].super_class == 'coffee_maker'
    assert dataset[1]['data_samples'].gt_label.tolist() == [0]


def test_test(root):
    dataset = StanfordOnlineProducts(root, split='test')
    assert dataset.labels.tolist() == [0, 0, 1] and dataset.label_names == ['11319', '22634']
    assert dataset.metadata == {'super_class': ['bicycle', 'bicycle', 'toaster']}


def test_missing_file(root):
    (root / 'Ebay_test.txt').unlink()
    assert len(StanfordOnlineProducts(root)) == 3
    with pytest.raises(FileNotFoundError, match=r'is missing: Ebay_test\.txt') as error:
        StanfordOnlineProducts(root, split='test')
    assert 'Stanford_Online_Products/   <- data_root' in str(error.value)


def test_images_that_are_not_there(root):
    (root / TEST[1][2]).unlink()
    with pytest.raises(FileNotFoundError, match=r'names 3 images, of which 1 .*251_3\.JPG'):
        StanfordOnlineProducts(root, split='test')
    assert len(StanfordOnlineProducts(root, split='test', check_files=False)) == 3


@pytest.mark.parametrize(('content', 'expected'), [
    ('1 1 1 bicycle_final/110_0.JPG\n', 'header must be'),
    ('image_id class_id super_class_id path\n', 'lists nothing'),
    ('image_id class_id super_class_id path\n1 1 1\n', 'line 2 has 3 cells and not 4'),
    ('image_id class_id super_class_id path\n1 x 1 a/1.JPG\n', "the class_id of 'a/1.JPG' is 'x'"),
    ('', 'header must be')])
def test_malformed(root, content, expected):
    (root / 'Ebay_train.txt').write_text(content)
    with pytest.raises(ValueError, match=expected) as error:
        StanfordOnlineProducts(root)
    assert '<- data_root' in str(error.value)

import os

import pytest

from retrieval.datasets import Objects
from retrieval.datasets.benchmarks.objects import VIEWS

from ..miniatures import make_objects


@pytest.fixture
def root(tmp_path):
    return make_objects(tmp_path, [0, 1, 2, 501])


def test_even_numbers_are_for_training(root):
    train = Objects(root)
    assert train.label_names == ['000', '002'] and len(train) == 2 * VIEWS
    assert train.labels.tolist() == [0] * VIEWS + [1] * VIEWS
    test = Objects(root, 'test', pipeline=[dict(type='LoadImage')])
    assert test.label_names == ['001', '501'] and test[0]['img'].shape[2] == 3
    assert os.path.relpath(test.get_data_info(VIEWS)['img_path'], root) == 'images/501/0.jpg'


def test_what_is_missing(root, tmp_path):
    (root / 'images' / '002' / '3.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='3.jpg'):
        Objects(root)
    with pytest.raises(FileNotFoundError, match='prepare_objects'):
        Objects(tmp_path / 'images')
    with pytest.raises(ValueError, match='4 images|20 images|10 images'):
        Objects(root, 'test', on_count_mismatch='raise')

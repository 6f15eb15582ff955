import json
import os

import pytest

from retrieval.datasets import INaturalist2018
from retrieval.registry import DATASETS

from ..miniatures import make_inaturalist2018, write

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
ROWS = [  # super category, category, image, annotation file, split
    ('Aves', 12, 'a', 'train', 'train'), ('Plantae', 7, 'b', 'val', 'train'),
    ('Aves', 3, 'c', 'train', 'test'), ('Aves', 12, 'd', 'val', 'train'),
    ('Fungi', 2, 'e', 'val', 'test'), ('Aves', 3, 'f', 'val', 'test'),
]
SPLIT = 'Inat_dataset_splits/Inaturalist_train_set1.txt'


@pytest.fixture
def root(tmp_path):
    return make_inaturalist2018(tmp_path, ROWS)


def test_train_takes_images_of_both_annotation_files(root):
    dataset = DATASETS.build({'type': 'INaturalist2018', 'data_root': str(root),
                              'pipeline': PIPELINE})
    assert [os.path.relpath(name, root) for name in dataset.sample_ids] == [
        f'train_val2018/{name}.jpg' for name in ('Aves/12/a', 'Plantae/7/b', 'Aves/12/d')]
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.label_names == ['hidden 7', 'hidden 12']
    assert dataset.metadata == {'super_category': ['Aves', 'Plantae', 'Aves']}
    assert dataset[1]['data_samples'].super_category == 'Plantae'
    assert dataset[1]['data_samples'].gt_label.tolist() == [0]


def test_test_shares_no_class(root):
    dataset = INaturalist2018(root, split='test')
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.label_names == ['hidden 2', 'hidden 3']
    assert dataset.metadata == {'super_category': ['Aves', 'Fungi', 'Aves']}


def test_the_category_is_that_of_the_annotation(root):
    content = json.loads((root / 'train2018.json').read_text())
    content['annotations'].reverse()
    content['annotations'][0]['category_id'], content['annotations'][1]['category_id'] = 55, 7
    (root / 'train2018.json').write_text(json.dumps(content))
    dataset = INaturalist2018(root)
    assert dataset.labels.tolist() == [0, 0, 1]
    assert INaturalist2018(root, split='test').label_names == ['hidden 2', 'hidden 3', '55']


def test_revealed_names(root):
    write(root / 'categories.json', json.dumps([{'id': 12, 'name': 'Corvus corax'},
                                                {'id': 999, 'name': 'elsewhere'}]))
    assert INaturalist2018(root).label_names == ['hidden 7', 'Corvus corax']


def test_split_files_beside_the_rest(tmp_path):
    dataset = INaturalist2018(make_inaturalist2018(tmp_path, ROWS, folder=''))
    assert dataset.labels.tolist() == [1, 0, 1]


def test_missing_files(root):
    (root / SPLIT).unlink()
    (root / 'val2018.json').unlink()
    with pytest.raises(FileNotFoundError) as error:
        INaturalist2018(root)
    assert (f'are missing: {SPLIT} or Inaturalist_train_set1.txt, val2018.json.') in str(
        error.value)
    assert 'inaturalist2018/                        <- data_root' in str(error.value)


def test_images_that_are_not_there(root):
    (root / 'train_val2018/Aves/12/a.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='names 3 images, of which 1 .*a.jpg'):
        INaturalist2018(root)
    assert len(INaturalist2018(root, split='test')) == 3
    assert len(INaturalist2018(root, check_files=False)) == 3


def test_images_without_annotation(root):
    with open(root / SPLIT, 'a') as file:
        file.write('train_val2018/Aves/12/z.jpg\ntrain_val2018/Aves/12/y.jpg\n')
    with pytest.raises(ValueError, match=r'2 of its 5 images are neither in train2018\.json nor in '
                                         r"val2018\.json; the first is 'train_val2018/Aves/12/z"):
        INaturalist2018(root)


@pytest.mark.parametrize(('file', 'content', 'expected'), [
    (SPLIT, 'a b\n', 'line 1 has 2 cells'),
    (SPLIT, '', 'lists nothing'),
    ('train2018.json', '{', 'it is no JSON'),
    ('train2018.json', '[]', 'as in COCO are wanted'),
    ('train2018.json', '{"images": []}', 'KeyError'),
    ('val2018.json', '{"images": [{"id": 1, "file_name": "x"}], "annotations": [], '
                     '"categories": []}', 'as in COCO are wanted'),
    ('categories.json', '{', 'it is no JSON'),
    ('categories.json', '{"a": 1}', 'a list of categories')])
def test_malformed(root, file, content, expected):
    (root / file).write_text(content)
    with pytest.raises(ValueError, match=expected) as error:
        INaturalist2018(root)
    assert '<- data_root' in str(error.value)

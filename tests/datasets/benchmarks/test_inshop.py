import os
from uuid import uuid4

import pytest
import torch

from retrieval.datasets import InShop
from retrieval.registry import DATASETS

from ..miniatures import make_inshop, picture, write

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
ROWS = [
    ('WOMEN/Dresses/id_00000002/02_1_front.jpg', 'id_00000002', 'train'),
    ('WOMEN/Dresses/id_00000001/02_1_front.jpg', 'id_00000001', 'query'),
    ('MEN/Denim/id_00000009/01_1_front.jpg', 'id_00000009', 'gallery'),
    ('MEN/Denim/id_00000007/01_2_side.jpg', 'id_00000007', 'query'),
    ('WOMEN/Dresses/id_00000001/02_2_side.jpg', 'id_00000001', 'gallery'),
    ('MEN/Denim/id_00000009/01_2_side.jpg', 'id_00000009', 'query'),
    ('MEN/Denim/id_00000007/01_3_back.jpg', 'id_00000007', 'gallery'),
    ('MEN/Shirts/id_00000004/01_1_front.jpg', 'id_00000004', 'train'),
]
TEST_ITEMS = ['id_00000001', 'id_00000007', 'id_00000009']
LAYOUTS = [('Eval', 'Img/img'), ('', 'img'), ('Anno', 'img'), ('Eval', 'img'), ('', 'Img/img')]


def split(root, name, **kwargs):
    return DATASETS.build({'type': 'InShop', 'data_root': str(root), 'split': name,
                           'pipeline': PIPELINE, **kwargs})


@pytest.fixture
def root(tmp_path):
    return make_inshop(tmp_path, ROWS)


def test_train(root):
    dataset = split(root, 'train')
    assert dataset.labels.tolist() == [0, 1]
    assert dataset.label_names == ['id_00000002', 'id_00000004']
    assert dataset.metadata == {'category': ['WOMEN/Dresses', 'MEN/Shirts']}
    assert dataset.sample_ids[0] == str(root / 'Img/img' / ROWS[0][0])


def test_query_and_gallery_have_equal_labels_for_equal_items(root):
    query, gallery = split(root, 'query'), split(root, 'gallery')
    assert query.labels.tolist() == [0, 1, 2] and gallery.labels.tolist() == [2, 0, 1]
    assert query.label_names == gallery.label_names == TEST_ITEMS
    for dataset in (query, gallery):
        for item in (dataset[row]['data_samples'] for row in range(3)):
            folder = os.path.basename(os.path.dirname(item.img_path))
            assert TEST_ITEMS[item.gt_label.item()] == folder
    assert query[1]['data_samples'].category == 'MEN/Denim'


def test_an_item_that_only_one_of_the_two_has_shifts_no_label(tmp_path):
    root = make_inshop(tmp_path, [row for row in ROWS if row[1:] != ('id_00000001', 'query')])
    assert split(root, 'query').labels.tolist() == [1, 2]
    assert split(root, 'gallery').labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize(('partition', 'images'), LAYOUTS)
def test_the_layouts_in_which_people_have_it(tmp_path, partition, images):
    dataset = split(make_inshop(tmp_path, ROWS, partition, images), 'query')
    assert dataset.labels.tolist() == [0, 1, 2]
    assert dataset[0]['data_samples'].img_path == str(tmp_path / images / ROWS[1][0])


def test_there_is_no_test_split(root):
    with pytest.raises(ValueError, match=r"split of InShop 'test'.*gallery, query, train"):
        InShop(root, split='test')


def test_missing_files(root):
    (root / 'Eval' / 'list_eval_partition.txt').unlink()
    (root / 'Img').rename(root / 'Images')
    with pytest.raises(FileNotFoundError) as error:
        InShop(root)
    assert ('are missing: Eval/list_eval_partition.txt or Anno/list_eval_partition.txt or '
            'list_eval_partition.txt, Img/img/ or img/.') in str(error.value)
    assert 'In-shop Clothes Retrieval Benchmark/   <- data_root' in str(error.value)


def test_images_that_are_not_there(root):
    (root / 'Img/img' / ROWS[2][0]).unlink()
    with pytest.raises(FileNotFoundError, match='names 3 images, of which 1 .*id_00000009'):
        split(root, 'gallery')
    assert len(split(root, 'query')) == 3
    assert len(split(root, 'gallery', check_files=False)) == 3


HEADER = 'image_name item_id evaluation_status'


@pytest.mark.parametrize(('lines', 'expected'), [
    (('1', 'x', 'img/a/1.jpg id_1 train'), 'header must be'),
    (('2', HEADER, 'img/a/1.jpg id_1 train'), 'is the file cut off'),
    (('1', HEADER, 'img/a/1.jpg id_1'), 'line 3 has 2 cells'),
    (('1', HEADER, 'img/a/1.jpg id_1 val'), "'img/a/1.jpg' 'val'"),
    (('1', HEADER, 'a/1.jpg id_1 train'), "one is 'a/1.jpg' 'train'"),
    (('1', HEADER, 'img/a/1.jpg id_1 query'), "no image for split 'train'")])
def test_malformed(root, lines, expected):
    write(root / 'Eval' / 'list_eval_partition.txt', *lines)
    with pytest.raises(ValueError, match=expected) as error:
        InShop(root)
    assert '<- data_root' in str(error.value)


def test_the_protocol_of_queries_in_the_gallery(root, tmp_path_factory):
    """Two of three queries find their item first, and the other one second."""
    from mmengine.runner import Runner
    pictures = {1: 10, 4: 10, 3: 20, 6: 20, 5: 10, 2: 40}  # row: seed of its noise
    for row, seed in pictures.items():
        picture(root / 'Img/img' / ROWS[row][0], seed)
    make = {name: dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler',
                                                                 shuffle=False),
                       dataset=dict(type='InShop', data_root=str(root), split=name,
                                    pipeline=PIPELINE)) for name in ('query', 'gallery')}
    runner = Runner(
        model=dict(type='ImageToImageRetriever', image_encoder=torch.nn.Flatten(),
                   prototype=make['gallery'], topk=3),
        test_dataloader=make['query'], test_cfg=dict(),
        test_evaluator=dict(type='EmbeddingMetrics', protocol='InShop'),
        custom_hooks=[dict(type='PreparePrototypeHook')], default_scope='retrieval',
        work_dir=str(tmp_path_factory.mktemp('work')), log_level='ERROR',
        experiment_name=uuid4().hex)
    figures = runner.test()
    assert figures['embedding/Recall@1'] == pytest.approx(200 / 3)
    assert figures['embedding/Recall@10'] == figures['embedding/Recall@50'] == 100
    assert figures['embedding/num_queries'] == 3

import os

import pytest

from retrieval.datasets import VeRi776
from retrieval.datasets.benchmarks.veri776 import COLORS, TYPES
from retrieval.registry import DATASETS

from ..landmark_miniatures import VERI, make_veri776

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
QUIET = {'on_count_mismatch': 'ignore'}


@pytest.fixture
def root(tmp_path):
    make_veri776(tmp_path)
    return tmp_path


def names(dataset):
    return [os.path.basename(name) for name in dataset.sample_ids]


def test_training(root):
    train = DATASETS.build({'type': 'VeRi776', 'data_root': str(root), 'split': 'train',
                            'pipeline': PIPELINE, **QUIET})
    assert names(train) == VERI['train']  # the order of the list
    assert train.labels.tolist() == [int(name[:4]) - 1 for name in VERI['train']]
    assert train.label_names == [f'{car:04d}' for car in range(1, 17)]
    assert train.metadata['camera'] == [1, 2, 3, 20] * 16
    assert train[3]['data_samples'].camera == 20


def test_query_and_gallery(root):
    query, gallery = (VeRi776(root, split, **QUIET) for split in ('query', 'gallery'))
    assert query.label_names == gallery.label_names == ['0030', '0031']
    assert query.labels.tolist() == [0, 0, 1, 1] and gallery.labels.tolist() == [0] * 6 + [1] * 6
    # a query stands in the gallery: one picture, one identity
    assert query.sample_ids == [str(root / 'image_test' / name) for name in VERI['query']]
    assert set(query.sample_ids) < set(gallery.sample_ids)
    assert query.get_data_info(0)['img_path'] == str(root / 'image_query' / VERI['query'][0])


def test_a_query_that_is_not_in_the_gallery_keeps_its_own_identity(root):
    rest = [name for name in VERI['test'] if name not in VERI['query'][:1]]
    (root / 'name_test.txt').write_text('\n'.join(rest) + '\n')
    assert VeRi776(root, 'query', **QUIET).sample_ids[:2] == [
        str(root / 'image_query' / VERI['query'][0]), str(root / 'image_test' / VERI['query'][1])]


def test_colour_and_type_in_gb2312(root):
    train = VeRi776(root, pipeline=PIPELINE, **QUIET)
    cars = [int(name[:4]) for name in VERI['train']]
    assert train.metadata['color'] == ['' if car % 11 == 0 else COLORS[car % 11 - 1]
                                       for car in cars]
    assert train.metadata['type'] == ['' if car % 10 == 0 else TYPES[car % 10 - 1] for car in cars]
    assert train[0]['data_samples'].color == 'yellow' and train[4]['data_samples'].type == 'suv'
    query = VeRi776(root, 'query', **QUIET)  # from the labels of the test images
    assert query.metadata['color'] == [COLORS[30 % 11 - 1]] * 2 + [COLORS[31 % 11 - 1]] * 2


def test_labels_are_optional(root):
    (root / 'train_label.xml').unlink()
    assert set(VeRi776(root, **QUIET).metadata) == {'camera'}
    assert set(VeRi776(root, 'gallery', attributes=False, **QUIET).metadata) == {'camera'}
    with pytest.raises(FileNotFoundError, match='(?s)missing: train_label.xml.*Expected is'):
        VeRi776(root, attributes=True, **QUIET)


@pytest.mark.parametrize('content, message', [
    (b'<a', 'no XML in GB2312'), (b'', 'no XML'), (b'\xff\xff', 'no XML in GB2312'),
    (b'<Items></Items>', "elements 'Item'"), (b'<Items><Item/></Items>', "elements 'Item'"),
    (b'<!DOCTYPE a [<!ENTITY b "c">]><Items><Item imageName="&b;"/></Items>', 'document type'),
])
def test_other_label_files(root, content, message):
    (root / 'train_label.xml').write_bytes(content)
    with pytest.raises(ValueError, match=rf'(?s)train_label\.xml.*{message}.*Expected is'):
        VeRi776(root, **QUIET)


def test_counts_and_splits(root):
    with pytest.raises(ValueError, match='64 images of 16 classes; officially there are 37,778'):
        VeRi776(root, on_count_mismatch='raise')
    with pytest.raises(ValueError, match="Did you mean|Valid names: gallery, query, train"):
        VeRi776(root, 'galery')


@pytest.mark.parametrize('split, parts', [
    ('train', ('name_train.txt', 'image_train')), ('gallery', ('name_test.txt', 'image_test')),
    ('query', ('name_query.txt', 'image_query', 'name_test.txt', 'image_test'))])
def test_missing_parts(root, split, parts):
    for part in parts:
        os.rename(root / part, root / 'away')
        with pytest.raises(FileNotFoundError, match=f'(?s)missing: {part}.*Expected is'):
            VeRi776(root, split, **QUIET)
        os.rename(root / 'away', root / part)


def test_images_that_are_not_there(root):
    (root / 'image_train' / VERI['train'][2]).unlink()
    with pytest.raises(FileNotFoundError, match=rf'64 images, of which 1 .*{VERI["train"][2]}'):
        VeRi776(root, **QUIET)
    assert len(VeRi776(root, check_files=False, **QUIET)) == 64


@pytest.mark.parametrize('line, message', [
    ('0001.jpg', r"name_train.*lists '0001\.jpg'; images are called as in 0002"),
    ('../0001_c001_00016450_0.jpg', 'called as in'),
    ('0001_c001_00016450_0.jpg 7', 'has 2 cells')])
def test_malformed_lists(root, line, message):
    (root / 'name_train.txt').write_text(f'{VERI["train"][0]}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        VeRi776(root, check_files=False, **QUIET)

import os

import pytest

from retrieval.datasets import Market1501
from retrieval.registry import DATASETS

from ..landmark_miniatures import MARKET, make_market1501, picture

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
QUIET = {'on_count_mismatch': 'ignore'}


@pytest.fixture
def root(tmp_path):
    make_market1501(tmp_path)
    return tmp_path


def names(dataset):
    return [os.path.basename(name) for name in dataset.sample_ids]


def test_training(root):
    train = DATASETS.build({'type': 'Market1501', 'data_root': str(root), 'split': 'train',
                            'pipeline': PIPELINE, **QUIET})
    assert names(train) == sorted(MARKET['bounding_box_train'])
    people = sorted({int(name[:4]) for name in MARKET['bounding_box_train']})
    assert train.labels.tolist() == [people.index(int(name[:4])) for name in names(train)]
    assert train.label_names[:3] == ['0002', '0007', '0010']
    assert train[0]['inputs'].shape == (3, 16, 8)


def test_query_and_gallery_agree(root):
    query, gallery = (Market1501(root, split, **QUIET) for split in ('query', 'gallery'))
    assert query.label_names == gallery.label_names == ['0000', '0001', '0003', '0005']
    for dataset in (query, gallery):
        assert [int(dataset.label_names[label]) for label in dataset.labels] == [
            int(name[:4]) for name in names(dataset)]
    assert not set(query.sample_ids) & set(gallery.sample_ids)


def test_junk_is_left_out_and_distractors_are_ranked(root):
    gallery = Market1501(root, 'gallery', **QUIET)
    assert names(gallery) == sorted(name for name in MARKET['bounding_box_test']
                                    if not name.startswith('-1'))
    assert gallery.labels.tolist()[:4] == [0] * 4  # the distractors
    assert 0 not in Market1501(root, 'query', **QUIET).labels


def test_camera_and_sequence(root):
    gallery = Market1501(root, 'gallery', pipeline=PIPELINE, **QUIET)
    cameras = [int(name.split('_c')[1][0]) for name in names(gallery)]
    sequences = [int(name.split('s')[1][0]) for name in names(gallery)]
    assert gallery.metadata == {'camera': cameras, 'sequence': sequences}
    sample = gallery[9]['data_samples']
    assert (sample.camera, sample.sequence) == (cameras[9], sequences[9])


def test_counts(root, caplog):
    with pytest.raises(ValueError, match='gallery.* has 22 images of 4 classes; officially there '
                                         'are 15,913 images of 751 classes'):
        Market1501(root, 'gallery', on_count_mismatch='raise')
    with pytest.raises(ValueError, match='Unknown on_count_mismatch'):
        Market1501(root, on_count_mismatch='shout')


def test_errors(root):
    with pytest.raises(ValueError, match="split of Market1501 'test'.*gallery"):
        Market1501(root, 'test')
    with pytest.raises(FileNotFoundError, match=r'(?s)does not exist.*Market-1501-v15\.09\.15/'):
        Market1501(root / 'absent')
    os.rename(root / 'bounding_box_test', root / 'gone')
    for split in ('query', 'gallery'):
        with pytest.raises(FileNotFoundError, match='(?s)missing: bounding_box_test/.*Expected'):
            Market1501(root, split, **QUIET)
    (root / 'bounding_box_test').mkdir()
    with pytest.raises(ValueError, match='(?s)bounding_box_test.*no JPEG file.*Expected'):
        Market1501(root, 'gallery', **QUIET)


def test_the_folder_above_is_hinted_at(root):
    make_market1501(root / 'outer' / 'Market-1501-v15.09.15')
    with pytest.raises(FileNotFoundError, match=r"They are in '.*Market-1501-v15\.09\.15'"):
        Market1501(root / 'outer', **QUIET)


@pytest.mark.parametrize('name', ['0002.jpg', '0002_c1_000451_03.jpg', 'x_c1s1_000451_03.jpg',
                                  '-2_c1s1_000451_03.jpg', '0002_c1s1_000451_03_x.jpg'])
def test_other_names(root, name):
    picture(root / 'bounding_box_train' / name)
    with pytest.raises(ValueError, match=f'{name}.*called as in 0002_c1s1_000451_03.jpg'):
        Market1501(root, **QUIET)

"""Splits with labels and counts, identities in file names, galleries that are judged by rows."""
import logging
import os
import re

import pytest
from mmengine.logging import MMLogger

from retrieval.datasets import (
    BenchmarkDataset,
    Listing,
    ReidentificationDataset,
    UnreadableImageError,
)
from retrieval.datasets.benchmarks.base import JudgedRowsDataset, compare_counts
from retrieval.registry import DATASETS

from ..miniatures import picture
from ..toys import save


def test_counts(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        compare_counts('Some', (1200, 10), (1200, 10), 'raise')
        compare_counts('Some', (1200, 10), (3, 2), 'ignore')
        assert caplog.records == []
        compare_counts('Some', (1200, 10), (3, 2), 'warn')
        assert caplog.records[0].levelno == logging.WARNING
        expected = 'Some has 3 images of 2 classes; officially there are 1,200 images of 10 classes'
        assert expected in caplog.text
        with pytest.raises(ValueError, match=expected):
            compare_counts('Some', (1200, 10), (3, 2), 'raise')
        with pytest.raises(ValueError, match='1,200 images of 9 classes'):
            compare_counts('Some', (1200, 10), (1200, 9), 'raise')
    finally:
        logger.removeHandler(caplog.handler)


TREE = """
toy/    <- data_root
└── *.jpg
"""
NAMES = ('CUB200', 'Cars196', 'StanfordOnlineProducts', 'InShop', 'INaturalist2018')


class Toy(BenchmarkDataset):
    """Class ``number`` of an image is a number in the files; 30 exists but is not in the split."""

    tree = TREE
    counts = {'train': (3, 2), 'test': (1, 1)}

    def read(self):
        rows = [('a.jpg', 20), ('b.jpg', 40), ('c.jpg', 20)] if self.split == 'train' else []
        return Listing('list.txt', [
            {'img_path': os.path.join(self.data_root, name), 'gt_label': number}
            for name, number in rows], {20: 'twenty', 30: 'thirty', 40: 'forty'})


@pytest.fixture
def root(tmp_path):
    for name in 'abc':
        picture(tmp_path / f'{name}.jpg')
    return tmp_path


def test_labels_count_from_zero_in_the_order_of_the_classes(root):
    dataset = Toy(root, on_count_mismatch='raise')
    assert dataset.labels.tolist() == [0, 2, 0]
    assert dataset.label_names == ['twenty', 'thirty', 'forty']
    assert [os.path.basename(name) for name in dataset.sample_ids] == ['a.jpg', 'b.jpg', 'c.jpg']


def test_an_image_that_is_not_there_is_refused_unless_files_are_not_checked(root):
    (root / 'b.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='3 images, of which 1 are not there') as error:
        Toy(root)
    assert str(root / 'b.jpg') in str(error.value) and TREE.strip() in str(error.value)
    dataset = Toy(root, check_files=False, pipeline=[{'type': 'LoadImage'}])
    assert len(dataset) == 3 and dataset[0]['img'].shape == (24, 24, 3)
    with pytest.raises(FileNotFoundError, match=r'b\.jpg'):
        dataset[1]


def test_an_empty_split_is_malformed(root):
    with pytest.raises(ValueError, match="no image for split 'test'") as error:
        Toy(root, split='test')
    assert TREE.strip() in str(error.value)


def test_counts_are_compared_with_the_official_ones(root, monkeypatch):
    monkeypatch.setattr(Toy, 'counts', {'train': (4, 2)})
    assert len(Toy(root)) == 3
    with pytest.raises(ValueError, match="Toy, split 'train' in .*, has 3 images of 2 classes; "
                                         'officially there are 4 images'):
        Toy(root, on_count_mismatch='raise')


def test_a_part_of_a_whole_copy_is_no_other_copy(root):
    assert Toy(root, indices=2, on_count_mismatch='raise').labels.tolist() == [0, 2]


def test_wrong_arguments_are_refused_before_a_file_is_read():
    with pytest.raises(ValueError, match=r"split of Toy 'trian'.*Did you mean 'train'"):
        Toy('nowhere', split='trian')
    with pytest.raises(ValueError, match="on_count_mismatch 'warm'.*Did you mean 'warn'"):
        Toy('nowhere', on_count_mismatch='warm')


@pytest.mark.parametrize('name', NAMES)
def test_the_benchmarks_have_a_protocol_and_a_tree(name, tmp_path):
    from retrieval.evaluation import PROTOCOLS
    assert name in PROTOCOLS
    dataset = DATASETS.get(name)
    assert set(dataset.counts) == set(dataset.splits)
    with pytest.raises(FileNotFoundError) as error:
        dataset(tmp_path)
    assert '<- data_root' in str(error.value)
    assert dataset(tmp_path, lazy_init=True).split == 'train'


class Names(ReidentificationDataset):
    """File names without files."""

    tree = 'names/'
    pattern = re.compile(r'(?P<identity>\d+)_c(?P<camera>\d)_(?P<shot>\d)\.png')
    example = '7_c1_0.png'
    metadata_keys = ('camera', 'shot')
    counts = {'train': (3, 2), 'query': (2, 2), 'gallery': (3, 3)}
    names = {'train': ['5_c1_0.png', '2_c2_1.png', '5_c2_2.png'],
             'query': ['1008_c1_0.png', '4_c1_0.png'],
             'gallery': ['4_c2_0.png', '11_c2_3.png', '3_c3_0.png']}

    def list_images(self, split):
        return 'x', [f'x/{name}' for name in self.names[split]]

    def __init__(self, *arguments, **kwargs):
        super().__init__(*arguments, check_files=False, **kwargs)


def test_labels_and_metadata():
    train = Names('x', on_count_mismatch='raise')
    assert train.labels.tolist() == [1, 0, 1] and train.label_names == ['0002', '0005']
    assert train.metadata == {'camera': [1, 2, 2], 'shot': [0, 1, 2]}
    query, gallery = Names('x', 'query'), Names('x', 'gallery')
    assert query.label_names == gallery.label_names == ['0003', '0004', '0011', '1008']
    assert query.labels.tolist() == [3, 1] and gallery.labels.tolist() == [1, 2, 0]
    assert query.sample_ids == ['x/1008_c1_0.png', 'x/4_c1_0.png']


def test_identities_are_counted_not_labels(monkeypatch):
    """The gallery has three of the four identities that share a numbering."""
    Names('x', 'gallery', on_count_mismatch='raise')
    monkeypatch.setitem(Names.counts, 'gallery', (3, 4))
    with pytest.raises(ValueError, match='3 images of 3 classes; officially there are 3 images of '
                                         '4 classes'):
        Names('x', 'gallery', on_count_mismatch='raise')


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="split of Names 'tests'"):
        Names('x', 'tests')
    with pytest.raises(ValueError, match="Unknown on_count_mismatch 'rise'.*Did you mean 'raise'"):
        Names('x', on_count_mismatch='rise')
    monkeypatch.setitem(Names.names, 'gallery', ['a.png'])
    with pytest.raises(ValueError, match=r"(?s)'x/a\.png'.*called as in 7_c1_0\.png.*names/"):
        Names('x', 'query')
    with pytest.raises(NotImplementedError, match='implements list_images'):
        ReidentificationDataset('x')


PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]


class Three(JudgedRowsDataset):
    """Three files, of which the ground truth is about the first two; one cannot be read."""

    def __init__(self, root, split, broken, **kwargs):
        self.root, self.split, self.broken = root, split, broken
        super().__init__(pipeline=PIPELINE, **kwargs)

    def load_data_list(self):
        self.num_judged = 2
        paths = [save(self.root / f'{row}.png') for row in range(3)]
        paths[self.broken].write_bytes(b'no image')
        return [{'img_path': str(path)} for path in paths]


@pytest.mark.parametrize('split, broken, skipped', [
    ('gallery', 1, False), ('gallery', 2, True), ('query', 1, True)])
def test_what_is_skipped(tmp_path, split, broken, skipped):
    dataset = Three(tmp_path, split, broken, on_unreadable='skip')
    assert 'unreadable' not in dataset[0]['data_samples']
    if skipped:
        assert dataset[broken]['data_samples'].unreadable
    else:
        with pytest.raises(UnreadableImageError, match=r'1\.png.*cannot be skipped'):
            dataset[broken]
        with pytest.raises(UnreadableImageError):
            dataset[broken - 3]
    with pytest.raises(UnreadableImageError):
        Three(tmp_path, split, broken)[broken]


def test_a_gallery_is_not_cut(tmp_path):
    with pytest.raises(ValueError, match="Three with split='gallery' cannot be cut"):
        Three(tmp_path, 'gallery', 0, indices=2)
    assert len(Three(tmp_path, 'query', 0, indices=2)) == 2

import os

import pytest

from retrieval.datasets import BenchmarkDataset, Listing
from retrieval.registry import DATASETS

from .miniatures import picture

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

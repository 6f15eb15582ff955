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
from retrieval.datasets.benchmarks.base import (
    JudgedRowsDataset,
    compare_counts,
    malformed,
    missing_files,
    read_numbers,
    read_rows,
    require,
    require_images,
)
from retrieval.registry import DATASETS

from ..miniatures import picture, write
from ..toys import save

TREE = """
somewhere/    <- data_root
├── list.txt
└── images/
"""


def test_what_is_there_is_returned_in_order(tmp_path):
    write(tmp_path / 'b' / 'list.txt', 'x')
    (tmp_path / 'images').mkdir()
    found = require(f'{tmp_path}//b/..', TREE, 'images/', ('a/list.txt', 'b/list.txt'))
    assert found == [str(tmp_path / 'images'), str(tmp_path / 'b' / 'list.txt')]


def test_the_first_of_several_names_wins(tmp_path):
    for folder in 'ab':
        write(tmp_path / folder / 'list.txt', 'x')
    assert require(tmp_path, TREE, ('b/list.txt', 'a/list.txt')) == [
        str(tmp_path / 'b' / 'list.txt')]


def test_all_that_is_missing_stands_in_one_error_with_the_tree(tmp_path):
    write(tmp_path / 'list.txt', 'x')
    with pytest.raises(FileNotFoundError) as error:
        require(tmp_path, TREE, 'list.txt', ('a.txt', 'b.txt'), 'images/')
    message = str(error.value)
    assert 'are missing: a.txt or b.txt, images/.' in message
    assert message.endswith(TREE.strip() + '\n')
    with pytest.raises(FileNotFoundError, match='is missing: images/'):
        require(tmp_path, TREE, 'list.txt', 'images/')


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    write(tmp_path / 'images', 'x')
    (tmp_path / 'list.txt').mkdir()
    with pytest.raises(FileNotFoundError, match='list.txt, images/'):
        require(tmp_path, TREE, 'list.txt', 'images/')


@pytest.mark.parametrize(('given', 'expected'), [
    ('', 'No data_root is given'), ('nowhere', "'nowhere' does not exist"),
    ('list.txt', "'list.txt' is a file")])
def test_the_root_itself(tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'list.txt', 'x')
    with pytest.raises(FileNotFoundError, match=expected) as error:
        require(given, TREE, 'list.txt')
    assert 'somewhere/    <- data_root' in str(error.value)


@pytest.mark.parametrize('given', ['.', 'data/deeper'])
def test_a_folder_inside_or_above_that_has_all_is_named(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'data' / 'list.txt', 'x')
    (tmp_path / 'data' / 'deeper').mkdir()
    with pytest.raises(FileNotFoundError, match=r"in '.*data': give that as data_root"):
        require(given, TREE, 'list.txt')
    with pytest.raises(FileNotFoundError) as error:  # it has only a part
        require(given, TREE, 'list.txt', 'images/')
    assert 'give that' not in str(error.value)


def test_rows(tmp_path):
    path = str(write(tmp_path / 'a.txt', '2', 'name  number', 'a \t 1 ', '', 'b 2'))
    assert read_rows(path, TREE, 2, ('name', 'number'), counted=True) == [['a', '1'], ['b', '2']]
    path = str(write(tmp_path / 'b.txt', '\ufeff1 2.5', '3 -4'))
    assert read_numbers(path, TREE, 2) == [[1, 2.5], [3, -4]]


@pytest.mark.parametrize(('lines', 'expected'), [
    (('2', 'name', 'a 1', 'b 2'), "header must be 'name number', but it is 'name'"),
    (('2', 'name number', 'a 1', '', 'b'), "line 5 has 1 cells and not 2: 'b'"),
    (('3', 'name number', 'a 1', 'b 2'), "number of rows, 2, but it is '3'"),
    (('name number', 'a 1'), 'header must be'),
    (('1', 'name number'), 'lists nothing'),
    (('',), 'header must be')])
def test_malformed_rows(tmp_path, lines, expected):
    path = str(write(tmp_path / 'a.txt', *lines))
    with pytest.raises(ValueError, match=expected) as error:
        read_rows(path, TREE, 2, ('name', 'number'), counted=True)
    assert repr(path) in str(error.value) and TREE.strip() in str(error.value)


@pytest.mark.parametrize(('line', 'expected'), [('1 x', "'x'"), ('1 nan', 'not finite'),
                                                ('1 inf', 'not finite')])
def test_malformed_numbers(tmp_path, line, expected):
    with pytest.raises(ValueError, match=expected):
        read_numbers(str(write(tmp_path / 'a.txt', '0 1', line)), TREE, 2)


def test_what_is_no_text(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='no text in UTF-8'):
        read_rows(str(tmp_path / 'a.txt'), TREE, 1)


def test_missing_files_agree_with_a_plain_loop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'top.jpg'):
        write(tmp_path / name, 'x')
    (tmp_path / 'linked').symlink_to(tmp_path / 'a')
    (tmp_path / 'broken').symlink_to(tmp_path / 'gone')
    (tmp_path / 'a' / '4.jpg').symlink_to(tmp_path / 'a' / '1.jpg')
    (tmp_path / 'a' / '5.jpg').symlink_to(tmp_path / 'gone.jpg')
    (tmp_path / 'a' / '6.jpg').mkdir()
    names = ['a/1.jpg', 'a/3.jpg', 'a/4.jpg', 'a/5.jpg', 'a/6.jpg', 'b/../a/2.jpg', 'c/1.jpg',
             'linked/1.jpg', 'linked/9.jpg', 'broken/1.jpg', 'top.jpg', 'none.jpg', 'a/3.jpg']
    assert missing_files(names) == [name for name in names if not os.path.isfile(name)]


def test_images_that_are_not_there_are_counted_and_the_first_is_named(tmp_path):
    path = write(tmp_path / 'a.jpg', 'x')
    require_images('list.txt', TREE, [str(path)])
    with pytest.raises(FileNotFoundError) as error:
        require_images('list.txt', TREE, [str(path), 'x/1.jpg', 'x/2.jpg'])
    message = str(error.value)
    assert "'list.txt' names 3 images, of which 2 are not there; the first is 'x/1.jpg'" in message
    assert 'check_files=False' in message and TREE.strip() in message


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
        with pytest.raises(ValueError, match="Did you mean 'warn'"):
            compare_counts('Some', (1, 1), (1, 1), 'warm')
    finally:
        logger.removeHandler(caplog.handler)


def test_malformed_is_for_raising():
    assert isinstance(malformed('a.txt', TREE, 'why.'), ValueError)


BENCHMARK_TREE = """
toy/    <- data_root
└── *.jpg
"""
NAMES = ('CUB200', 'Cars196', 'StanfordOnlineProducts', 'InShop', 'INaturalist2018')


class Toy(BenchmarkDataset):
    """Class ``number`` of an image is a number in the files; 30 exists but is not in the split."""

    tree = BENCHMARK_TREE
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
    assert str(root / 'b.jpg') in str(error.value) and BENCHMARK_TREE.strip() in str(error.value)
    dataset = Toy(root, check_files=False, pipeline=[{'type': 'LoadImage'}])
    assert len(dataset) == 3 and dataset[0]['img'].shape == (24, 24, 3)
    with pytest.raises(FileNotFoundError, match=r'b\.jpg'):
        dataset[1]


def test_an_empty_split_is_malformed(root):
    with pytest.raises(ValueError, match="no image for split 'test'") as error:
        Toy(root, split='test')
    assert BENCHMARK_TREE.strip() in str(error.value)


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

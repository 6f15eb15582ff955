import logging
import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import ImageFolder, ImageList, find_images, split_classes
from retrieval.registry import DATASETS

from .toys import save

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]


@pytest.fixture
def root(tmp_path):
    for name in ('dog/2.jpg', 'dog/1.PNG', 'cat/deep/er/1.jpg', 'cat/0.webp', 'ant/1.jpg',
                 'ant/.hidden.jpg', '.git/1.jpg', 'cat/.thumbs/1.jpg'):
        save(tmp_path / name)
    (tmp_path / 'dog' / 'notes.txt').write_text('x')
    return tmp_path


def relative(dataset, root):
    return [os.path.relpath(name, root) for name in dataset.sample_ids]


def test_one_folder_a_class(root):
    dataset = DATASETS.build({'type': 'ImageFolder', 'data_root': str(root), 'pipeline': PIPELINE})
    assert relative(dataset, root) == ['ant/1.jpg', 'cat/0.webp', 'cat/deep/er/1.jpg', 'dog/1.PNG',
                                       'dog/2.jpg']
    assert dataset.labels.tolist() == [0, 1, 1, 2, 2]
    assert dataset.label_names == ['ant', 'cat', 'dog']
    item = dataset[3]
    assert item['inputs'].shape == (3, 4, 6) and item['data_samples'].gt_label.tolist() == [2]
    assert item['data_samples'].img_path == item['data_samples'].sample_id


def test_paths_are_normal_and_may_be_objects(root):
    assert ImageFolder(f'{root}//x/..//').sample_ids == ImageFolder(Path(root)).sample_ids


def test_linked_class_folders(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    save(elsewhere / '1.jpg')
    (root / 'bee').symlink_to(elsewhere, target_is_directory=True)
    assert ImageFolder(root).label_names == ['ant', 'bee', 'cat', 'dog']


def test_splits_share_no_class_and_do_not_change(tmp_path):
    names = [f'class{number}' for number in range(20)]
    for name in names:
        save(tmp_path / name / '1.jpg')
    train, test = (ImageFolder(tmp_path, split=split) for split in ('train', 'test'))
    assert not set(train.label_names) & set(test.label_names)
    assert sorted(train.label_names + test.label_names) == sorted(names)
    assert test.labels.tolist() == list(range(10)) and test.label_names == sorted(test.label_names)
    by_hand = sorted(names, key=lambda name: sha256(f'0:{name}'.encode()).hexdigest())[:10]
    assert test.label_names == sorted(by_hand)
    other = ImageFolder(tmp_path, split='test', seed=1)
    assert other.label_names != test.label_names
    few = ImageFolder(tmp_path, split='test', test_share=0.1)
    assert len(few) == 2 and set(few.label_names) < set(test.label_names)


def test_split_extremes():
    assert split_classes(['a', 'b'], 'test', 0.01) + split_classes(['a', 'b'], 'train', 0.01)
    assert len(split_classes(['a', 'b'], 'train', 0.99)) == 1
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        split_classes(['a', 'b'], 'trian')
    with pytest.raises(ValueError, match='above 0 and below 1'):
        split_classes(['a', 'b'], 'train', 1)
    with pytest.raises(ValueError, match='at least two'):
        split_classes(['a'], 'train')


def test_given_classes_fix_the_labels(root):
    dataset = ImageFolder(root, classes=['dog', 'emu', 'cat', 'ant'])
    assert dataset.labels.tolist() == [0, 0, 2, 2, 3]
    assert dataset.label_names == ['dog', 'emu', 'cat', 'ant']
    with pytest.raises(ValueError, match="'ant'.*`classes` does not name"):
        ImageFolder(root, classes=['dog', 'cat'])


def test_extensions(root):
    assert relative(ImageFolder(root, extensions=['.png']), root) == ['dog/1.PNG']


def test_what_is_left_out_is_said(root, caplog):
    from mmengine.logging import MMLogger
    (root / 'empty').mkdir()
    save(root / 'loose.jpg')
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        dataset = ImageFolder(root)
    logger.removeHandler(caplog.handler)
    assert dataset.label_names == ['ant', 'cat', 'dog']
    assert "['empty']" in caplog.text and "['loose.jpg']" in caplog.text


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        ImageFolder(tmp_path / 'absent')
    with pytest.raises(FileNotFoundError, match='no folder'):
        ImageFolder('')
    with pytest.raises(ValueError, match='holds no images'):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        ImageFolder(tmp_path, split='trian')
    save(tmp_path / '1.jpg')
    with pytest.raises(ValueError, match=r"no class folders.*type='retrieval\.ImageList'"):
        ImageFolder(tmp_path)
    with pytest.raises(NotADirectoryError, match='is a file'):
        ImageFolder(tmp_path / '1.jpg')


# ImageList -------------------------------------------------------------------------------------

def test_a_folder_of_images(root):
    dataset = ImageList(str(root), pipeline=PIPELINE)
    assert dataset.sample_ids == find_images(root) and len(dataset) == 5
    assert dataset.labels is None and dataset.label_names is None
    assert 'gt_label' not in dataset[0]['data_samples']


def test_files_folders_and_pictures_together(root):
    gray, colour = np.zeros((3, 4), np.uint8), np.full((3, 4, 3), 9, np.uint8)
    dataset = ImageList([root / 'dog' / '2.jpg', root / 'cat', gray, Image.fromarray(colour)],
                        pipeline=PIPELINE)
    assert len(dataset) == 5
    assert dataset.sample_ids[0] == str(root / 'dog' / '2.jpg')
    assert [tuple(dataset[row]['inputs'].shape) for row in range(5)] == [(3, 4, 6)] * 3 + [
        (3, 3, 4)] * 2
    assert dataset[4]['inputs'].unique().tolist() == [9]


def test_identity_of_pictures_in_memory():
    """Equal exactly for the same pixels, in any list; and unique within one."""
    one, other = np.zeros((3, 4), np.uint8), np.ones((3, 4), np.uint8)
    ids = ImageList([one, other, one.copy(), one.reshape(4, 3)]).sample_ids
    assert len(set(ids)) == 4
    assert ImageList([other, one]).sample_ids == [ids[1], ids[0]]
    assert ImageList(one).sample_ids == ids[:1] != ImageList(one.reshape(4, 3)).sample_ids


def test_bad_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.jpg'):
        ImageList([tmp_path / 'absent.jpg'])
    with pytest.raises(ValueError, match='got no images'):
        ImageList([])
    with pytest.raises(ValueError, match='holds no images'):
        ImageList(tmp_path)
    with pytest.raises(TypeError, match='position 1 must be an array or a Pillow image'):
        ImageList([np.zeros((2, 2), np.uint8), 3])
    with pytest.raises(TypeError, match='uint8'):
        ImageList([np.zeros((2, 2))])
    with pytest.raises(ValueError, match='shape'):
        ImageList([np.zeros((2, 2, 7), np.uint8)])
    save(tmp_path / 'a.jpg')
    with pytest.raises(ValueError, match=r'a\.jpg.*more than once'):
        ImageList([tmp_path / 'a.jpg'] * 2).sample_ids  # noqa: B018

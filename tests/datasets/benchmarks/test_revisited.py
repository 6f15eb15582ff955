import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import RevisitedOxford, RevisitedParis, UnreadableImageError
from retrieval.registry import DATASETS

from ..landmark_miniatures import make_revisited, picture

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]


@pytest.fixture
def root(tmp_path):
    make_revisited(tmp_path)
    return tmp_path


@pytest.fixture
def truth(tmp_path):
    return make_revisited(tmp_path)


def rewrite(root, change, name='roxford5k'):
    """Change the ground truth in place."""
    path = root / name / f'gnd_{name}.pkl'
    truth = pickle.loads(path.read_bytes())  # made by this test
    change(truth)
    path.write_bytes(pickle.dumps(truth))


def test_queries(tmp_path, truth):
    queries = DATASETS.build({'type': 'RevisitedOxford', 'data_root': str(tmp_path),
                              'split': 'query', 'pipeline': PIPELINE})
    assert len(queries) == 4 and queries.labels is None and queries.label_names is None
    for row, judged in enumerate(truth['gnd']):
        info = queries.get_data_info(row)
        assert info['gt_easy'] == list(judged['easy'])
        assert info['gt_hard'] == list(judged['hard'])
        assert info['gt_junk'] == list(judged['junk'])
        assert info['gt_indices'] == sorted([*judged['easy'], *judged['hard']])
        assert all(type(value) is int for name in ('gt_easy', 'gt_hard', 'gt_junk')
                   for value in info[name])
        sample = queries[row]['data_samples']
        assert sample.gt_easy == info['gt_easy'] and sample.gt_junk == info['gt_junk']
        assert sample.gt_indices.tolist() == info['gt_indices']
    assert queries.get_data_info(0)['gt_easy'] == []
    assert queries.metadata == {}  # lists are no columns of a gallery


def test_a_query_is_cut_as_the_official_program_does_it(root):
    """Pillow rounds the box (2.4, 1.6, 17.5, 12.0) to (2, 2, 18, 12)."""
    queries = RevisitedOxford(root, pipeline=PIPELINE)
    item, path = queries[1], root / 'roxford5k' / 'jpg' / 'query_000001.jpg'
    with Image.open(path) as image:
        expected = np.asarray(image.convert('RGB').crop([2.4, 1.6, 17.5, 12.0]))
    np.testing.assert_array_equal(item['inputs'].numpy().transpose(1, 2, 0), expected)
    assert item['data_samples'].box == (2, 2, 18, 12)
    assert item['data_samples'].sample_id == f'{path}#2,2,18,12'


def test_gallery(root, truth):
    gallery = RevisitedOxford(root, split='gallery', pipeline=PIPELINE)
    assert gallery.sample_ids == [str(root / 'roxford5k' / 'jpg' / f'{name}.jpg')
                                  for name in truth['imlist']]
    item = gallery[3]
    assert item['inputs'].shape == (3, 16, 20) and 'gt_easy' not in item['data_samples']
    assert not set(gallery.sample_ids) & set(RevisitedOxford(root).sample_ids)


@pytest.mark.parametrize('protocol', range(6))
def test_every_protocol_of_pickles(tmp_path, protocol):
    truth = make_revisited(tmp_path, protocol=protocol)
    assert RevisitedOxford(tmp_path).get_data_info(2)['gt_junk'] == list(truth['gnd'][2]['junk'])


def test_where_the_folder_may_be(tmp_path):
    make_revisited(tmp_path / 'data' / 'datasets')
    make_revisited(tmp_path / 'data' / 'datasets', 'rparis6k')
    for root in ('data', 'data/datasets', 'data/datasets/roxford5k'):
        assert len(RevisitedOxford(tmp_path / root)) == 4
    assert len(RevisitedParis(str(tmp_path / 'data'), 'gallery')) == 30
    flat = tmp_path / 'flat'  # ground truths beside the folders
    flat.mkdir()
    os.rename(tmp_path / 'data' / 'datasets' / 'roxford5k', flat / 'roxford5k')
    os.rename(flat / 'roxford5k' / 'gnd_roxford5k.pkl', flat / 'gnd_roxford5k.pkl')
    assert len(RevisitedOxford(flat)) == 4


def test_distractors(root, tmp_path):
    for name in ('b/2.jpg', 'b/1.jpg', 'a/9.jpg'):
        picture(tmp_path / 'more' / name)
    official = tmp_path / 'revisitop1m'
    for name in ('x/2.jpg', 'x/1.jpg', 'x/unlisted.jpg'):
        picture(official / 'jpg' / name)
    (official / 'revisitop1m.txt').write_text('x/2.jpg\nx/1.jpg\n')
    alone = RevisitedOxford(root, 'gallery').sample_ids
    found = RevisitedOxford(root, 'gallery', distractors='more').sample_ids
    assert found == alone + [str(tmp_path / 'more' / name)
                             for name in ('a/9.jpg', 'b/1.jpg', 'b/2.jpg')]
    both = RevisitedOxford(root, 'gallery', distractors=[official, tmp_path / 'more' / 'a'])
    assert both.sample_ids == alone + [str(official / 'jpg' / 'x' / '2.jpg'),
                                       str(official / 'jpg' / 'x' / '1.jpg'),
                                       str(tmp_path / 'more' / 'a' / '9.jpg')]


def test_bad_distractors(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '.*absent'"):
        RevisitedOxford(root, 'gallery', distractors='absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty.* holds no images'):
        RevisitedOxford(root, 'gallery', distractors='empty')
    (tmp_path / 'revisitop1m').mkdir()
    (tmp_path / 'revisitop1m' / 'revisitop1m.txt').write_text('x/2.jpg\n')
    with pytest.raises(FileNotFoundError, match='missing: jpg/'):
        RevisitedOxford(root, 'gallery', distractors='revisitop1m')
    (tmp_path / 'revisitop1m' / 'jpg').mkdir()
    with pytest.raises(FileNotFoundError, match=r'1 images, of which 1 are not there.*x/2\.jpg'):
        RevisitedOxford(root, 'gallery', distractors='revisitop1m')
    assert len(RevisitedOxford(root, 'gallery', distractors='revisitop1m',
                               check_files=False)) == 31
    with pytest.raises(ValueError, match="stand behind the images of split='gallery'"):
        RevisitedOxford(root, 'query', distractors='revisitop1m')


def test_missing_parts_show_the_tree(root, tmp_path):
    for path in (root / 'roxford5k' / 'gnd_roxford5k.pkl', root / 'roxford5k' / 'jpg'):
        os.rename(path, tmp_path / 'away')
        with pytest.raises(FileNotFoundError) as raised:
            RevisitedOxford(root)
        assert path.name in str(raised.value) and 'Expected is:' in str(raised.value)
        os.rename(tmp_path / 'away', path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        RevisitedOxford(root / 'absent')
    with pytest.raises(FileNotFoundError, match='gnd_rparis6k.pkl'):
        RevisitedParis(root)
    with pytest.raises(ValueError, match="'train'.*no set for training"):
        RevisitedOxford(root, split='train')


def test_images_that_are_not_there(root):
    jpg = root / 'roxford5k' / 'jpg'
    for name in ('building_000003.jpg', 'building_000007.jpg', 'query_000002.jpg'):
        (jpg / name).unlink()
    with pytest.raises(FileNotFoundError, match=r'names 30 images, of which 2 are not there; the '
                                                r"first is '.*building_000003\.jpg'"):
        RevisitedOxford(root, 'gallery')
    with pytest.raises(FileNotFoundError, match='4 images, of which 1 .*check_files=False'):
        RevisitedOxford(root)
    assert len(RevisitedOxford(root, 'gallery', check_files=False)) == 30


def set_bbx(box):
    return lambda truth: truth['gnd'][1].update(bbx=box)


@pytest.mark.parametrize('change, message', [
    (lambda truth: truth.pop('qimlist'), "dict with 'imlist', 'qimlist' and 'gnd'"),
    (lambda truth: truth.update(imlist='abc'), "'imlist' must list names"),
    (lambda truth: truth.update(imlist=[]), "'imlist' must list names"),
    (lambda truth: truth['imlist'].append(truth['imlist'][0]), 'a name twice'),
    (lambda truth: truth['imlist'].append('../../secret'), "holds '../../secret'"),
    (lambda truth: truth['qimlist'].append('/etc/x'), "holds '/etc/x'"),
    (lambda truth: truth['qimlist'].append(7), 'holds 7'),
    (lambda truth: truth['gnd'].pop(), "one entry for each name in 'qimlist'"),
    (lambda truth: truth['gnd'][1].pop('hard'), "'easy', 'hard' and 'junk'.*'hard'"),
    (lambda truth: truth['gnd'][1].pop('bbx'), "a box 'bbx'.*'bbx'"),
    (lambda truth: truth['gnd'].__setitem__(1, [1, 2]), "a box 'bbx'"),
    (set_bbx([1, 2, 3]), 'bbx'), (set_bbx([5, 5, 5, 9]), 'is empty'),
    (set_bbx([1, 2, float('nan'), 9]), 'bbx'), (set_bbx([1, 2, float('inf'), 9]), 'bbx'),
    (set_bbx('abcd'), 'bbx'),
    (lambda truth: truth['gnd'][0].update(junk=[30]), "'junk' must hold rows from 0 to 29"),
    (lambda truth: truth['gnd'][0].update(easy=[-1]), "'easy' must hold rows"),
    (lambda truth: truth['gnd'][0].update(easy=[0.5]), "'easy' must hold rows"),
    (lambda truth: truth['gnd'][0].update(easy=['a']), "'easy' must hold rows"),
])
def test_malformed_ground_truths(root, change, message):
    rewrite(root, change)
    with pytest.raises(ValueError, match=rf'(?s)gnd_roxford5k\.pkl.*{message}.*Expected is:'):
        RevisitedOxford(root)


class Attack:
    def __reduce__(self):
        return os.mkdir, ('ran',)


def test_a_hostile_ground_truth_is_refused(root, monkeypatch):
    monkeypatch.chdir(root)
    path = root / 'roxford5k' / 'gnd_roxford5k.pkl'
    path.write_bytes(pickle.dumps({'imlist': Attack()}))
    with pytest.raises(ValueError, match=r'(?s)it holds posix\.mkdir.*can make the reader run any '
                                         'code.*Expected is:'):
        RevisitedOxford(root)
    assert not Path('ran').exists()
    path.write_bytes(b'GIF89a')
    with pytest.raises(ValueError, match='no sound pickle'):
        RevisitedOxford(root)


def test_rows_of_the_gallery_stay_where_they_are(root, tmp_path):
    picture(tmp_path / 'more' / '1.jpg')
    for path in (tmp_path / 'more' / '1.jpg', root / 'roxford5k/jpg/building_000002.jpg'):
        path.write_bytes(b'no image')
    gallery = RevisitedOxford(root, 'gallery', distractors='more', pipeline=PIPELINE,
                              on_unreadable='skip')
    assert 'no known image' in gallery[30]['data_samples'].unreadable
    with pytest.raises(UnreadableImageError, match='by their rows, which would shift'):
        gallery[2]
    with pytest.raises(ValueError, match="split='gallery' cannot be cut by indices"):
        RevisitedOxford(root, 'gallery', indices=10)
    assert len(RevisitedOxford(root, indices=2)) == 2

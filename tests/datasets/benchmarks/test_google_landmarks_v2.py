import os
import time

import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from retrieval.datasets import GoogleLandmarksV2, MPerClassSampler, UnreadableImageError
from retrieval.datasets.benchmarks.google_landmarks_v2 import (
    ImageTable,
    read_ids,
    read_table,
    rows_of,
    split_ids,
)
from retrieval.registry import DATASETS

from ..landmark_miniatures import landmark_id, make_google_landmarks, picture


def random_ids(count, seed=0):
    rng = np.random.default_rng(seed)
    return [f'{high:08x}{low:08x}' for high, low in rng.integers(0, 2**32, (count, 2))]


def test_rows_are_those_of_a_loop():
    listed = [*random_ids(500), '0' * 16, 'f' * 16]
    wanted = [*listed[400:], *random_ids(100, 1), '0' * 15 + '1', listed[0]]
    found = rows_of(*(read_ids(pd.Series(names), 'x', '') for names in (wanted, listed)), 'x', '')
    assert found.tolist() == [listed.index(name) if name in listed else -1 for name in wanted]
    assert found.dtype == np.int64


def test_ids_that_differ_in_one_place():
    names = ['0' * place + digit + '0' * (15 - place) for place in range(16)
             for digit in '123456789abcdef'] + ['0' * 16]
    ids = read_ids(pd.Series(names), 'x', '')
    assert rows_of(ids, ids, 'x', '').tolist() == list(range(len(names)))


def test_cells_of_several_ids():
    names = random_ids(6)
    counts, ids = split_ids(pd.Series([names[0], '  '.join(names[1:4]), ' '.join(names[4:]) + ' ']),
                            'x', '')
    assert counts.tolist() == [1, 3, 2] and ids.astype(str).tolist() == names


@pytest.mark.parametrize('wrong', ['', 'abc', '0123456789ABCDEF', '0123456789abcdeg', 'a' * 17,
                                   '01234567/9abcdef', 'é' * 16])
def test_other_ids(wrong):
    with pytest.raises(ValueError, match='from 0 to f, but the 2|no ASCII text'):
        read_ids(pd.Series([*random_ids(1), wrong, *random_ids(2)]), 'x', '')


def test_ids_that_look_like_numbers_or_nothing_stay_text(tmp_path):
    path = tmp_path / 'x.csv'
    rows = ['1e10000000000000', '0000000000000012', '1234567890123456']
    path.write_text('﻿id,landmark_id\n' + ''.join(f'{name},9007199254740993\n' for name in rows))
    table = read_table(str(path), '', ('id', 'landmark_id'))
    assert table['id'].tolist() == rows
    assert table['landmark_id'].tolist() == [9007199254740993] * 3


PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
QUIET = {'on_count_mismatch': 'ignore'}


@pytest.fixture
def root(tmp_path):
    make_google_landmarks(tmp_path)
    return tmp_path


@pytest.fixture
def solution(tmp_path):
    return make_google_landmarks(tmp_path)


def names(dataset):
    return [os.path.basename(name).removesuffix('.jpg') for name in dataset.sample_ids]


def test_training(root):
    train = DATASETS.build({'type': 'GoogleLandmarksV2', 'data_root': str(root), 'split': 'train',
                            'pipeline': PIPELINE, **QUIET})
    assert names(train) == [landmark_id('train', number) for number in range(64)]
    name = names(train)[5]
    assert train.sample_ids[5] == str(root / 'train' / name[0] / name[1] / name[2] / f'{name}.jpg')
    # landmark ids fall with the number, labels rise with the id
    assert train.labels.tolist() == [15 - number % 16 for number in range(64)]
    assert train.label_names == [str(850 + 10 * label) for label in range(16)]
    assert train.labels.dtype == np.int64
    sample = train[5]['data_samples']
    assert sample.gt_label.tolist() == [10] and sample.sample_idx == 5
    assert train[-1]['data_samples'].sample_idx == 63


def test_the_clean_list(root):
    train, clean = (GoogleLandmarksV2(root, split, **QUIET) for split in ('train', 'train_clean'))
    assert clean.labels.tolist() == sorted(train.labels)  # the list goes landmark by landmark
    label_of = dict(zip(names(train), train.labels, strict=True))
    assert [label_of[name] for name in names(clean)] == clean.labels.tolist()
    assert clean.label_names == train.label_names


def test_a_list_of_ones_own(root):
    lines = (root / 'train_clean.csv').read_text().splitlines()
    (root / 'without.csv').write_text('\n'.join([lines[0], *lines[4:7]]) + '\n')
    own = GoogleLandmarksV2(root, ann_file='without.csv', on_count_mismatch='raise')
    assert own.label_names == ['880', '890', '900'] and len(own) == 12
    lines = (root / 'train.csv').read_text().splitlines()
    (root / 'rows.csv').write_text('\n'.join(lines[:4]))
    assert len(GoogleLandmarksV2(root, ann_file=root / 'rows.csv')) == 3
    with pytest.raises(FileNotFoundError, match='no list .*absent'):
        GoogleLandmarksV2(root, ann_file='absent.csv')


def test_queries_name_rows_of_the_gallery(tmp_path, solution):
    query = GoogleLandmarksV2(tmp_path, 'query', pipeline=PIPELINE)
    gallery = GoogleLandmarksV2(tmp_path, 'gallery', pipeline=PIPELINE)
    assert len(gallery) == 40 and gallery.labels is None and query.labels is None
    assert names(query) == [name for name, images in solution.items() if images]
    for row, name in enumerate(names(query)):
        found = query[row]['data_samples'].gt_indices.tolist()
        assert [names(gallery)[index] for index in found] == solution[name]
    assert 'gt_label' not in gallery[0]['data_samples']
    assert GoogleLandmarksV2(tmp_path, 'test').sample_ids == query.sample_ids
    assert GoogleLandmarksV2(tmp_path, 'index').sample_ids == gallery.sample_ids


def test_usage(tmp_path, solution):
    public, private = (GoogleLandmarksV2(tmp_path, 'query', usage=usage)
                       for usage in ('Public', 'Private'))
    assert names(public) == list(solution)[::3] and names(private) == list(solution)[1::3]
    with pytest.raises(ValueError, match="Unknown usage 'Ignored'"):
        GoogleLandmarksV2(tmp_path, 'query', usage='Ignored')
    with pytest.raises(ValueError, match="split='gallery' has none"):
        GoogleLandmarksV2(tmp_path, 'gallery', usage='Public')
    with pytest.raises(ValueError, match="split='query' has its own"):
        GoogleLandmarksV2(tmp_path, 'query', ann_file='x.csv')


def test_landmarks_of_the_index_are_labels_where_they_are_known(root):
    ids = (root / 'index.csv').read_text().split()[1:]
    rows = [f'{name},{7 * (number // 10)}' for number, name in enumerate(ids)][::-1]
    path = root / 'index_image_to_landmark.csv'
    path.write_text('\n'.join(['id,landmark_id', *rows]) + '\n')
    gallery = GoogleLandmarksV2(root, 'gallery')
    assert gallery.labels.tolist() == [number // 10 for number in range(40)]
    assert gallery.label_names == ['0', '7', '14', '21']
    (root / 'index.csv').unlink()  # then its order counts, for both sides
    assert names(GoogleLandmarksV2(root, 'gallery')) == ids[::-1]
    assert GoogleLandmarksV2(root, 'query').get_data_info(0)['gt_indices'] == [
        39, 31, 23, 15, 7, 32]
    (root / 'index.csv').write_text('id\n' + '\n'.join(ids) + '\n')
    path.write_text('\n'.join(['id,landmark_id', *rows[:30]]) + '\n')
    with pytest.raises(ValueError, match='no landmark for 10 of the 40 images'):
        GoogleLandmarksV2(root, 'gallery')
    path.write_text('\n'.join(['id,landmark_id', *rows, rows[0]]) + '\n')
    with pytest.raises(ValueError, match=f'the id {rows[0][:16]} stands in it more than once'):
        GoogleLandmarksV2(root, 'gallery')


def test_files_in_the_folders_of_their_split(root):
    os.rename(root / 'train.csv', root / 'train' / 'train.csv')
    os.rename(root / 'retrieval_solution_v2.1.csv', root / 'test' / 'retrieval_solution_v2.1.csv')
    (root / 'metadata').mkdir()
    os.rename(root / 'index.csv', root / 'metadata' / 'index.csv')
    assert [len(GoogleLandmarksV2(root, split, **QUIET))
            for split in ('train', 'query', 'gallery')] == [64, 4, 40]


@pytest.mark.parametrize('split, parts', [
    ('train', ('train.csv', 'train/')), ('train_clean', ('train_clean.csv', 'train/')),
    ('gallery', ('index.csv', 'index/')),
    ('query', ('retrieval_solution_v2.1.csv', 'index.csv', 'test/'))])
def test_missing_parts(root, split, parts):
    for part in parts:
        os.rename(root / part, root / 'away')
        with pytest.raises(FileNotFoundError, match=f'(?s)missing: {part}.*Expected is:.*index/'):
            GoogleLandmarksV2(root, split, **QUIET)
        os.rename(root / 'away', root / part)


@pytest.mark.parametrize('split, count', [('train', 64), ('query', 4), ('gallery', 40)])
def test_images_that_are_not_there(root, split, count):
    path = GoogleLandmarksV2(root, split, **QUIET).sample_ids[2]
    os.unlink(path)
    with pytest.raises(FileNotFoundError, match=f'names {count} images, of which 1 are not there; '
                                                f"the first is '{path}'.*check_files=False"):
        GoogleLandmarksV2(root, split, **QUIET)
    assert len(GoogleLandmarksV2(root, split, check_files=False, **QUIET)) == count


ID = '0123456789abcdef'


@pytest.mark.parametrize('split, name, text, message', [
    ('train', 'train.csv', 'id,landmark\n', 'no column landmark_id; there are id, landmark'),
    ('train', 'train.csv', '', 'no CSV file'),
    ('train', 'train.csv', '\xff', 'no column id'),
    ('train', 'train.csv', 'id,landmark_id\n', 'lists no image'),
    ('train', 'train.csv', f'id,landmark_id\n{ID},x\n', 'rows are not as expected'),
    ('train', 'train.csv', f'id,landmark_id\n{ID},\n', 'rows are not as expected'),
    ('train', 'train.csv', f'id,landmark_id\n{ID},1.5\n', 'rows are not as expected'),
    ('train', 'train.csv', f'id,landmark_id\n{ID},{2**70}\n', 'rows are not as expected'),
    ('train', 'train.csv', f'id,landmark_id\n{ID},1\n../../../secret.txt,1\n',
     r"the 2\. is '\.\./\.\./\.\./secret\.txt'"),
    ('train', 'train.csv', f'id,landmark_id\n{ID},1\n../../../secret0,1\n', 'from 0 to f'),
    ('train', 'train.csv', f'id,landmark_id\n{ID},1\n{ID[:5]},1\n', r"the 2\. is '01234'"),
    ('train', 'train.csv', f'id,landmark_id\n{ID[:5]},1\n', r"the 1\. is '01234'"),
    ('train', 'train.csv', 'id,landmark_id\nßßß,1\n', 'no ASCII'),
    ('train_clean', 'train_clean.csv', f'landmark_id,images\n1,{ID}\n2,\n', '1 of its rows list'),
    ('train_clean', 'train_clean.csv', 'landmark_id,images\n1,abc\n', 'from 0 to f'),
    ('query', 'retrieval_solution_v2.1.csv', 'id,images\n', 'no column Usage'),
    ('query', 'retrieval_solution_v2.1.csv', f'id,images,Usage\n{ID},{ID},public\n',
     "Usage must be Public, Private or Ignored, but 'public'"),
    ('query', 'retrieval_solution_v2.1.csv', f'id,images,Usage\n{ID},None,Ignored\n', 'no image'),
    ('query', 'retrieval_solution_v2.1.csv', f'id,images,Usage\n{ID},{ID},Public\n',
     f'1 of the images that it names are not in .*index.csv., the first is {ID}'),
    ('query', 'retrieval_solution_v2.1.csv', f'id,images,Usage\n{ID},None,Public\n', "'None'"),
    ('query', 'index.csv', f'id\n{ID}\n{ID}\n', f'the id {ID} stands in it more than once'),
])
def test_malformed_files(root, split, name, text, message):
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=rf'(?s){name}.*{message}.*Expected is:'):
        GoogleLandmarksV2(root, split, **QUIET)


def test_a_file_that_is_no_text(root):
    (root / 'train.csv').write_bytes(b'\xff\xfe\x00id')
    with pytest.raises(ValueError, match='no CSV file in UTF-8'):
        GoogleLandmarksV2(root, 'train', **QUIET)


def test_counts_and_splits(root):
    with pytest.raises(ValueError, match='64 images of 16 classes; officially there are 1,580,470 '
                                         'images of 81,313'):
        GoogleLandmarksV2(root, on_count_mismatch='raise')
    with pytest.raises(ValueError, match="split of GoogleLandmarksV2 'clean'.*'train_clean'"):
        GoogleLandmarksV2(root, 'clean')
    with pytest.raises(ValueError, match='Unknown on_count_mismatch'):
        GoogleLandmarksV2(root, on_count_mismatch='')


def test_rows_of_the_gallery_stay_where_they_are(root):
    path = GoogleLandmarksV2(root, 'gallery').sample_ids[7]
    picture(path)
    with open(path, 'wb') as file:
        file.write(b'no image')
    gallery = GoogleLandmarksV2(root, 'gallery', pipeline=PIPELINE, on_unreadable='skip')
    with pytest.raises(UnreadableImageError, match='cannot be skipped'):
        gallery[7]
    with pytest.raises(ValueError, match='cannot be cut by indices'):
        GoogleLandmarksV2(root, 'gallery', indices=[3, 1])


@pytest.mark.parametrize('serialize', [False, True])
def test_columns_behave_as_entries(root, serialize):
    """Subsets, workers, samplers and indices see what a list of dicts would show."""
    train = GoogleLandmarksV2(root, 'train', pipeline=PIPELINE, serialize_data=serialize, **QUIET)
    subset = train.get_subset([5, 3, 60])
    assert subset.sample_ids == [train.sample_ids[row] for row in (5, 3, 60)]
    assert subset.labels.tolist() == train.labels[[5, 3, 60]].tolist() and len(train) == 64
    cut = GoogleLandmarksV2(root, 'train', indices=10, serialize_data=serialize, **QUIET)
    assert cut.sample_ids == train.sample_ids[:10] and cut.labels.tolist() == [
        *train.labels[:10]]
    assert len(MPerClassSampler(train, m=4, batch_size=8)) == 64
    loader = DataLoader(train, batch_size=16, num_workers=2, collate_fn=list)
    found = [item['data_samples'] for batch in loader for item in batch]
    assert [sample.sample_id for sample in found] == train.sample_ids
    assert [int(sample.gt_label) for sample in found] == train.labels.tolist()


def test_a_table_is_a_sequence():
    table = ImageTable('x', np.array([ID, ID[::-1]]).astype('S'), np.array([4, 5]))
    assert table[-1] == {'img_path': f'x/f/e/d/{ID[::-1]}.jpg', 'gt_label': 5}
    assert table[:1] == [table[0]] and list(table) == [table[0], table[1]]
    with pytest.raises(IndexError):
        table[2]


def test_many_rows_take_no_loop(root):
    """A hundred thousand rows in well under the time that a dict for each would take."""
    rng = np.random.default_rng(0)
    ids = [f'{number:016x}' for number in rng.permutation(100_000)]
    (root / 'train.csv').write_text('id,url,landmark_id\n' + '\n'.join(
        f'{name},u,{number % 5000}' for number, name in enumerate(ids)) + '\n')
    calls = []
    original = ImageTable.__getitem__
    ImageTable.__getitem__ = lambda self, row: calls.append(row) or original(self, row)
    try:
        start = time.process_time()
        train = GoogleLandmarksV2(root, 'train', check_files=False, **QUIET)
        assert len(train) == 100_000 and train.labels.max() == 4999
        assert time.process_time() - start < 5
        assert not calls
        assert train.get_data_info(99_999)['img_path'].endswith(f'{ids[-1]}.jpg')
    finally:
        ImageTable.__getitem__ = original

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from retrieval.datasets import Glyphs
from retrieval.registry import DATASETS

from ..few_fonts import use_few_fonts


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A cache of all typefaces; the only test that draws it."""
    return tmp_path_factory.mktemp('glyphs')


@pytest.fixture(scope='module')
def splits(root):
    return Glyphs('train', data_root=root), Glyphs('test', data_root=root)


@pytest.fixture
def few(monkeypatch, tmp_path):
    use_few_fonts(monkeypatch)
    return tmp_path


def test_counts(splits):
    train, test = splits
    assert 2700 < len(train.label_names) + len(test.label_names) < 3000
    assert 36000 < len(train) + len(test) < 38000
    assert abs(len(train.label_names) - len(test.label_names)) <= 1
    for dataset in splits:
        counts = np.bincount(dataset.labels)
        assert len(counts) == len(dataset.label_names) and counts.min() >= 8


def test_splits_are_disjoint(splits):
    train, test = splits
    assert not set(''.join(train.label_names)) & set(''.join(test.label_names))
    ids = train.sample_ids + test.sample_ids
    assert len(set(ids)) == len(ids)


def test_classes_are_characters(splits):
    assert {'AΑА', 'Ж', 'ß'} <= set(splits[0].label_names + splits[1].label_names)
    for dataset in splits:
        characters, names = dataset.metadata['character'], dataset.label_names
        assert all(character in names[label]
                   for character, label in zip(characters, dataset.labels, strict=True))


def test_an_image_knows_where_it_comes_from(splits):
    dataset = next(data for data in splits if 'AΑА' in data.label_names)
    row = dataset.sample_ids.index('U+0041/DejaVuSans-Bold')
    info = dataset.get_data_info(row)
    assert info['img'].shape == (64, 64, 1) and info['img'].dtype == np.uint8
    assert info['img_shape'] == info['ori_shape'] == (64, 64)
    assert (info['typeface'], info['family'], info['character']) == (
        'DejaVu Sans Bold', 'DejaVu Sans', 'A')
    assert dataset.label_names[info['gt_label']] == 'AΑА' and info['sample_idx'] == row
    assert 'U+0391/DejaVuSans-Bold' not in dataset.sample_ids  # the same picture again
    assert set(dataset.metadata['family']) == {
        'DejaVu Sans', 'DejaVu Sans Mono', 'DejaVu Serif', 'STIX', 'Computer Modern'}


def test_a_typeface_has_no_picture_twice_in_a_class(splits):
    for dataset in splits:
        seen = {(typeface, label, picture.tobytes()) for typeface, label, picture in zip(
            dataset.metadata['typeface'], dataset.labels, dataset.pictures(), strict=True)}
        assert len(dataset) - len(seen) < 0.005 * len(dataset)  # contours in another order


def test_the_task_is_neither_solved_nor_hopeless_by_pixels(splits):
    """Recall@1 of the cosine between pictures, by a plain product, for every twentieth image."""
    dataset = splits[1]
    pixels = dataset.pictures().reshape(len(dataset), -1).astype(np.float32)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    queries = np.arange(0, len(dataset), 20)
    similarity = pixels[queries] @ pixels.T
    similarity[np.arange(len(queries)), queries] = -1
    found = dataset.labels[similarity.argmax(axis=1)]
    assert 0.62 < (found == dataset.labels[queries]).mean() < 0.74


def test_size_averages_areas(few):
    full, half = Glyphs(data_root=few), Glyphs(size=32, data_root=few)
    expected = full.pictures()[:9].reshape(9, 32, 2, 32, 2).astype(float).mean(axis=(2, 4))
    assert np.abs(half.pictures()[:9] - expected).max() <= 0.5
    assert half[0]['img'].shape == (32, 32, 1) and half[0]['img_shape'] == (32, 32)


def test_packs(few):
    dataset = DATASETS.build(dict(
        type='Glyphs', split='test', data_root=str(few), pipeline=[
            dict(type='LoadImage', color='gray'), dict(type='ResizeEdge', scale=40),
            dict(type='PackInputs')]))
    item = dataset[5]
    assert tuple(item['inputs'].shape) == (1, 40, 40) and item['inputs'].max() > 200
    sample = item['data_samples']
    assert sample.sample_id == dataset.sample_ids[5] and sample.family == 'Computer Modern'
    assert sample.gt_label.tolist() == [dataset.labels[5]]


def test_workers_map_the_file_themselves(few):
    dataset = Glyphs(data_root=few, pipeline=[dict(type='PackInputs')])
    assert dataset[0]['inputs'].sum() > 0  # mapped here before it is handed on
    assert len(pickle.dumps(dataset)) < 400 * len(dataset)
    loaded = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(loaded[7]['inputs'], dataset[7]['inputs'])
    items = [item for workers in (0, 2) for item in DataLoader(
        dataset, batch_size=None, num_workers=workers, collate_fn=lambda item: item)]
    for one, other in zip(items[:len(dataset)], items[len(dataset):], strict=True):
        assert np.array_equal(one['inputs'], other['inputs'])
        assert one['data_samples'].sample_id == other['data_samples'].sample_id


def test_subset(few):
    dataset = Glyphs(data_root=few)
    subset = dataset.get_subset([4, 9])
    assert subset.sample_ids == [dataset.sample_ids[4], dataset.sample_ids[9]]
    assert np.array_equal(subset.pictures(), dataset.pictures()[[4, 9]])


@pytest.mark.parametrize('arguments, error, message', [
    (dict(split='tset'), ValueError, "'tset'. Did you mean 'test'"),
    (dict(size=65), ValueError, 'at least 8 and at most 64, got 65'),
    (dict(size=0), ValueError, 'got 0'),
    (dict(size=32.5), TypeError, 'integer'),
    (dict(size='64'), TypeError, "'64'")])
def test_bad_arguments(few, arguments, error, message):
    with pytest.raises(error, match=message):
        Glyphs(data_root=few, **arguments)
    assert list(few.iterdir()) == []

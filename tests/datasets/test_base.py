# ruff: noqa: NPY002  (the global generator is what is tested)
import copy
import pickle
from multiprocessing import active_children

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader, Subset

from retrieval.datasets import (
    ConcatDataset,
    ImageList,
    MissingImageError,
    RepeatDataset,
    RetrievalDataset,
    UnreadableImageError,
)
from retrieval.datasets.base import plain_config
from retrieval.registry import DATASETS, UnknownTypeError

from .toys import Draw, Toy, drawn_by_loader, save


class Files(RetrievalDataset):
    def __init__(self, entries, **kwargs):
        self.entries = entries
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(entry) for entry in self.entries]


@pytest.mark.parametrize('serialize', [True, False])
def test_columns(serialize):
    dataset = Toy(serialize_data=serialize)
    assert dataset.labels.tolist() == [row % 3 for row in range(10)]
    assert dataset.labels.dtype == np.int64
    assert dataset.label_names == ['a', 'b', 'c']
    assert dataset.sample_ids == [f's{row}' for row in range(10)]
    assert dataset.metadata == {'camera': [row * 10 for row in range(10)]}
    assert dataset.get_cat_ids(4) == [1]


def test_identity_is_path_and_box():
    dataset = Files([{'img_path': 'a.jpg'}, {'img_path': 'a.jpg', 'box': (1, 2, 3, 4)}])
    assert dataset.sample_ids == ['a.jpg', 'a.jpg#1,2,3,4']
    assert dataset.get_data_info(1)['sample_id'] == 'a.jpg#1,2,3,4'
    assert dataset.labels is None and dataset.label_names is None and dataset.metadata == {}
    with pytest.raises(ValueError, match='no labels'):
        dataset.get_cat_ids(0)


def test_duplicates_are_named():
    dataset = Files([{'img_path': name} for name in ('a.jpg', 'b.jpg', 'b.jpg')])
    with pytest.raises(ValueError, match=r"'b\.jpg'.*more than once"):
        dataset.sample_ids  # noqa: B018


def test_labels_are_all_or_none_and_integers():
    with pytest.raises(ValueError, match='1 of 2 entries have no gt_label, the first is row 1'):
        Files([{'img_path': 'a', 'gt_label': 1}, {'img_path': 'b'}])
    with pytest.raises(ValueError, match='one integer an entry, got float64'):
        Files([{'img_path': 'a', 'gt_label': 1.5}])
    big = 2**60 + 1  # not a float
    assert Files([{'img_path': 'a', 'gt_label': big}]).labels.tolist() == [big]


def test_empty_is_an_error():
    with pytest.raises(ValueError, match='has no images'):
        Toy(count=0)
    with pytest.raises(ValueError, match='has no images'):
        Toy(indices=[])


def test_indices_and_subsets_carry_their_columns():
    assert Toy(indices=[7, -1]).sample_ids == ['s7', 's9']
    assert Toy(indices=3).labels.tolist() == [0, 1, 2]
    dataset = Toy()
    _ = dataset.sample_ids
    subset = dataset.get_subset([4, -2])
    assert subset.sample_ids == ['s4', 's8'] and subset.labels.tolist() == [1, 2]
    assert subset.metadata == {'camera': [40, 80]}
    assert subset.get_data_info(1)['sample_idx'] == 1
    assert len(dataset.get_subset(10)) == 10 and dataset.get_subset(-2).sample_ids == ['s8', 's9']
    dataset.get_subset_(np.array([2, 5]))
    assert dataset.sample_ids == ['s2', 's5'] and len(dataset) == 2
    with pytest.raises(IndexError, match='go from 0 to 9'):
        dataset.get_subset([0, 9])


def test_rows_out_of_range():
    dataset = Toy()
    assert dataset.get_data_info(-1)['sample_idx'] == 9
    assert dataset[-1]['sample_id'] == 's9'
    for wrong in (10, -11):
        with pytest.raises(IndexError, match='has 10 images'):
            dataset[wrong]


def test_lazy_init_reads_on_demand():
    dataset = Toy(lazy_init=True)
    assert dataset.labels.tolist()[:4] == [0, 1, 2, 0]
    assert dataset[1]['sample_id'] == 's1'


def test_pipeline_configs():
    steps = [{'type': 'RandomAffine', 'scale': (0.9, 1.1)}, Draw()]
    dataset = Toy(pipeline=steps)
    assert dataset.pipeline_cfg == [{'type': 'RandomAffine', 'scale': [0.9, 1.1]},
                                    f'{Draw.__module__}.Draw']
    assert len(dataset.pipeline.transforms) == 2
    assert plain_config({'type': Draw, 'x': {1: None}}) == {
        'type': f'{Draw.__module__}.Draw', 'x': {'1': None}}
    with pytest.raises(UnknownTypeError, match='Did you mean \'LoadImage\''):
        Toy(pipeline=[{'type': 'LoadImag'}])
    with pytest.raises(TypeError, match='list of dicts'):
        Toy(pipeline=[3])


def test_builds_from_a_config_without_imports():
    with DefaultScope.overwrite_default_scope('retrieval'), \
            pytest.raises(UnknownTypeError, match="'ImageFolder'"):
        DATASETS.build({'type': 'ImageFoldr', 'data_root': 'x'})
    with pytest.raises(ValueError, match='on_unreadable'):
        Toy(on_unreadable='ignore')


# Randomness ------------------------------------------------------------------------------------

def test_items_depend_on_seed_epoch_and_index_alone():
    dataset = Toy(pipeline=[Draw()])
    dataset.set_seed(5)
    first = [dataset[row]['drawn'] for row in range(10)]
    assert len({draw for item in first for draw in item}) == 40  # all differ
    np.random.random_sample(7)
    assert [dataset[row]['drawn'] for row in reversed(range(10))] == first[::-1]
    dataset.set_epoch(1)
    assert not set(dataset[0]['drawn']) & set(first[0])
    dataset.set_epoch(0)
    assert dataset[0]['drawn'] == first[0] and dataset[-10]['drawn'] == first[0]
    dataset.set_seed(6)
    assert not set(dataset[0]['drawn']) & set(first[0])


@pytest.mark.parametrize('workers', [2])
def test_workers_draw_the_same_in_every_epoch(workers):
    """Also persistent ones, which were started before the epoch moved on."""
    dataset = Toy(pipeline=[Draw()])
    dataset.set_seed(11)
    alone = drawn_by_loader(dataset, 0, passes=3, each_pass=dataset.set_epoch)
    assert drawn_by_loader(dataset, workers, passes=3, each_pass=dataset.set_epoch) == alone
    assert not {item[0] for item in alone[0]} & {item[0] for item in alone[1]}


def test_without_a_seed_nothing_is_touched():
    dataset = Toy(pipeline=[Draw()])
    np.random.seed(3)
    drawn = dataset[0]['drawn'][0]
    np.random.seed(3)
    assert np.random.random_sample() == drawn
    dataset.set_seed(1)
    dataset.set_seed(None)
    np.random.seed(3)
    assert dataset[0]['drawn'][0] == drawn


def test_copies_keep_the_seed_and_are_independent():
    dataset = Toy(pipeline=[Draw()])
    dataset.set_seed(8)
    want = dataset[3]['drawn']
    twin, through_pickle = copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))
    assert twin[3]['drawn'] == through_pickle[3]['drawn'] == want
    twin.set_epoch(4)
    assert twin[3]['drawn'] != want and dataset[3]['drawn'] == want
    one, other = dataset.get_subset([3]), dataset.get_subset([4])
    one.set_seed(9)
    assert dataset[3]['drawn'] == want and other._sampling.seed == 8


# Unreadable images -----------------------------------------------------------------------------

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]


def broken_files(folder, **kwargs):
    good = save(folder / 'good.jpg', size=(64, 64))
    cut = folder / 'cut.jpg'
    cut.write_bytes(good.read_bytes()[:400])
    text = folder / 'text.png'
    text.write_text('no picture')
    names = [good, cut, text, folder / 'absent.jpg']
    return Files([{'img_path': str(name)} for name in names], pipeline=PIPELINE, **kwargs)


def test_unreadable_images_stop_with_their_name(tmp_path):
    dataset = broken_files(tmp_path)
    assert dataset[0]['inputs'].shape == (3, 64, 64)
    with pytest.raises(UnreadableImageError, match=r'(?i)cut\.jpg.*truncated'):
        dataset[1]
    with pytest.raises(ValueError, match=r'text\.png.*no known image format'):
        dataset[2]
    with pytest.raises(FileNotFoundError, match=r'absent\.jpg'):
        dataset[3]


def test_unreadable_images_can_be_skipped(tmp_path):
    dataset = broken_files(tmp_path, on_unreadable='skip')
    assert dataset[0]['data_samples'].get('unreadable') is None
    for row, reason in ((1, 'truncated'), (2, 'no known image format'), (3, 'no image')):
        item = dataset[row]
        sample = item['data_samples']
        assert item['inputs'].numel() == 0 and reason in sample.unreadable.lower()
        assert sample.sample_idx == row and sample.sample_id == dataset.sample_ids[row]
        assert sample.img_path == dataset.sample_ids[row]


@pytest.mark.parametrize('kind', ['raise', 'skip'])
def test_unreadable_images_in_workers(tmp_path, kind):
    from torch.utils.data import DataLoader
    dataset = broken_files(tmp_path, on_unreadable=kind).get_subset(2)
    loader = DataLoader(dataset, num_workers=1, batch_size=2, collate_fn=list)
    if kind == 'raise':
        with pytest.raises(UnreadableImageError, match=r'cut\.jpg'):
            list(loader)
    else:
        samples = [item['data_samples'] for batch in loader for item in batch]
        assert [bool(sample.get('unreadable')) for sample in samples] == [False, True]


class Fails:
    def __init__(self, error):
        self.error = error

    def __call__(self, results):
        if self.error is not None:
            raise self.error
        # else None, which is how transforms of the engine report a failure


def test_no_other_image_replaces_a_failed_one():
    with pytest.raises(UnreadableImageError, match="returned nothing for image 's2'"):
        Toy(pipeline=[Fails(None)])[2]
    with pytest.raises(MissingImageError, match="'s2'.*gone"):
        Toy(pipeline=[Fails(FileNotFoundError('gone'))])[2]


def test_skipping_hides_no_other_error():
    with pytest.raises(ValueError, match='a mistake'):
        Toy(pipeline=[Fails(ValueError('a mistake'))], on_unreadable='skip')[0]
    with pytest.raises(OSError, match='disk'):
        Toy(pipeline=[Fails(OSError('disk'))], on_unreadable='skip')[0]


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('wrap', [lambda data: data, lambda data: RepeatDataset(data, 1),
                                  lambda data: ConcatDataset([data]),
                                  lambda data: Subset(data, range(4))])
def test_unreadable_images_are_one_message(tmp_path, workers, wrap):
    """Those of a batch together, with workers as without."""
    for name in '0123':
        save(tmp_path / f'{name}.png')
    (tmp_path / '1.png').write_text('text')
    (tmp_path / '3.png').unlink()
    (tmp_path / '3.png').symlink_to('nothing')
    data = wrap(ImageList(tmp_path, pipeline=[dict(type='LoadImage'), dict(type='PackInputs')]))

    def message(kind, size, **options):
        try:  # what `pytest.raises` catches holds the frame that it is in, and with it the loader
            list(DataLoader(data, size, num_workers=workers, collate_fn=list, **options))
        except kind as error:
            said = str(error)
        assert not active_children()  # nor does the error: the workers have ended with the loader
        return said
    first, *more = message(UnreadableImageError, 4).split('\n')
    assert first == '2 of 4 images of a batch cannot be read:' and len(more) == 2
    assert '1.png' in more[0] and 'no known image format' in more[0] and 'a link to' in more[1]
    alone = message(MissingImageError, 1, sampler=[3])
    assert alone.startswith('There is no image') and '\n' not in alone

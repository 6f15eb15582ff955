import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset as EngineBalanced
from torch.utils.data import Subset

from retrieval.datasets import (
    ClassBalancedDataset,
    ConcatDataset,
    ImageList,
    RepeatDataset,
    labels_of,
    seed_datasets,
)
from retrieval.registry import DATASETS

from .toys import Draw, Toy


def toy(**kwargs):
    return Toy(pipeline=[Draw()], **kwargs)


def test_repetitions_differ_within_an_epoch():
    dataset = RepeatDataset(toy(count=4), 3)
    seed_datasets(dataset, 7)
    drawn = [dataset[row]['drawn'] for row in range(12)]
    assert len(set(drawn)) == 12
    assert [dataset[row]['sample_id'] for row in range(12)] == ['s0', 's1', 's2', 's3'] * 3
    assert dataset[-1]['drawn'] == drawn[-1]
    with pytest.raises(ValueError, match='times'):
        RepeatDataset(toy(), 0)


def test_balancing_repeats_with_other_augmentations():
    base = Toy(count=9, pipeline=[Draw()], indices=[0, 3, 6, 1, 4, 7, 2])  # class 2 is rare
    dataset, oracle = ClassBalancedDataset(base, 0.9), EngineBalanced(base, 0.9)
    seed_datasets(dataset, 7)
    items = [dataset[row] for row in range(len(dataset))]
    assert len(items) > 7 and len({item['drawn'] for item in items}) == len(items)
    assert [item['sample_id'] for item in items] == [
        oracle[row]['sample_id'] for row in range(len(oracle))]
    assert dataset.labels.tolist() == [item['gt_label'] for item in items]


def test_concatenation_is_one_set():
    class Other(Toy):
        metadata_keys = ()

        def load_data_list(self):
            return [{**entry, 'sample_id': f'o{row}'}
                    for row, entry in enumerate(super().load_data_list())]

    pack = [{'type': 'PackInputs'}]
    dataset = ConcatDataset([Toy(count=4, pipeline=pack), Other(count=3, pipeline=pack)])
    samples = [dataset[row]['data_samples'] for row in range(7)]
    assert [sample.sample_idx for sample in samples] == list(range(7))
    assert [sample.sample_id for sample in samples] == dataset.sample_ids == [
        's0', 's1', 's2', 's3', 'o0', 'o1', 'o2']
    assert dataset[-1]['data_samples'].sample_idx == 6
    assert dataset.labels.tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert dataset.label_names == ['a', 'b', 'c']
    assert dataset.metadata == {'camera': [0, 10, 20, 30, None, None, None]}
    assert dataset.pipeline_cfg == pack
    with pytest.raises(ValueError, match='more than once'):
        ConcatDataset([Toy(), Toy()]).sample_ids  # noqa: B018


def test_labels_of_wrappers():
    base = Toy(count=5)
    assert labels_of(Subset(base, [4, 0])).tolist() == [1, 0]
    assert labels_of(RepeatDataset(base, 2)).tolist() == [0, 1, 2, 0, 1] * 2
    assert labels_of(Subset(ConcatDataset([base, base]), [9, 5])).tolist() == [1, 0]
    assert labels_of(torch.utils.data.TensorDataset(torch.zeros(3))) is None
    unlabelled = ImageList([np.zeros((2, 2), np.uint8)])
    assert labels_of(unlabelled) is None and labels_of(Subset(unlabelled, [0])) is None
    assert labels_of(torch.utils.data.ConcatDataset([base, unlabelled])) is None


def test_wrappers_build_what_they_wrap(tmp_path):
    dataset = DATASETS.build({'type': 'RepeatDataset', 'times': 2, 'dataset': {
        'type': 'ImageList', 'images': [np.zeros((2, 2), np.uint8)]}})
    assert len(dataset) == 2

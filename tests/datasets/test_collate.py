import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from retrieval.datasets import ImageList, image_collate
from retrieval.encoders import RetrievalDataPreprocessor

from .photos import photo
from .toys import Toy

PACK = [{'type': 'PackInputs'}]


def test_images_of_one_shape_are_one_tensor():
    items = [Toy(pipeline=PACK)[row] for row in range(3)]
    batch = image_collate(items)
    assert torch.equal(batch['inputs'], torch.stack([item['inputs'] for item in items]))
    assert batch['inputs'].dtype == torch.uint8
    assert batch['data_samples'] == [item['data_samples'] for item in items]


@pytest.mark.parametrize('shapes', [[(1, 4, 5), (1, 5, 4)], [(1, 4, 5), (3, 4, 5)], [(0,), (0,)],
                                    [(1, 4, 5), (0,)]])
def test_others_stay_a_list(shapes):
    """Of unequal size, or not readable."""
    items = [{'inputs': torch.zeros(shape), 'data_samples': None} for shape in shapes]
    inputs = image_collate(items)['inputs']
    assert [tuple(image.shape) for image in inputs] == shapes
    mixed = [{'inputs': torch.zeros(1, 2, 2)}, {'inputs': torch.zeros(1, 2, 2).byte()}]
    assert len(image_collate(mixed)['inputs']) == 2
    assert image_collate([{'inputs': 'a'}, {'inputs': 'b'}])['inputs'] == ['a', 'b']


def test_views_are_stacked_one_by_one():
    views = [{'inputs': [torch.full((3, 4, 4), row), torch.full((3, 2, 2), 10 + row)]}
             for row in range(5)]
    first, second = image_collate(views)['inputs']
    assert first.shape == (5, 3, 4, 4) and second.shape == (5, 3, 2, 2)
    assert second[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize('workers', [0, 2])
def test_the_model_gets_the_same_as_with_the_engines(workers):
    dataset = ImageList([photo(30, 20, seed) for seed in range(7)], pipeline=[
        {'type': 'LoadImage'}, *PACK])
    loaders = [DataLoader(dataset, 3, num_workers=workers, collate_fn=collate)
               for collate in (image_collate, pseudo_collate)]
    model = RetrievalDataPreprocessor(mean=[100., 110., 120.], std=[50., 51., 52.])
    for ours, engines in zip(*loaders, strict=True):
        assert torch.equal(model(ours)['inputs'], model(engines)['inputs'])


def test_by_name_in_a_config():
    loader = Runner.build_dataloader(dict(
        batch_size=4, num_workers=0, dataset=Toy(pipeline=PACK),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='retrieval.image_collate')))
    assert next(iter(loader))['inputs'].shape == (4, 1, 4, 5)

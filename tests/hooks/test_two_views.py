"""Two views of every picture, from the files to the model's loss in a Runner."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from retrieval.datasets import ResizeEdge
from retrieval.datasets.randomness import seeded
from retrieval.registry import DATASETS, MODELS, TRANSFORMS

from ..datasets.photos import photo
from .running import BUILT, config


@DATASETS.register_module(force=True)
class Photos:
    """Built as an ``ImageList`` of four photo-like pictures."""

    def __new__(cls, pipeline):
        return DATASETS.build(dict(type='ImageList', pipeline=pipeline, images=[
            photo(40, 30, seed) for seed in range(4)]))


@MODELS.register_module(force=True)
class TwoViewEncoder(nn.Module):
    """Encodes each of the views that it gets."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 16 * 16, 4)

    def forward(self, inputs):
        if isinstance(inputs, (list, tuple)):
            return tuple(self.forward(view) for view in inputs)
        return self.layer(inputs.flatten(1))


@MODELS.register_module(force=True)
class AgreementHead(nn.Module):
    """Pulls the views of a picture together, and keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def loss(self, feats, data_samples):
        first, second = feats
        self.seen.append((first.detach().clone(), second.detach().clone(),
                          [sample.sample_idx for sample in data_samples]))
        return {'loss': 1 - nn.functional.cosine_similarity(first, second).mean()}


VIEWS = dict(type='MultiView', num_views=2, transforms=[
    dict(type='RandomResizedCrop', scale=16), dict(type='RandomFlip', prob=0.5),
    dict(type='torchvision/ColorJitter', brightness=0.3)])


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('collate', ['pseudo_collate', 'retrieval.image_collate'])
def test_a_step_of_training(tmp_path, workers, collate):
    settings = config(tmp_path, workers=workers, epochs=1)
    pipeline = [dict(type='LoadImage'), VIEWS, dict(type='PackInputs')]
    settings['train_dataloader'].update(
        batch_size=2, dataset=dict(type='Photos', pipeline=pipeline),
        collate_fn=dict(type=collate))
    settings['model'].update(
        image_encoder=dict(type='TwoViewEncoder'), head=dict(type='AgreementHead'),
        data_preprocessor=dict(mean=[100.] * 3, std=[50.] * 3))
    runner = Runner.from_cfg(Config(settings))
    BUILT.append(runner)
    given = []
    runner.model.image_encoder.register_forward_pre_hook(
        lambda module, arguments: given.append(arguments[0])
        if isinstance(arguments[0], list) else None)
    before = runner.model.image_encoder.layer.weight.detach().clone()
    runner.train()
    assert not torch.equal(before, runner.model.image_encoder.layer.weight)
    assert len(given) == len(runner.model.head.seen) == 2
    view = [TRANSFORMS.build(step) for step in VIEWS['transforms']]
    for (first, second), (_, _, rows) in zip(given, runner.model.head.seen, strict=True):
        assert first.shape == second.shape == (2, 3, 16, 16) and first.dtype == torch.float32
        assert not torch.equal(first, second)
        for place, row in enumerate(rows):  # the views that (seed, epoch, row) decide
            with seeded((7, 0, row, 0)):
                for one in (first, second):
                    results = {'img': photo(40, 30, row)}
                    for step in view:
                        results = step(results)
                    want = (results['img'].astype(np.float32) - 100) / 50
                    np.testing.assert_allclose(one[place].permute(1, 2, 0).numpy(), want, atol=1e-5)


def test_views_of_unequal_size_and_pipelines_of_their_own(tmp_path):
    """A large view and two small ones, as in SwAV and DINO."""
    dataset = DATASETS.build(dict(type='Photos', pipeline=[
        dict(type='LoadImage'),
        dict(type='MultiView', num_views=[1, 2], transforms=[
            [dict(type='RandomResizedCrop', scale=16, crop_ratio_range=(0.4, 1.))],
            [dict(type='RandomResizedCrop', scale=8, crop_ratio_range=(0.05, 0.4))]]),
        dict(type='PackInputs')]))
    loader = Runner.build_dataloader(dict(
        batch_size=4, num_workers=0, dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='retrieval.image_collate')))
    batch = MODELS.build(dict(type='RetrievalDataPreprocessor'))(next(iter(loader)))
    assert [tuple(view.shape) for view in batch['inputs']] == [
        (4, 3, 16, 16), (4, 3, 8, 8), (4, 3, 8, 8)]
    assert len(batch['data_samples']) == 4


def test_what_comes_before_the_views_is_shared():
    shared = DATASETS.build(dict(type='Photos', pipeline=[
        dict(type='LoadImage'), dict(type='ResizeEdge', scale=12),
        dict(type='MultiView', num_views=2, transforms=[]), dict(type='PackInputs')]))
    first, second = shared[3]['inputs']
    want = ResizeEdge(12)({'img': photo(40, 30, 3)})['img']
    assert torch.equal(first, second)
    np.testing.assert_array_equal(first.permute(1, 2, 0).numpy(), want)

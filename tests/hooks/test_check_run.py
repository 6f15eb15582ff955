"""What is seen before a run begins."""
import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from retrieval.hooks.check_run import norm_of_one_value, smallest_batch
from retrieval.retrievers import ImageToImageRetriever

from .running import BUILT, config


def train(work_dir, hooks=(), **changes):
    """Nine images in batches of four, with what changes in the dataloader."""
    settings = config(work_dir, hooks=[*hooks, dict(type='CheckRunHook')], epochs=1)
    settings['train_dataloader']['dataset']['count'] = 9
    settings['train_dataloader'].update(changes)
    BUILT.append(Runner.from_cfg(Config(settings)))
    BUILT[-1].train()
    return BUILT[-1].iter


def test_a_last_batch_of_one_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r'9 images in batches of 4.*layers\.2.*drop_last=True.*'
                                         r'batch_size=3'):
        train(tmp_path)
    assert BUILT[-1].iter == 0
    with pytest.raises(ValueError, match='Every batch has one image.*larger batch_size'):
        train(tmp_path / 'ones', batch_size=1)


@pytest.mark.parametrize('changes, iterations', [
    (dict(drop_last=True), 2), (dict(batch_size=3), 3), (dict(batch_size=9), 1),
    (dict(hooks=[dict(type='FreezeBatchNormHook')]), 3)])
def test_what_can_be_trained_is(changes, iterations, tmp_path):
    assert train(tmp_path, **changes) == iterations


def test_only_a_norm_of_one_value_matters():
    batch = dict(inputs=[torch.zeros(3, 8, 8, dtype=torch.uint8)])
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    wide = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *pooled)
    narrow = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), *pooled)
    assert norm_of_one_value(ImageToImageRetriever(wide), batch) is None
    assert norm_of_one_value(ImageToImageRetriever(narrow), batch) == 'image_encoder.1'
    model = ImageToImageRetriever(narrow).eval()
    assert norm_of_one_value(model, batch) is None and not model.training
    before = narrow[1].running_mean.clone()
    assert torch.equal(before, torch.zeros(4))  # looking leaves no trace
    assert norm_of_one_value(ImageToImageRetriever(narrow), dict(inputs=[[], []])) is None


@pytest.mark.parametrize('count, size, drop, smallest', [
    (9, 4, False, 1), (9, 4, True, 4), (8, 4, False, 4), (7, 4, False, 3)])
def test_the_smallest_batch(count, size, drop, smallest):
    assert smallest_batch(DataLoader(range(count), batch_size=size, drop_last=drop)) == smallest


def test_what_outlasts_the_run_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text, *_: said.append(str(text)))
    train(tmp_path, drop_last=True, hooks=[
        dict(type='FreezeHook', modules='image_encoder.layers.1', epochs=5),
        dict(type='LossWeightScheduleHook', weights=[1, 0], end=4)])
    text = ' '.join(said)
    assert 'CosineAnnealingLR of lr reaches its end at iteration 6, and the run ends at 2' in text
    assert 'FreezeHook has its end at epoch 5, and the run ends at 1' in text
    assert 'LossWeightScheduleHook has its end at epoch 4' in text

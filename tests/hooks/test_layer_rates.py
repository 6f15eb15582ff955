"""Rates that rise from layer to layer."""
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from retrieval.hooks import LayerRatesConstructor

from .interrupting import build


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(),
                                      nn.Sequential(nn.Linear(2, 2, bias=False)))
        self.projection, self.head = nn.Linear(2, 2), nn.Linear(2, 2)


def rates(model, wrapper):
    by_weight = {id(weight): group['lr'] for group in wrapper.param_groups
                 for weight in group['params']}
    return {name: by_weight[id(weight)] for name, weight in model.named_parameters()}


def built(**options):
    model = Model()
    return rates(model, build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='retrieval.LayerRatesConstructor',
        optimizer=dict(type='AdamW', lr=0.1),
        paramwise_cfg=dict(layers='backbone', **options))))


def test_equal_ratios_from_the_first_layer_to_the_last():
    assert built(first_layer_mult=0.04) == pytest.approx({
        'backbone.0.weight': 0.004, 'backbone.0.bias': 0.004, 'backbone.1.weight': 0.02,
        'backbone.1.bias': 0.02, 'backbone.3.0.weight': 0.1, 'projection.weight': 0.1,
        'projection.bias': 0.1, 'head.weight': 0.1, 'head.bias': 0.1})


def test_factors_of_the_engine_count_as_well():
    given = built(first_layer_mult=0.04, custom_keys={'head': dict(lr_mult=10),
                                                      'backbone': dict(lr_mult=0.5)})
    assert given['head.weight'] == pytest.approx(1.0)
    assert given['backbone.0.bias'] == pytest.approx(0.002)
    assert given['backbone.3.0.weight'] == pytest.approx(0.05)


def test_without_a_factor_the_first_layer_has_a_tenth_and_with_1_all_are_equal():
    assert min(built().values()) == pytest.approx(0.01)
    assert set(built(first_layer_mult=1).values()) == {0.1}


def test_what_is_not_trained_is_no_layer():
    model = Model()
    model.backbone[0].requires_grad_(False)
    wrapper = LayerRatesConstructor(dict(optimizer=dict(type='SGD', lr=1.0)), dict(
        layers='backbone', first_layer_mult=0.04))(model)
    groups = wrapper.param_groups[:-1]  # the last is the engine's, for its log
    assert [round(group['lr'], 3) for group in groups] == [0.04] * 2 + [1.0] * 5


@pytest.mark.parametrize('options, says', [
    (dict(first_layer_mult=0), 'first_layer_mult must be above 0 and at most 1'),
    (dict(first_layer_mult=2), 'first_layer_mult must be above 0 and at most 1'),
    (dict(first_layer_mul=0.1), "'first_layer_mul'.*Did you mean 'first_layer_mult'")])
def test_a_factor_that_is_none(options, says):
    with pytest.raises(ValueError, match=says):
        LayerRatesConstructor(dict(optimizer=dict(type='SGD', lr=1.0)), options)


def test_a_part_that_is_not_there_and_a_rate():
    make = LayerRatesConstructor(dict(optimizer=dict(type='SGD', lr=1.0)), dict(layers='back'))
    with pytest.raises(ValueError, match="'back'.*Did you mean 'backbone'"):
        make(Model())
    with pytest.raises(ValueError, match='has none: write lr='):
        LayerRatesConstructor(dict(optimizer=dict(type='SGD')))


def test_the_schedule_keeps_the_ratios(tmp_path):
    def change(settings):
        settings['optim_wrapper'].update(
            constructor='LayerRatesConstructor',
            paramwise_cfg=dict(first_layer_mult=0.25, layers='image_encoder.layers'))
    runner = build(tmp_path, change, epochs=1)
    runner.train()
    found = rates(runner.model, runner.optim_wrapper)
    assert found['image_encoder.layers.1.weight'] < 0.0025
    ratio = found['image_encoder.layers.1.weight'] / found['image_encoder.layers.4.weight']
    assert ratio == pytest.approx(0.25)
    assert torch.isfinite(runner.model.state_dict()['image_encoder.layers.1.weight']).all()

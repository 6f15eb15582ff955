"""However a command names a model: with a bundle that is only a name."""
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from retrieval.runs import named_model as module
from retrieval.runs.named_model import (
    is_bundle_name,
    named_config,
    named_model,
    names_bundle,
    weights_of,
    with_options,
)

from ..test_exported_encoder import write_export_of

STEPS = [dict(type='LoadImage'), dict(type='PackInputs')]
MODEL = dict(type='retrieval.ImageToImageRetriever', topk=7, image_encoder=dict(
    type='retrieval.TimmBackbone', model_name='resnet10t'))


@pytest.fixture
def bundle(monkeypatch):
    """What is called ``mine`` is a bundle; whether it was trusted is noted."""
    trusted = []

    def opened(name, trust=False):
        trusted.append(trust)
        return SimpleNamespace(weights='mine/model.safetensors', pipeline=STEPS, config=Config(dict(
            default_scope='retrieval', model=dict(MODEL),
            test_dataloader=dict(dataset=dict(pipeline=STEPS)))))
    monkeypatch.setattr(module, 'is_bundle', lambda name: name == 'mine')
    monkeypatch.setattr(module.Bundle, 'open', opened)
    return trusted


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(f'default_scope = "retrieval"\nmodel = {MODEL!r}\n')
    return str(path)


def test_a_config_and_its_checkpoint(config, bundle):
    made, weights = named_model(config, 'x.pth', options={'model.topk': 3}, work_dir='w')
    assert (made.model.topk, made.work_dir, weights) == (3, 'w', 'x.pth')
    assert named_model(config, 'mine')[1] == 'mine/model.safetensors'
    assert named_config(config, {'model.topk': 4}).model.topk == 4


@pytest.mark.parametrize('named', [dict(config='mine'), dict(config=None, encoder='mine')])
def test_a_bundle(named, bundle):
    made, weights = named_model(**named, options={'model.topk': 3}, trust=True)
    assert weights == 'mine/model.safetensors' and bundle == [True]
    assert made.model.topk == 3 and made.work_dir == 'work_dirs/mine'
    assert weights_of('mine') == weights and weights_of('x.pth') == 'x.pth'
    assert named_config('mine').model.topk == 7


def test_pictures_for_a_bundle(bundle, tmp_path):
    made, _ = named_model('mine', data=str(tmp_path))
    for loader in (made.model.prototype, made.test_dataloader):
        assert loader.dataset.data_root == str(tmp_path) and loader.dataset.pipeline == STEPS
    assert made.test_evaluator.metrics == ['Recall@1', 'MAP@R', 'mAP']


def test_a_preset_has_its_weights():
    made, weights = named_model(None, encoder='resnet50')
    assert weights is None and made.model.topk == 10
    assert made.model.image_encoder.backbone.model_name == 'resnet50.a1_in1k'
    assert made.test_dataloader.dataset.pipeline[0].type.endswith('LoadImage')


def test_an_exported_encoder(tmp_path):
    made, weights = named_model(None, encoder=str(write_export_of(tmp_path / 'mean')))
    assert weights is None and made.work_dir == 'work_dirs/mean'
    assert made.model.image_encoder.type == 'retrieval.OnnxEncoder'


@pytest.mark.parametrize(('given', 'says'), [
    (dict(config=None), 'Which model'), (dict(config='c.py'), "'c.py' wants the checkpoint"),
    (dict(config='c.py', encoder='resnet50'), 'leave one of them out'),
    (dict(config='c.py', checkpoint='x.pth', data='d'), '--data gives a bundle its pictures'),
    (dict(config=None, encoder='resnet50', data='d'), 'make one of the encoder first'),
    (dict(config='mine', checkpoint='x.pth'), 'has weights of its own'),
    (dict(config='mine', options={'model.topkk': 3}), 'topkk')])
def test_what_does_not_go_together(given, says, bundle):
    with pytest.raises(ValueError, match=says):
        named_model(**given)


def test_what_may_be_a_bundle(bundle, monkeypatch):
    monkeypatch.setattr('retrieval.encoders.backbones.huggingface.hub_config', lambda name: (
        dict(model_type='vit') if name == 'owner/theirs' else dict(format='x')))
    assert names_bundle('mine') and names_bundle('owner/ours')
    for name in ('owner/theirs', 'timm/resnet', 'resnet50', '/no/where'):
        assert not names_bundle(name)
    assert is_bundle_name('mine') and is_bundle_name('owner/theirs')
    assert not is_bundle_name('resnet50')


def test_options_of_a_config_that_came_as_data():
    made = with_options(Config(dict(model=dict(MODEL))), {'model.topk': 3})
    assert made.model.topk == 3
    assert with_options(made, None) is made
    with pytest.raises(ValueError, match='topkk'):
        with_options(Config(dict(model=dict(MODEL, topkk=3))), None)

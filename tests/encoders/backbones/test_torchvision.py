from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from retrieval.encoders import ImageEncoder, TorchvisionBackbone

FAMILIES = {
    'alexnet': {}, 'resnet18': {}, 'densenet121': {}, 'efficientnet_b0': {},
    'mobilenet_v2': {}, 'mobilenet_v3_small': {}, 'regnet_x_400mf': {}, 'convnext_tiny': {},
    'shufflenet_v2_x0_5': {}, 'mnasnet0_5': {}, 'squeezenet1_1': {}, 'swin_t': {},
    'vit_b_32': {'image_size': 64},
    'googlenet': {'transform_input': True, 'init_weights': False},
    'inception_v3': {'transform_input': True, 'init_weights': False},
    'maxvit_t': {},
}
SIZES = {'maxvit_t': 224, 'inception_v3': 96}
SLOW = {'maxvit_t'}


@pytest.fixture
def quick_weights(monkeypatch):
    """Models are built without drawing weights, most of the time that building takes; the function
    draws them, cheaply and of a scale that keeps signals alive."""
    for name in [n for n in vars(nn.init) if n.endswith('_') and not n.startswith('_')]:
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)

    def draw(model):
        with torch.no_grad():
            for weight in model.parameters():
                bound = (6 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 1.0
                weight.uniform_(-bound if weight.ndim > 1 else 0.5, bound)
        return model.eval()

    return draw


def before_the_classifier(model, images):
    """What the whole model gives to its pooling, or to its classifier where it has none."""
    seen = []
    names = dict(model.named_children())
    name = next(n for n in ('avgpool', 'classifier', 'fc', 'heads') if n in names)
    hook = names[name].register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    with torch.no_grad():
        model(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES])
def test_features_are_what_the_classifier_was_trained_on(name, quick_weights):
    options = FAMILIES[name]
    extra = {'aux_logits': False} if 'transform_input' in options else {}
    whole = quick_weights(models.get_model(name, weights=None, **options, **extra))
    backbone = TorchvisionBackbone(name, **options).eval()
    backbone.model.load_state_dict(whole.state_dict(), strict=False, assign=True)
    size = SIZES.get(name, 64)
    images = torch.rand(2, 3, size, size)

    expected = before_the_classifier(whole, images)
    assert expected.std() > 0.01, 'the signal died out, so that nothing would be compared'
    with torch.no_grad():
        features = backbone(images)
    if features.ndim == 3:
        assert backbone.has_class_token and backbone.num_prefix_tokens == 1
        features, channels = features[:, 0], features.shape[2]
    else:
        assert not backbone.has_class_token and features.ndim == 4
        channels = features.shape[1]
        features = features.mean((2, 3)) if expected.ndim == 2 else features
    torch.testing.assert_close(features, expected)
    assert channels == backbone.num_features


@pytest.mark.parametrize('name', ['googlenet', 'inception_v3'])
def test_pretrained_weights_with_auxiliary_classifiers(name, quick_weights, monkeypatch):
    whole = quick_weights(models.get_model(name, weights=None, init_weights=False,
                                           transform_input=True, aux_logits=True))
    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url',
                        lambda *args, **kwargs: whole.state_dict())
    backbone = TorchvisionBackbone(name, weights='IMAGENET1K_V1').eval()
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), before_the_classifier(whole, images))
    assert not any('aux' in key.lower() for key in backbone.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize('name', models.list_models(module=models))
def test_every_classifier_of_torchvision_is_a_backbone(name, quick_weights):
    # Built in memory that is never touched, then moved: regnets cannot be built on meta tensors.
    backbone = TorchvisionBackbone(name).eval().to('meta')
    size = getattr(backbone.model, 'image_size', 224)
    features = backbone(torch.empty(1, 3, size, size, device='meta'))
    assert features.shape[1 if features.ndim == 4 else 2] == backbone.num_features, name


def test_the_classifier_is_gone():
    backbone = TorchvisionBackbone('resnet18')
    assert sum(p.numel() for p in backbone.parameters()) == 11_176_512
    assert not any(name.startswith('model.fc') for name in backbone.state_dict())


def test_a_local_file_is_loaded_without_its_classifier(tmp_path, capfd):
    torch.manual_seed(3)
    whole = models.resnet18().eval()
    path = tmp_path / 'resnet18.pth'
    torch.save(whole.state_dict(), path)
    backbone = TorchvisionBackbone('resnet18', checkpoint=str(path)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), before_the_classifier(whole, images))
    assert 'fc.weight' not in capfd.readouterr().err


def test_a_vision_transformer_in_an_encoder():
    encoder = ImageEncoder(dict(type='TorchvisionBackbone', model_name='vit_b_32', image_size=32),
                           pooling=dict(type='ClsTokenPooling')).eval()
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 768)
    with pytest.raises(ValueError, match='32 x 32'):
        encoder(torch.rand(2, 3, 64, 64))


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError('no route')

    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', unreachable)
    with pytest.raises(ConnectionError, match='no route.*checkpoint='):
        TorchvisionBackbone('resnet18', weights='DEFAULT')


@pytest.mark.parametrize('options, error, says', [
    (dict(model_name='resnet81'), ValueError, 'resnet18'),
    (dict(model_name='fcn_resnet50'), ValueError, 'Unknown torchvision classifier'),
    (dict(model_name='resnet18', weights='IMAGENET'), ValueError, 'IMAGENET1K_V1'),
    (dict(model_name='resnet18', weights='DEFAULT', checkpoint='a.pth'), ValueError, 'not both'),
    (dict(model_name='resnet18', colour=3), TypeError, 'colour'),
    (dict(model_name='resnet18', checkpoint='/nowhere/a.pth'), FileNotFoundError, 'a.pth'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        TorchvisionBackbone(**options)

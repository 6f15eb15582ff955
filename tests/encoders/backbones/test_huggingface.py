import json

import pytest
import torch

from retrieval.encoders import HuggingFaceBackbone, ImageEncoder
from retrieval.encoders.backbones.huggingface import is_plain_backbone, plain_backbone
from retrieval.registry import MODELS

transformers = pytest.importorskip('transformers')

VIT = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
           image_size=32, patch_size=8)
DINO = {name: value for name, value in VIT.items() if name != 'intermediate_size'}
STAGES = dict(embedding_size=8, hidden_sizes=[4, 8, 8, 16], depths=[1, 1, 1, 1])
SWIN = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=2, image_size=32,
            patch_size=4)
FAMILIES = {  # settings, shape of the features, tokens before the patches'
    'vit': (VIT, (2, 17, 16), 1),
    'deit': (VIT, (2, 18, 16), 2),
    'dinov2': (DINO, (2, 17, 16), 1),
    'dinov2_with_registers': (dict(DINO, num_register_tokens=3), (2, 20, 16), 4),
    'clip_vision_model': (VIT, (2, 17, 16), 1),
    'siglip_vision_model': (VIT, (2, 16, 16), 0),
    'swin': (SWIN, (2, 16, 16), 0),
    'convnext': (dict(hidden_sizes=[4, 8, 8, 16], depths=[1, 1, 1, 1]), (2, 16, 1, 1), 0),
    'resnet': (STAGES, (2, 16, 1, 1), 0),
    'mobilevit': (dict(image_size=32), (2, 640, 1, 1), 0),
}


@pytest.mark.parametrize('kind', FAMILIES)
def test_features_are_the_models_own(kind):
    settings, shape, prefix = FAMILIES[kind]
    backbone = HuggingFaceBackbone(kind, **settings).eval()
    config = transformers.AutoConfig.for_model(kind, **{
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()})
    whole = transformers.AutoModel.from_config(config).eval()
    lacking = whole.load_state_dict(backbone.model.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features = backbone(images)
        expected = whole(pixel_values=images).last_hidden_state
    assert features.shape == shape
    torch.testing.assert_close(features, expected)
    assert features.shape[2 if features.ndim == 3 else 1] == backbone.num_features
    assert (backbone.num_prefix_tokens, backbone.has_class_token) == (prefix, prefix > 0)


@pytest.mark.parametrize('pooled', [False, True])
@pytest.mark.parametrize('kind', [kind for kind in FAMILIES if kind != 'mobilevit'])
def test_every_weight_that_is_trained_gets_a_gradient(kind, pooled):
    settings, _, _ = FAMILIES[kind]
    backbone = HuggingFaceBackbone(kind, pooled=pooled, **settings).train()
    backbone(torch.rand(2, 3, 32, 32)).sum().backward()
    assert [name for name, weight in backbone.named_parameters()
            if weight.requires_grad and weight.grad is None] == []


def test_in_an_encoder_with_the_pooled_output_and_without():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    encoder = ImageEncoder(dict(type='HuggingFaceBackbone', model_name='siglip_vision_model',
                                pooled=True, **VIT), pooling=None, projection=5).eval()
    assert encoder(images).shape == (2, 5)
    encoder = ImageEncoder(dict(type='HuggingFaceBackbone', model_name='deit', **VIT),
                           normalize=False).eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), encoder.backbone(images)[:, 2:].mean(1))


def test_other_image_sizes():
    backbone = HuggingFaceBackbone('clip_vision_model', **VIT)
    assert backbone(torch.rand(1, 3, 64, 48)).shape == (1, 49, 16)
    backbone = HuggingFaceBackbone('aimv2_vision_model', **VIT)
    with pytest.raises(ValueError, match=r'\(1, 3, 64, 64\).*image_size='):
        backbone(torch.rand(1, 3, 64, 64))


def test_initialising_the_model_leaves_the_weights_alone():
    backbone = HuggingFaceBackbone('vit', **VIT)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    """A model of images and text in a folder."""
    torch.manual_seed(3)
    text = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                vocab_size=50, bos_token_id=0, eos_token_id=1)
    model = transformers.CLIPModel(transformers.AutoConfig.for_model(
        'clip', vision_config=VIT, text_config=text, projection_dim=8)).eval()
    folder = tmp_path_factory.mktemp('clip')
    model.save_pretrained(folder)
    return folder, model


def test_the_vision_tower_of_a_folder(clip):
    folder, whole = clip
    images = torch.rand(2, 3, 32, 32)
    for options in (dict(pretrained=True), dict(checkpoint=str(folder / 'model.safetensors'))):
        backbone = HuggingFaceBackbone(str(folder), **options).eval()
        with torch.no_grad():
            torch.testing.assert_close(
                backbone(images), whole.vision_model(pixel_values=images).last_hidden_state)
    drawn = HuggingFaceBackbone(str(folder)).state_dict()['model.embeddings.class_embedding']
    assert not torch.equal(drawn, whole.vision_model.embeddings.class_embedding)


def test_half_precision_files_are_computed_in_float32(clip, tmp_path):
    clip[1].half().save_pretrained(tmp_path)
    clip[1].float()
    backbone = HuggingFaceBackbone(str(tmp_path), pretrained=True)
    assert {value.dtype for value in backbone.parameters()} == {torch.float32}


@pytest.mark.parametrize('wrap', [
    lambda model: model.state_dict(),
    lambda model: {f'module.{name}': value for name, value in model.state_dict().items()},
    lambda model: {f'image_encoder.backbone.model.{name.removeprefix("vit.")}': value
                   for name, value in model.state_dict().items()},
])
def test_a_file_of_a_class_with_a_head(wrap, tmp_path):
    torch.manual_seed(4)
    config = transformers.AutoConfig.for_model('vit', **VIT)
    whole = transformers.ViTForImageClassification(config).eval()
    torch.save(wrap(whole), tmp_path / 'a.pth')
    backbone = MODELS.build(dict(type='HuggingFaceBackbone', model_name=dict(
        model_type='vit', **VIT), checkpoint=str(tmp_path / 'a.pth'))).eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone(images), whole.vit(pixel_values=images).last_hidden_state)


@pytest.mark.parametrize('change, says', [
    (dict(num_hidden_layers=3), r'depth.*has blocks'),
    (dict(num_hidden_layers=1), r'depth.*lacks blocks'),
    (dict(hidden_size=32), 'another width'),
    (dict(image_size=64), 'another image size'),
])
def test_a_file_of_another_architecture(change, says, tmp_path):
    other = HuggingFaceBackbone('vit', **{**VIT, **change})
    torch.save(other.model.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'not a checkpoint of this model.*{says}'):
        HuggingFaceBackbone('vit', checkpoint=str(tmp_path / 'a.pth'), **VIT)


def test_without_a_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(ConnectionError, match='nobody/nothing.*checkpoint='):
        HuggingFaceBackbone('nobody/nothing', pretrained=True)


@pytest.mark.parametrize('options, error, says', [
    (dict(model_name='vitt'), ValueError, "Did you mean 'vit"),
    (dict(model_name='bert'), ValueError, 'features of images'),
    (dict(model_name='hgnet_v2'), ValueError, 'no last_hidden_state'),
    (dict(model_name='./nowhere/at/all'), FileNotFoundError, 'no folder'),
    (dict(model_name=dict(hidden_size=3)), TypeError, 'model_type'),
    (dict(model_name='vit', hidden_sizes=3), TypeError, "no 'hidden_sizes'.*hidden_size"),
    (dict(model_name='vit', hidden_size='a'), ValueError, 'refuses the configuration'),
    (dict(model_name='vit', pretrained=True), ValueError, 'only a type of model'),
    (dict(model_name='a/b', pretrained=True, checkpoint='a'), ValueError, 'not both'),
    (dict(model_name='vit', checkpoint=dict(prefix='a'), **VIT), ValueError, 'no path'),
    (dict(model_name='vit', checkpoint='/nowhere/a.pth', **VIT), FileNotFoundError, 'a.pth'),
])
def test_bad_arguments(options, error, says):
    with pytest.raises(error, match=says):
        HuggingFaceBackbone(**options)


def test_folders_without_a_model(tmp_path):
    with pytest.raises(ValueError, match='refuses the configuration'):
        HuggingFaceBackbone(str(tmp_path))
    transformers.AutoConfig.for_model('vit', **VIT).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='holds no weights'):
        HuggingFaceBackbone(str(tmp_path), pretrained=True)


def test_where_transformers_is_missing(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'transformers', None)
    with pytest.raises(ImportError, match=r'retrieval\[huggingface\]'):
        HuggingFaceBackbone('vit')


@pytest.mark.parametrize('kind', [kind for kind in FAMILIES if kind != 'mobilevit'])
def test_the_configuration_in_the_place_of_a_name_makes_the_same_model(kind, tmp_path):
    built = HuggingFaceBackbone(kind, pooled=True, **FAMILIES[kind][0]).eval()
    built.model.save_pretrained(tmp_path)
    given = dict(type='HuggingFaceBackbone', model_name=str(tmp_path), pooled=True)
    plain = json.loads(json.dumps(plain_backbone(given)))
    assert is_plain_backbone(plain) and not is_plain_backbone(given)
    (tmp_path / 'config.json').unlink()
    again = MODELS.build(dict(plain, type='retrieval.HuggingFaceBackbone')).eval()
    again.load_state_dict(built.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(built(images), again(images))


@pytest.mark.parametrize('change', [
    dict(model_name='vit'), dict(model_name='facebook/dinov2-small'), dict(checkpoint='x.pth'),
    dict(hidden_size=16), dict(trust_remote_code=True),
    dict(model_name=dict(model_type='timm_wrapper', architecture='resnet18')),
    dict(model_name=dict(model_type='vit', auto_map=dict(AutoModel='x.Y'))),
    dict(model_name=dict(model_type='vit', _attn_implementation='sdpa')),
    dict(model_name=dict(model_type='vit', hidden_act='owner/kernel')),
    dict(model_name=dict(model_type='vit', hidden_size=dict(type='os.system'))),
    dict(model_name=dict(model_type=['vit']))])
def test_what_may_not_come_as_data(change):
    plain = dict(type='HuggingFaceBackbone', model_name=dict(model_type='vit', hidden_size=24))
    assert is_plain_backbone(plain)
    assert not is_plain_backbone({**plain, **change})


def test_other_types_keep_their_name(tmp_path):
    given = dict(type='HuggingFaceBackbone', model_name='mobilevit', image_size=32)
    assert plain_backbone(given) == given
    gone = dict(type='HuggingFaceBackbone', model_name=str(tmp_path / 'gone' / 'x'))
    assert plain_backbone(gone) == gone

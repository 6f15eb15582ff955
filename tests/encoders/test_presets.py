"""Pretrained encoders by name: the names exist, and images are prepared as timm does it."""
import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch.nn import functional

from retrieval.datasets import ImageList
from retrieval.encoders import (
    DEFAULT_ENCODER,
    DEFAULT_PIPELINE,
    DEFAULT_PREPROCESSOR,
    PRESETS,
    WORD_PRESETS,
    build_encoder,
    preset,
)
from retrieval.registry import MODELS

TINY = 'test_resnet.r160_in1k'


def prepared(name, image):
    """An image as the encoder of a preset gets it."""
    _, preprocessor, pipeline = preset(name)
    batch = pseudo_collate([ImageList([image], pipeline=pipeline)[0]])
    return MODELS.build(preprocessor)(batch, False)['inputs'][0]


@pytest.mark.parametrize('name', PRESETS)
def test_a_name_stands_for_weights_that_there_are(name):
    encoder, preprocessor, pipeline = preset(name)
    trained = encoder['backbone']['model_name']
    assert trained in timm.list_pretrained() and encoder['backbone']['pretrained'] is True
    wanted = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(trained).to_dict())
    assert np.allclose(np.array(preprocessor['mean']) / 255, wanted['mean'], atol=1e-6)
    assert np.allclose(np.array(preprocessor['std']) / 255, wanted['std'], atol=1e-6)
    if not name.startswith('dinov2'):
        assert pipeline[2]['crop_size'] == wanted['input_size'][:0:-1]


@pytest.mark.parametrize('name', ['resnet50', 'vit_base_patch16_siglip_224.v2_webli',
                                  'dinov3-small', 'convnext-base',
                                  'convnext_tiny.fb_in22k_ft_in1k_384'])
def test_images_are_prepared_as_the_weights_want_them(name):
    """Against timm's own transform, which resizes by Pillow: within two grey values, where the
    longer edge is a whole number of pixels (its transform rounds it down, ours to the nearest).
    """
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (25, 40, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((600, 400), Image.Resampling.BICUBIC))
    trained = timm.get_pretrained_cfg(PRESETS.get(name, name)).to_dict()
    wanted = create_transform(**resolve_data_config(pretrained_cfg=trained))(Image.fromarray(image))
    found = prepared(name, image)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 2 / 255 / min(trained['std']) + 1e-4


@pytest.mark.parametrize(('name', 'count'), [  # those of open_clip's models of these names
    ('clip-base-32', 151277313), ('clip-base-16', 149620737), ('clip-large-14', 427616513),
    ('siglip2-base', 375187970), ('siglip2-large', 881526786), ('siglip2-so400m', 1135463602)])
def test_encoders_of_words_are_of_the_size_of_their_weights(name, count):
    transformers = pytest.importorskip('transformers')
    from retrieval.encoders.backbones.dual_encoder import _configuration

    encoder, _, pipeline = preset(name)
    assert encoder['backbone']['weights'] == WORD_PRESETS[name].weights
    config = _configuration(encoder['backbone']['architecture'])
    assert pipeline[1]['size'] in (224, 2 * (config.vision_config.image_size,))
    with torch.device('meta'):
        model = transformers.AutoModel.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == count


def test_weights_of_words_come_from_a_local_folder():
    encoder, _, _ = preset('siglip2-base', 'my/folder')
    assert encoder['backbone']['checkpoint'] == 'my/folder' and encoder['backbone']['lowercase']


def test_dinov2_sees_what_its_authors_evaluate_on():
    _, _, pipeline = preset('dinov2-small')
    assert pipeline[1]['scale'] == 256 and pipeline[2]['crop_size'] == (224, 224)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_weights_come_from_a_local_file(tmp_path, suffix):
    whole = timm.create_model('test_resnet').eval()
    path = str(tmp_path / f'weights{suffix}')
    if suffix == '.pth':
        torch.save(whole.state_dict(), path)
    else:
        from safetensors.torch import save_file
        save_file(whole.state_dict(), path)
    encoder = build_encoder(preset(TINY, path)[0]).eval()
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        torch.testing.assert_close(encoder(images), functional.normalize(expected))


@pytest.mark.slow
def test_dinov2_at_a_smaller_size_takes_the_weights_of_the_large_one(tmp_path):
    whole = timm.create_model('vit_small_patch14_dinov2', num_classes=0,
                              dynamic_img_size=True).eval()
    torch.save(whole.state_dict(), tmp_path / 'weights.pth')
    encoder = build_encoder(preset('dinov2-small', str(tmp_path / 'weights.pth'))[0]).eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), functional.normalize(whole(images)))


def test_the_default_encoder_has_its_name_too():
    assert preset('efficientnet-lite0') == (DEFAULT_ENCODER, DEFAULT_PREPROCESSOR, DEFAULT_PIPELINE)
    with pytest.raises(ValueError, match='are a package: leave the checkpoint out'):
        preset('efficientnet-lite0', 'weights.pth')
    encoder, preprocessor, pipeline = preset('efficientnet-lite2')
    assert encoder == dict(DEFAULT_ENCODER, backbone=dict(type='retrieval.EfficientNetLite2'))
    assert preprocessor == DEFAULT_PREPROCESSOR and pipeline[1]['scale'] == 292


@pytest.mark.parametrize(('given', 'near'), [
    ('dinov2-smal', 'dinov2-small'), ('resnet5', 'resnet50'),
    ('vit_base_patch16_dinov3.lvd', 'vit_base_patch16_dinov3.lvd1689m')])
def test_an_unknown_name_gets_the_nearest(given, near):
    with pytest.raises(ValueError, match=f"no pretrained encoder '{given}'. Did you mean.*{near}"):
        preset(given)


def test_without_a_network_there_is_one_error(monkeypatch):
    monkeypatch.setattr('retrieval.encoders.backbones.hub._reachable', lambda *_: False)
    encoder = Config(dict(encoder=preset(TINY)[0])).encoder
    with pytest.raises(ConnectionError, match=f"weights of '{TINY}' could not be fetched.*"
                                              '--checkpoint FILE'):
        build_encoder(encoder)

"""Models of transformers by name: tiny ones of the real classes, against their processors."""
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from retrieval.datasets import ImageList
from retrieval.encoders import build_encoder, known_normalisation, preset
from retrieval.registry import MODELS
from retrieval.runs.named_model import named_model, names_bundle

transformers = pytest.importorskip('transformers')

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
             image_size=28, patch_size=14)
#: type of model, settings, class that was saved, and its image processor.
TINY = {
    'vit': ('ViTForImageClassification', SMALL, dict(size=dict(height=28, width=28), resample=2)),
    'dinov2': ('Dinov2Model', SMALL, dict(size=dict(shortest_edge=32), resample=3,
                                         do_center_crop=True, crop_size=dict(height=28, width=28))),
    'dinov3_vit': ('DINOv3ViTModel', dict(SMALL, num_register_tokens=2),
                   dict(size=dict(height=28, width=28), resample=2, image_std=[0.2, 0.3, 0.4])),
    'siglip_vision_model': ('SiglipVisionModel', SMALL,
                            dict(size=dict(height=28, width=28), resample=3,
                                 image_mean=[0.5] * 3, image_std=[0.5] * 3))}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A folder of each, as it is on the hub."""
    root = tmp_path_factory.mktemp('transformers')
    for kind, (name, settings, processor) in TINY.items():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **settings)
        getattr(transformers, name)(config).save_pretrained(root / kind)
        processor = dict(do_resize=True, do_rescale=True, do_normalize=True, rescale_factor=1 / 255,
                         **{'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225],
                            **processor})
        made = transformers.BitImageProcessor if 'crop_size' in processor else \
            transformers.ViTImageProcessor
        made(**processor).save_pretrained(root / kind)
    return root


@pytest.mark.parametrize('kind', TINY)
def test_images_are_prepared_and_encoded_as_transformers_does(kind, saved):
    folder = str(saved / kind)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((60, 40), Image.Resampling.BICUBIC))
    encoder, preprocessor, pipeline = preset(folder)
    batch = pseudo_collate([ImageList([image], pipeline=pipeline)[0]])
    found = MODELS.build(preprocessor)(batch, False)['inputs']
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    wanted = torch.as_tensor(np.asarray(processor(Image.fromarray(image))['pixel_values']))
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 2.5 / 255 / min(processor.image_std)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(pixel_values=wanted)
        expected = output.last_hidden_state[:, 0] if kind == 'vit' else output.pooler_output
        embedding = build_encoder(encoder).eval()(wanted)
    torch.testing.assert_close(embedding, torch.nn.functional.normalize(expected))
    mean, std = known_normalisation(encoder)
    assert np.allclose(np.array(mean) / 255, processor.image_mean, atol=1e-5)
    assert np.allclose(np.array(std) / 255, processor.image_std, atol=1e-5)


def test_a_folder_is_a_name_of_the_command_line(saved, tmp_path):
    config, checkpoint = named_model(None, encoder=str(saved / 'dinov2'))
    assert checkpoint is None and config.model.image_encoder.backbone.pooled
    with pytest.raises(ValueError, match='has its weights: leave the checkpoint out'):
        preset(str(saved / 'dinov2'), 'weights.pth')


def test_a_model_on_the_hub_is_told_from_a_bundle(saved, monkeypatch):
    """By what its config.json holds; timm's are known by their owner."""
    monkeypatch.setattr('retrieval.encoders.backbones.huggingface._from_hub',
                        lambda name, file: saved / 'dinov2' / file)
    assert not names_bundle('facebook/dinov2-tiny')
    (saved / 'bundle').mkdir()
    (saved / 'bundle' / 'config.json').write_text('{"format": "retrieval-bundle"}')
    monkeypatch.setattr('retrieval.encoders.backbones.huggingface._from_hub',
                        lambda name, file: saved / 'bundle' / file)
    assert names_bundle('somebody/glyphs@v2') and not names_bundle('timm/resnet50.a1_in1k')
    assert preset('timm/resnet50.a1_in1k') == preset('resnet50')


def test_without_a_network_there_is_one_error(monkeypatch, tmp_path):
    monkeypatch.setattr('retrieval.encoders.backbones.hub._reachable', lambda *_: False)
    with pytest.raises(ConnectionError, match="'facebook/absent' could not be fetched.*network"):
        named_model(None, encoder='facebook/absent')

"""Pretrained encoders by short names, each with the preprocessing that its weights want."""
from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from ..registry import nearest_names
from .backbones.default import DEFAULT_ENCODER, DEFAULT_PREPROCESSOR, lite_pipeline
from .backbones.huggingface import (
    check_installed,
    is_transformers_folder,
    read_config,
    read_processor,
)
from .normalisation import processor_normalisation

#: Short names, and the weights of timm that they stand for.
PRESETS: dict[str, str] = {
    'resnet50': 'resnet50.a1_in1k',
    'convnext-tiny': 'convnext_tiny.fb_in22k',
    'convnext-small': 'convnext_small.fb_in22k',
    'convnext-base': 'convnext_base.fb_in22k',
    'dinov2-small': 'vit_small_patch14_dinov2.lvd142m',
    'dinov2-base': 'vit_base_patch14_dinov2.lvd142m',
    'dinov2-large': 'vit_large_patch14_dinov2.lvd142m',
    'dinov3-small': 'vit_small_patch16_dinov3.lvd1689m',
    'dinov3-base': 'vit_base_patch16_dinov3.lvd1689m',
    'dinov3-large': 'vit_large_patch16_dinov3.lvd1689m',
    'dinov3-convnext-tiny': 'convnext_tiny.dinov3_lvd1689m',
}


class WordPreset(NamedTuple):
    """An encoder of images and words.

    Args:
        weights: their name on the hub.
        architecture: of :class:`DualEncoder`.
    """

    weights: str
    architecture: dict[str, Any]

    @property
    def image_size(self) -> int:
        """Height and width of its images."""
        return int(self.architecture['vision_config'].get('image_size', 224))


def _clip(size: str, patch: int) -> WordPreset:
    large = size == 'large'
    tower = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24,
                 num_attention_heads=16) if large else {}
    text = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12) if large else {}
    width = dict(projection_dim=768 if large else 512)
    return WordPreset(f'openai/clip-vit-{size}-patch{patch}', dict(
        model_type='clip', **width, text_config={**text, **width},
        vision_config=dict(tower, patch_size=patch, **width)))


def _siglip2(size: str, patch: int, image_size: int, width: int, inner: int, layers: int,
             heads: int) -> WordPreset:
    tower = dict(hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
                 num_attention_heads=heads)
    return WordPreset(f'google/siglip2-{size}-patch{patch}-{image_size}', dict(
        model_type='siglip', text_config=dict(tower, vocab_size=256000, projection_size=width),
        vision_config=dict(tower, image_size=image_size, patch_size=patch)))


#: Short names of encoders of images and words, whose weights transformers fetches.
WORD_PRESETS: dict[str, WordPreset] = {
    'clip-base-32': _clip('base', 32),
    'clip-base-16': _clip('base', 16),
    'clip-large-14': _clip('large', 14),
    'siglip2-base': _siglip2('base', 16, 224, 768, 3072, 12, 12),
    'siglip2-large': _siglip2('large', 16, 256, 1024, 4096, 24, 16),
    'siglip2-so400m': _siglip2('so400m', 14, 224, 1152, 4304, 27, 16),
}
#: Those whose weights are packages, and the pixels that they were trained at.
PACKAGED: dict[str, int] = {
    'efficientnet-lite0': 224, 'efficientnet-lite1': 240, 'efficientnet-lite2': 260}
DEFAULT_NAME = 'efficientnet-lite0'


def preset(name: str, checkpoint: str | None = None) -> tuple[dict[str, Any], dict[str, Any],
                                                              list[dict[str, Any]]]:
    """The configs of a pretrained encoder, its data preprocessor and its pipeline.

    The embedding is the model's own pooled output; size, interpolation and normalisation are
    those of the weights. DINOv2 sees 224 pixels out of 256, as in its authors' evaluation, not the
    518 of its last training steps.

    Args:
        name: one of :data:`PACKAGED`, :data:`PRESETS` or :data:`WORD_PRESETS`, any trained model
            of timm, such as ``'mobilenetv3_large_100.ra_in1k'``, or a vision model of
            transformers: its name on the hub (``'facebook/dinov2-with-registers-small'``), or the
            folder of ``save_pretrained``.
        checkpoint: a local file with the weights, in the place of fetching them; of an encoder of
            words too, a folder, or a file with ``tokenizer.json`` beside it.

    Returns:
        Three configs, from which nothing is built or fetched yet.

    Raises:
        ValueError: no encoder of that name (the nearest are named), or a checkpoint for one
            whose weights are a package, or for a model of transformers.
        ConnectionError: a model of transformers is on the hub, which is not reached.

    Example:
        >>> encoder, preprocessor, pipeline = preset('resnet50')
        >>> encoder['backbone']['model_name'], preprocessor['mean'][0], pipeline[2]['crop_size']
        ('resnet50.a1_in1k', 123.675, (224, 224))
    """
    if name in PACKAGED:
        if checkpoint is not None:
            raise ValueError(f'The weights of {name!r} are a package: leave the checkpoint out.')
        packaged = dict(type=f'retrieval.EfficientNetLite{name[-1]}')
        return (dict(DEFAULT_ENCODER, backbone=packaged), dict(DEFAULT_PREPROCESSOR),
                lite_pipeline(PACKAGED[name]))
    if name in WORD_PRESETS:
        return _of_words(WORD_PRESETS[name], checkpoint)
    name = name.removeprefix('timm/')  # where the hub has timm's weights
    if '/' in name or is_transformers_folder(name):
        if checkpoint is not None:
            raise ValueError(f'The model {name!r} of transformers has its weights: leave the '
                             'checkpoint out.')
        return _of_transformers(name)
    import timm

    model_name = PRESETS.get(name, name)
    trained = None
    if timm.is_model(model_name):
        with suppress(RuntimeError):  # no weights of that tag
            trained = timm.get_pretrained_cfg(model_name)
    if trained is None:
        short = [*PACKAGED, *PRESETS, *WORD_PRESETS]
        near = nearest_names(name, short) or nearest_names(name, timm.list_pretrained())
        asked = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
        raise ValueError(f'There is no pretrained encoder {name!r}.{asked} The short names are '
                         f'{", ".join(short)}; every trained model of timm has its own, '
                         'and transformers\' models are OWNER/NAME.')
    source = dict(pretrained=True) if checkpoint is None else dict(checkpoint=checkpoint)
    backbone = dict(type='retrieval.TimmBackbone', model_name=model_name, pooled=True, **source)
    size, share = trained.input_size[1:], trained.crop_pct
    if '_dinov2' in model_name:
        size, share = (224, 224), 224 / 256
        backbone['dynamic_img_size'] = True
    encoder = dict(type='retrieval.ImageEncoder', backbone=backbone, pooling=None)
    preprocessor = dict(type='retrieval.RetrievalDataPreprocessor',
                        mean=[round(255 * value, 4) for value in trained.mean],
                        std=[round(255 * value, 4) for value in trained.std])
    scale = int(min(size) / share)
    first = _squash(scale, scale * size[1] // size[0], trained.interpolation) \
        if trained.crop_mode == 'squash' else _short_edge(scale, trained.interpolation == 'bicubic')
    return encoder, preprocessor, _pipeline(first, _crop(*size))


def _of_transformers(name: str) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The configs of a model of transformers, with the preprocessing of its image processor."""
    check_installed()
    config = read_config(name, {})[1]
    processor = read_processor(name) or {}
    # classifiers of these have no weights for the pooled output, but classify the class token
    pooled = config.model_type not in ('vit', 'deit') or \
        not str((config.architectures or [''])[0]).endswith('ForImageClassification')
    encoder = dict(
        type='retrieval.ImageEncoder', pooling=None if pooled else dict(
            type='retrieval.ClsTokenPooling'),
        backbone=dict(type='retrieval.HuggingFaceBackbone', model_name=name, pretrained=True,
                      pooled=pooled))
    mean, std = processor_normalisation(processor)
    preprocessor = dict(type='retrieval.RetrievalDataPreprocessor', mean=mean, std=std)
    cubic, steps = processor.get('resample', 3) == 3, []
    wanted = processor.get('size') or getattr(config, 'image_size', None) or 224
    if isinstance(wanted, int):
        wanted = dict(height=wanted, width=wanted)
    if processor.get('do_resize', True):
        # Swin's and ConvNeXt's processors resize to more than what they then cut out
        edge = wanted.get('shortest_edge')
        share = processor.get('crop_pct') if edge is not None and edge < 384 else None
        if edge is None:
            steps.append(_squash(wanted['height'], wanted['width'],
                                 'bicubic' if cubic else 'bilinear'))
        elif share:
            steps += [_short_edge(int(edge / share), cubic), _crop(edge, edge)]
        elif 'crop_pct' in processor:
            steps.append(_squash(edge, edge, 'bicubic' if cubic else 'bilinear'))
        else:
            steps.append(_short_edge(edge, cubic))
    if processor.get('do_center_crop'):
        crop = processor['crop_size']
        steps.append(_crop(*(crop['height'], crop['width']) if isinstance(crop, dict)
                           else (crop, crop)))
    return encoder, preprocessor, _pipeline(*steps)


def _pipeline(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(type='retrieval.LoadImage'), *steps, dict(type='retrieval.PackInputs')]


def _short_edge(length: int, cubic: bool) -> dict[str, Any]:
    return dict(type='retrieval.ResizeEdge', scale=length, edge='short',
                interpolation='auto-bicubic' if cubic else 'auto')


def _squash(height: int, width: int, interpolation: str) -> dict[str, Any]:
    return dict(type='torchvision/Resize', size=(height, width), interpolation=interpolation)


def _crop(height: int, width: int) -> dict[str, Any]:
    return dict(type='CenterCrop', crop_size=(width, height))


def no_words(encoder: str, text: str) -> ValueError:
    """The error for words that an encoder cannot take; to be raised.

    Example:
        >>> str(no_words('resnet50', 'a red bicycle')).split(',')[0]
        'The encoder resnet50 has no text tower'
    """
    return ValueError(f'The encoder {encoder} has no text tower, so it cannot search for words '
                      f'({text!r}). These have one: {", ".join(WORD_PRESETS)}; take one, as '
                      '--encoder, and the gallery is encoded with it.')


def _of_words(chosen: WordPreset, checkpoint: str | None) -> tuple[dict[str, Any], dict[str, Any],
                                                                   list[dict[str, Any]]]:
    """The configs of an encoder of images and words, with transformers' preprocessing."""
    is_clip = chosen.architecture['model_type'] == 'clip'
    source = dict(weights=chosen.weights) | ({} if checkpoint is None else
                                             dict(checkpoint=checkpoint))
    backbone: dict[str, Any] = dict(type='retrieval.DualEncoder',
                                    architecture=chosen.architecture, **source)
    if not is_clip:
        backbone['lowercase'] = True
    mean = [.48145466, .4578275, .40821073] if is_clip else [.5] * 3
    std = [.26862954, .26130258, .27577711] if is_clip else [.5] * 3
    size = chosen.image_size
    if is_clip:
        steps: list[dict[str, Any]] = [
            dict(type='torchvision/Resize', size=size, interpolation='bicubic'),
            dict(type='torchvision/CenterCrop', size=size)]
    else:
        steps = [dict(type='torchvision/Resize', size=(size, size), interpolation='bilinear')]
    return (dict(type='retrieval.ImageEncoder', backbone=backbone, pooling=None),
            dict(type='retrieval.RetrievalDataPreprocessor', mean=[255 * value for value in mean],
                 std=[255 * value for value in std]),
            [dict(type='retrieval.LoadImage'), *steps, dict(type='retrieval.PackInputs')])

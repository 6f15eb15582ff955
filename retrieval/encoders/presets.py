"""Pretrained encoders by short names, each with the preprocessing that its weights want."""
from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..registry import nearest_names
from .backbones.default import DEFAULT_ENCODER, DEFAULT_PIPELINE, DEFAULT_PREPROCESSOR
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
    'siglip2-base': 'vit_base_patch16_siglip_224.v2_webli',
    'siglip2-large': 'vit_large_patch16_siglip_256.v2_webli',
    'siglip2-so400m': 'vit_so400m_patch14_siglip_224.v2_webli',
}
#: The default encoder, whose weights are a package.
DEFAULT_NAME = 'efficientnet-lite0'


def preset(name: str, checkpoint: str | None = None) -> tuple[dict[str, Any], dict[str, Any],
                                                              list[dict[str, Any]]]:
    """The configs of a pretrained encoder, its data preprocessor and its pipeline.

    The embedding is the model's own pooled output; size, interpolation and normalisation are
    those of the weights. DINOv2 sees 224 pixels out of 256, as in its authors' evaluation, not the
    518 of its last training steps.

    Args:
        name: one of :data:`PRESETS`, ``'efficientnet-lite0'``, any trained model of timm, such as
            ``'mobilenetv3_large_100.ra_in1k'``, or a vision model of transformers: its name on the
            hub (``'facebook/dinov2-with-registers-small'``), or the folder of ``save_pretrained``.
        checkpoint: a local file with the weights, in the place of fetching them.

    Returns:
        Three configs, from which nothing is built or fetched yet.

    Raises:
        ValueError: no encoder of that name (the nearest are named), or a checkpoint for the
            default encoder, whose weights are a package, or for a model of transformers.
        ConnectionError: a model of transformers is on the hub, which is not reached.

    Example:
        >>> encoder, preprocessor, pipeline = preset('resnet50')
        >>> encoder['backbone']['model_name'], preprocessor['mean'][0], pipeline[2]['crop_size']
        ('resnet50.a1_in1k', 123.675, (224, 224))
    """
    if name == DEFAULT_NAME:
        if checkpoint is not None:
            raise ValueError(f'The weights of {name!r} are a package: leave the checkpoint out.')
        return dict(DEFAULT_ENCODER), dict(DEFAULT_PREPROCESSOR), list(DEFAULT_PIPELINE)
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
        short = [DEFAULT_NAME, *PRESETS]
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

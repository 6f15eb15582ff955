"""Pretrained encoders by short names, each with the preprocessing that its weights want."""
from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..registry import nearest_names
from .backbones.default import DEFAULT_ENCODER, DEFAULT_PIPELINE, DEFAULT_PREPROCESSOR

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
        name: one of :data:`PRESETS`, ``'efficientnet-lite0'``, or any trained model of timm, such
            as ``'mobilenetv3_large_100.ra_in1k'``.
        checkpoint: a local file with the weights, in the place of fetching them.

    Returns:
        Three configs, from which nothing is built or fetched yet.

    Raises:
        ValueError: no encoder of that name (the nearest are named), or a checkpoint for the
            default encoder, whose weights are a package.

    Example:
        >>> encoder, preprocessor, pipeline = preset('resnet50')
        >>> encoder['backbone']['model_name'], preprocessor['mean'][0], pipeline[2]['crop_size']
        ('resnet50.a1_in1k', 123.675, (224, 224))
    """
    if name == DEFAULT_NAME:
        if checkpoint is not None:
            raise ValueError(f'The weights of {name!r} are a package: leave the checkpoint out.')
        return dict(DEFAULT_ENCODER), dict(DEFAULT_PREPROCESSOR), list(DEFAULT_PIPELINE)
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
                         f'{", ".join(short)}; every trained model of timm has its own.')
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
    scale, cubic = int(min(size) / share), trained.interpolation == 'bicubic'
    resize: list[dict[str, Any]] = [
        dict(type='retrieval.ResizeEdge', scale=scale, edge='short',
             interpolation='auto-bicubic' if cubic else 'auto'),
        dict(type='CenterCrop', crop_size=tuple(reversed(size)))]
    if trained.crop_mode == 'squash':
        resize[0] = dict(type='torchvision/Resize', size=(scale, scale * size[1] // size[0]),
                         interpolation=trained.interpolation)
    return encoder, preprocessor, [dict(type='retrieval.LoadImage'), *resize,
                                   dict(type='retrieval.PackInputs')]

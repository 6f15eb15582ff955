"""The normalisation that an encoder's pretrained weights want."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Norm = tuple[list[float], list[float]]


def known_normalisation(encoder: Any) -> Norm | None:
    """Mean and standard deviation of the pixels that pretrained weights were trained with.

    Args:
        encoder: the config of an encoder, of its backbone, or a list of configs, of which the first
            gets the images.

    Returns:
        Two lists, a number a channel, in the unit of pixels from 0 to 255; None where the config
        asks for no pretrained weights, takes them from a file of the user's, or they do not say.

    Raises:
        ConnectionError: a model of transformers is on the hub, which is not reached.

    Example:
        >>> known_normalisation(dict(type='TimmBackbone', model_name='resnet50.a1_in1k',
        ...                          pretrained=True))
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    """
    if isinstance(encoder, (list, tuple)):
        return known_normalisation(encoder[0]) if encoder else None
    if not isinstance(encoder, Mapping):
        return None
    if isinstance(encoder.get('backbone'), Mapping):
        return known_normalisation(encoder['backbone'])
    kind = encoder.get('type')
    name = kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]
    norm = _OF[name](encoder) if name in _OF else None
    return norm and _for_channels(norm, encoder.get('in_chans', len(norm[0])))


def fill_in(preprocessor: dict[str, Any], encoder: Any) -> dict[str, Any]:
    """The config of a data preprocessor, with the normalisation of the encoder's weights where it
    says nothing of mean and std. It is of bytes: what a pipeline has made floats of is left alone.

    Example:
        >>> fill_in(dict(type='RetrievalDataPreprocessor'), dict(type='EfficientNetLite0'))['std']
        [128.0, 128.0, 128.0]
    """
    if str(preprocessor.get('type')).rpartition('.')[2] != 'RetrievalDataPreprocessor' or \
            'mean' in preprocessor or 'std' in preprocessor:
        return preprocessor
    norm = known_normalisation(encoder)
    return preprocessor if norm is None else dict(
        preprocessor, mean=norm[0], std=norm[1], only_bytes=True)


def _of_timm(backbone: Mapping[str, Any]) -> Norm | None:
    import timm

    name = backbone.get('model_name')
    if not backbone.get('pretrained') or not isinstance(name, str) or not timm.is_model(name):
        return None
    try:
        trained = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no weights of that tag: building it says so
        return None
    return None if trained is None else in_pixels(trained.mean, trained.std)


def _of_torchvision(backbone: Mapping[str, Any]) -> Norm | None:
    from torchvision import models

    name, weights = backbone.get('model_name'), backbone.get('weights')
    if isinstance(weights, str) and name in models.list_models(module=models):
        known = models.get_model_weights(name)
        weights = known.DEFAULT if weights == 'DEFAULT' else known.__members__.get(weights)
    transforms = getattr(weights, 'transforms', None)
    if transforms is None:
        return None
    made = transforms()
    return in_pixels(made.mean, made.std)


def _of_transformers(backbone: Mapping[str, Any]) -> Norm | None:
    from .backbones.huggingface import read_processor

    name = backbone.get('model_name')
    if not backbone.get('pretrained') or not isinstance(name, str):
        return None
    processor = read_processor(name)
    return None if processor is None else processor_normalisation(processor)


def processor_normalisation(processor: Mapping[str, Any]) -> Norm:
    """That of an image processor of transformers.

    Example:
        >>> processor_normalisation(dict(image_mean=[0.5], image_std=[0.25]))
        ([127.5], [63.75])
    """
    scale = processor.get('rescale_factor', 1 / 255) if processor.get('do_rescale', True) else 1
    mean, std = processor.get('image_mean'), processor.get('image_std')
    if mean is None or std is None or not processor.get('do_normalize', True):
        mean, std = [0.0] * 3, [1.0] * 3
    return in_pixels(mean, std, scale)


def in_pixels(mean: Any, std: Any, scale: float = 1 / 255) -> Norm:
    """Mean and standard deviation of pixels from those of scaled ones.

    Example:
        >>> in_pixels((0.5,), (0.5,))
        ([127.5], [127.5])
    """
    return [round(value / scale, 4) for value in mean], [round(value / scale, 4) for value in std]


def _for_channels(norm: Norm, channels: int) -> Norm | None:
    """For images of one channel the means of the channels, as timm sums their weights."""
    if channels == len(norm[0]):
        return norm
    return None if channels != 1 else ([sum(norm[0]) / len(norm[0])], [sum(norm[1]) / len(norm[1])])


def _of_lite0(backbone: Mapping[str, Any]) -> Norm | None:
    from .backbones.default import DEFAULT_PREPROCESSOR

    return (DEFAULT_PREPROCESSOR['mean'], DEFAULT_PREPROCESSOR['std']) \
        if backbone.get('pretrained', True) else None


_OF = {'TimmBackbone': _of_timm, 'TorchvisionBackbone': _of_torchvision,
       'Recognizer': _of_torchvision, 'HuggingFaceBackbone': _of_transformers,
       'EfficientNetLite0': _of_lite0}

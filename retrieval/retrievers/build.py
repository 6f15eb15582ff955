"""From a config, or whatever else a caller names as a model, to a retriever."""
from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..config.own_names import check_own_names
from ..config.reading import expand_home, read_config
from ..config.settings import check_settings
from ..encoders import DEFAULT_ENCODER, DEFAULT_PIPELINE, DEFAULT_PREPROCESSOR
from ..registry import MODELS
from .base import BaseRetriever
from .checkpoint import load_pretrained
from .image_to_image import ImageToImageRetriever
from .prototype import configured_prototype


def build_retriever(config: Any, checkpoint: str | os.PathLike[str] | None = None,
                    prototype: Any = None, device: Any = None) -> Any:
    """The retriever of a config, with a checkpoint's weights, in evaluation mode.

    Args:
        config: a config with ``model``, or its path.
        checkpoint: its weights, or None for those that the config gives it.
        prototype: in the place of the config's.
        device: where it goes; by default a GPU where there is one.

    Raises:
        FileNotFoundError: the config or the checkpoint is missing.
        ValueError: the config has no model, or the checkpoint other weights than its encoder.

    Example:
        >>> encoder = dict(type='TimmBackbone', model_name='resnet10t', stem_width=8,
        ...                channels=(8, 8, 8, 8))
        >>> model = dict(type='ImageToImageRetriever', image_encoder=encoder)
        >>> build_retriever(dict(model=model), device='cpu').training
        False
    """
    from mmengine.device import get_device
    from mmengine.registry import DefaultScope

    config = as_config(config)
    scope = config.get('default_scope') or 'retrieval'
    name = f'retrieval-{scope}'
    if not DefaultScope.check_instance_created(name):
        DefaultScope.get_instance(name, scope_name=scope)
    settings = dict(config.model)
    if is_mmpretrain(config):
        settings['type'] = 'retrieval.ImageToImageRetriever'
    if prototype is not None:
        settings['prototype'] = prototype
    if config.get('data_preprocessor') is not None:
        settings.setdefault('data_preprocessor', config.data_preprocessor)
    model = MODELS.build(settings)
    if checkpoint is not None:
        load_pretrained(model, checkpoint, whole_encoder=True)
    return model.to(device or get_device()).eval()


def default_retriever(prototype: Any = None, topk: int = 10, device: Any = None) -> Any:
    """The retriever with the default pretrained encoder.

    Raises:
        ImportError: the package with its weights is not installed.
    """
    from mmengine.device import get_device

    model = ImageToImageRetriever(DEFAULT_ENCODER, prototype, topk=topk,
                                  data_preprocessor=dict(DEFAULT_PREPROCESSOR))
    return model.to(device or get_device()).eval()


def as_retriever(model: Any, checkpoint: str | os.PathLike[str] | None = None,
                 device: Any = None) -> tuple[Any, list[dict[str, Any]] | None]:
    """A retriever, and the pipeline that its config gives to test images.

    Args:
        model: a retriever, an encoder, the path of a config, a config, or None for the default
            pretrained encoder.
        checkpoint: the weights of a config's model.
        device: where it goes; by default a model stays where it is.

    Raises:
        TypeError: it is something else.
        ValueError: a checkpoint for a model that is no config, or a config without a model.
        FileNotFoundError: there is no such config or checkpoint.
    """
    from mmengine.config import Config

    if isinstance(model, (str, os.PathLike, Mapping, Config)):
        config = as_config(model)
        return build_retriever(config, checkpoint, device=device), config_pipeline(config)
    if checkpoint is not None:
        raise ValueError('A checkpoint is loaded into the model of a config: give the config as '
                         'the model.')
    if model is None:
        return default_retriever(device=device), DEFAULT_PIPELINE
    if not isinstance(model, nn.Module):
        raise TypeError('model must be a retriever, an encoder, a config or its path, or None for '
                        f'the default encoder; got {type(model).__name__}.')
    if not isinstance(model, BaseRetriever):
        model = ImageToImageRetriever(model, topk=10).eval()
    return model if device is None else model.to(device), None


def as_config(config: Any) -> Any:
    """A config from its path, from a dict with ``model``, or from the dict of a model.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: it is something else.
        ValueError: it cannot be read, or describes no model.
    """
    from mmengine.config import Config

    if isinstance(config, (str, os.PathLike)):
        config = read_config(config)
        check_own_names(config)
    elif isinstance(config, Mapping):
        config = Config(dict(config) if 'model' in config else dict(model=dict(config)))
        check_own_names(config)
    elif not isinstance(config, Config):
        raise TypeError(f'config must be a config or its path, got {type(config).__name__}.')
    expand_home(config)
    check_config(config)
    config.model.prototype = configured_prototype(config)
    check_settings(config)
    return config


def check_config(config: Any) -> None:
    """Raise ValueError for a config that describes no model."""
    name = f'The config {config.filename!r}' if config.filename else 'The config'
    if 'model' not in config:
        raise ValueError(f'{name} has no `model`. Inherit one through `_base_`, or set '
                         "model=dict(type='ImageToImageRetriever', …).")
    if not config.model.get('type'):
        raise ValueError(f"The model of {name.replace('The', 'the', 1)} has no type, as model=dict("
                         "type='ImageToImageRetriever', …) has.")


def is_mmpretrain(config: Any) -> bool:
    """True for a config of mmpretrain's with its retriever."""
    return (config.get('default_scope') == 'mmpretrain'
            and str(config.model.get('type')).rsplit('.', 1)[-1] == 'ImageToImageRetriever')


def config_pipeline(config: Any) -> list[dict[str, Any]] | None:
    """The pipeline that queries go through: the test set's, else the prototype's, else None."""
    prototype = config.model.get('prototype')
    for loader in (config.get('test_dataloader'), config.get('val_dataloader'),
                   prototype if isinstance(prototype, dict) else None):
        pipeline = ((loader or {}).get('dataset') or {}).get('pipeline')
        if pipeline:
            return list(pipeline)
    return None

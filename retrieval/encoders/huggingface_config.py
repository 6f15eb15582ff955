"""Configurations of transformers' vision models, by name, folder, type or dict."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..registry import nearest_names, unknown_name
from .hub import HINT, hub


def check_installed() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError('HuggingFaceBackbone needs transformers: pip install '
                          "'retrieval[huggingface]'.") from error


def read_config(model_name: Any, settings: dict[str, Any]) -> tuple[str | None, Any]:
    """Where the weights are, if anywhere, and the configuration of the vision model."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if isinstance(model_name, Mapping):
        settings = {**model_name, **settings}
        model_name = settings.pop('model_type', None)
    settings = {name: list(value) if isinstance(value, tuple) else value
                for name, value in settings.items()}
    if not isinstance(model_name, str):
        raise TypeError('model_name must be a name, a folder, or a dict with model_type, got '
                        f'{model_name!r}.')
    if model_name in CONFIG_MAPPING:
        return None, _of_type(model_name, settings)
    read: Any
    guard: Any
    if Path(model_name).is_dir():
        read, guard = checked, nullcontext()
    elif model_name.count('/') == 1 and not model_name.startswith(('.', '/', '~')):
        read, guard = fetched, hub()
    elif '/' in model_name:
        raise FileNotFoundError(f'There is no folder {model_name!r}.')
    else:
        raise ValueError(unknown_name('type of vision model of transformers', model_name,
                                      _vision_types()))
    with guard:
        whole = read(lambda: AutoConfig.from_pretrained(model_name), model_name)
        config = _vision_part(whole, model_name)
        _check_settings(config, settings)
        if config is whole:
            return model_name, checked(
                lambda: AutoConfig.from_pretrained(model_name, **settings), model_name)
    return model_name, checked(
        lambda: type(config).from_dict({**config.to_dict(), **settings}), config.model_type)


def _of_type(model_type: str, settings: dict[str, Any]) -> Any:
    """The configuration of a type of model, with defaults where nothing is set."""
    from transformers import AutoConfig
    config = _vision_part(checked(lambda: AutoConfig.for_model(model_type), model_type),
                          model_type)
    _check_settings(config, settings)
    return checked(lambda: AutoConfig.for_model(config.model_type, **settings), model_type)


def _vision_part(config: Any, name: str) -> Any:
    config = getattr(config, 'vision_config', config)
    if not _is_vision(config.model_type):
        raise ValueError(f'{name!r} is no model that transformers makes features of images with: '
                         'take one such as vit, dinov2, clip, siglip, swin or convnext.')
    return config


def _vision_types() -> list[str]:
    """Types for images by their names: to look at the models would import all of them."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto
    return sorted({*modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
                   *(name for name in CONFIG_MAPPING if name.endswith('vision_model'))})


def _is_vision(model_type: str) -> bool:
    """Whether transformers builds a model of images for a type: of it, or of its vision part."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING
    try:
        kind = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
        kind = kind[0] if isinstance(kind, tuple) else kind
        if getattr(kind, 'main_input_name', None) != 'pixel_values':
            return False
    except (KeyError, ImportError, AttributeError):
        return False
    needed = [name for name, one in list(inspect.signature(kind.forward).parameters.items())[1:]
              if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    return needed in ([], ['pixel_values'])


def _check_settings(config: Any, settings: dict[str, Any]) -> None:
    known = config.to_dict()
    for name in settings:
        if name not in known and not hasattr(config, name):
            near = ', '.join(nearest_names(name, known)) or ', '.join(sorted(known)[:20])
            raise TypeError(f'The configuration of {config.model_type!r} has no {name!r}; the '
                            f'nearest are {near}.')


def _refusals() -> tuple[type[Exception], ...]:
    from huggingface_hub import errors
    strict = getattr(errors, 'StrictDataclassError', ValueError)  # where its client checks types
    return ValueError, TypeError, OSError, KeyError, strict


def checked(build: Any, name: str) -> Any:
    try:
        return build()
    except _refusals() as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'transformers refuses the configuration of {name!r}: {reason}'
                         ) from error


def fetched(fetch: Any, name: str) -> Any:
    try:
        return fetch()
    except OSError as error:
        reason = str(error).split('\n')[0]
        raise ConnectionError(f'{name!r} could not be fetched ({reason}). {HINT}: '
                              "model_name='vit' with its settings.") from error


def build_options(config: Any, pooled: bool) -> dict[str, Any]:
    """What keeps a model from building a pooling that is not asked for."""
    from transformers import MODEL_MAPPING
    if pooled:
        return {}
    for name in ('vision_use_head', 'use_head'):  # SigLIP, AIMv2
        if hasattr(config, name):
            setattr(config, name, False)
    kind = MODEL_MAPPING[type(config)]
    kind = kind[0] if isinstance(kind, tuple) else kind
    if hasattr(config, 'mask_ratio'):
        config.mask_ratio = 0.0  # MAE's encoder would see a random quarter of the image
    accepted = inspect.signature(kind.__init__).parameters
    return {'add_pooling_layer': False} if 'add_pooling_layer' in accepted else {}


def image_size_of(config: Any) -> tuple[int, int] | None:
    size = getattr(config, 'image_size', None)
    if isinstance(size, (tuple, list)):
        return int(size[0]), int(size[1])
    return None if size is None else (int(size), int(size))

"""Any vision model of Hugging Face transformers as a backbone, by name, folder, type or dict."""
from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS, nearest_names, unknown_name
from ..weights import Checkpoint, WeightReport
from .hub import HINT, hub

#: Types of models whose own settings are sizes and switches, so that they may come as data:
#: transformers builds them by code of its own, and fetches nothing.
PLAIN_TYPES = ('beit', 'clip_vision_model', 'convnext', 'convnextv2', 'deit', 'dinov2',
               'dinov2_with_registers', 'dinov3_convnext', 'dinov3_vit', 'ijepa', 'resnet',
               'siglip_vision_model', 'siglip2_vision_model', 'swin', 'swinv2', 'vit', 'vit_mae')


def is_transformers_folder(name: str) -> bool:
    """True for a folder that ``save_pretrained`` of transformers wrote.

    Example:
        >>> is_transformers_folder('.')
        False
    """
    return 'model_type' in (_json_of(Path(name) / 'config.json') or {})


def hub_config(name: str) -> dict[str, Any]:
    """The ``config.json`` of a model on the hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

    Raises:
        ConnectionError: the hub is not reached, and its cache has not got it.
    """
    return _json_of(_from_hub(name, 'config.json')) or {}


def read_processor(name: str) -> dict[str, Any] | None:
    """The settings of the image processor in a folder or on the hub; None where there is none.

    Raises:
        ConnectionError: the hub is not reached, and its cache has not got it.
    """
    for file in ('preprocessor_config.json', 'processor_config.json'):
        found = _json_of(Path(name) / file if Path(name).is_dir() else _from_hub(name, file))
        if found is not None:
            return found.get('image_processor', found)
    return None


def _from_hub(name: str, file: str) -> Path | None:
    """A file of a model on the hub, None where the model has no such file."""
    from huggingface_hub import errors, hf_hub_download

    try:
        with hub():
            repository, _, revision = name.partition('@')
            return Path(hf_hub_download(repository, file, revision=revision or None))
    except errors.LocalEntryNotFoundError as error:  # an EntryNotFoundError too
        raise _unreachable(name, error) from error
    except errors.EntryNotFoundError:
        return None
    except Exception as error:  # whatever the hub's client of the day raises
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> ConnectionError:
    return ConnectionError(f'{name!r} could not be fetched from the hub ({type(error).__name__}): '
                           f'check the name and the network. {HINT}: a folder that transformers '
                           'wrote by save_pretrained.')


def _json_of(path: Path | None) -> dict[str, Any] | None:
    """The content of a JSON file, None where there is no such file, or something else in it."""
    if path is None or not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def plain_backbone(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a :class:`HuggingFaceBackbone` with the configuration in the place of its name,
    from which it is built without the hub or a folder; as it is where that cannot be had.

    Example:
        >>> vit = dict(type='HuggingFaceBackbone', model_name='vit', hidden_size=24)
        >>> plain_backbone(vit)['model_name']['hidden_size']
        24
    """
    own = ('type', 'model_name', 'pretrained', 'checkpoint', 'init_cfg', 'pooled')
    given = dict(backbone)
    settings = {name: value for name, value in given.items() if name not in own}
    try:
        config = read_config(given.get('model_name'), settings)[1]
    except (ImportError, ValueError, TypeError, OSError):
        return given
    if config.model_type not in PLAIN_TYPES:
        return given
    whole, usual = config.to_dict(), type(config)().to_dict()
    changed = {name: whole[name] for name in _plain_settings(config.model_type)
               if name in whole and whole[name] != usual.get(name)}
    return {**{name: value for name, value in given.items() if name in own},
            'model_name': {'model_type': config.model_type, **changed}}


def is_plain_backbone(backbone: Mapping[str, Any]) -> bool:
    """True for the config of a :class:`HuggingFaceBackbone` that may come as data: a configuration
    of one of :data:`PLAIN_TYPES` of which nothing but sizes and switches is said.

    Example:
        >>> is_plain_backbone(dict(type='HuggingFaceBackbone', model_name='facebook/dinov2-small'))
        False
    """
    given = backbone.get('model_name')
    if not set(backbone) <= {'type', 'model_name', 'pooled'} or not isinstance(given, Mapping) \
            or given.get('model_type') not in PLAIN_TYPES:
        return False
    check_installed()
    return set(given) - {'model_type'} <= _plain_settings(given['model_type']) and all(
        all(map(_is_plain, value)) if isinstance(value, (list, tuple)) else _is_plain(value)
        for value in given.values())


def _plain_settings(model_type: str) -> set[str]:
    """The settings of a type of model that are its own, not those that all have, of which some name
    code; without what follows from others.
    """
    from transformers import CONFIG_MAPPING, PretrainedConfig

    return set(CONFIG_MAPPING[model_type]().to_dict()) - set(
        PretrainedConfig().to_dict()) - {'stage_names', 'out_features', 'out_indices'}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float)) or (
        isinstance(value, str) and value.isidentifier())


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
    """True where transformers builds a model of images for a type: of it, or of its vision part."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING
    try:
        kind: Any = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
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


def fetched(fetch: Any, name: str,
            hint: str = f"{HINT}: model_name='vit' with its settings") -> Any:
    try:
        return fetch()
    except OSError as error:
        reason = str(error).split('\n')[0]
        raise ConnectionError(f'{name!r} could not be fetched ({reason}). {hint}.') from error


def build_options(config: Any, pooled: bool) -> dict[str, Any]:
    """Options that keep a model from building a pooling that is not asked for."""
    from transformers import MODEL_MAPPING
    if pooled:
        return {}
    for name in ('vision_use_head', 'use_head'):  # SigLIP, AIMv2
        if hasattr(config, name):
            setattr(config, name, False)
    kind: Any = MODEL_MAPPING[type(config)]
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


# Parameters that only make the pooled output, or stand for masked patches.
_UNUSED = {'pooler', 'mask_token'}


@MODELS.register_module()
class HuggingFaceBackbone(BaseModule):
    """A vision model of transformers (``AutoModel``) without its task's head.

    ``(B, 3, H, W) ->`` its ``last_hidden_state``: tokens ``(B, N, C)`` of a transformer (ViT,
    DINOv2, CLIP's and SigLIP's vision towers, Swin), or a feature map ``(B, C, H', W')`` (ConvNeXt,
    ResNet). Of a model of images and text the vision tower is taken. Position embeddings are
    interpolated for other image sizes where the model can.

    Args:
        model_name: a name on the hub (``facebook/dinov2-small``), a local folder that
            ``save_pretrained`` wrote, a type of model (``vit``, ``dinov2``, ``clip_vision_model``
            …), or a configuration as a dict with ``model_type``. The last two need no network.
        pretrained: load the weights of the hub or of the folder; otherwise they are drawn.
        checkpoint: load weights from this local file instead (a path, or what
            :class:`~retrieval.encoders.Checkpoint` takes); also those that transformers' classes
            with a head have written.
        init_cfg: MMEngine's initialisation.
        pooled: return the model's own pooled output ``(B, C)`` instead, for an encoder with
            ``pooling=None``: of CLIP and SigLIP it is what their contrastive training was for.
        kwargs: settings of the model's configuration that differ, as ``image_size=384``.

    Attributes:
        num_features: C.
        num_prefix_tokens: how many of the tokens stand before the patches'.
        has_class_token: whether the first token is the class token.

    Raises:
        ImportError: transformers is not installed.
        ValueError: no vision model of that name, ``pretrained`` together with ``checkpoint`` or
            without anything to load from, or weights that do not fit.
        TypeError: a setting that the configuration has not, or of another type.
        ConnectionError: the hub is not reached and its cache has not got the model.
        FileNotFoundError: there is no such folder or file.
    """

    def __init__(self, model_name: str | Mapping[str, Any], pretrained: bool = False,
                 checkpoint: Any = None, init_cfg: dict[str, Any] | None = None, *,
                 pooled: bool = False, **kwargs: Any) -> None:
        super().__init__(init_cfg)
        check_installed()
        if pretrained and checkpoint is not None:
            raise ValueError('Give either pretrained=True or a checkpoint, not both: the file '
                             'would overwrite what was loaded.')
        source, config = read_config(model_name, kwargs)
        if pretrained and source is None:
            raise ValueError(f'pretrained=True loads from the hub or from a folder, and '
                             f'{config.model_type!r} is only a type of model: give a name such as '
                             "'facebook/dinov2-small', a folder, or checkpoint=….")
        self.model_name = source or config.model_type
        self.pooled = pooled
        options = build_options(config, pooled)
        self.model: Any = _build(source, config, options) if pretrained else _draw(config, options)
        if checkpoint is not None:
            self.model = load_file(self.model, Checkpoint.of(checkpoint), options)
        # transformers' models have an init_weights, which MMEngine must not run after loading.
        self.model.is_init = True
        self._freeze_unused()
        self.image_size = image_size_of(config)
        self.interpolates = ('interpolate_pos_encoding'
                             in inspect.signature(self.model.forward).parameters)
        self.has_class_token, self.num_prefix_tokens = _prefix_tokens(self.model)
        width = getattr(config, 'hidden_size', None)
        self.num_features: int = (width if isinstance(width, int) and not pooled
                                  else self._probe())

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch of images.

        Raises:
            ValueError: the model refuses images of this size, or has no such output.
        """
        resized = (self.interpolates and self.image_size is not None
                   and tuple(images.shape[-2:]) != self.image_size)
        try:
            output = self.model(pixel_values=images,
                                **({'interpolate_pos_encoding': True} if resized else {}))
        except (ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and tuple(images.shape[-2:]) == self.image_size:
                raise
            raise ValueError(f'{self.model_name} refuses images {tuple(images.shape)}: {error} '
                             'Resize them, or build the model for them with image_size=…'
                             ) from error
        name = 'pooler_output' if self.pooled else 'last_hidden_state'
        features = getattr(output, name, None)
        if not isinstance(features, Tensor):
            raise ValueError(f'{self.model_name} gives no {name}, so it cannot be a backbone '
                             f'{"with pooled=True" if self.pooled else "here"}.')
        return features.flatten(1) if self.pooled else features

    def _freeze_unused(self) -> None:
        """Parameters that the output does not depend on would stop training on several processes,
        which waits for the gradient of each.
        """
        unused = set(_UNUSED if not self.pooled else _UNUSED - {'pooler'})
        if not self.pooled:
            # CLIP normalises the class token alone after the tokens, ConvNeXt the mean.
            unused |= {'post_layernorm'} if 'clip' in self.model.config.model_type else set()
            unused |= {'layernorm'} & {name for name, _ in self.model.named_children()
                                       if self.model.config.model_type.startswith('convnext')}
        for name, parameter in self.model.named_parameters():
            parts = name.split('.')
            if unused & {parts[0], *(part for part in parts if part != 'layernorm')}:
                parameter.requires_grad_(False)

    @torch.no_grad()
    def _probe(self) -> int:
        """The width of the features, of an image of the model's own size."""
        image = torch.zeros(1, self.model.config.num_channels, *(self.image_size or (224, 224)))
        training = self.training
        features = self.eval()(image)
        self.train(training)
        return features.shape[2 if features.ndim == 3 else 1]


def _draw(config: Any, options: dict[str, Any]) -> nn.Module:
    from transformers import AutoModel
    return checked(lambda: AutoModel.from_config(config, **options), config.model_type).float()


def _build(source: str | None, config: Any, options: dict[str, Any]) -> nn.Module:
    from transformers import AutoModel
    with hub():
        if Path(str(source)).is_dir():
            try:
                model, report = AutoModel.from_pretrained(
                    str(source), config=config, output_loading_info=True, **options)
            except (OSError, RuntimeError) as error:
                raise ValueError(f'The folder {source!r} holds no weights that can be loaded: '
                                 f'{error}') from error
        else:
            model, report = fetched(lambda: AutoModel.from_pretrained(
                str(source), config=config, output_loading_info=True, **options), str(source))
    lacks = sorted(report['missing_keys'])
    if lacks:
        raise ValueError(f'{source!r} has not all weights of {type(model).__name__}: '
                         f'{", ".join(lacks[:8])} are missing.')
    return model.float()


def load_file(model: Any, checkpoint: Checkpoint, options: dict[str, Any]) -> nn.Module:
    """The model with a file's weights, by transformers' own loader: it knows under which names
    releases of the past have written them.
    """
    from transformers.utils import logging

    own = model.state_dict()
    weights = checkpoint.weights_for(own)
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of what did not match is ours to write
    try:
        loaded, info = type(model).from_pretrained(
            None, config=model.config, state_dict=dict(weights), output_loading_info=True,
            ignore_mismatched_sizes=True, **options)
    finally:
        logging.set_verbosity(level)
    missing = sorted(info['missing_keys'])
    different = sorted({entry[0] for entry in info['mismatched_keys']})
    report = WeightReport([name for name in missing if name not in different],
                          sorted(info['unexpected_keys']), different,
                          len(own) - len({*missing, *different}))
    checkpoint.check(own, weights, report)
    report.log(checkpoint.path, len(own))
    return loaded.float()


def _prefix_tokens(model: nn.Module) -> tuple[bool, int]:
    """The presence of a class token, and how many tokens stand before the patches'."""
    if model.config.model_type == 'dinov3_convnext':  # type: ignore[union-attr]
        return True, 1  # it puts the mean of the positions before them
    has_class, count = False, 0
    for name, parameter in model.named_parameters():
        parts = name.split('.')
        if 'embeddings' not in parts[:-1]:
            continue  # elsewhere it does not stand before the tokens that are returned
        if parts[-1] in ('cls_token', 'class_embedding'):
            has_class, count = True, count + 1
        elif parts[-1] == 'distillation_token':
            count += 1
        elif parts[-1] == 'register_tokens':
            count += parameter.shape[1]
    return has_class, count

"""The config that a gallery carries as data, and what data may have built.

A Python config is a program, and runs where somebody typed its path. A gallery comes from anywhere:
it carries the part of its config that a search needs as JSON, from which only the types of a short
list are built, with arguments that name no file, no address and no weights to fetch.
"""
from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.utils import get_object_from_string, import_modules_from_strings
from torch import nn

from ..encoders import fill_in
from ..encoders.backbones.huggingface import is_plain_backbone, plain_backbone
from ..registry import INDEXES, MODELS, PML, RERANKERS, TRANSFORMS
from ..retrievers.build import config_pipeline

_TUPLE = '__tuple__'  # JSON has lists only, and some transforms want a tuple
# where weights come from: all of them stand in the gallery's checkpoint; and a file of this machine
_SOURCES = {'init_cfg', 'pretrained', 'checkpoint', 'train_cfg', 'batch_augments', 'kept'}
_REFUSED = _SOURCES | {
    'checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir', 'file',
    'path', 'uri', 'token', 'on_disk', 'backend_args', 'file_client_args', 'data_root',
    'trust_remote_code', '_scope_', '_delete_', 'resize_type'}
# they fetch, load or write what their arguments name, or hand them on to code that does
_EFFECTFUL = {'HuggingFaceBackbone',  # but with its configuration
              'MilvusIndex', 'LoadCachedFeatures', 'OnnxEncoder'}
_OF_MMCV = {'CenterCrop', 'Normalize', 'Pad', 'RandomFlip', 'Resize'}
_PACKAGES = ('retrieval', 'pytorch_metric_learning')
_HARMLESS = re.compile(r'[\w+\-,.() \[\]#]*', re.ASCII)  # no path, no address, no name on a hub


def carried(config: Any) -> str | None:
    """The part of a config by which its gallery is searched, as JSON.

    It is the model without what only training needs and without where weights come from (they
    stand in the checkpoint), the pipeline of the queries, and the dataset of the pictures. An
    index in a database is left out: to search the gallery changes no database.

    Returns:
        The text, or None for a config with values that JSON does not have.

    Example:
        >>> carried(Config(dict(model=dict(type='ImageToImageRetriever', init_cfg=dict()))))
        '{"default_scope": "retrieval", "model": {"type": "ImageToImageRetriever"}}'
    """
    whole = config.to_dict()
    prototype = whole['model'].get('prototype')
    parts = dict(
        default_scope=whole.get('default_scope') or 'retrieval',
        model=_without_sources(_with_architecture(_with_normalisation(whole))),
        data_preprocessor=_without_sources(whole.get('data_preprocessor')),
        pipeline=config_pipeline(config),
        dataset=prototype.get('dataset') if isinstance(prototype, Mapping) else None,
        custom_imports=whole.get('custom_imports'))
    try:
        return json.dumps({name: _plain(part) for name, part in parts.items() if part is not None})
    except TypeError:
        return None


def _with_normalisation(whole: dict[str, Any]) -> dict[str, Any]:
    """The model with the normalisation of its pretrained weights, which are not named any more."""
    model = {key: value for key, value in whole['model'].items()
             if key != 'prototype' and not (key == 'index' and _is_in_database(value))}
    given = model.get('data_preprocessor', whole.get('data_preprocessor')) or {}
    if isinstance(given, Mapping):
        plain = dict(given)
        plain.setdefault('type', 'retrieval.RetrievalDataPreprocessor')
        filled = fill_in(plain, model.get('image_encoder'))
        if filled is not plain:
            model['data_preprocessor'] = filled
    return model


def _is_in_database(index: Any) -> bool:
    kind = index.get('type') if isinstance(index, Mapping) else None
    kind = INDEXES.module_dict.get(kind.rpartition('.')[2]) if isinstance(kind, str) else kind
    capabilities = getattr(kind, 'capabilities', None)
    return capabilities is not None and bool(capabilities.persistent)


def _with_architecture(model: dict[str, Any]) -> dict[str, Any]:
    """The model with the configuration of a backbone of transformers in the place of its name."""
    encoder = model.get('image_encoder')
    if not isinstance(encoder, Mapping) or not _is_of_transformers(encoder.get('backbone')):
        return model
    backbone = encoder['backbone']
    return {**model, 'image_encoder': {**encoder, 'backbone': plain_backbone(backbone)}}


def _is_of_transformers(value: Any) -> bool:
    return isinstance(value, Mapping) and str(value.get('type')).endswith('HuggingFaceBackbone')


def _without_sources(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_without_sources(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    left = {key: _without_sources(item) for key, item in value.items()
            if key not in _SOURCES and not (key == 'weights' and isinstance(item, str))}
    if isinstance(value.get('weights'), str) and value.get('model_name') in (
            'googlenet', 'inception_v3'):
        left.setdefault('transform_input', True)  # as torchvision does with its weights
    if str(value.get('type')).rpartition('.')[2].startswith('EfficientNetLite'):
        left['pretrained'] = False  # its weights are a package, which need not be there
    return left


def _plain(value: Any) -> Any:
    """A value as JSON has it. Raises TypeError for what it has not."""
    if isinstance(value, Mapping):
        return {str(key): _type_name(item) if key == 'type' else _plain(item)
                for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(item) for item in value]}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(f'{type(value).__name__} is nothing that JSON has')


def _type_name(kind: Any) -> Any:
    """The registered name of a class, or of the path of one, as configs in the new style have."""
    found = kind
    if isinstance(kind, str) and '.' in kind:
        try:
            found = get_object_from_string(kind)
        except Exception:  # scope.Name, or a package that is not there
            return kind
    if not isinstance(found, type):
        return _plain(kind)
    for registry in (MODELS, TRANSFORMS, INDEXES, RERANKERS):
        for name, held in registry.module_dict.items():
            if held is found:
                return f'retrieval.{name}'
    return kind if isinstance(kind, str) else f'{found.__module__}.{found.__qualname__}'


def carried_config(text: str, trust: bool = False) -> Any:
    """The config that :func:`carried` wrote, from a gallery that may come from anywhere.

    Args:
        text: the JSON.
        trust: build whatever it names, and import what it wants imported. Then it can run any
            code that is installed here.

    Raises:
        ValueError: it is no such text; or, without ``trust``, it names a type or an argument that
            data may not have built.
        ImportError: with ``trust``, a module that it wants imported is missing.

    Example:
        >>> text = '{"model": {"type": "ImageToImageRetriever", "head": {"type": "os.system"}}}'
        >>> try:
        ...     carried_config(text)
        ... except ValueError as error:
        ...     print(str(error).split(',')[0])
        The config that the gallery carries has type='os.system' in model.head
    """
    try:
        parts = _with_tuples(json.loads(text))
        model = {key: value for key, value in parts['model'].items() if key != 'prototype'}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError('The config that the gallery carries cannot be read: give the config '
                         'with --config.') from error
    pipeline, dataset = parts.get('pipeline') or [], parts.get('dataset')
    if trust:
        import_modules_from_strings(**(parts.get('custom_imports') or dict(imports=None)))
    else:
        _check(model, pipeline, parts)
        if not (isinstance(dataset, dict) and dataset.get('type') in (
                'Glyphs', 'retrieval.Glyphs') and set(dataset) <= {
                'type', 'split', 'size', 'pipeline'}):
            dataset = None  # the others read files; ids that are paths are found without
    if dataset is not None:
        model['prototype'] = dict(dataset=dict(dataset, pipeline=[]))
    made = dict(default_scope=parts.get('default_scope', 'retrieval'), model=model,
                test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    if parts.get('data_preprocessor') is not None:
        made['data_preprocessor'] = parts['data_preprocessor']
    return Config(made)


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_tuples(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_TUPLE}:
        return tuple(_with_tuples(value[_TUPLE]))
    return {key: _with_tuples(item) for key, item in value.items()}


def _check(model: dict[str, Any], pipeline: Any, parts: dict[str, Any]) -> None:
    """Refuse what data may not have built. Raises ValueError."""
    scope = parts.get('default_scope', 'retrieval')
    if scope != 'retrieval':
        raise RefusedConfigError(f'default_scope={scope!r}')
    models = {*_own(MODELS), *(f'PML.{name}' for name in _own(PML)), *_own(PML)}
    inner = {key: value for key, value in model.items() if key not in ('index', 'rerank')}
    for part, names, where in (
            (inner, models, 'model'), (parts.get('data_preprocessor'), models, 'data_preprocessor'),
            (model.get('index'), _own(INDEXES), 'model.index'),
            (model.get('rerank'), _own(RERANKERS), 'model.rerank'),
            (pipeline, {*_own(TRANSFORMS), *_OF_MMCV}, 'pipeline')):
        for value, path in _walk(part, where):
            _check_value(value, path, names)


def _own(registry: Any) -> Collection[str]:
    """The names in a registry of what this package has registered."""
    registry.import_from_location()
    return {name for name, held in registry.module_dict.items()
            if held.__module__.split('.')[0] in _PACKAGES and held.__name__ not in _EFFECTFUL}


def _walk(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """All values in a part, each with where it stands."""
    yield value, path
    if isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _walk(item, f'{path}.{number}')
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != 'type':
                yield from _walk(item, f'{path}.{key}')


def _check_value(value: Any, path: str, names: Collection[str]) -> None:
    if isinstance(value, str) and not _HARMLESS.fullmatch(value):
        raise RefusedConfigError(f'{value!r} in {path}')
    if not isinstance(value, dict):
        return
    for key in value:
        if key in _REFUSED and value[key] not in (None, False) or (
                key == 'weights' and isinstance(value[key], str)):
            raise RefusedConfigError(f'{key!r} in {path}')
    if 'type' not in value or _is_of_transformers(value) and is_plain_backbone(value):
        return
    kind = value['type']
    if not isinstance(kind, str) or kind.removeprefix('retrieval.') not in names and not (
            _is_layer(kind)):
        raise RefusedConfigError(f'type={kind!r} in {path}')


def _is_layer(kind: str) -> bool:
    """True for a module of PyTorch's own, such as ``torch.nn.ReLU``."""
    found = getattr(nn, kind.removeprefix('torch.nn.'), None) if kind.startswith('torch.nn.') \
        else None
    return isinstance(found, type) and issubclass(found, nn.Module)


class RefusedConfigError(ValueError):
    """A config that came as data names what data may not have built.

    Args:
        what: it names, in words.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f'The config that the gallery carries has {what}, and a file of data may name only '
            'types of this package that read, fetch and write nothing. Give the config that you '
            'know with --config; or, where the gallery is your own or of somebody whom you trust, '
            '--trust builds what it names.')

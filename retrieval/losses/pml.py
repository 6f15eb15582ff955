"""The adapter to pytorch-metric-learning: its parts as types of the scope ``PML``.

Importing this module registers every class of the installed release's losses, miners, distances,
reducers, regularizers and wrappers, found by looking. What is registered is a factory, which turns
nested configs into objects first: a registry calls its entries with the config as it stands.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.utils import distributed
from pytorch_metric_learning.utils.common_functions import TorchInitWrapper
from torch import nn

from ..arguments import arguments, takes_any
from ..registry import MODELS, PML, UnknownTypeError, nearest_names, unknown_name

SCOPE = 'PML.'


def library_classes() -> dict[str, type]:
    """Every class of the installed library that a config may name, by name."""
    found = {name: value for part in (losses, miners, distances, reducers, regularizers)
             for name, value in vars(part).items() if inspect.isclass(value)}
    wrappers = {name: value for name, value in vars(distributed).items()
                if inspect.isclass(value) and value.__module__ == distributed.__name__}
    return {**found, **wrappers, 'TorchInitWrapper': TorchInitWrapper}


def build_component(cfg: Any) -> Any:
    """Configs as objects, at any depth; everything else as it is.

    A dict with ``type`` is built: ``PML.X`` and, where the library has an ``X``, plain ``X`` from
    the library, any other type from the registry of models. Other dicts, lists and tuples are
    searched for configs.

    Raises:
        ValueError: there is no such type; the message names the nearest.
        TypeError: an argument that the type does not take, or one that is missing.

    Example:
        >>> loss = build_component(dict(type='PML.TripletMarginLoss', margin=0.1,
        ...                             distance=dict(type='CosineSimilarity')))
        >>> loss.margin
        0.1
    """
    if isinstance(cfg, Mapping):
        if 'type' not in cfg:
            return {key: build_component(value) for key, value in cfg.items()}
        options = {key: value for key, value in cfg.items() if key != 'type'}
        return resolve(cfg['type'])(**options)
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(build_component(value) for value in cfg)
    return cfg


def resolve(kind: Any) -> Callable[..., Any]:
    """The callable that builds objects of the type that a config names."""
    if not isinstance(kind, str):
        if callable(kind):
            return _factory(kind) if kind in library_classes().values() else kind
        raise TypeError(f'type must be a name or a class, got {type(kind).__name__}.')
    name = kind.removeprefix(SCOPE)
    if name in PML.module_dict:
        return PML.module_dict[name]
    found = None if kind.startswith(SCOPE) else MODELS.find(kind)
    if found is None:
        raise UnknownTypeError(
            unknown_name('part of pytorch-metric-learning', name, PML.module_dict))
    return found


def _factory(cls: type) -> Callable[..., Any]:
    """A function that builds the class from config values."""

    @wraps(cls, updated=())
    def build(*args: Any, **kwargs: Any) -> Any:
        _check_names(cls, kwargs)
        values = {name: _convert(cls, name, build_component(value))
                  for name, value in kwargs.items()}
        try:
            return _mended(cls(*(build_component(value) for value in args), **values))
        except (TypeError, KeyError) as error:  # a few read their arguments from a dict
            reason = f'argument {error} is missing' if isinstance(error, KeyError) else error
            raise TypeError(f'{SCOPE}{cls.__name__} cannot be built: {reason}. It takes: '
                            f'{_signature(cls)}.') from error
        except Exception as error:  # the library asserts, and raises plain exceptions
            raise ValueError(f'{SCOPE}{cls.__name__} refuses its arguments: {error}. It takes: '
                             f'{_signature(cls)}.') from error

    build.cls = cls  # type: ignore[attr-defined]
    return build


def _check_names(cls: type, kwargs: Mapping[str, Any]) -> None:
    valid = arguments(cls)
    if takes_any(valid):
        return
    for name in kwargs:
        if name not in valid:
            near = nearest_names(name, valid)
            hint = f' Did you mean {" or ".join(map(repr, near))}?' if near else ''
            raise TypeError(f'{SCOPE}{cls.__name__} takes no argument {name!r}.{hint} It takes: '
                            f'{_signature(cls)}.')


def _signature(cls: type) -> str:
    """The arguments as a person would write them."""
    return ', '.join(
        str(parameter) if parameter.kind is parameter.VAR_KEYWORD else
        name if parameter.default is parameter.empty else f'{name}={parameter.default!r}'
        for name, parameter in arguments(cls).items()) or 'no argument'


def _convert(cls: type, name: str, value: Any) -> Any:
    """Plain config values as what the library wants where it takes no plain values."""
    if cls is TorchInitWrapper and name == 'init_func' and isinstance(value, str):
        functions = [f for f in vars(nn.init) if f.endswith('_') and not f.startswith('_')]
        if value not in functions:
            raise ValueError(unknown_name('function of torch.nn.init', value, functions))
        return getattr(nn.init, value)
    if cls is reducers.ClassWeightedReducer and name == 'weights':
        return torch.as_tensor(value, dtype=torch.float32)
    return value


def _mended(part: Any) -> Any:
    """A part of the library without what keeps it from being trained, or resumed.

    ``DynamicSoftMarginLoss`` averages a histogram over the batches, whose graph it keeps, so that
    the second step fails, and which is not saved.
    """
    if type(part) is losses.DynamicSoftMarginLoss:
        histogram = vars(part).pop('hist_')
        part.register_buffer('hist_', histogram)
        part.register_forward_hook(_forget_graph)
    return part


def _forget_graph(loss: nn.Module, *_: Any) -> None:
    loss.hist_ = loss.hist_.detach()  # type: ignore[operator]


def register() -> None:
    """Register a factory for every class of the library."""
    for name, cls in library_classes().items():
        PML.register_module(name=name, module=_factory(cls), force=True)


register()

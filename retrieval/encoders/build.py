"""Encoders from config: one component, or several in a row."""
from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule, Sequential
from torch import nn

from ..registry import MODELS

_EXPECTED = ("a config such as dict(type='ImageEncoder', …), a list of configs that are run one "
             'after another, or a module')


def build_encoder(cfg: Any, name: str = 'image_encoder') -> nn.Module:
    """An encoder from its config.

    In a sequence each part gets what the one before returned; a tuple is passed on as it is.

    Args:
        cfg: a dict with ``type``, a list of dicts or modules, or a module, which is returned.
        name: what the encoder is called in error messages.

    Raises:
        ValueError: an empty list, a dict without ``type``, or a type that no registry holds.
        TypeError: anything else.

    Example:
        >>> build_encoder(nn.Identity())
        Identity()
    """
    if isinstance(cfg, nn.Module):
        return keep_weights(cfg)
    if isinstance(cfg, dict):
        if 'type' not in cfg:
            raise ValueError(f'{name} has no type, it has only {sorted(cfg)}: give {_EXPECTED}.')
        return keep_weights(MODELS.build(_with_checkpoint(cfg)))
    if isinstance(cfg, (list, tuple)):
        if not cfg:
            raise ValueError(f'{name} is an empty list: give {_EXPECTED}.')
        return Sequential(*(build_encoder(part, f'{name}[{i}]') for i, part in enumerate(cfg)))
    raise TypeError(f'{name} must be {_EXPECTED}, got {type(cfg).__name__}.')


def _with_checkpoint(cfg: dict[str, Any]) -> dict[str, Any]:
    """The config with the ``checkpoint_prefix``, ``checkpoint_key_mapping`` and
    ``checkpoint_strict`` of older configs inside ``checkpoint``.
    """
    apart = {key: value for key, value in cfg.items()
             if key in ('checkpoint_prefix', 'checkpoint_key_mapping', 'checkpoint_strict')}
    if not apart or not isinstance(cfg.get('checkpoint'), str):
        return cfg
    rest = {key: value for key, value in cfg.items() if key not in apart}
    return {**rest, 'checkpoint': {'path': cfg['checkpoint'], **{
        key.removeprefix('checkpoint_'): value for key, value in apart.items()}}}


def keep_weights(module: nn.Module) -> nn.Module:
    """Keep MMEngine from initialising a foreign module again.

    Its ``init_weights`` runs the method of that name of every part, and timm's models have one:
    it would draw the weights anew after pretrained ones were loaded.
    """
    if not isinstance(module, BaseModule) and hasattr(module, 'init_weights'):
        module.is_init = True  # type: ignore[assignment]
    return module

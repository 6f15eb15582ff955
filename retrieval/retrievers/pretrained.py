"""Loading a checkpoint into a retriever."""
from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from ..encoders import read_weights


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """The weights in a checkpoint (MMEngine's, a bare state dict, or ``.safetensors``), by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or not one that loads without unpickling code.
    """
    weights = read_weights(os.fspath(path))
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def check_encoder(module: nn.Module, given: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Refuse a checkpoint without every weight of the model's ``image_encoder``.

    Raises:
        ValueError: one is missing or of another shape; the message lists some.
    """
    wanted = {name: value.shape for name, value in module.state_dict().items()
              if name.startswith('image_encoder.')}
    wrong = [name for name, shape in wanted.items()
             if name not in given or given[name].shape != shape]
    if wrong:
        held = [name for name in given if name.startswith('image_encoder.')] or list(given)
        raise ValueError(
            f'{str(path)!r} is not a checkpoint of this model: {len(wrong)} of {len(wanted)} '
            f'encoder weights are missing or of another shape, such as {_some(wrong)}; it holds '
            f'{_some(held)}. Give the config that it was trained with.')


def load_pretrained(module: nn.Module, path: str | os.PathLike,
                    whole_encoder: bool = False) -> None:
    """Load the weights that fit, and log which did not.

    Args:
        module: a retriever.
        path: the checkpoint.
        whole_encoder: refuse one that lacks a weight of the encoder; see :func:`check_encoder`.

    Raises:
        ValueError: none fits: the checkpoint is another model's.
    """
    given = read_state_dict(path)
    if whole_encoder:
        check_encoder(module, given, path)
    own = module.state_dict()
    fitting = {name: value for name, value in given.items()
               if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(
            f'No weight of {str(path)!r} fits this model: the checkpoint holds {_some(given)}, the '
            f'model wants {_some(own)}. Is it the checkpoint of another architecture?')
    module.load_state_dict(fitting, strict=False)
    missing = sorted(set(own) - set(fitting))
    unused = sorted(set(given) - set(fitting))
    if missing or unused:
        print_log(f'{path}: {len(fitting)} weights loaded; not in the checkpoint: '
                  f'{_some(missing)}; not used: {_some(unused)}.', 'current', logging.WARNING)


def _some(names: Any) -> str:
    names = list(names)
    return (', '.join(names[:5]) + (f', … ({len(names)} in all)' if len(names) > 5 else '')
            if names else 'none')

"""Loading a checkpoint into a retriever."""
from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from ..encoders import read_weights
from ..encoders.weights import compare, fill, make_room, refusal


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights in a checkpoint (MMEngine's, a bare state dict, or ``.safetensors``), by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or not one that loads without unpickling code.
    """
    weights = read_weights(os.fspath(path))
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def check_encoder(module: nn.Module, given: Mapping[str, Tensor],
                  path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint without every weight of the model's ``image_encoder``.

    Raises:
        ValueError: one is missing or of another shape; the message lists what is missing,
            unexpected and of another shape, and the likely cause.
    """
    _check(module, given, path, 'image_encoder.')


def check_backbone(module: nn.Module, given: Mapping[str, Tensor],
                   path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint, to start training from, of another backbone.

    The backbone is the encoder's largest part; the others, as a projection of another width, and
    the head may differ.

    Raises:
        ValueError: as :func:`check_encoder`, of the backbone.
    """
    encoder = getattr(module, 'image_encoder', None)
    if not isinstance(encoder, nn.Module):
        return
    sizes = {name: sum(value.numel() for value in child.parameters())
             for name, child in encoder.named_children()}
    largest = max(sizes, key=lambda name: sizes[name], default='')
    _check(module, given, path,
           f'image_encoder.{largest}.' if sizes.get(largest) else 'image_encoder.')


def check_model(module: nn.Module, given: Mapping[str, Tensor],
                path: str | os.PathLike[str]) -> None:
    """Refuse a checkpoint, to resume training from, of another model.

    Raises:
        ValueError: as :func:`check_encoder`, of the whole model.
    """
    _check(module, given, path, '')


def _check(module: nn.Module, given: Mapping[str, Tensor], path: str | os.PathLike[str],
           prefix: str) -> None:
    """Refuse a checkpoint that does not fit the weights whose names begin with ``prefix``."""
    own = {name: value for name, value in module.state_dict().items() if name.startswith(prefix)}
    part = {name: value for name, value in given.items() if name.startswith(prefix)}
    if own and compare(own, part).is_of_another_model(own):
        message = refusal(os.fspath(path), own, part or given, compare(own, part or given),
                          'this model')
        raise ValueError(f'{message} Give the config that it was trained with.')


def load_pretrained(module: nn.Module, path: str | os.PathLike[str],
                    whole_encoder: bool = False) -> None:
    """Load the weights that fit, and log which did not.

    Args:
        module: a retriever.
        path: the checkpoint.
        whole_encoder: refuse one that lacks a weight of the encoder (:func:`check_encoder`);
            otherwise only one of another backbone (:func:`check_backbone`).

    Raises:
        ValueError: the checkpoint is another model's.
    """
    given = read_state_dict(path)
    make_room(module, given)
    (check_encoder if whole_encoder else check_backbone)(module, given, path)
    own = module.state_dict()
    report = compare(own, given)
    fill(module, own, given, report)
    report.log(os.fspath(path), len(own))

"""A checkpoint with weights that were fitted apart from it, and the config that takes it."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def check_out(out: str) -> None:
    """Raise ValueError for a name that is no checkpoint's."""
    if not out.endswith('.pth'):
        raise ValueError(f'The checkpoint is written as a .pth file; got {out!r}. Give a name that '
                         'ends in .pth.')


def config_beside(out: str | os.PathLike[str]) -> Path:
    """Where the config of a checkpoint or gallery is written, by the name of that.

    Example:
        >>> str(config_beside('out.pth'))
        'out.config.py'
    """
    return Path(out).with_suffix('.config.py')


def write_checkpoint(model: Any, config: Any, out: str | os.PathLike[str]) -> list[Path]:
    """Write a model's weights as a checkpoint, and beside it the whole config that builds it; the
    paths of both.
    """
    import torch

    from ..files import write_atomically, write_text

    state = {name: value.cpu() for name, value in model.state_dict().items()}
    write_atomically(out, lambda name: torch.save(dict(state_dict=state, meta={}), name))
    write_text(config_beside(out), config.pretty_text)
    print(f'{out} is the checkpoint, {config_beside(out)} its config')
    return [Path(out), config_beside(out)]


def load_features(model: Any, checkpoint: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a checkpoint whose backbone and pooling must fit; what comes after them need not.

    Returns:
        The weights in the checkpoint, by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it lacks a weight of the backbone or the pooling.
    """
    from torch import nn

    from ..retrievers import check_encoder, load_pretrained, read_state_dict

    given = read_state_dict(checkpoint)
    features = nn.ModuleDict({'image_encoder': model.image_encoder.up_to('pooling')})
    check_encoder(features, given, checkpoint)
    load_pretrained(model, checkpoint)
    return given

"""A checkpoint with weights that were fitted apart from it, and the config that takes it."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def check_out(out: str) -> None:
    """Raises ValueError for a name that is no checkpoint's."""
    if not out.endswith('.pth'):
        raise ValueError(f'The checkpoint is written as a .pth file; got {out!r}. Give a name that '
                         'ends in .pth.')


def config_beside(out: str | os.PathLike) -> Path:
    """Where the config of a checkpoint is written: ``name.pth`` beside ``name.config.py``."""
    return Path(out).with_suffix('.config.py')


def write_checkpoint(model: Any, config: Any, out: str | os.PathLike) -> None:
    """Write a model's weights as a checkpoint, and beside it the whole config that builds it."""
    import torch

    from ..files import write_atomically, write_text

    state = {name: value.cpu() for name, value in model.state_dict().items()}
    write_atomically(out, lambda name: torch.save(dict(state_dict=state, meta={}), name))
    write_text(config_beside(out), config.pretty_text)
    print(f'{out} is the checkpoint, {config_beside(out)} its config')


def load_features(model: Any, checkpoint: str | os.PathLike) -> dict[str, Any]:
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


def with_pipeline(dataset: Any, pipeline: list) -> dict:
    """The config of a dataset, and of those that it wraps, with another pipeline."""
    changed = dict(dataset)
    if isinstance(changed.get('dataset'), dict):
        changed['dataset'] = with_pipeline(changed['dataset'], pipeline)
    elif isinstance(changed.get('datasets'), (list, tuple)):
        changed['datasets'] = [with_pipeline(part, pipeline) for part in changed['datasets']]
    else:
        changed['pipeline'] = pipeline
    return changed


def each_image_once(dataset: Any) -> dict:
    """The config of a dataset without the wrappers that repeat its images."""
    while str(dataset.get('type')).rsplit('.', 1)[-1] in ('RepeatDataset', 'ClassBalancedDataset'):
        dataset = dataset['dataset']
    return dict(dataset)


def extraction_loader(loader: Any, pipeline: list | None = None) -> dict:
    """The config of a dataloader that gives each image once, in order.

    Args:
        loader: the config of a dataloader.
        pipeline: in the place of its dataset's own.
    """
    dataset = each_image_once(loader['dataset'])
    if pipeline is not None:
        dataset = with_pipeline(dataset, pipeline)
    kept = {name: loader[name] for name in ('num_workers', 'collate_fn') if name in loader}
    return dict(batch_size=loader.get('batch_size', 32), dataset=dataset, **kept)


def cache_file(folder: str | os.PathLike, loader: dict, part: str) -> Path:
    """Where the features of a dataset are kept: a name by its config."""
    from ..gallery import hash_settings

    return Path(folder) / f'{part}-{hash_settings(loader["dataset"])[:12]}.safetensors'


def extract(model: Any, loader: dict, folder: str | os.PathLike, part: str,
            anew: bool) -> tuple[Any, Path]:
    """The features of a dataset as a gallery, and their file; says what was done."""
    import time

    from ..retrievers import cache_features

    path, began = cache_file(folder, loader, part), time.monotonic()
    gallery, made = cache_features(model, loader, path, part, anew)
    how = f'extracted in {time.monotonic() - began:.1f} s' if made else 'as they were before'
    print(f'{len(gallery)} x {gallery.dim} features in {path}, {how}')
    for image, reason in gallery.skipped.items():
        print(f'skipped {image}: {reason}')
    return gallery, path

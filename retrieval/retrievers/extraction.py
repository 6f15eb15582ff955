"""A dataloader's config that gives each image once, and the name that its features are kept by."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..gallery import hash_settings

_REPEATING = ('RepeatDataset', 'ClassBalancedDataset')


def with_pipeline(dataset: Mapping[str, Any], pipeline: Sequence[Any]) -> dict[str, Any]:
    """The config of a dataset, and of those that it wraps, with another pipeline.

    Example:
        >>> with_pipeline(dict(type='ImageFolder', pipeline=[]), [dict(type='LoadImage')])
        {'type': 'ImageFolder', 'pipeline': [{'type': 'LoadImage'}]}
    """
    changed = dict(dataset)
    if isinstance(changed.get('dataset'), dict):
        changed['dataset'] = with_pipeline(changed['dataset'], pipeline)
    elif isinstance(changed.get('datasets'), (list, tuple)):
        changed['datasets'] = [with_pipeline(part, pipeline) for part in changed['datasets']]
    else:
        changed['pipeline'] = pipeline
    return changed


def each_image_once(dataset: Any) -> dict[str, Any]:
    """The config of a dataset without the wrappers that repeat its images.

    Example:
        >>> each_image_once(dict(type='RepeatDataset', times=3, dataset=dict(type='Glyphs')))
        {'type': 'Glyphs'}
    """
    while _name(dataset) in _REPEATING:
        dataset = dataset['dataset']
    return dict(dataset)


def _name(dataset: Mapping[str, Any]) -> str:
    kind = dataset['type']
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def extraction_loader(loader: Mapping[str, Any],
                      pipeline: Sequence[Any] | None = None) -> dict[str, Any]:
    """The config of a dataloader that gives each image once, in order.

    Args:
        loader: the config of a dataloader.
        pipeline: in the place of its dataset's own.

    Example:
        >>> extraction_loader(dict(batch_size=8, drop_last=True, dataset=dict(type='Glyphs')))
        {'batch_size': 8, 'dataset': {'type': 'Glyphs'}}
    """
    dataset = each_image_once(loader['dataset'])
    if pipeline is not None:
        dataset = with_pipeline(dataset, pipeline)
    kept = {name: loader[name] for name in ('num_workers', 'collate_fn') if name in loader}
    return dict(batch_size=loader.get('batch_size', 32), dataset=dataset, **kept)


def cache_file(folder: str | os.PathLike[str], loader: Mapping[str, Any], part: str) -> Path:
    """Where the features of a dataset are kept: a name by its config.

    Example:
        >>> cache_file('work_dirs/a', dict(dataset=dict(type='Glyphs')), 'pooling').parent.name
        'a'
    """
    return Path(folder) / f'{part}-{hash_settings(loader["dataset"])[:12]}.safetensors'

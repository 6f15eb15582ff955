"""Reading what a retriever is given."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..index import Index
from ..registry import INDEXES
from ..similarity import SIMILARITIES, Similarity


def build_index(config: Mapping[str, Any], similarity: Similarity, device: str) -> Index:
    """The index of a config; what it leaves open of similarity and device is the retriever's."""
    config = dict(config)
    named = similarity is SIMILARITIES.get(similarity.name)
    defaults = dict(device=device, similarity=similarity.name if named else similarity.function)
    kind = config.get('type')
    kind = INDEXES.get(kind) if isinstance(kind, str) else kind
    accepted = inspect.signature(kind).parameters if callable(kind) else {}
    for name, value in defaults.items():
        if name in accepted:
            config.setdefault(name, value)
    return INDEXES.build(config)


def preprocessor_config(config: dict | nn.Module | None, train_cfg: dict | None) -> Any:
    """The data preprocessor's config with its defaults and the batch augmentation; a module as it
    is.

    Raises:
        ValueError: ``train_cfg`` has unknown keys, or augments that a module cannot be given.
    """
    if isinstance(config, nn.Module):
        if train_cfg and train_cfg.get('augments'):
            raise ValueError('train_cfg has augments, but the data preprocessor is a module '
                             'already: give its `batch_augments` where it is built.')
        return config
    config = dict(config or {})
    config.setdefault('type', 'retrieval.RetrievalDataPreprocessor')
    unknown = set(train_cfg or {}) - {'augments', 'probs'}
    if unknown:
        raise ValueError(f'train_cfg has the unknown keys {", ".join(sorted(unknown))}. Valid '
                         'keys: augments, probs.')
    if train_cfg and train_cfg.get('augments'):
        config['batch_augments'] = dict(train_cfg)
    return config


def checked_topk(topk: Any) -> int:
    """``topk`` as it is. Raises TypeError for no integer, ValueError for 0 or below -1."""
    if isinstance(topk, bool) or not isinstance(topk, int):
        raise TypeError(f'topk must be an integer, got {topk!r}.')
    if topk == 0 or topk < -1:
        raise ValueError(f'topk must be at least 1, or -1 for the whole gallery; got {topk}.')
    return topk

"""Reading what a retriever is given."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..gallery import Gallery
from ..index import Index, check_gallery
from ..registry import INDEXES
from ..similarity import SIMILARITIES, Similarity


def new_index(config: Mapping[str, Any], similarity: Similarity, device: str) -> Index | None:
    """The empty index of a config, None where it says a ``path`` to read one from; what it leaves
    open of similarity and device is the retriever's.
    """
    if config.get('path') is not None:
        return None
    config = {name: value for name, value in config.items() if name != 'path'}
    _fill_in(config, _kind(config), similarity, device)
    return INDEXES.build(config)


def read_index(config: Mapping[str, Any], similarity: Similarity, device: str,
               gallery: Gallery) -> Index:
    """The index that a config's ``path`` names, which must have been built over this gallery.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or belongs to another gallery or similarity.
    """
    config = dict(config)
    path = config.pop('path')
    return _load_index(_kind(config), path, config, similarity, device, gallery)


def check_head(encoder: nn.Module, head: Any) -> None:
    """Refuse a head whose losses want embeddings of another width than the encoder's.

    Raises:
        ValueError: both say their ``embedding_size``, and not the same.
    """
    given = getattr(encoder, 'embedding_size', None)
    wanted = getattr(head, 'embedding_size', None)
    if isinstance(given, int) and isinstance(wanted, int) and given != wanted:
        raise ValueError(
            f'The encoder gives embeddings of width {given}, and the losses of '
            f'{type(head).__name__} want {wanted}: write embedding_size={given} into the loss '
            f'(in_features of a ClassificationHead), or project to it, '
            f"image_encoder=dict(type='ImageEncoder', projection={wanted}, …).")


def _kind(config: Mapping[str, Any]) -> Any:
    kind = config.get('type')
    return INDEXES.get(kind) if isinstance(kind, str) else kind


def _fill_in(config: dict[str, Any], kind: Any, similarity: Similarity, device: str) -> None:
    """Give a config the retriever's similarity and device, where its type takes them."""
    named = similarity is SIMILARITIES.get(similarity.name)
    defaults = dict(similarity=similarity.name if named else similarity.function)
    if getattr(kind, 'follows_device', False):
        defaults['device'] = device
    accepted = inspect.signature(kind).parameters if callable(kind) else {}
    for name, value in defaults.items():
        if name in accepted:
            config.setdefault(name, value)


def _load_index(kind: Any, path: str, config: dict[str, Any], similarity: Similarity, device: str,
                gallery: Gallery) -> Index:
    options = {name: value for name, value in config.items() if name != 'type'}
    parameters = set(inspect.signature(kind.load).parameters)
    accepted = parameters - {'path', 'similarity'}
    unknown = sorted(set(options) - accepted)
    if unknown:
        raise ValueError(f'An index that is read from {str(path)!r} has its settings there; '
                         f'{", ".join(unknown)} cannot be given beside `path`. Valid are: '
                         f'{", ".join(sorted(accepted))}.')
    if getattr(kind, 'follows_device', False):
        options.setdefault('device', device)
    if 'similarity' in parameters and similarity is not SIMILARITIES.get(similarity.name):
        options['similarity'] = similarity.function  # a callable is not written into a file
    index = kind.load(path, **options)
    if index.similarity.name != similarity.name:
        raise ValueError(f'The index {str(path)!r} searches by {index.similarity.name}, the '
                         f'retriever by {similarity.name}. Build it again with '
                         f'--similarity {similarity.name}.')
    check_gallery(index, gallery.embeddings, gallery.ids, path)
    return index


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

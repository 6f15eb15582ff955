"""What may be given as a prototype, and the gallery that it becomes.

Where a retriever keeps its prototype, gallery and index.
"""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..distributed import all_gather_list, rank, world_size
from ..gallery import Fingerprint, Gallery, hash_settings, hash_weights
from ..index import Index

KINDS = ('a DataLoader, a dataloader config (dict), the path of a gallery or of a saved tensor, '
         'a tensor (N, D), or a Gallery')


def check_prototype(prototype: Any) -> Any:
    """``prototype`` as it is, if it is of a kind that can become a gallery.

    Raises:
        TypeError: it is of another kind.
        ValueError: it is a dict without a dataset, or an empty tensor or one of another shape.
    """
    if isinstance(prototype, Mapping):
        if 'dataset' not in prototype:
            raise ValueError('A prototype given as a dict is a dataloader config and wants the key '
                             f'"dataset"; got the keys {", ".join(map(str, prototype))}.')
    elif isinstance(prototype, Tensor):
        Gallery(prototype)
    elif not isinstance(prototype, (DataLoader, str, os.PathLike, Gallery)):
        raise TypeError(f'The prototype must be {KINDS}; got {type(prototype).__name__}.')
    return prototype


def is_encoded(prototype: Any) -> bool:
    """Whether the gallery is made with the retriever's own encoder, from images."""
    return isinstance(prototype, (DataLoader, Mapping))


def build_loader(config: Mapping[str, Any]) -> DataLoader:
    """The dataloader of a config in MMEngine's form; ``sampler`` may be left out."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    config = dict(config)
    config.setdefault('sampler', dict(type='DefaultSampler', shuffle=False))
    config.setdefault('batch_size', 1)
    scope = None if DefaultScope.get_current_instance() else 'retrieval'
    with DefaultScope.overwrite_default_scope(scope):
        return Runner.build_dataloader(config)


def pipeline_of(dataset: Any) -> Any:
    """The pipeline's config of a dataset, through the wrappers around it, or None."""
    while dataset is not None:
        config = getattr(dataset, 'pipeline_cfg', None)
        if config is not None:
            return config
        inner = getattr(dataset, 'datasets', None)
        dataset = inner[0] if inner else getattr(dataset, 'dataset', None)
    return None


def pipeline_hash(dataset: Any) -> str | None:
    """The fingerprint of a dataset's pipeline, None where its config is not known."""
    config = pipeline_of(dataset)
    return None if config is None else hash_settings(config)


def fingerprint_of(encoder: nn.Module, data_preprocessor: Any,
                   pipeline: str | None) -> Fingerprint:
    """The fingerprint of an encoder behind a data preprocessor and a pipeline of that hash."""
    settings = getattr(data_preprocessor, 'settings', None)
    preprocessor = settings() if callable(settings) else type(data_preprocessor).__name__
    return Fingerprint(hash_weights(encoder), hash_settings(preprocessor), pipeline,
                       _part_hash(encoder, 'pooling', 'multi_scale'),
                       _part_hash(encoder, 'whitening'))


def _part_hash(encoder: nn.Module, *parts: str) -> str | None:
    """The hash of the settings of an encoder's pooling or whitening; their weights are among all.

    A pooling without weights (average, maximum) leaves no trace in the encoder's. Counted are the
    kinds and the plain attributes of the modules in the encoder's attributes of these names.

    Returns:
        The hash, or None where the encoder has no such part.
    """
    found = [module for part in parts
             if isinstance(module := getattr(encoder, part, None), nn.Module)]
    if not found:
        return None
    return hash_settings([
        dict(name=name, type=type(inner).__name__, settings={
            key: value for key, value in vars(inner).items()
            if not key.startswith('_') and key != 'training' and _is_plain(value)})
        for module in found for name, inner in module.named_modules()])


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def difference_message(made: Fingerprint, own: Fingerprint) -> str | None:
    """Why a gallery made by ``made`` cannot be searched by ``own``; None where it can."""
    differences = made.differences(own)
    if not differences:
        return None
    return (f'The gallery was made by another model or pipeline: {" and ".join(differences)} '
            'differ from those of the queries, so their similarities would mean nothing. Dump the '
            'prototype again with this model (`tools/dump_prototype.py`), or set '
            '`check_fingerprint=False` to search it all the same.')


@dataclass
class PrototypeHolder:
    """The prototype as it was given and, once prepared, the gallery and the index over it.

    It is neither buffer nor parameter nor state of the model, so that no hook synchronises it and
    no checkpoint grows by it; and a copy of the model (an exponential moving average is one) gets
    the prototype without what was prepared with the weights of the original.

    Args:
        prototype: what the retriever was given.
        gallery: what it became, or None.
        index: the index over the gallery, or None.
        version: of the weights that the gallery was prepared with.
        queries_in_gallery: the queries of the running evaluation pass through the same pipeline
            as the gallery, so one that is in it need not be encoded again.
    """

    prototype: Any
    gallery: Gallery | None = None
    index: Index | None = None
    version: tuple | None = None
    queries_in_gallery: bool = False

    def __deepcopy__(self, memo: dict) -> PrototypeHolder:
        return PrototypeHolder(self.prototype)

    def clear(self) -> None:
        """Forget what was prepared."""
        self.gallery = self.index = self.version = None


def fill_index(index: Index, gallery: Gallery) -> None:
    """Make the gallery the rows of an index, with its labels and metadata where the index has any.

    Of several processes the first writes to an index that they share; the others then find their
    rows in it.

    Raises:
        TypeError, ValueError, OSError: the index refuses the rows, or its server failed.
    """
    metadata = _metadata(gallery) if index.capabilities.expressions else None
    failure: Exception | None = None
    if index.capabilities.persistent and world_size() > 1:
        try:
            if rank() == 0:
                index.replace(gallery.embeddings, gallery.ids, metadata)
        except Exception as error:
            failure = error
        failed = all_gather_list([] if failure is None else [str(failure)])
        if failure is not None:
            raise failure
        if failed:
            raise ValueError(f'The first process could not fill the index: {failed[0]}')
    index.replace(gallery.embeddings, gallery.ids, metadata)


def _metadata(gallery: Gallery) -> dict[str, Any]:
    """The columns of a gallery, its labels as ``label`` and their names as ``label_name``."""
    columns: dict[str, Any] = {}
    if gallery.labels is not None:
        columns['label'] = gallery.labels
        if gallery.label_names is not None:
            columns['label_name'] = [gallery.label_name(row) for row in range(len(gallery))]
    return {**columns, **gallery.metadata}


def weights_version(module: nn.Module) -> tuple[int, ...]:
    """A number for each weight that changes when it is written to in place, or replaced.

    An assignment to the data of a tensor (as in a swap of averaged weights) is not seen; whoever
    swaps prepares the prototype anew.
    """
    state = [*module.parameters(), *module.buffers()]
    return tuple(n for tensor in state
                 for n in (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version))

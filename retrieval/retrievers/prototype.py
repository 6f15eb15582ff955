"""The prototype: what may be given as one, its pipeline and fingerprint, and where it is held."""
from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..gallery import Fingerprint, Gallery, hash_settings, hash_weights
from ..index import Index
from ..visualization import Pictures

Prototype = DataLoader[Any] | dict[str, Any] | str | os.PathLike[str] | Tensor | Gallery | Index
KINDS = ('a DataLoader, a dataloader config (dict), the path of a gallery or of a saved tensor, '
         'a tensor (N, D), a Gallery, or an index')
# Steps and arguments that do not decide how a picture looks to the encoder: CropBox says which part
# of a picture is meant, as in benchmarks whose queries are boxes.
_NOT_PIXELS = {'PackInputs', 'CropBox', 'LoadCachedFeatures', 'crop_box', 'decoder'}


def configured_prototype(config: Any) -> Any:
    """The prototype of a config: the one that its model names, else its ``gallery_dataloader``.

    A dict that names no dataset's type is laid over ``gallery_dataloader``. The prototype that
    ``{{_base_.gallery_dataloader}}`` filled when a base was read follows what children and
    options made of ``gallery_dataloader`` since.

    Args:
        config: MMEngine's Config.

    Returns:
        A prototype, a copy where it is the ``gallery_dataloader``; None where there is neither.

    Example:
        >>> from mmengine.config import Config
        >>> gallery = dict(batch_size=8, dataset=dict(type='ImageFolder', data_root='photos'))
        >>> config = Config(dict(gallery_dataloader=gallery, model=dict(
        ...     type='ImageToImageRetriever', prototype=dict(dataset=dict(data_root='others')))))
        >>> configured_prototype(config)['dataset']
        {'type': 'ImageFolder', 'data_root': 'others'}
    """
    from mmengine.config import Config

    model, gallery = config.get('model'), config.get('gallery_dataloader')
    own = model.get('prototype') if isinstance(model, Mapping) else None
    if not isinstance(gallery, Mapping) or not (own is None or isinstance(own, Mapping)):
        return own
    if own is None or own == gallery or _was_gallery(getattr(config, 'filename', None), own):
        return copy.deepcopy(gallery)
    dataset = own.get('dataset', {})
    if not isinstance(dataset, Mapping) or 'type' in dataset:
        return own
    laid = Config(dict(prototype=copy.deepcopy(gallery)))
    laid.merge_from_dict(dict(prototype=own))
    return laid.prototype


def _was_gallery(filename: str | None, prototype: Mapping[str, Any]) -> bool:
    """True for a prototype that, as its config's file gives it, is the ``gallery_dataloader`` of
    that file or of one that it inherits."""
    from mmengine.config import Config

    if filename is None or not Path(filename).is_file():
        return False
    read = Config.fromfile(filename, import_custom_modules=False)
    return (read.get('model', {}).get('prototype') == prototype
            and any(one.get('gallery_dataloader') == prototype for one in _with_bases(read)))


def _with_bases(config: Any) -> Iterator[Any]:
    """A config and all that it inherits."""
    yield config
    for base in config._get_base_files(config.filename):
        path, _ = config._get_cfg_path(base, config.filename)
        yield from _with_bases(config.fromfile(path, import_custom_modules=False))


def check_prototype(prototype: Any) -> Any:
    """``prototype`` as it is, if it is None or of a kind that can become a gallery.

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
    elif not isinstance(prototype, (DataLoader, str, os.PathLike, Gallery, Index, type(None))):
        raise TypeError(f'The prototype must be {KINDS}; got {type(prototype).__name__}.')
    return prototype


def is_encoded(prototype: Any) -> bool:
    """True for a prototype of images, which the retriever encodes itself."""
    return isinstance(prototype, (DataLoader, Mapping))


def build_loader(config: Mapping[str, Any]) -> DataLoader[Any]:
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
    """The pipeline's config of a dataset, through the wrappers around it, or None.

    Example:
        >>> from retrieval.datasets import Glyphs, RepeatDataset
        >>> pipeline_of(RepeatDataset(Glyphs(pipeline=[dict(type='PackInputs')]), times=2))
        [{'type': 'PackInputs'}]
    """
    while dataset is not None:
        config = getattr(dataset, 'pipeline_cfg', None)
        if config is not None:
            return config
        inner = getattr(dataset, 'datasets', None)
        dataset = inner[0] if inner else getattr(dataset, 'dataset', None)
    return None


def loader_pipeline(loader: Any) -> Any:
    """The pipeline's config of a dataloader or of a dataloader's config, or None.

    Example:
        >>> loader_pipeline(dict(dataset=dict(type='Glyphs', pipeline=[dict(type='PackInputs')])))
        [{'type': 'PackInputs'}]
    """
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else \
        getattr(loader, 'dataset', None)
    while isinstance(dataset, Mapping):
        if dataset.get('pipeline') is not None:
            return dataset['pipeline']
        inner = dataset.get('datasets')
        dataset = inner[0] if inner else dataset.get('dataset')
    return pipeline_of(dataset)


def pipelines_warning(queries: Sequence[Any] | None, gallery: Sequence[Any] | None,
                      loader: str) -> str | None:
    """How the pipelines of queries and gallery differ in what the encoder sees, as a warning.

    Queries that are cut to a box are no difference.

    Args:
        queries, gallery: the pipelines' configs, or None where they are not known.
        loader: the name of the dataloader of the queries.

    Returns:
        The warning; None where they do not differ, or one is not known.
    """
    if queries is None or gallery is None:
        return None
    one, other = _steps(queries), _steps(gallery)
    keys, others = [key for key, _ in one], [key for key, _ in other]
    if keys == others:
        return None
    differences = [f'only the {name} {", ".join(steps)}' for name, steps in (
        ('queries', [text for key, text in one if key not in others]),
        ('gallery', [text for key, text in other if key not in keys])) if steps]
    how = '; '.join(differences) or 'the same steps, in another order or number'
    return ('THE GALLERY AND THE QUERIES GO THROUGH DIFFERENT PIPELINES, so all figures of this '
            f'evaluation compare pictures that were made in different ways: {how}. Unless that is '
            'what you want to know, give `gallery_dataloader` (and `model.prototype`, where the '
            f'config names one) the pipeline of `{loader}`.')


def warn_of_pipelines(queries: Sequence[Any] | None, gallery: Sequence[Any] | None,
                      loader: str) -> None:
    """Log :func:`pipelines_warning`, where there is one."""
    message = pipelines_warning(queries, gallery, loader)
    if message:
        print_log(message, 'current', logging.WARNING)


def _steps(pipeline: Sequence[Any]) -> list[tuple[str, str]]:
    """The steps that decide what the encoder sees: their hash, and how they are written."""
    steps: list[tuple[str, str]] = []
    for step in pipeline:
        if isinstance(step, (list, tuple)):  # one of the pipelines of a ConcatDataset
            steps += _steps(step)
            continue
        given = dict(step) if isinstance(step, Mapping) else dict(type=step)
        kind = given.pop('type', None)
        name = kind if isinstance(kind, str) else \
            getattr(kind, '__qualname__', type(kind).__qualname__)
        name = name.rsplit('.', 1)[-1]
        given = {key: value for key, value in given.items() if key not in _NOT_PIXELS}
        if name not in _NOT_PIXELS:
            written = ', '.join(f'{key}={value!r}' for key, value in given.items())
            steps.append((hash_settings([name, given]), f'{name}({written})'))
    return steps


def pipeline_hash(dataset: Any) -> str | None:
    """The fingerprint of a dataset's pipeline, None where its config is not known."""
    config = pipeline_of(dataset)
    return None if config is None else hash_settings(config)


def fingerprint_of(encoder: nn.Module, data_preprocessor: Any,
                   pipeline: str | None) -> Fingerprint:
    """The fingerprint of an encoder behind a data preprocessor and a pipeline of that hash."""
    settings = getattr(data_preprocessor, 'settings', None)
    preprocessor = settings() if callable(settings) else type(data_preprocessor).__name__
    words = {f'{name}.{part}' if name else part for name, module in encoder.named_modules()
             if hasattr(module, 'word_state') for part in module.word_state()}
    images = set(encoder.state_dict()) - words if words else None
    return Fingerprint(hash_weights(encoder, images), hash_settings(preprocessor), pipeline,
                       _part_hash(encoder, 'pooling', 'multi_scale'),
                       _part_hash(encoder, 'whitening'),
                       hash_weights(encoder, words) if words else None)


def _part_hash(encoder: nn.Module, *parts: str) -> str | None:
    """The hash of the settings of an encoder's pooling or whitening; their weights are among all.

    Returns:
        The hash, or None where the encoder has no such part.
    """
    found = [module for part in parts
             if isinstance(module := getattr(encoder, part, None), nn.Module)]
    return settings_hash(*found) if found else None


def settings_hash(*modules: nn.Module) -> str:
    """A digest of the kinds and plain attributes of modules and of all that they consist of.

    A pooling without weights (average, maximum) leaves no trace in the hash of the weights.
    """
    return hash_settings([
        dict(name=name, type=type(inner).__name__, settings={
            key: value for key, value in vars(inner).items()
            if not key.startswith('_') and key != 'training' and _is_plain(value)})
        for module in modules for name, inner in module.named_modules()])


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


class IndexGallery:
    """The gallery of a prototype that is an index: what can be asked of it without embeddings.

    It has ids, but neither labels nor metadata.

    Args:
        index: the index.

    Raises:
        ValueError: it is empty.
    """

    identified = True
    labels = None
    label_names = None

    def __init__(self, index: Index) -> None:
        if not len(index) or index.width is None:
            raise ValueError('The index is empty: add embeddings before searching.')
        self.index = index
        self.metadata: dict[str, Any] = {}
        self.fingerprint = index.fingerprint

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the rows."""
        return self.index.ids

    @property
    def dim(self) -> int:
        """The width of the vectors."""
        assert self.index.width is not None
        return self.index.width

    @property
    def embeddings(self) -> Any:
        """There are none. Raises ValueError."""
        raise ValueError('Reranking, calibration and exact ranking need the embeddings of the '
                         'gallery, and an index alone was given: give the gallery.')

    def label_name(self, row: int) -> None:
        """An index knows no classes."""

    def describe(self, row: int) -> dict[str, Any]:
        """An index knows no metadata."""
        return {}


@dataclass
class PrototypeHolder:
    """The prototype as it was given and, once prepared, the gallery and the index over it.

    It is neither buffer nor parameter nor state of the model, so that no hook synchronises it and
    no checkpoint grows by it; and a copy of the model (an exponential moving average is one) gets
    the prototype without what was prepared with the weights of the original.

    Args:
        prototype: what the retriever was given.
        gallery: what it became, a ``Gallery`` or an ``IndexGallery``, or None.
        index: the index over the gallery, or None.
        version: of the weights that the gallery was prepared with.
        dataset: whose images the gallery is, where that is known.
        queries_in_gallery: the queries of the running evaluation pass through the same pipeline
            as the gallery, so one that is in it need not be encoded again.
    """

    prototype: Any
    gallery: Any = None
    index: Index | None = None
    version: tuple[Any, ...] | None = None
    dataset: Any = None
    queries_in_gallery: bool = False

    def __deepcopy__(self, memo: dict[str, Any]) -> PrototypeHolder:
        return PrototypeHolder(self.prototype, dataset=self.dataset)

    @cached_property
    def pictures(self) -> Pictures:
        """The pictures of the gallery's rows, by their ids."""
        return Pictures([self.dataset])

    def clear(self) -> None:
        """Forget what was prepared."""
        self.gallery = self.index = self.version = None


def fill_index(index: Index, gallery: Gallery) -> None:
    """Make the gallery the rows of an index, with its labels and metadata where the index has any.

    Of several processes each writes its share to an index that they share.

    Raises:
        TypeError, ValueError, OSError: the index refuses the rows, or its server failed.
    """
    metadata = _metadata(gallery) if index.capabilities.expressions else None
    index.fingerprint = gallery.fingerprint
    index.replace_together(gallery.embeddings, gallery.ids, metadata)


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

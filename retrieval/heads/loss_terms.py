"""What a metric loss may be given beside embeddings and labels: a reference set, and a mask.

A batch of embeddings, of one process and of all.

What a loss can take: how many classes, and how wide an embedding.

Losses that compare samples of one class, and batches that hold none.

One loss among those of a head: its part of the config, and how it is called.
"""
from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..distributed import all_gather_rows, all_gather_with_gradient, world_size
from .classification_head import ClassificationHead
from .targets import check_classes

NAMES = ('ref_emb', 'ref_labels', 'enqueue_mask')


def refuses(loss: nn.Module, what: str) -> bool:
    """Whether a loss of the library refuses ``'labels'``, ``'ref'`` or ``'indices_tuple'``.

    All its losses have these in their signatures; those that cannot use them call a function named
    after what they refuse, which raises.
    """
    compute = getattr(getattr(type(loss), 'compute_loss', None), '__code__', None)
    return compute is not None and f'{what}_not_supported' in compute.co_names


def taken_extra(loss: nn.Module) -> set[str]:
    """Which of :data:`NAMES` a loss takes."""
    taken = set(NAMES) & set(inspect.signature(loss.forward).parameters)
    return taken - {'ref_emb', 'ref_labels'} if refuses(loss, 'ref') else taken


def checked_extra(embeddings: Tensor, views: int, ref_emb: Tensor | None,
                  ref_labels: Tensor | None, enqueue_mask: Tensor | None) -> dict[str, Tensor]:
    """What was given, by name, on the device of the embeddings.

    Args:
        embeddings: of all views, ``(V · B, D)``.
        views: how many there are, V.
        ref_emb: ``(R, D)`` float, comes back in float32.
        ref_labels: ``(R,)`` int64.
        enqueue_mask: ``(B,)`` or ``(V · B,)`` bool, comes back as the latter.

    Raises:
        ValueError: one of another shape or dtype, or a reference set without its labels.
    """
    extra: dict[str, Tensor] = {}
    device = embeddings.device
    if (ref_emb is None) != (ref_labels is None):
        raise ValueError('Give ref_emb (R, D) and ref_labels (R,) together, or neither.')
    if ref_emb is not None and ref_labels is not None:
        if ref_emb.ndim != 2 or ref_emb.shape[1] != embeddings.shape[1]:
            raise ValueError(f'ref_emb is {tuple(ref_emb.shape)}, and the embeddings '
                             f'{tuple(embeddings.shape)}: it must be (R, {embeddings.shape[1]}).')
        if ref_labels.shape != ref_emb.shape[:1] or ref_labels.dtype != torch.int64:
            raise ValueError(f'ref_labels must be ({len(ref_emb)},) int64, got '
                             f'{tuple(ref_labels.shape)} {ref_labels.dtype}.')
        extra.update(ref_emb=ref_emb.to(device).float(), ref_labels=ref_labels.to(device))
    if enqueue_mask is not None:
        rows = len(embeddings)
        if enqueue_mask.dtype != torch.bool or tuple(enqueue_mask.shape) not in (
                (rows,), (rows // views,)):
            raise ValueError(f'enqueue_mask must be ({rows // views},) bool, an entry a sample, '
                             f'got {tuple(enqueue_mask.shape)} {enqueue_mask.dtype}.')
        extra['enqueue_mask'] = enqueue_mask.to(device).repeat(rows // len(enqueue_mask))
    return extra


def refuse_untaken(extra: Iterable[str], losses: nn.ModuleDict,
                   taken: Iterable[Collection[str]]) -> None:
    """Refuse what was given and would reach no loss.

    Args:
        extra: the names of what was given.
        losses: the losses by name.
        taken: what each takes, :func:`taken_extra`.

    Raises:
        ValueError: no loss takes one of them.
    """
    reached = {name for names in taken for name in names}
    for given in extra:
        if given not in reached:
            kinds = ', '.join(type(loss).__name__ for loss in losses.values())
            raise ValueError(f'{given} was given, and none of the losses takes it: {kinds}.')


class Batch(NamedTuple):
    """What the losses of a head are given.

    Args:
        embeddings: of all views, one view after another, ``(V · B, D)`` float32.
        labels: their classes, ``(V · B,)`` int64.
        views: how many there are, V.
        extra: what was given beside them, names of :data:`retrieval.heads.loss_terms.NAMES`.
    """

    embeddings: Tensor
    labels: Tensor
    views: int
    extra: dict[str, Tensor]


def gathered(batch: Batch) -> Batch:
    """The batches of all processes as one, in the order that one process would have them.

    Embeddings and reference sets come with their gradients. Processes may hold different numbers
    of samples, but the same number of views and the same ``extra``.
    """
    if world_size() == 1:
        return batch
    extra = dict(batch.extra)
    if 'ref_emb' in extra:
        extra.update(ref_emb=all_gather_with_gradient(extra['ref_emb']),
                     ref_labels=all_gather_rows(extra['ref_labels']))
    if 'enqueue_mask' in extra:
        extra['enqueue_mask'] = _by_view(extra['enqueue_mask'], batch.views, all_gather_rows)
    return Batch(_by_view(batch.embeddings, batch.views, all_gather_with_gradient),
                 _by_view(batch.labels, batch.views, all_gather_rows), batch.views, extra)


def _by_view(rows: Tensor, views: int, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """``(V · B, …)`` of each process to ``(V · sum of B, …)``, the views staying together."""
    if views == 1:
        return gather(rows)
    by_sample = rows.reshape(views, len(rows) // views, *rows.shape[1:]).transpose(0, 1)
    return gather(by_sample).transpose(0, 1).flatten(0, 1)


# Where the library keeps a loss's class weights, and the axis of them along the embedding.
_CLASS_WEIGHTS = {'W': 0, 'fc': 0, 'proxies': 1}


class Limits(NamedTuple):
    """What a loss can take; None where it takes any.

    Args:
        num_classes: labels are below this.
        embedding_size: the width of the embeddings.
        batch_size: the most embeddings in a batch.
        least: the fewest embeddings in a batch.
    """

    num_classes: int | None
    embedding_size: int | None
    batch_size: int | None
    least: int | None = None


def limits_of(loss: nn.Module) -> Limits:
    """What a loss and the losses inside it can take, read off their settings and weights."""
    parts = [_own_limits(part) for part in loss.modules()]
    classes, widths, most, least = (
        [value for value in column if value] for column in zip(*parts, strict=True))
    return Limits(min(classes, default=None), min(widths, default=None),
                  min(most, default=None), max(least, default=None))


def _own_limits(loss: nn.Module) -> Limits:
    num_classes = _positive(loss, 'num_classes')
    width = _positive(loss, 'embedding_size') or _positive(loss, 'descriptors_dim')
    if type(loss).__name__ == 'ManifoldLoss':  # its proxies belong to no class
        return Limits(None, _positive(loss, 'l'), None, _positive(loss, 'K'))
    if any(base.__module__.startswith('pytorch_metric_learning.') for base in type(loss).__mro__):
        for name, axis in _CLASS_WEIGHTS.items():
            weights = getattr(loss, name, None)
            if isinstance(weights, Tensor) and weights.ndim == 2:
                width = weights.shape[axis]
                num_classes = num_classes or weights.shape[1 - axis]
        thresholds = getattr(loss, 'beta', None)  # of the margin loss: one a class, or one
        if isinstance(thresholds, Tensor) and len(thresholds) > 1:
            num_classes = len(thresholds)
    return Limits(num_classes, width, _positive(loss, 'memory_size'))


def common_width(limits: Mapping[str, Limits]) -> int | None:
    """The width of embeddings that all losses can take, by name; None where any.

    Raises:
        ValueError: they want different ones.
    """
    wanted = {name: one.embedding_size for name, one in limits.items() if one.embedding_size}
    if len(set(wanted.values())) > 1:
        raise ValueError('The losses want embeddings of different widths, and share one batch: '
                         + ', '.join(f'{name} {width}' for name, width in wanted.items()) + '.')
    return next(iter(wanted.values()), None)


def check_sample_limits(name: str, limits: Limits, embeddings: Tensor, labels: Tensor,
                        data_samples: Sequence[BaseDataElement]) -> None:
    """Refuse embeddings or classes that a loss has no weights for.

    Args:
        name: the loss's name in the head.
        limits: what it can take.
        embeddings: ``(V · B, D)``.
        labels: ``(V · B,)`` int64.
        data_samples: the B samples.

    Raises:
        ValueError: another width, or a class outside ``num_classes``; its sample is named.
    """
    if limits.embedding_size not in (None, embeddings.shape[1]):
        raise ValueError(f'The loss {name!r} was built with embedding_size='
                         f'{limits.embedding_size}, and the encoder gives embeddings of width '
                         f'{embeddings.shape[1]}: write that into the loss, or project to it.')
    if limits.num_classes is not None:
        check_classes(labels, limits.num_classes, data_samples, f'the loss {name!r}')


def check_count(name: str, limits: Limits, count: int) -> None:
    """Refuse a batch of too many or too few embeddings, of all views and processes.

    Raises:
        ValueError: it does not fit into the loss's memory, or has fewer than the loss has proxies.
    """
    if limits.batch_size is not None and count > limits.batch_size:
        raise ValueError(f'The batch has {count} embeddings, and the memory of the loss {name!r} '
                         f'only memory_size={limits.batch_size}: make it larger.')
    if limits.least is not None and count < limits.least:
        raise ValueError(f'The batch has {count} embeddings, and the loss {name!r} wants one for '
                         f'each of its {limits.least} proxies: lower K, or take larger batches.')


def _positive(loss: nn.Module, name: str) -> int | None:
    """A setting as a number; the library leaves 0 where it only records the name of one."""
    value = getattr(loss, name, None)
    return value if isinstance(value, int) and value > 0 else None


def needs_positives(loss: nn.Module) -> bool:
    """Whether a loss compares samples of one class with each other.

    A loss may say so itself, by an attribute of this name. Those of the library do where they have
    neither weights for the classes nor a memory, which may hold the other samples; ``InstanceLoss``
    takes each sample as a class of its own.
    """
    said = getattr(loss, 'needs_positives', None)
    if said is not None:
        return bool(said)
    if type(loss).__name__ == 'MultipleLosses':
        parts = loss.losses
        return any(map(needs_positives, parts.values() if isinstance(parts, nn.ModuleDict)
                       else parts))  # type: ignore[arg-type]
    of_library = any(base.__module__.startswith('pytorch_metric_learning.')
                     and base.__name__ == 'BaseMetricLossFunction' for base in type(loss).__mro__)
    weights = any(weight.ndim == 2 for weight in loss.parameters(recurse=False))
    return (of_library and not weights and not refuses(loss, 'labels')
            and type(loss).__name__ != 'InstanceLoss')


def refuse_without_positives(name: str, labels: Tensor, indices: Any = None) -> None:
    """Refuse a batch of which a loss of positive pairs would learn nothing.

    Args:
        name: the loss's name in the head.
        labels: the classes of the whole batch, of all views and processes, ``(B,)`` int64.
        indices: what a miner chose; one that pairs without classes is content with any.

    Raises:
        ValueError: no class has two samples, and no positive was chosen either.
    """
    classes = torch.unique(labels)
    chosen = isinstance(indices, (tuple, list)) and len(indices[0]) > 0
    if len(classes) < len(labels) or chosen:
        return
    shown = ', '.join(map(str, classes[:10].tolist())) + (', …' if len(classes) > 10 else '')
    raise ValueError(
        f'The loss {name!r} compares samples of one class, and of the {len(classes)} classes of '
        f'the batch ({shown}) none has two: draw the batches with dict(type='
        "'MPerClassSampler', m=4, batch_size=…), and leave an incomplete last batch out with "
        'drop_last=True in the dataloader.')


class Form(Enum):
    """What a loss is given."""

    CLASSES = 'embeddings and their classes'
    CLASSIFIER = 'embeddings and their classes, as a ClassificationHead is'
    VIEWS = 'two views of the same samples, row by row'
    EMBEDDINGS = 'embeddings alone'


LABELLED = (Form.CLASSES, Form.CLASSIFIER)


class Term(NamedTuple):
    """What is known of a loss as soon as it is built.

    Args:
        form: what it is given.
        taken: what else it takes, names of :data:`retrieval.heads.loss_terms.NAMES`.
        limits: the classes, widths and batches that it can take.
        needs_positives: whether a batch without two samples of a class teaches it nothing.
    """

    form: Form
    taken: frozenset[str]
    limits: Limits
    needs_positives: bool


def describe(loss: nn.Module, miner: nn.Module | None) -> Term:
    """The term of a loss.

    Raises:
        ValueError: it compares two sets of embeddings (a distance), or it has a miner and takes no
            indices.
    """
    form = _form_of(loss)
    if miner is not None and not _takes_indices(loss, form):
        raise ValueError(f'{type(loss).__name__} takes no indices, so the miner '
                         f'{type(miner).__name__} cannot choose for it: leave the miner out.')
    classes = form is Form.CLASSES
    return Term(form, frozenset(taken_extra(loss) if classes else ()), limits_of(loss),
                classes and needs_positives(loss))


def _form_of(loss: nn.Module) -> Form:
    if isinstance(loss, ClassificationHead):
        return Form.CLASSIFIER
    taken = inspect.signature(loss.forward).parameters
    if 'labels' in taken and refuses(loss, 'labels'):
        return Form.EMBEDDINGS if refuses(loss, 'ref') else Form.VIEWS
    if 'ref_emb' in taken and 'labels' not in taken:
        if 'embeddings' in taken:
            return Form.VIEWS
        raise ValueError(f'{type(loss).__name__} takes ({", ".join(taken)}), and MetricHead gives '
                         'embeddings and labels: name a loss of those, not a distance.')
    return Form.CLASSES


def _takes_indices(loss: nn.Module, form: Form) -> bool:
    parameters = inspect.signature(loss.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    several = len(positional) > 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return form is Form.CLASSES and several and not refuses(loss, 'indices_tuple')


def call(loss: nn.Module, term: Term, batch: Batch, indices: Any = None) -> Tensor:
    """The value of a loss, a scalar.

    Raises:
        ValueError: it compares two views, and there are not two.
    """
    if isinstance(loss, ClassificationHead):
        return loss.value(batch.embeddings, batch.labels) * loss.loss_weight
    if term.form is Form.EMBEDDINGS:
        return loss(batch.embeddings)
    if term.form is Form.VIEWS:
        if batch.views != 2:
            raise ValueError(f'{type(loss).__name__} compares two views of the same samples, and '
                             f'there are {batch.views}: the encoder must return a list of two.')
        first, second = batch.embeddings.chunk(2)
        return loss(first, ref_emb=second)
    extra = {name: value for name, value in batch.extra.items() if name in term.taken}
    mined = () if indices is None else (indices,)
    return loss(batch.embeddings, batch.labels, *mined, **extra)


def mine(miner: nn.Module, batch: Batch) -> Any:
    """The indices that a miner chooses, among the reference set where there is one."""
    reference = {name: batch.extra[name] for name in ('ref_emb', 'ref_labels')
                 if name in batch.extra}
    return miner(batch.embeddings, batch.labels, **reference)


def count_mined(indices: Any) -> dict[str, int]:
    """How much a miner found, from its indices of triplets or of pairs."""
    if isinstance(indices, (tuple, list)) and len(indices) == 3:
        return {'mined_triplets': len(indices[0])}
    if isinstance(indices, (tuple, list)) and len(indices) == 4:
        return {'mined_positives': len(indices[0]), 'mined_negatives': len(indices[2])}
    return {}


def split(config: Any) -> tuple[Any, dict[str, Any]]:
    """The loss's own config, and what of it is for the head."""
    if not isinstance(config, Mapping):
        return config, {}
    if 'type' not in config:
        raise ValueError(f'The loss has no type, it has only {sorted(config)}: give '
                         "dict(type='PML.…', …).")
    taken = {'name', 'loss_weight'}
    if 'miner' in config and not _takes_miner(config['type']):
        taken.add('miner')
    return ({key: value for key, value in config.items() if key not in taken},
            {key: config[key] for key in taken & set(config)})


def _takes_miner(kind: Any) -> bool:
    from ..losses.pml import resolve  # late: it imports the library
    return 'miner' in inspect.signature(resolve(kind)).parameters


def build(config: Any, what: str) -> nn.Module:
    """A loss or miner from its config; a module as it is.

    Raises:
        ValueError: it names no type, or an unknown one.
        TypeError: it is neither config nor module.
    """
    if isinstance(config, Mapping):
        if 'type' not in config:
            raise ValueError(f"The {what} has no type: give dict(type='PML.…', …).")
        from ..losses.pml import build_component  # late: it imports the library

        config = build_component(config)
    if not isinstance(config, nn.Module):
        raise TypeError(f"{what} must be a config such as dict(type='PML.…', …) or a module, got "
                        f'{type(config).__name__}.')
    return config


def name_of(loss: nn.Module) -> str:
    """``MultiSimilarityLoss -> multi_similarity``."""
    name = type(loss).__name__.removesuffix('Loss').removesuffix('Head') or 'loss'
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()

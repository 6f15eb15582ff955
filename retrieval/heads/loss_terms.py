"""One loss among those of a head, with its miner and limits, and the batch that it is given."""
from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..distributed import all_gather_rows, all_gather_with_gradient, world_size
from ..losses.interface import Interface, Limits, interface_of, limits_of
from .classification_head import ClassificationHead
from .targets import check_classes


@dataclass(frozen=True)
class LossTerm:
    """One loss among those of a head, as it is known once it is built.

    Args:
        name: in the logs; the type's, in snake case, where the config gives none.
        loss: the module.
        miner: what chooses among the batch for it, or None.
        weight: what it is multiplied by.
        interface: how it is called.
        limits: the classes, widths and batches that it can take.
    """

    name: str
    loss: nn.Module
    miner: nn.Module | None
    weight: float
    interface: Interface
    limits: Limits

    @classmethod
    def build(cls, config: Any, miner: Any = None, loss_weight: float = 1.0) -> LossTerm:
        """The term of a config or module, and of its miner.

        Args:
            config: of the loss, which may hold ``name``, ``loss_weight`` and, where the loss takes
                none itself, ``miner``; or a module.
            miner: a config or module, where the config has none.
            loss_weight: multiplies the config's own.

        Raises:
            ValueError: it names no type or an unknown one, it compares two sets of embeddings (a
                distance), or it has a miner and takes no indices.
            TypeError: a loss or miner that is neither config nor module.
        """
        options: dict[str, Any] = {}
        if isinstance(config, Mapping):
            if 'type' not in config:
                raise ValueError(f'The loss has no type, it has only {sorted(config)}: give '
                                 "dict(type='PML.…', …).")
            of_head = {'name', 'loss_weight', *([] if _takes_miner(config['type']) else ['miner'])}
            options = {key: config[key] for key in of_head & set(config)}
            config = {key: value for key, value in config.items() if key not in of_head}
        loss = build(config, 'loss')
        miner = options.get('miner', miner)
        miner = None if miner is None else build(miner, 'miner')
        classifier = isinstance(loss, ClassificationHead)
        interface = Interface() if classifier else interface_of(loss)
        if miner is not None and not (interface.indices and interface.inputs == 'classes'):
            raise ValueError(f'{type(loss).__name__} takes no indices, so the miner '
                             f'{type(miner).__name__} cannot choose for it: leave the miner out.')
        return cls(options.get('name') or _name_of(loss), loss, miner,
                   loss_weight * options.get('loss_weight', 1.0), interface, limits_of(loss))

    def check_samples(self, embeddings: Tensor, labels: Tensor,
                      data_samples: Sequence[BaseDataElement]) -> None:
        """Refuse embeddings ``(V · B, D)`` or classes ``(V · B,)`` that it has no weights for.

        Raises:
            ValueError: another width, or a class outside ``num_classes``; its sample is named.
        """
        if self.limits.embedding_size not in (None, embeddings.shape[1]):
            raise ValueError(f'The loss {self.name!r} was built with embedding_size='
                             f'{self.limits.embedding_size}, and the encoder gives embeddings of '
                             f'width {embeddings.shape[1]}: write that into the loss, or project '
                             'to it.')
        if self.limits.num_classes is not None:
            check_classes(labels, self.limits.num_classes, data_samples, f'the loss {self.name!r}')

    def value(self, batch: Batch) -> tuple[Tensor, dict[str, int]]:
        """The loss of a batch, a scalar before its weight, and how much its miner found.

        Raises:
            ValueError: too many or too few embeddings, no two samples of a class for a loss that
                compares them, other than two views for one that compares views, or a batch that
                the library refuses.
        """
        self._check_count(len(batch.embeddings))
        try:
            indices = None
            if self.miner is not None:
                reference = {name: value for name, value in batch.extra.items()
                             if name != 'enqueue_mask'}
                indices = self.miner(batch.embeddings, batch.labels, **reference)
            if self.interface.needs_positives and 'ref_emb' not in batch.extra:
                self._refuse_without_positives(batch.labels, indices)
            value = self._call(batch, indices)
        except AssertionError as error:
            raise ValueError(f'The loss {self.name!r} refuses the batch of {len(batch.embeddings)} '
                             f'embeddings: {error or "no reason given"}.') from error
        return value, _count_mined(indices)

    def _call(self, batch: Batch, indices: Any) -> Tensor:
        loss, inputs = self.loss, self.interface.inputs
        if isinstance(loss, ClassificationHead):
            return loss.value(batch.embeddings, batch.labels) * loss.loss_weight
        if inputs == 'embeddings':
            return loss(batch.embeddings)
        if inputs == 'views':
            if batch.views != 2:
                raise ValueError(f'{type(loss).__name__} compares two views of the same samples, '
                                 f'and there are {batch.views}: the encoder must return a list of '
                                 'two.')
            first, second = batch.embeddings.chunk(2)
            return loss(first, ref_emb=second)
        extra = {name: value for name, value in batch.extra.items()
                 if name in self.interface.extra}
        return loss(batch.embeddings, batch.labels, *(() if indices is None else (indices,)),
                    **extra)

    def _check_count(self, count: int) -> None:
        most, least = self.limits.batch_size, self.limits.least
        if most is not None and count > most:
            raise ValueError(f'The batch has {count} embeddings, and the memory of the loss '
                             f'{self.name!r} only memory_size={most}: make it larger.')
        if least is not None and count < least:
            raise ValueError(f'The batch has {count} embeddings, and the loss {self.name!r} wants '
                             f'one for each of its {least} proxies: lower K, or take larger '
                             'batches.')

    def _refuse_without_positives(self, labels: Tensor, indices: Any) -> None:
        """Refuse a batch whose classes have one sample each, and of which no pair was mined."""
        classes = torch.unique(labels)
        # a miner that pairs without classes is content with any
        chosen = isinstance(indices, (tuple, list)) and len(indices[0]) > 0
        if len(classes) < len(labels) or chosen:
            return
        shown = ', '.join(map(str, classes[:10].tolist())) + (', …' if len(classes) > 10 else '')
        raise ValueError(
            f'The loss {self.name!r} compares samples of one class, and of the {len(classes)} '
            f'classes of the batch ({shown}) none has two: draw the batches with dict(type='
            "'MPerClassSampler', m=4, batch_size=…), and leave an incomplete last batch out with "
            'drop_last=True in the dataloader.')


class Batch(NamedTuple):
    """The input of the losses of a head.

    Args:
        embeddings: of all views, one view after another, ``(V · B, D)`` float32.
        labels: their classes, ``(V · B,)`` int64.
        views: how many there are, V.
        extra: what was given beside them, ``ref_emb``, ``ref_labels`` or ``enqueue_mask``.
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


def checked_extra(embeddings: Tensor, views: int, ref_emb: Tensor | None,
                  ref_labels: Tensor | None, enqueue_mask: Tensor | None) -> dict[str, Tensor]:
    """The extra inputs that were given, by name, on the device of the embeddings.

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


def build(config: Any, what: str) -> nn.Module:
    """A loss or miner from its config; a module as it is.

    Args:
        config: with a ``type``, of the library or of the registry of models.
        what: ``'loss'`` or ``'miner'``, for the message.

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


def _takes_miner(kind: Any) -> bool:
    from ..losses.pml import resolve  # late: it imports the library
    return 'miner' in inspect.signature(resolve(kind)).parameters


def _name_of(loss: nn.Module) -> str:
    """``MultiSimilarityLoss -> multi_similarity``."""
    name = type(loss).__name__.removesuffix('Loss').removesuffix('Head') or 'loss'
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()


def _count_mined(indices: Any) -> dict[str, int]:
    if isinstance(indices, (tuple, list)) and len(indices) == 3:
        return {'mined_triplets': len(indices[0])}
    if isinstance(indices, (tuple, list)) and len(indices) == 4:
        return {'mined_positives': len(indices[0]), 'mined_negatives': len(indices[2])}
    return {}

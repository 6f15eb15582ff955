"""Metric-learning losses over embeddings."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..losses.interface import Limits
from ..registry import MODELS
from .loss_terms import Batch, LossTerm, checked_extra, gathered
from .targets import class_labels

Feats = Tensor | tuple[Tensor, ...] | list[Tensor]


@MODELS.register_module()
class MetricHead(BaseModule):
    """One or several losses of embeddings and their classes, each with a miner if wanted.

    Losses and miners come from pytorch-metric-learning by name (``PML.X`` or ``X``), from the
    registry of models, or as modules; a ``ClassificationHead`` may be one of them. Their weights
    (proxies, class centres) are the head's parameters, ``head.losses.<name>.…``, so they are
    optimised and saved with the model, and ``paramwise_cfg=dict(custom_keys={
    'head.losses.proxy_anchor': dict(lr_mult=100, decay_mult=0)})`` gives them settings of their
    own. All of it runs in float32.

    On several processes every loss sees the samples of all, with their gradient, so that training
    on W processes with batches of B is training on one with a batch of W · B, where
    DistributedDataParallel averages the gradients.

    Args:
        loss: a config or a module that is called ``loss(embeddings, labels)``, or with a miner
            ``loss(embeddings, labels, indices)``. A list makes several losses of one batch; beside
            its own arguments each config may then have ``name`` (in the logs; by default the
            type's), ``loss_weight`` and ``miner``. ``CrossBatchMemory`` keeps its own argument
            ``miner``, which mines among the memory. A loss without classes (``VICRegLoss``,
            ``SelfSupervisedLoss``) compares two views.
        miner: a config or module, ``miner(embeddings, labels) -> indices``, for a single loss.
        loss_weight: every loss is multiplied by this.
        gather: whether the losses see the samples of all processes; else each process its own.
        init_cfg: MMEngine's initialisation.

    Attributes:
        num_classes: labels must be below this; None where the losses take any.
        embedding_size: the embeddings' width; None where the losses take any.
        batch_size: the most embeddings in a batch, of all processes; None where any.
        weights: what each loss is multiplied by, by name.

    Raises:
        ValueError: an unknown type, two losses of one name, a miner beside a list or for a loss
            that takes none, or losses that disagree on the embedding's width.
        TypeError: a loss that is neither config nor module, or arguments that it does not take.

    Example:
        >>> import torch
        >>> from retrieval.structures import RetrievalDataSample
        >>> head = MetricHead(dict(type='PML.TripletMarginLoss', margin=0.2))
        >>> samples = [RetrievalDataSample().set_gt_label(label) for label in (0, 0, 1, 1)]
        >>> sorted(head.loss(torch.eye(4), samples))
        ['loss']
    """

    def __init__(self, loss: Any, miner: Any = None, loss_weight: float = 1.0,
                 init_cfg: dict[str, Any] | None = None, gather: bool = True) -> None:
        super().__init__(init_cfg)
        single = not isinstance(loss, (list, tuple))
        if not single and miner is not None:
            raise ValueError('With several losses, write each miner into the loss that it is for: '
                             "loss=[dict(type=…, miner=dict(type=…)), …].")
        self.gather = gather
        self.losses = nn.ModuleDict()
        self.miners = nn.ModuleDict()
        self._terms: dict[str, LossTerm] = {}
        for config in [loss] if single else loss:
            term = LossTerm.build(config, miner, loss_weight)
            if term.name in self._terms:
                raise ValueError(f'Two losses are called {term.name!r}: give each its name=….')
            self._terms[term.name] = term
            self.losses[term.name] = term.loss
            if term.miner is not None:
                self.miners[term.name] = term.miner
        if not self.losses:
            raise ValueError("loss is an empty list: name at least one, as dict(type='PML.…').")
        # in a dict of its own: the hook that changes weights in the course of a run writes to it
        self.weights = {name: term.weight for name, term in self._terms.items()}
        self._keys = {name: 'loss' if single else f'loss_{name}' for name in self.losses}
        limits = {name: term.limits for name, term in self._terms.items()}
        self.embedding_size = _common_width(limits)
        self.num_classes = min((one.num_classes for one in limits.values() if one.num_classes),
                               default=None)
        self.batch_size = min((one.batch_size for one in limits.values() if one.batch_size),
                              default=None)

    def loss(self, feats: Feats, data_samples: Sequence[BaseDataElement],
             ref_emb: Tensor | None = None, ref_labels: Tensor | None = None,
             enqueue_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            feats: embeddings ``(B, D)``; of a tuple the last counts; a list holds several views
                ``(B, D)`` of the same samples, which are all embeddings of their classes.
            data_samples: a sample an embedding, with ``gt_label``.
            ref_emb: embeddings ``(R, D)`` that those of the batch are compared with, instead of
                with each other; for the losses and miners that take them. Several processes have
                each a part of them.
            ref_labels: their classes, ``(R,)`` int64.
            enqueue_mask: ``(B,)`` bool, or ``(V · B,)`` for V views one after another; which rows
                a memory takes in, and does not train on; for the losses that take it. The others
                train on all rows.

        Returns:
            ``loss``, or ``loss_<name>`` of each of several, scalars float32; with a miner also
            how much it mined (``mined_triplets``, or ``mined_positives`` and ``mined_negatives``).

        Raises:
            ValueError: a sample without a class or with a mixed label, a class outside
                ``num_classes``, embeddings of another width than the loss's, a batch without two
                samples of one class for a loss that compares them, one that the library refuses,
                or a reference set or mask of another shape, or that no loss takes.
        """
        embeddings, views = _join(feats)
        labels = self._labels(data_samples, len(embeddings) // views).repeat(views)
        for term in self._terms.values():
            term.check_samples(embeddings, labels, data_samples)
        extra = checked_extra(embeddings, views, ref_emb, ref_labels, enqueue_mask)
        self._refuse_untaken(extra)
        results: dict[str, Tensor] = {}
        with torch.autocast(embeddings.device.type, enabled=False):
            batch = Batch(embeddings.float(), labels.to(embeddings.device), views, extra)
            batch = gathered(batch) if self.gather else batch
            for name, term in self._terms.items():
                value, mined = term.value(batch)
                key = self._keys[name]
                results[key] = value * self.weights[name]
                results.update({what + key.removeprefix('loss'): value.new_tensor(float(count))
                                for what, count in mined.items()})
        return results

    def _labels(self, data_samples: Sequence[BaseDataElement], count: int) -> Tensor:
        """The classes of the samples ``(B,)``; zeros where no loss is given any."""
        if all(term.interface.inputs != 'classes' for term in self._terms.values()):
            return torch.zeros(count, dtype=torch.int64)
        if data_samples and any(sample.get('gt_score') is not None for sample in data_samples):
            raise ValueError('The samples have mixed labels (gt_score), and a metric loss needs '
                             'one class a sample: take the ClassificationHead, or leave the batch '
                             'augmentation (train_cfg, batch_augments, to_onehot) out.')
        return class_labels(data_samples, count)

    def _refuse_untaken(self, extra: Mapping[str, Tensor]) -> None:
        """Refuse what was given beside the embeddings and would reach no loss."""
        for given in extra:
            if not any(given in term.interface.extra for term in self._terms.values()):
                kinds = ', '.join(type(loss).__name__ for loss in self.losses.values())
                raise ValueError(f'{given} was given, and none of the losses takes it: {kinds}.')

    def predict(self, feats: Feats, data_samples: Any = None) -> None:
        """Nothing: the embeddings themselves are searched with."""


def _join(feats: Feats) -> tuple[Tensor, int]:
    """Embeddings of all views ``(V · B, D)``, and V."""
    views: list[Any] = list(feats[-1:] if isinstance(feats, tuple) else
                            feats if isinstance(feats, list) else [feats])
    for view in views:
        if not isinstance(view, Tensor) or view.ndim != 2:
            given = tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__
            raise ValueError(f'A metric loss takes embeddings (B, D), got {given}: the encoder '
                             'must pool its features.')
    if not views or len({view.shape for view in views}) != 1:
        raise ValueError('Views of the same samples must have one shape, got '
                         f'{[tuple(view.shape) for view in views]}.')
    return (views[0] if len(views) == 1 else torch.cat(views)), len(views)


def _common_width(limits: Mapping[str, Limits]) -> int | None:
    """The width of embeddings that all losses, by name, can take; None where any."""
    wanted = {name: one.embedding_size for name, one in limits.items() if one.embedding_size}
    if len(set(wanted.values())) > 1:
        raise ValueError('The losses want embeddings of different widths, and share one batch: '
                         + ', '.join(f'{name} {width}' for name, width in wanted.items()) + '.')
    return next(iter(wanted.values()), None)

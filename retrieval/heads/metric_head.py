"""Metric-learning losses over embeddings."""
from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..registry import MODELS
from .extra import checked_extra, refuse_untaken, taken_extra
from .limits import Limits, limits_of
from .targets import check_classes, class_labels

Feats = Tensor | tuple[Tensor, ...] | list[Tensor]


@MODELS.register_module()
class MetricHead(BaseModule):
    """One or several losses of embeddings and their classes, each with a miner if wanted.

    Losses and miners come from pytorch-metric-learning by name (``PML.X`` or ``X``), from the
    registry of models, or as modules. Their weights (proxies, class centres) are the head's
    parameters, so they are optimised and saved with the model. All of it runs in float32.

    Args:
        loss: a config or a module that is called ``loss(embeddings, labels)``, or with a miner
            ``loss(embeddings, labels, indices)``. A list makes several losses; beside its own
            arguments each config may then have ``name`` (in the logs; by default the type's),
            ``loss_weight`` and ``miner``. ``CrossBatchMemory`` keeps its own argument ``miner``,
            which mines among the memory.
        miner: a config or module, ``miner(embeddings, labels) -> indices``, for a single loss.
        loss_weight: every loss is multiplied by this.
        init_cfg: MMEngine's initialisation.

    Attributes:
        num_classes: labels must be below this; None where the losses take any.
        embedding_size: the embeddings' width; None where the losses take any.

    Raises:
        ValueError: an unknown type, two losses of one name, a miner beside a list, or losses that
            disagree on the embedding's width.
        TypeError: a loss that is neither config nor module, or arguments that it does not take.
    """

    def __init__(self, loss: Any, miner: Any = None, loss_weight: float = 1.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        single = not isinstance(loss, (list, tuple))
        if not single and miner is not None:
            raise ValueError('With several losses, write each miner into the loss that it is for: '
                             "loss=[dict(type=…, miner=dict(type=…)), …].")
        self.losses = nn.ModuleDict()
        self.miners = nn.ModuleDict()
        self.weights: dict[str, float] = {}
        for term in [loss] if single else loss:
            self._add(term, miner, loss_weight)
        if not self.losses:
            raise ValueError("loss is an empty list: name at least one, as dict(type='PML.…').")
        self._keys = {name: 'loss' if single else f'loss_{name}' for name in self.losses}
        self._taken = {name: taken_extra(part) for name, part in self.losses.items()}
        self._limits = {name: limits_of(part) for name, part in self.losses.items()}
        widths = {limits.embedding_size for limits in self._limits.values()} - {None}
        if len(widths) > 1:
            raise ValueError(f'The losses want embeddings of different widths: {self._limits}.')
        self.embedding_size = next(iter(widths), None)
        classes = [limits.num_classes for limits in self._limits.values() if limits.num_classes]
        self.num_classes = min(classes, default=None)

    def _add(self, term: Any, miner: Any, loss_weight: float) -> None:
        """Build one loss and its miner."""
        term, options = _split(term)
        module = _build(term, 'loss')
        name = options.get('name') or _name_of(module)
        if name in self.losses:
            raise ValueError(f'Two losses are called {name!r}: give each its name=….')
        _check_signature(module)
        self.losses[name] = module
        miner = options.get('miner', miner)
        if miner is not None:
            self.miners[name] = _build(miner, 'miner')
        self.weights[name] = loss_weight * options.get('loss_weight', 1.0)

    def loss(self, feats: Feats, data_samples: Sequence[BaseDataElement],
             ref_emb: Tensor | None = None, ref_labels: Tensor | None = None,
             enqueue_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            feats: embeddings ``(B, D)``; of a tuple the last counts; a list holds several views
                ``(B, D)`` of the same samples, which are all embeddings of their classes.
            data_samples: a sample an embedding, with ``gt_label``.
            ref_emb: embeddings ``(R, D)`` that those of the batch are compared with, instead of
                with each other; for the losses and miners that take them.
            ref_labels: their classes, ``(R,)`` int64.
            enqueue_mask: ``(B,)`` bool, or ``(V · B,)`` for V views one after another; which rows
                a memory takes in, and does not train on; for the losses that take it.

        Returns:
            ``loss``, or ``loss_<name>`` of each of several, scalars float32; with a miner also
            how much it mined (``mined_triplets``, or ``mined_positives`` and ``mined_negatives``).

        Raises:
            ValueError: a sample without a class or with a mixed label, a class outside
                ``num_classes``, embeddings of another width than the loss's, or a batch that the
                library refuses.
        """
        embeddings, views = _join(feats)
        _refuse_mixed(data_samples)
        labels = class_labels(data_samples, len(embeddings) // views).repeat(views)
        labels = labels.to(embeddings.device)
        extra = checked_extra(embeddings, views, ref_emb, ref_labels, enqueue_mask)
        refuse_untaken(extra, self.losses, self._taken)
        results: dict[str, Tensor] = {}
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            for name in self.losses:
                _check_limits(name, self._limits[name], embeddings, labels, data_samples)
                results.update(self._term(name, embeddings, labels, {
                    key: value for key, value in extra.items() if key in self._taken[name]}))
        return results

    def _term(self, name: str, embeddings: Tensor, labels: Tensor,
              extra: dict[str, Tensor]) -> dict[str, Tensor]:
        """One loss, and how much its miner found."""
        key = self._keys[name]
        suffix = key.removeprefix('loss')
        mined: dict[str, Tensor] = {}
        try:
            if name in self.miners:
                reference = {key: extra[key] for key in ('ref_emb', 'ref_labels') if key in extra}
                indices = self.miners[name](embeddings, labels, **reference)
                value = self.losses[name](embeddings, labels, indices, **extra)
                mined = {what + suffix: embeddings.new_tensor(float(count))
                         for what, count in _count(indices).items()}
            else:
                value = self.losses[name](embeddings, labels, **extra)
        except AssertionError as error:
            raise ValueError(f'The loss {name!r} refuses the batch of {len(embeddings)} '
                             f'embeddings: {error or "no reason given"}.') from error
        return {key: value * self.weights[name], **mined}

    def predict(self, feats: Feats, data_samples: Any = None) -> None:
        """Nothing: the embeddings themselves are searched with."""


def _split(term: Any) -> tuple[Any, dict[str, Any]]:
    """The loss's own config, and what of it is for the head."""
    if not isinstance(term, Mapping):
        return term, {}
    if 'type' not in term:
        raise ValueError(f'The loss has no type, it has only {sorted(term)}: give '
                         "dict(type='PML.…', …).")
    taken = {'name', 'loss_weight'}
    if 'miner' in term and not _takes_miner(term['type']):
        taken.add('miner')
    return ({key: value for key, value in term.items() if key not in taken},
            {key: term[key] for key in taken & set(term)})


def _takes_miner(kind: Any) -> bool:
    from .pml import resolve  # late: it imports the library

    return 'miner' in inspect.signature(resolve(kind)).parameters


def _build(cfg: Any, what: str) -> nn.Module:
    if isinstance(cfg, Mapping):
        if 'type' not in cfg:
            raise ValueError(f"The {what} has no type: give dict(type='PML.…', …).")
        from .pml import build_component  # late: it imports the library

        cfg = build_component(cfg)
    if not isinstance(cfg, nn.Module):
        raise TypeError(f"{what} must be a config such as dict(type='PML.…', …) or a module, got "
                        f'{type(cfg).__name__}.')
    return cfg


def _name_of(loss: nn.Module) -> str:
    """``MultiSimilarityLoss -> multi_similarity``."""
    name = type(loss).__name__.removesuffix('Loss') or 'loss'
    return re.sub(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])', '_', name).lower()


def _check_signature(loss: nn.Module) -> None:
    """Refuse what compares two sets of embeddings, before the first batch."""
    taken = inspect.signature(loss.forward).parameters
    if 'ref_emb' in taken and 'labels' not in taken:
        raise ValueError(f'{type(loss).__name__} takes ({", ".join(taken)}), and MetricHead gives '
                         'embeddings and labels: name a loss of those, not a distance, nor a '
                         'wrapper that pairs two sets.')


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


def _refuse_mixed(data_samples: Sequence[BaseDataElement] | None) -> None:
    if data_samples and any(sample.get('gt_score') is not None for sample in data_samples):
        raise ValueError('The samples have mixed labels (gt_score), and a metric loss needs one '
                         'class a sample: take the ClassificationHead, or leave the batch '
                         'augmentation (train_cfg, batch_augments, to_onehot) out.')


def _check_limits(name: str, limits: Limits, embeddings: Tensor, labels: Tensor,
                  data_samples: Sequence[BaseDataElement]) -> None:
    if limits.embedding_size not in (None, embeddings.shape[1]):
        raise ValueError(f'The loss {name!r} was built with embedding_size='
                         f'{limits.embedding_size}, and the encoder gives embeddings of width '
                         f'{embeddings.shape[1]}: write that into the loss, or project to it.')
    if limits.batch_size is not None and len(embeddings) > limits.batch_size:
        raise ValueError(f'The batch has {len(embeddings)} embeddings, and the memory of the loss '
                         f'{name!r} only memory_size={limits.batch_size}: make it larger.')
    if limits.num_classes is not None:
        check_classes(labels, limits.num_classes, data_samples, f'the loss {name!r}')


def _count(indices: Any) -> dict[str, int]:
    """How much a miner found, from its indices of triplets or of pairs."""
    if isinstance(indices, (tuple, list)) and len(indices) == 3:
        return {'mined_triplets': len(indices[0])}
    if isinstance(indices, (tuple, list)) and len(indices) == 4:
        return {'mined_positives': len(indices[0]), 'mined_negatives': len(indices[2])}
    return {}

"""The interface of a loss: its inputs, the batches that teach it nothing, and its class weights.

A table says it of every loss of pytorch-metric-learning, since all of them have the same signature
and those that cannot use an argument refuse it when they are called. A loss of one's own may
declare it; what it does not declare is read off its signature.
"""
from __future__ import annotations

import inspect
from typing import NamedTuple

from torch import Tensor, nn


class Limits(NamedTuple):
    """The classes, widths and batches that a loss can take; None where it takes any.

    Args:
        num_classes: labels are below this.
        embedding_size: the width of the embeddings.
        batch_size: the most embeddings in a batch.
        least: the fewest embeddings in a batch.
    """

    num_classes: int | None = None
    embedding_size: int | None = None
    batch_size: int | None = None
    least: int | None = None


class Interface(NamedTuple):
    """How a loss is called.

    Args:
        inputs: ``'classes'``: embeddings and their labels; ``'views'``: two views of the same
            samples, row by row; ``'embeddings'``: embeddings alone.
        indices: it takes a miner's indices as the third argument.
        reference: it takes ``ref_emb`` and ``ref_labels``, which the batch is compared with.
        mask: it takes ``enqueue_mask``, the rows that a memory takes in.
        needs_positives: a batch without two samples of one class teaches it nothing.
        weights: where it keeps weights ``(D, C)`` or ``(C, D)`` of the classes: the attribute, and
            the axis of them along the embedding.

    Example:
        >>> Interface(indices=True).extra
        frozenset()
    """

    inputs: str = 'classes'
    indices: bool = False
    reference: bool = False
    mask: bool = False
    needs_positives: bool = False
    weights: tuple[str, int] | None = None

    @property
    def extra(self) -> frozenset[str]:
        """The names of the keyword arguments that it takes."""
        return frozenset((('ref_emb', 'ref_labels') if self.reference else ())
                         + (('enqueue_mask',) if self.mask else ()))


_PAIRS = Interface(indices=True, reference=True, needs_positives=True)
_OF_THE_BATCH = Interface(indices=True, needs_positives=True)
_CLASS_WEIGHTS = Interface(indices=True, weights=('W', 0))
_PROXIES = Interface(indices=True, weights=('proxies', 1))

LIBRARY: dict[str, Interface] = {
    'AngularLoss': _PAIRS,
    'ArcFaceLoss': _CLASS_WEIGHTS,
    'BaseMetricLossFunction': _PAIRS,
    'CircleLoss': _PAIRS,
    'ContrastiveLoss': _PAIRS,
    'CosFaceLoss': _CLASS_WEIGHTS,
    'CrossBatchMemory': Interface(indices=True, mask=True),
    'DynamicSoftMarginLoss': _PAIRS,
    'FastAPLoss': _OF_THE_BATCH,
    'GeneralizedLiftedStructureLoss': _PAIRS,
    'GenericPairLoss': _PAIRS,
    'HistogramLoss': _OF_THE_BATCH,
    'InstanceLoss': Interface(),  # each sample is a class of its own
    'IntraPairVarianceLoss': _PAIRS,
    'LargeMarginSoftmaxLoss': _CLASS_WEIGHTS,
    'LiftedStructureLoss': _PAIRS,
    'ManifoldLoss': Interface('embeddings'),  # its proxies belong to no class
    'MarginLoss': _PAIRS,
    'MultiSimilarityLoss': _PAIRS,
    'MultipleLosses': Interface(indices=True),
    'NCALoss': _PAIRS,
    'NPairsLoss': _OF_THE_BATCH,
    'NTXentLoss': _PAIRS,
    'NormalizedSoftmaxLoss': _CLASS_WEIGHTS,
    'P2SGradLoss': Interface(weights=('weight', 0)),
    'PNPLoss': Interface(needs_positives=True),
    'ProxyAnchorLoss': _PROXIES,
    'ProxyNCALoss': _PROXIES,
    'RankedListLoss': Interface(needs_positives=True),
    'SelfSupervisedLoss': Interface('views'),
    'SignalToNoiseRatioContrastiveLoss': _PAIRS,
    'SmoothAPLoss': _OF_THE_BATCH,
    'SoftTripleLoss': Interface(indices=True, weights=('fc', 0)),
    'SphereFaceLoss': _CLASS_WEIGHTS,
    'SubCenterArcFaceLoss': _CLASS_WEIGHTS,
    'SupConLoss': _PAIRS,
    'ThresholdConsistentMarginLoss': _PAIRS,
    'TripletMarginLoss': _PAIRS,
    'TupletMarginLoss': _PAIRS,
    'VICRegLoss': Interface('views'),
}


def interface_of(loss: nn.Module) -> Interface:
    """The interface of a loss.

    A loss declares it by a class attribute ``interface``, or ``needs_positives`` alone. One of the
    library's, or a class derived from one, has that of the table. Any other is read off its
    signature: a third positional argument is for indices, and the rest goes by name.

    Raises:
        ValueError: it compares two sets of embeddings, as a distance does.

    Example:
        >>> from torch import nn
        >>> class Spread(nn.Module):
        ...     def forward(self, embeddings, labels, enqueue_mask):
        ...         return embeddings.std()
        >>> sorted(interface_of(Spread()).extra)
        ['enqueue_mask']
    """
    declared = getattr(loss, 'interface', None)
    found = declared if isinstance(declared, Interface) else _of_library(loss)
    if found is None:
        found = _of_signature(loss)
    if type(loss).__name__ == 'MultipleLosses':
        parts = loss.losses.values() if isinstance(loss.losses, nn.ModuleDict) else loss.losses
        return found._replace(needs_positives=any(
            interface_of(part).needs_positives for part in parts))  # type: ignore[union-attr]
    needs_positives = getattr(loss, 'needs_positives', None)
    if needs_positives is None:  # one derived from a loss of pairs may have weights of the classes
        own_weights = any(weight.ndim == 2 for weight in loss.parameters(recurse=False))
        needs_positives = found.needs_positives and not own_weights
    return found._replace(needs_positives=bool(needs_positives))


def _of_library(loss: nn.Module) -> Interface | None:
    for base in type(loss).__mro__:
        if base.__module__.startswith('pytorch_metric_learning.') and base.__name__ in LIBRARY:
            return LIBRARY[base.__name__]
    return None


def _of_signature(loss: nn.Module) -> Interface:
    parameters = inspect.signature(loss.forward).parameters
    named = {'ref_emb', 'ref_labels', 'enqueue_mask'}
    positional = [p for p in parameters.values() if p.name not in named
                  and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    indices = (len(positional) > 2
               or any(p.kind is p.VAR_POSITIONAL for p in parameters.values()))
    if 'ref_emb' in parameters and 'labels' not in parameters:
        if 'embeddings' in parameters:
            return Interface('views')
        raise ValueError(f'{type(loss).__name__} takes ({", ".join(parameters)}), and MetricHead '
                         'gives embeddings and labels: name a loss of those, not a distance.')
    return Interface(indices=indices, reference='ref_emb' in parameters,
                     mask='enqueue_mask' in parameters)


def limits_of(loss: nn.Module) -> Limits:
    """The limits of a loss and of the losses inside it, from their settings and weights.

    Settings are the attributes ``num_classes``, ``embedding_size`` and ``memory_size``, whole
    numbers above 0.

    Example:
        >>> from torch import nn
        >>> loss = nn.Identity()
        >>> loss.num_classes = 5
        >>> limits_of(loss).num_classes
        5
    """
    parts = [_own_limits(part) for part in loss.modules()]
    classes, widths, most, least = (
        [value for value in column if value] for column in zip(*parts, strict=True))
    return Limits(min(classes, default=None), min(widths, default=None),
                  min(most, default=None), max(least, default=None))


def _own_limits(loss: nn.Module) -> Limits:
    num_classes, width = _setting(loss, 'num_classes'), _setting(loss, 'embedding_size')
    row = _of_library(loss)
    if row is not None and row.weights is not None:
        name, axis = row.weights
        weights = getattr(loss, name)
        width, num_classes = weights.shape[axis], num_classes or weights.shape[1 - axis]
    if row is LIBRARY['ManifoldLoss']:
        return Limits(None, _setting(loss, 'l'), None, _setting(loss, 'K'))
    thresholds = getattr(loss, 'beta', None)  # of the library's margin loss: one, or one a class
    if row is not None and isinstance(thresholds, Tensor) and len(thresholds) > 1:
        num_classes = len(thresholds)
    return Limits(num_classes, width, _setting(loss, 'memory_size'))


def _setting(loss: nn.Module, name: str) -> int | None:
    """A setting as a number; the library leaves 0 where it only records the name of one."""
    value = getattr(loss, name, None)
    return value if isinstance(value, int) and value > 0 else None

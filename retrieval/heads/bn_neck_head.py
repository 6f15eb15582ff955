"""One head before a batch-norm neck and one after it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class BNNeckHead(BaseModule):
    """The losses of features before a neck and of those after it, added up.

    H. Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPR
    Workshops 2019: a triplet loss before, a classifier without bias after. The encoder ends in a
    :class:`~retrieval.encoders.BatchNormNeck`, which returns both in training.

    Args:
        before: config or module of a head, such as ``MetricHead``.
        after: config or module of a head, such as ``ClassificationHead``.
        init_cfg: MMEngine's initialisation.

    Attributes:
        num_classes: labels must be below this; None where the heads take any.

    Raises:
        ValueError: a config without a type.
        TypeError: a head that is neither config nor module, or that has no ``loss``.

    Example:
        >>> before = dict(type='retrieval.MetricHead', loss=dict(type='PML.NTXentLoss'))
        >>> after = dict(type='retrieval.ClassificationHead', num_classes=3, in_features=4)
        >>> head = BNNeckHead(before, after)
        >>> head.num_classes
        3
    """

    def __init__(self, before: dict[str, Any] | nn.Module, after: dict[str, Any] | nn.Module,
                 init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.before: Any = _build(before, 'before')
        self.after: Any = _build(after, 'after')
        known = (getattr(head, 'num_classes', None) for head in (self.before, self.after))
        self.num_classes: int | None = min((one for one in known if one), default=None)

    def loss(self, feats: Any, data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            feats: features before and after the neck, a pair of ``(B, D)``.
            data_samples: a sample a row, with ``gt_label``.

        Returns:
            What each head returns, its names ending in ``_before`` or ``_after``.

        Raises:
            ValueError: not a pair; or what the heads refuse.
        """
        if not isinstance(feats, (tuple, list)) or len(feats) != 2:
            got = f'{len(feats)} tensors' if isinstance(feats, (tuple, list)) else 'one tensor'
            raise ValueError(f'A BNNeckHead wants the features before and after a neck, got {got}: '
                             "let the encoder end in dict(type='BatchNormNeck', in_features=…), "
                             'and be in training mode.')
        return {f'{name}_{where}': value
                for where, head, features in zip(('before', 'after'), (self.before, self.after),
                                                 feats, strict=True)
                for name, value in head.loss(features, data_samples).items()}

    def predict(self, feats: Any, data_samples: Any = None, **options: Any) -> Any:
        """The prediction of the head after the neck for embeddings ``(B, D)``."""
        return self.after.predict(feats, data_samples, **options)


def _build(head: Any, where: str) -> nn.Module:
    if isinstance(head, dict):
        if 'type' not in head:
            raise ValueError(f'The head {where} the neck has no type, it has only {sorted(head)}: '
                             "give dict(type='MetricHead', …).")
        head = MODELS.build(head)
    if not isinstance(head, nn.Module) or not callable(getattr(head, 'loss', None)):
        raise TypeError(f'The head {where} the neck must be a config or a module with '
                        f'loss(feats, data_samples), got {type(head).__name__}.')
    return head

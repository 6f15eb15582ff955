"""The loss of an encoder that classifies itself."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..registry import MODELS
from .targets import check_classes, class_labels, soft_labels


@MODELS.register_module()
class LogitsHead(BaseModule):
    """A loss of the logits that the encoder returns in training, as
    :class:`retrieval.encoders.Recognizer` does. It runs in float32 and has no weights.

    Targets are the classes (``gt_label``), or the mixed labels (``gt_score``) where the samples
    have them.

    Args:
        loss: a config or module that is called ``loss(logits, target)`` with a target ``(B,)``
            int64 or ``(B, num_classes)`` float32; None: cross entropy.
        loss_weight: the loss is multiplied by this.
        init_cfg: MMEngine's initialisation.

    Raises:
        TypeError: a loss that is neither config nor module.
    """

    def __init__(self, loss: Any = None, loss_weight: float = 1.0,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        module = MODELS.build(loss) if isinstance(loss, dict) else loss
        if module is not None and not isinstance(module, nn.Module):
            raise TypeError(f'loss must be a config or a module, got {type(loss).__name__}.')
        self.loss_module = nn.CrossEntropyLoss() if module is None else module
        self.loss_weight = loss_weight

    def loss(self, feats: Tensor | tuple[Tensor, ...],
             data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """``loss``, the scalar loss of logits ``(B, num_classes)``, float32; of a tuple the last
        counts.

        Raises:
            ValueError: something else than logits, a sample without a class, or one outside the
                classes that there are logits for.
        """
        logits = feats[-1] if isinstance(feats, (tuple, list)) else feats
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f'LogitsHead takes logits (B, num_classes), got {got}.')
        classes = logits.shape[1]
        target = soft_labels(data_samples, len(logits), classes)
        if target is None:
            target = class_labels(data_samples, len(logits))
            check_classes(target, classes, data_samples, 'the encoder')
        with torch.autocast(logits.device.type, enabled=False):
            value = self.loss_module(logits.float(), target.to(logits.device))
            return {'loss': value * self.loss_weight}

"""Classification as the loss: a linear classifier over embeddings, and an encoder's own logits."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..checks import real_number, whole_number
from ..registry import MODELS
from ..similarity import normalize
from .targets import check_classes, class_labels, soft_labels


@MODELS.register_module()
class ClassificationHead(BaseModule):
    """Cross entropy of a linear or cosine classifier.

    Targets are the classes (``gt_label``), or the mixed labels (``gt_score``) where the samples
    have them, as Mixup and CutMix leave them. All of it runs in float32.

    Args:
        num_classes: how many classes there are.
        in_features: the embeddings' width.
        loss: a config or module that is called ``loss(logits, target)`` with a target ``(B,)``
            int64 or ``(B, num_classes)`` float32; None: cross entropy.
        label_smoothing: the share of the target that is spread over all classes, in [0, 1); for
            the built-in loss.
        bias: whether the classifier has one; never with ``normalize``.
        normalize: whether the logits are the cosine to each class's weights instead.
        scale: the logits are multiplied by this; cosines need about 16 to 64.
        loss_weight: the loss is multiplied by this.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: a number outside the range that is named here.
        TypeError: a loss that is neither config nor module.

    Example:
        >>> import torch
        >>> from retrieval.structures import RetrievalDataSample
        >>> head = ClassificationHead(num_classes=3, in_features=4)
        >>> samples = [RetrievalDataSample().set_gt_label(label) for label in (0, 2)]
        >>> head.loss(torch.zeros(2, 4), samples)['loss'].ndim
        0
    """

    def __init__(self, num_classes: int, in_features: int, loss: Any = None,
                 label_smoothing: float = 0.0, bias: bool = True, normalize: bool = False,
                 scale: float = 1.0, loss_weight: float = 1.0,
                 init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        num_classes = whole_number('num_classes', num_classes)
        in_features = whole_number('in_features', in_features)
        real_number('label_smoothing', label_smoothing, least=0, below=1)
        if loss is not None and label_smoothing:
            raise ValueError('label_smoothing belongs to the built-in loss: give it to the loss '
                             'that was named instead.')
        self.num_classes = num_classes
        self.embedding_size = in_features
        self.fc = nn.Linear(in_features, num_classes, bias=bias and not normalize)
        self.normalize = normalize
        self.scale = scale
        self.loss_weight = loss_weight
        self.loss_module = (nn.CrossEntropyLoss(label_smoothing=label_smoothing) if loss is None
                            else _build(loss))

    def forward(self, feats: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Logits ``(B, num_classes)`` float32 of embeddings ``(B, in_features)``; of a tuple the
        last counts.

        Raises:
            ValueError: embeddings of another shape.
        """
        embeddings = feats[-1] if isinstance(feats, (tuple, list)) else feats
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_size:
            raise ValueError(f'The classifier was built with in_features={self.embedding_size}, '
                             f'and the encoder gives {tuple(embeddings.shape)} instead of '
                             f'(B, {self.embedding_size}).')
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            if not self.normalize:
                return self.fc(embeddings) * self.scale
            cosine = normalize(embeddings) @ normalize(self.fc.weight).T
            return cosine * self.scale

    def loss(self, feats: Tensor | tuple[Tensor, ...],
             data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """``loss``, the scalar loss of a batch, float32.

        Raises:
            ValueError: a sample without a class, or one outside ``num_classes``.
        """
        logits = self(feats)
        target = soft_labels(data_samples, len(logits), self.num_classes)
        if target is None:
            target = class_labels(data_samples, len(logits))
            check_classes(target, self.num_classes, data_samples, 'the classifier')
        return {'loss': self._compare(logits, target) * self.loss_weight}

    def value(self, feats: Tensor, target: Tensor) -> Tensor:
        """The loss before ``loss_weight``, a scalar float32.

        Args:
            feats: embeddings ``(B, in_features)``.
            target: classes ``(B,)`` int64, or mixed labels ``(B, num_classes)`` float32.
        """
        return self._compare(self(feats), target)

    def _compare(self, logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return self.loss_module(logits, target.to(logits.device))

    def predict(self, feats: Tensor | tuple[Tensor, ...],
                data_samples: Sequence[BaseDataElement] | None = None,
                with_scores: bool = False) -> None:
        """Put the probabilities of the classes on the samples, when asked.

        Args:
            feats: embeddings ``(B, in_features)``.
            data_samples: a sample an embedding.
            with_scores: whether to set ``class_score (num_classes,)`` float32 on each.

        Raises:
            ValueError: scores are asked for, and there are no samples to put them on.
        """
        if not with_scores:
            return
        logits = self(feats)
        if data_samples is None or len(data_samples) != len(logits):
            raise ValueError(f'with_scores needs a data sample for each of the {len(logits)} '
                             'embeddings to put class_score on.')
        for sample, score in zip(data_samples, logits.softmax(1), strict=True):
            sample.set_field(score, 'class_score', dtype=Tensor)


def _build(loss: Any) -> nn.Module:
    if isinstance(loss, dict):
        loss = MODELS.build(loss)
    if not isinstance(loss, nn.Module):
        raise TypeError(f'loss must be a config or a module, got {type(loss).__name__}.')
    return loss


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

    Example:
        >>> import torch
        >>> from retrieval.structures import RetrievalDataSample
        >>> samples = [RetrievalDataSample().set_gt_label(label) for label in (0, 1)]
        >>> loss = LogitsHead().loss(torch.zeros(2, 4), samples)['loss']
        >>> round(loss.item(), 4)  # log 4
        1.3863
    """

    def __init__(self, loss: Any = None, loss_weight: float = 1.0,
                 init_cfg: dict[str, Any] | None = None) -> None:
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

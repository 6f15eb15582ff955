"""Softmax losses that the library lacks: a margin for each class, and a learned temperature."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checks import whole_number
from ..registry import MODELS
from ..similarity import normalize
from .pairs import Indices, element_weights

# Where the sine of an angle is taken as no smaller: its gradient there has no bound in float32.
_SQUARED_SINE = 1e-7


def adaptive_margins(class_counts: Any, factor: float = 28.65, offset: float = 2.86,
                     exponent: float = 0.25) -> Tensor:
    """The margin of each class, ``factor * count ** -exponent + offset``: larger where rarer.

    Q. Ha et al., "Google Landmark Recognition 2020 Competition Third Place Solution"
    (arXiv:2010.05350), with its numbers (0.5 and 0.05 radians, 1/4) as the defaults.

    Args:
        class_counts: how many samples each class has, ``(C,)``; a class without any counts as one
            sample.
        factor: a, in degrees.
        offset: b, in degrees.
        exponent: lambda.

    Returns:
        ``(C,)`` float32, in degrees.

    Raises:
        ValueError: counts that are negative or of another shape, or margins outside [0, 180).

    Example:
        >>> [round(margin, 2) for margin in adaptive_margins([1, 16, 625]).tolist()]
        [31.51, 17.18, 8.59]
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    if counts.ndim != 1 or not len(counts) or not bool((counts >= 0).all()):
        raise ValueError('class_counts must be the number of samples of each class, a list of '
                         f'non-negative numbers; got shape {tuple(counts.shape)}'
                         + (f', smallest {float(counts.min())}.' if counts.numel() else '.'))
    return _checked(factor * counts.clamp(min=1) ** -exponent + offset)


def _checked(margins: Tensor) -> Tensor:
    if not bool(((margins >= 0) & (margins < 180)).all()):
        raise ValueError(f'Margins are degrees in [0, 180), got {float(margins.min()):g} to '
                         f'{float(margins.max()):g}.')
    return margins.float()


@MODELS.register_module()
class AdaptiveSubCenterArcFaceLoss(nn.Module):
    r"""Cross entropy of cosines, that of the own class made worse by the class's own margin.

    Each class has several centres, of which the nearest counts; with the angle
    :math:`\theta` to it the own class's logit is :math:`s \cos(\theta + m_c)`, or beyond
    :math:`\theta = 180° - m_c`, where that would rise again, :math:`s (\cos\theta - m_c \sin m_c)`.

    J. Deng et al., "ArcFace", CVPR 2019, and "Sub-center ArcFace", ECCV 2020; the margins are those
    of :func:`adaptive_margins`. pytorch-metric-learning's ``SubCenterArcFaceLoss`` has one margin,
    and like its ``ArcFaceLoss`` the gradient NaN where an embedding meets its centre; here it is
    finite. With ``sub_centers=1`` and one margin this is plain ArcFace.

    Args:
        num_classes: how many classes there are, C.
        embedding_size: the embeddings' width, D.
        sub_centers: centres of each class, K.
        margins: in degrees, one for all classes or a list of one a class; by default 28.6, until
            class counts are known.
        class_counts: how many samples each class has, in place of ``margins``. In a config for
            several datasets ``AdaptiveMarginHook`` counts them instead.
        factor: a of :func:`adaptive_margins`, in degrees.
        offset: b, in degrees.
        exponent: lambda.
        scale: s.

    Attributes:
        W: the centres ``(D, C * K)``, those of a class side by side, as in the library.
        margins: ``(C,)`` float32, in degrees; a buffer, so a checkpoint has them.

    Raises:
        ValueError: both margins and counts, or a wrong number of them, or one out of its range.

    Example:
        >>> loss = AdaptiveSubCenterArcFaceLoss(num_classes=3, embedding_size=4, margins=10.0)
        >>> loss(torch.eye(4)[:2], torch.tensor([0, 2])).ndim
        0
    """

    margins: Tensor

    def __init__(self, num_classes: int, embedding_size: int, sub_centers: int = 3,
                 margins: float | Sequence[float] | None = None,
                 class_counts: Sequence[int] | None = None, factor: float = 28.65,
                 offset: float = 2.86, exponent: float = 0.25, scale: float = 64.0) -> None:
        super().__init__()
        for name, value in (('num_classes', num_classes), ('embedding_size', embedding_size),
                            ('sub_centers', sub_centers)):
            whole_number(name, value)
        if margins is not None and class_counts is not None:
            raise ValueError('Give margins or class_counts, not both: the counts decide margins.')
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.sub_centers = sub_centers
        self.scale = scale
        self.factor, self.offset, self.exponent = factor, offset, exponent
        self.W = nn.Parameter(torch.randn(embedding_size, num_classes * sub_centers))
        self.register_buffer('margins', torch.zeros(num_classes))
        if class_counts is not None:
            self.set_class_counts(class_counts)
        else:
            self.set_margins(28.6 if margins is None else margins)

    def set_margins(self, margins: Any) -> None:
        """Set the margins, in degrees, one or ``(C,)``.

        Raises:
            ValueError: another number of them, or one outside [0, 180).
        """
        values = torch.as_tensor(margins, dtype=torch.float64)
        if values.ndim and values.shape != (self.num_classes,):
            raise ValueError(f'The loss has {self.num_classes} classes, and margins of shape '
                             f'{tuple(values.shape)} were given: one number, or one a class.')
        self.margins.copy_(_checked(values).expand(self.num_classes))

    def set_class_counts(self, class_counts: Any) -> None:
        """Set the margins from how many samples each class has, ``(C,)``.

        Raises:
            ValueError: see :func:`adaptive_margins`; or counts for another number of classes.
        """
        self.set_margins(adaptive_margins(class_counts, self.factor, self.offset, self.exponent))

    def get_cosine(self, embeddings: Tensor) -> Tensor:
        """The cosine to the nearest centre of each class, ``(B, C)``."""
        return self._cosines(embeddings).amax(2)

    def _cosines(self, embeddings: Tensor) -> Tensor:
        """The cosine to every centre, ``(B, C, K)``."""
        every = normalize(embeddings) @ normalize(self.W.T).T
        return every.view(len(embeddings), self.num_classes, self.sub_centers)

    @torch.no_grad()
    def get_outliers(self, embeddings: Tensor, labels: Tensor,
                     threshold: float = 75) -> tuple[Tensor, Tensor]:
        """The embeddings that are far from the dominant centre of their class, which are likely
        labelled wrongly, and the dominant centres.

        A class's dominant centre is the one that is nearest to most of the class's embeddings; the
        lower one of equals. To train on clean data, drop the outliers and begin with one centre a
        class (J. Deng et al., "Sub-center ArcFace", ECCV 2020); the same as the method of
        pytorch-metric-learning's ``SubCenterArcFaceLoss``.

        Args:
            embeddings: ``(N, D)`` of the training set.
            labels: ``(N,)`` int64 below ``num_classes``.
            threshold: in degrees; an embedding at a wider angle is an outlier.

        Returns:
            The rows of the outliers int64, class by class, and the centres ``(D, C)`` as they stand
            in ``W``; zeros where a class has no embeddings.

        Raises:
            ValueError: there is not a label for each embedding, or one is no class.

        Example:
            >>> loss = AdaptiveSubCenterArcFaceLoss(2, 2, sub_centers=2)
            >>> _ = loss.W.data.copy_(torch.tensor([[1., 0., 0., 0.], [0., 1., 1., -1.]]))
            >>> rows = torch.tensor([[1., 0.], [.9, .1], [0., 1.], [0., 1.]])
            >>> outliers, centres = loss.get_outliers(rows, torch.tensor([0, 0, 0, 1]))
            >>> outliers, centres
            (tensor([2]), tensor([[1., 0.],
                    [0., 1.]]))
        """
        if len(labels) != len(embeddings) or (len(labels) and not (
                int(labels.min()) >= 0 and int(labels.max()) < self.num_classes)):
            raise ValueError(f'get_outliers wants a label from 0 to {self.num_classes - 1} for '
                             f'each of {len(embeddings)} embeddings, got {len(labels)}.')
        cosines = self._cosines(embeddings.to(self.W))
        cosines = cosines[torch.arange(len(labels), device=cosines.device), labels]  # (N, K)
        votes = torch.zeros(self.num_classes, self.sub_centers, device=cosines.device)
        votes.index_put_((labels, cosines.argmax(1)), votes.new_ones(()), accumulate=True)
        dominant = votes.argmax(1)
        own = cosines.gather(1, dominant[labels][:, None])[:, 0]
        far = (own < math.cos(math.radians(threshold))).nonzero()[:, 0]
        first = torch.arange(self.num_classes, device=dominant.device) * self.sub_centers
        centres = self.W[:, first + dominant] * (votes.sum(1) > 0)
        return far[labels[far].argsort(stable=True)], centres

    def get_logits(self, embeddings: Tensor) -> Tensor:
        """The logits of embeddings without a class, ``(B, C)``: without margins."""
        return self.get_cosine(embeddings) * self.scale

    def forward(self, embeddings: Tensor, labels: Tensor,
                indices_tuple: Indices | None = None) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: ``(B, D)`` float, of any length.
            labels: ``(B,)`` int64 below ``num_classes``.
            indices_tuple: of a miner; embeddings count by how often it named them.
        """
        cosine = self.get_cosine(embeddings)
        own = cosine.gather(1, labels[:, None])
        logits = cosine.scatter(1, labels[:, None], self._with_margin(
            own, torch.deg2rad(self.margins.to(own))[labels][:, None]))
        losses = functional.cross_entropy(logits * self.scale, labels, reduction='none')
        return (losses * element_weights(embeddings, indices_tuple)).mean()

    @staticmethod
    def _with_margin(cosine: Tensor, margin: Tensor) -> Tensor:
        """The cosine of an angle with the margin (radians) added; falling over all angles."""
        sine = (1 - cosine.square()).clamp(min=_SQUARED_SINE).sqrt()
        turned = cosine * margin.cos() - sine * margin.sin()
        return torch.where(cosine >= -margin.cos(), turned, cosine - margin * margin.sin())

    def extra_repr(self) -> str:
        """The arguments."""
        return (f'num_classes={self.num_classes}, embedding_size={self.embedding_size}, '
                f'sub_centers={self.sub_centers}, scale={self.scale}, margins='
                f'{float(self.margins.min()):g}° to {float(self.margins.max()):g}°')


@MODELS.register_module()
class LearnableTemperatureSoftmaxLoss(nn.Module):
    """Cross entropy of the cosines to one proxy a class, over a temperature that is learned.

    A. Zhai and H.-Y. Wu, "Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019,
    where the temperature is fixed (``PML.NormalizedSoftmaxLoss``). Here its logarithm is a
    parameter, as in A. Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", ICML 2021, which also bounds it: before each step of training it is put back
    between its bounds, where it still has a gradient.

    Weight decay would pull the temperature towards 1: give ``log_temperature`` a ``decay_mult`` of
    0 in ``optim_wrapper.paramwise_cfg.custom_keys``.

    Args:
        num_classes: how many classes there are, C.
        embedding_size: the embeddings' width, D.
        temperature: where it starts; cosines are divided by it.
        min_temperature: it goes no lower.
        max_temperature: it goes no higher.

    Attributes:
        W: the proxies ``(D, C)``.
        log_temperature: the natural logarithm of the temperature, a scalar parameter.

    Raises:
        ValueError: a size that is not positive, or a temperature outside its bounds.

    Example:
        >>> loss = LearnableTemperatureSoftmaxLoss(num_classes=3, embedding_size=4)
        >>> round(loss.temperature, 2), loss.get_logits(torch.eye(4)[:2]).shape
        (0.05, torch.Size([2, 3]))
    """

    def __init__(self, num_classes: int, embedding_size: int, temperature: float = 0.05,
                 min_temperature: float = 0.01, max_temperature: float = 1.0) -> None:
        super().__init__()
        whole_number('num_classes', num_classes)
        whole_number('embedding_size', embedding_size)
        if not 0 < min_temperature <= temperature <= max_temperature:
            raise ValueError('temperature must be between its bounds, all above 0; got '
                             f'{min_temperature!r} <= {temperature!r} <= {max_temperature!r}.')
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.bounds = (math.log(min_temperature), math.log(max_temperature))
        self.W = nn.Parameter(torch.randn(embedding_size, num_classes))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> float:
        """The present temperature."""
        return float(self.log_temperature.detach().exp())

    def get_logits(self, embeddings: Tensor) -> Tensor:
        """The logits ``(B, C)`` of embeddings ``(B, D)``."""
        cosine = normalize(embeddings) @ normalize(self.W.T).T
        return cosine * torch.exp(-self.log_temperature)

    def forward(self, embeddings: Tensor, labels: Tensor,
                indices_tuple: Indices | None = None) -> Tensor:
        """The loss, a scalar.

        Args:
            embeddings: ``(B, D)`` float, of any length.
            labels: ``(B,)`` int64 below ``num_classes``.
            indices_tuple: of a miner; embeddings count by how often it named them.
        """
        if self.training:  # not clamped in the graph: beyond a bound it would have no gradient
            with torch.no_grad():
                self.log_temperature.clamp_(*self.bounds)
        losses = functional.cross_entropy(self.get_logits(embeddings), labels, reduction='none')
        return (losses * element_weights(embeddings, indices_tuple)).mean()

    def extra_repr(self) -> str:
        """The arguments."""
        return (f'num_classes={self.num_classes}, embedding_size={self.embedding_size}, '
                f'temperature={self.temperature:g}')

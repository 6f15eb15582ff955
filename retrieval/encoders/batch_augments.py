"""Augmentations that mix the images of a batch, and their labels with them.

They draw from torch's global generator, so that seeding torch reproduces them.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..checks import real_number, whole_number
from ..registry import BATCH_AUGMENTS

BatchAugment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@BATCH_AUGMENTS.register_module()
class Mixup:
    """Every image becomes a weighted mean of itself and another one of the batch.

    One share ``lam ~ Beta(alpha, alpha)`` is drawn for a batch (Zhang et al., "mixup: Beyond
    Empirical Risk Minimization", ICLR 2018).

    Args:
        alpha: both parameters of the Beta distribution, above 0.
        num_classes: how many classes the labels have, where the data preprocessor is not told.

    Raises:
        ValueError: ``alpha`` is not above 0, or ``num_classes`` is not a positive integer.

    Example:
        >>> images, scores = torch.rand(4, 3, 8, 8), torch.eye(4)
        >>> mixed, shares = Mixup(alpha=1.0)(images, scores)
        >>> shares.sum(1).round().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, alpha: float, num_classes: int | None = None) -> None:
        self.alpha = real_number('alpha', alpha, above=0)
        self.num_classes = None if num_classes is None else whole_number('num_classes', num_classes)

    def __call__(self, inputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``inputs (B, C, H, W)`` and ``scores (B, num_classes)``; neither is changed."""
        lam, partner = self.draw(len(inputs))
        partner = partner.to(inputs.device)
        mixed = lam * inputs + (1 - lam) * inputs[partner]
        return mixed, mix_scores(scores, partner, lam)

    def draw(self, batch_size: int) -> tuple[float, Tensor]:
        """An image's own share, and the row ``(B,)`` of the batch that each is mixed with."""
        lam = torch.distributions.Beta(self.alpha, self.alpha).sample().item()
        return lam, torch.randperm(batch_size)


@BATCH_AUGMENTS.register_module()
class CutMix(Mixup):
    """A box of every image is replaced by the same box of another one of the batch.

    The box has the share ``1 - lam`` of the area and the image's aspect ratio, its centre is
    uniform, and what falls outside the image is cut off (Yun et al., "CutMix", ICCV 2019).

    Args:
        alpha: both parameters of the Beta distribution of ``lam``, above 0.
        cutmix_minmax: draw the box's sides uniformly between these shares of the image's instead.
        correct_lam: label with the area that was really replaced, after cutting off.
        num_classes: how many classes the labels have, where the data preprocessor is not told.

    Raises:
        ValueError: an argument outside the range that is named here.

    Example:
        >>> mixed, shares = CutMix(alpha=1.0)(torch.rand(4, 3, 8, 8), torch.eye(4))
        >>> mixed.shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self, alpha: float, cutmix_minmax: Sequence[float] | None = None,
                 correct_lam: bool = True, num_classes: int | None = None) -> None:
        super().__init__(alpha, num_classes)
        if cutmix_minmax is not None and not (
                len(cutmix_minmax) == 2 and 0 <= cutmix_minmax[0] <= cutmix_minmax[1] <= 1):
            raise ValueError('cutmix_minmax must be two shares (low, high) with 0 <= low <= high '
                             f'<= 1, got {cutmix_minmax!r}.')
        self.cutmix_minmax = cutmix_minmax
        self.correct_lam = correct_lam

    def __call__(self, inputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``inputs (B, C, H, W)`` and ``scores (B, num_classes)``; neither is changed."""
        lam, partner = self.draw(len(inputs))
        partner = partner.to(inputs.device)
        height, width = inputs.shape[-2:]
        box = top, bottom, left, right = self.draw_box(height, width, lam)
        if self.correct_lam or self.cutmix_minmax is not None:
            lam = 1 - (bottom - top) * (right - left) / (height * width)
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = self.pasted(inputs[partner], box)
        return mixed, mix_scores(scores, partner, lam)

    def pasted(self, others: Tensor, box: tuple[int, int, int, int]) -> Tensor:
        """What of the other images ``(B, C, H, W)`` fills the box."""
        top, bottom, left, right = box
        return others[..., top:bottom, left:right]

    def draw_box(self, height: int, width: int, lam: float) -> tuple[int, int, int, int]:
        """Rows ``top:bottom`` and columns ``left:right`` that are replaced."""
        if self.cutmix_minmax is not None:
            low, high = self.cutmix_minmax
            rows, columns = (_integer(int(size * low), int(size * high))
                             for size in (height, width))
            top, left = _integer(0, height - rows), _integer(0, width - columns)
            return top, top + rows, left, left + columns
        side = (1 - lam) ** 0.5
        rows, columns = int(height * side), int(width * side)
        top = _integer(0, height - 1) - rows // 2
        left = _integer(0, width - 1) - columns // 2
        return max(top, 0), min(top + rows, height), max(left, 0), min(left + columns, width)


@BATCH_AUGMENTS.register_module()
class ResizeMix(CutMix):
    """Another image of the batch, whole and made smaller, is pasted over a box of every image.

    The box is drawn as CutMix draws it; an image keeps the share ``lam`` of its area, which is
    ``Beta(alpha, alpha)`` stretched from ``lam_min`` to ``lam_max`` (Qin et al., "ResizeMix: Mixing
    Data with Preserved Object Information and True Labels", 2020, with alpha=1).

    Args:
        alpha: both parameters of the Beta distribution, above 0.
        lam_min: the least share that an image keeps.
        lam_max: the largest.
        interpolation: how images are made smaller, a mode of
            :func:`torch.nn.functional.interpolate`.
        prob: the share of batches that are mixed.
        cutmix_minmax: draw the box's sides uniformly between these shares of the image's instead.
        correct_lam: label with the area that was really covered, after cutting off.
        num_classes: how many classes the labels have, where the data preprocessor is not told.

    Raises:
        ValueError: an argument outside the range that is named here.

    Example:
        >>> mixed, shares = ResizeMix(alpha=1.0)(torch.rand(4, 3, 8, 8), torch.eye(4))
        >>> mixed.shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self, alpha: float, lam_min: float = 0.1, lam_max: float = 0.8,
                 interpolation: str = 'bilinear', prob: float = 1.0,
                 cutmix_minmax: Sequence[float] | None = None, correct_lam: bool = True,
                 num_classes: int | None = None) -> None:
        super().__init__(alpha, cutmix_minmax, correct_lam, num_classes)
        if not 0 <= lam_min <= lam_max <= 1:
            raise ValueError('lam_min and lam_max must be shares with 0 <= lam_min <= lam_max <= '
                             f'1, got {lam_min} and {lam_max}.')
        if interpolation not in ('nearest', 'bilinear', 'bicubic', 'area', 'nearest-exact'):
            raise ValueError('interpolation must be nearest, bilinear, bicubic, area or '
                             f'nearest-exact, got {interpolation!r}.')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be a share from 0 to 1, got {prob}.')
        self.lam_min, self.lam_max = lam_min, lam_max
        self.interpolation = interpolation
        self.prob = prob

    def __call__(self, inputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mix ``inputs (B, C, H, W)`` and ``scores (B, num_classes)``; neither is changed."""
        if float(torch.rand(())) >= self.prob:
            return inputs, scores
        return super().__call__(inputs, scores)

    def draw(self, batch_size: int) -> tuple[float, Tensor]:
        lam, partner = super().draw(batch_size)
        return lam * (self.lam_max - self.lam_min) + self.lam_min, partner

    def pasted(self, others: Tensor, box: tuple[int, int, int, int]) -> Tensor:
        top, bottom, left, right = box
        if bottom == top or right == left:
            return others[..., :bottom - top, :right - left]
        return functional.interpolate(others, size=(bottom - top, right - left),
                                      mode=self.interpolation)


def _integer(low: int, high: int) -> int:
    """An integer between ``low`` and ``high``, both possible."""
    return int(torch.randint(low, high + 1, ()))


def mix_scores(scores: Tensor, partner: Tensor, lam: float) -> Tensor:
    """Labels ``(B, num_classes)`` mixed as their images were; every row keeps its sum."""
    return lam * scores + (1 - lam) * scores[partner]


class RandomBatchAugment:
    """One of several batch augmentations, drawn anew for every batch.

    Args:
        augments: an augmentation, its config, or a list of those.
        probs: the probability of each; what is left up to 1 does nothing. None: each the same.

    Raises:
        ValueError: no augmentation, probabilities of another number or with a sum above 1, or
            augmentations that disagree on the number of classes.
        TypeError: an augmentation that is neither config nor callable.

    Example:
        >>> augment = RandomBatchAugment([dict(type='Mixup', alpha=0.8)], probs=[0.5])
        >>> augment(torch.rand(4, 3, 8, 8), torch.eye(4))[0].shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(self,
                 augments: BatchAugment | dict[str, Any] | Sequence[BatchAugment | dict[str, Any]],
                 probs: float | Sequence[float] | None = None) -> None:
        listed = list(augments) if isinstance(augments, (list, tuple)) else [augments]
        if not listed:
            raise ValueError('augments is empty: name at least one, as dict(type="Mixup", '
                             'alpha=0.8), or leave the batch augmentation out.')
        self.augments = [_build(augment) for augment in listed]
        self.probs = _checked_probs(probs, len(self.augments))

    @property
    def num_classes(self) -> int | None:
        """The number of classes that the augmentations were told, or None."""
        told = {count for augment in self.augments
                if (count := getattr(augment, 'num_classes', None)) is not None}
        if len(told) > 1:
            raise ValueError(f'The batch augmentations disagree on num_classes: {sorted(told)}.')
        return told.pop() if told else None

    def __call__(self, inputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Augment ``inputs (B, C, H, W)`` and ``scores (B, num_classes)``, or return them."""
        chosen = int(torch.multinomial(self.probs, 1))
        if chosen == len(self.augments):
            return inputs, scores
        return self.augments[chosen](inputs, scores)


def _build(augment: Any) -> BatchAugment:
    if isinstance(augment, dict):
        return BATCH_AUGMENTS.build(augment)
    if callable(augment):
        return augment
    raise TypeError('A batch augmentation must be a config such as dict(type="Mixup", alpha=0.8) '
                    f'or a callable, got {type(augment).__name__}.')


def _checked_probs(probs: float | Sequence[float] | None, count: int) -> Tensor:
    """Probabilities ``(count + 1,)``; the last is that of doing nothing."""
    if probs is None:
        return torch.tensor([1 / count] * count + [0.0])
    listed = [probs] if isinstance(probs, (int, float)) else probs
    given = [float(p) for p in listed]
    if len(given) != count:
        raise ValueError(f'probs has {len(given)} entries for {count} batch augmentations: give '
                         'one for each.')
    if min(given) < 0 or sum(given) > 1 + 1e-6:
        raise ValueError(f'probs must be at least 0 and sum to at most 1, got {given}.')
    return torch.tensor([*given, max(0.0, 1 - sum(given))])

"""Augmentations that mix the images of a batch, and their labels with them.

They draw from torch's global generator, so that seeding torch reproduces them.

From the loader's batch to the model's: stacked, on the device, normalised on request.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn import functional

from ..registry import BATCH_AUGMENTS, MODELS
from ..structures import sample_id_of

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
    """

    def __init__(self, alpha: float, num_classes: int | None = None) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha > 0:
            raise ValueError(f'{type(self).__name__} needs alpha above 0, got {alpha!r}.')
        if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
            raise ValueError(f'num_classes must be a positive integer, got {num_classes!r}.')
        self.alpha = float(alpha)
        self.num_classes = num_classes

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
        top, bottom, left, right = self.draw_box(height, width, lam)
        if self.correct_lam or self.cutmix_minmax is not None:
            lam = 1 - (bottom - top) * (right - left) / (height * width)
        mixed = inputs.clone()
        mixed[..., top:bottom, left:right] = inputs[partner, :, top:bottom, left:right]
        return mixed, mix_scores(scores, partner, lam)

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
    """

    def __init__(self, augments: BatchAugment | dict | Sequence[BatchAugment | dict],
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


@MODELS.register_module()
class RetrievalDataPreprocessor(BaseDataPreprocessor):
    """Stack the images of a batch to ``(B, C, H, W)`` float32 on the model's device.

    By default nothing is normalised. In order: channels are reversed (``to_rgb``), the values
    become float32 and normalised, images of unequal size are padded at the bottom and the right
    to the largest of the batch, and labels and images are mixed (in training only).

    A padded image depends on the batch that it is in, and so does its embedding: give images of
    one size wherever figures count.

    Args:
        mean: subtracted, one number a channel or one for all; in the unit of the pixels.
        std: divided by, as ``mean``, which it comes together with.
        to_rgb: reverse the channels of three-channel images.
        pad_size_divisor: pad height and width to multiples of this.
        pad_value: what is padded with, after normalisation.
        to_onehot: give every sample a ``gt_score`` made from its ``gt_label``.
        num_classes: the length of ``gt_score``; needed by ``to_onehot`` and batch augmentation.
        batch_augments: the arguments of :class:`RandomBatchAugment` as a dict (``augments`` and
            ``probs``), or a callable ``(inputs, scores) -> (inputs, scores)``. In training every
            sample then gets a mixed ``gt_score (num_classes,)``; ``gt_label`` stays its own class.
        non_blocking: copy to the device without waiting.

    Raises:
        ValueError: ``mean`` without ``std`` or of another length, a zero in ``std``, or a padding
            that is not positive.
        TypeError: arguments of another type.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                 to_rgb: bool = False, pad_size_divisor: int = 1, pad_value: float = 0,
                 to_onehot: bool = False, num_classes: int | None = None,
                 batch_augments: Any = None, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self._norm = _checked_norm(mean, std)
        if self._norm is not None:
            for name, values in zip(('mean', 'std'), self._norm, strict=True):
                self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        if not isinstance(pad_size_divisor, int) or pad_size_divisor < 1:
            raise ValueError('pad_size_divisor must be a positive integer, got '
                             f'{pad_size_divisor!r}.')
        if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
            raise ValueError(f'num_classes must be a positive integer, got {num_classes!r}.')
        self.to_rgb = to_rgb
        self.pad_size_divisor = pad_size_divisor
        self.pad_value = pad_value
        self.to_onehot = to_onehot
        self.num_classes = num_classes
        self.batch_augments = _build_augments(batch_augments)

    def settings(self) -> dict[str, Any]:
        """All that changes an image's encoding at test time, as plain values for JSON."""
        mean, std = self._norm or (None, None)
        return {'type': type(self).__name__, 'mean': mean, 'std': std, 'to_rgb': self.to_rgb,
                'pad_size_divisor': self.pad_size_divisor, 'pad_value': float(self.pad_value)}

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """A batch for the model.

        Args:
            data: ``inputs``: images ``(C, H, W)`` in a list, a tensor ``(B, C, H, W)``, or a list
                of either, one a view; any real dtype. ``data_samples``: a sample an image, or
                absent.
            training: whether to augment the batch.

        Returns:
            ``inputs``: ``(B, C, H, W)`` float32, a list of those where views were given;
            ``data_samples``: the samples on the device, or None.

        Raises:
            ValueError: an empty batch, images of another rank or of unequal channels, or another
                number of samples than of images.
            TypeError: something else than tensors of real numbers.
        """
        if not isinstance(data, Mapping) or 'inputs' not in data:
            raise TypeError('A batch must be dict(inputs=…, data_samples=…), got '
                            f'{sorted(data) if isinstance(data, Mapping) else type(data)}.')
        given = data['inputs']
        if _are_views(given):
            inputs: Any = [self.encode(view) for view in given]
        else:
            inputs = self.encode(given)
        samples = data.get('data_samples')
        count = len(inputs[0]) if _are_views(given) else len(inputs)
        if samples is not None and len(samples) != count:
            raise ValueError(f'A batch has {count} images and {len(samples)} data samples.')
        mixing = training and self.batch_augments is not None
        labelled = samples is not None and all('gt_label' in sample for sample in samples)
        if mixing or (self.to_onehot and labelled):
            inputs, samples = self.score(inputs, samples, mixing)
        return {'inputs': inputs, 'data_samples': self.move(samples)}

    def encode(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Images as one batch ``(B, C, H, W)`` float32 on the device."""
        if isinstance(images, Tensor):
            _check_image(images, 4)
            return self._pad(self._normalize(self.cast_data(images)))
        for image in images:
            _check_image(image, 3)
        if len({image.shape[0] for image in images}) != 1:
            raise ValueError('A batch needs images of one number of channels, got '
                             f'{sorted({image.shape[0] for image in images})}.')
        if len({image.shape for image in images}) == 1:
            batch = torch.stack(list(images))  # one copy to the device, in the bytes it came in
            return self._pad(self._normalize(self.cast_data(batch)))
        height = max(image.shape[1] for image in images)
        width = max(image.shape[2] for image in images)
        return torch.cat([self._pad(self._normalize(self.cast_data(image[None])), height, width)
                          for image in images])

    def _normalize(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        if self.to_rgb and channels == 3:
            images = images.flip(1)
        elif self.to_rgb and channels != 1:
            raise ValueError(f'to_rgb reverses three channels, the images have {channels}.')
        given, images = images, images.float()
        if self._norm is None:
            return images
        if self.mean.shape[0] not in (1, channels):
            raise ValueError(f'mean and std have {self.mean.shape[0]} numbers for images of '
                             f'{channels} channels: give one a channel, or one for all.')
        if images is given:  # float32 already, and perhaps the caller's own
            return (images - self.mean).div_(self.std)
        return images.sub_(self.mean).div_(self.std)  # in place: fresh memory costs more

    def _pad(self, images: Tensor, height: int = 0, width: int = 0) -> Tensor:
        """Pad to this size at least, and to multiples of the divisor."""
        rows, columns = images.shape[-2:]
        step = self.pad_size_divisor
        bottom = -(-max(rows, height) // step) * step - rows
        right = -(-max(columns, width) // step) * step - columns
        if not bottom and not right:
            return images
        return functional.pad(images, (0, right, 0, bottom), value=self.pad_value)

    def move(self, samples: Any) -> Any:
        """The samples with their tensors on the device, the same objects.

        Tensors of one name and shape travel together: a copy for every label would cost more
        than the images'.
        """
        if samples is None or not all(isinstance(s, BaseDataElement) for s in samples):
            return self.cast_data(samples)
        device = torch.device(self.device)
        elsewhere = defaultdict(list)
        for sample in samples:
            for name, value in sample.items():
                if isinstance(value, Tensor) and not _is_on(value, device):
                    elsewhere[name, value.shape, value.dtype, value.device].append(sample)
        for (name, *_), owners in elsewhere.items():
            together = self.cast_data(torch.stack([sample.get(name) for sample in owners]))
            for sample, value in zip(owners, together, strict=True):
                setattr(sample, name, value)
        return samples

    def score(self, inputs: Any, samples: Any, mixing: bool) -> tuple[Any, list]:
        """Give the samples a ``gt_score``, mixed together with the images if asked.

        Copies of them get the mixed one, because a dataset may hand out the same sample again.
        """
        num_classes = self.num_classes or getattr(self.batch_augments, 'num_classes', None)
        if num_classes is None:
            raise ValueError('Mixed and one-hot labels need the number of classes: set '
                             'data_preprocessor=dict(num_classes=…).')
        if mixing and not isinstance(inputs, Tensor):
            raise ValueError('Batch augmentation mixes one view of the images, got several: leave '
                             'train_cfg and batch_augments out.')
        if samples is None:
            raise ValueError('Batch augmentation mixes labels, and the batch has no data_samples.')
        scores = torch.stack([_class_score(sample, i, num_classes)
                              for i, sample in enumerate(samples)]).to(self.device)
        if mixing:
            inputs, scores = self.batch_augments(inputs, scores)
        labelled = [sample.new() for sample in samples] if mixing else samples
        for sample, score in zip(labelled, scores, strict=True):
            sample.set_field(score, 'gt_score', dtype=Tensor)
        return inputs, labelled


def _checked_norm(mean: Any, std: Any) -> tuple[list[float], list[float]] | None:
    """Mean and std as lists, or None."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise ValueError('Normalisation needs both mean and std, got only '
                         f'{"std" if mean is None else "mean"}.')
    lists = []
    for name, values in (('mean', mean), ('std', std)):
        values = [values] if isinstance(values, (int, float)) else values
        if isinstance(values, str) or not isinstance(values, Sequence) or not all(
                isinstance(value, (int, float)) for value in values):
            raise TypeError(f'{name} must be numbers, one a channel, got {values!r}.')
        lists.append([float(value) for value in values])
    if len(lists[0]) != len(lists[1]) or not lists[0]:
        raise ValueError(f'mean and std must be of one length, got {len(lists[0])} and '
                         f'{len(lists[1])} numbers.')
    if not all(value > 0 for value in lists[1]):
        raise ValueError(f'std must be above 0, got {lists[1]}.')
    return lists[0], lists[1]


def _build_augments(batch_augments: Any) -> Any:
    if not batch_augments:
        return None
    if isinstance(batch_augments, Mapping) and 'augments' in batch_augments:
        unknown = sorted(set(batch_augments) - {'augments', 'probs'})
        if unknown:
            raise ValueError(f'Batch augmentation takes augments and probs, not {unknown}.')
        return RandomBatchAugment(**batch_augments)
    if isinstance(batch_augments, (list, tuple, dict)):
        return RandomBatchAugment(batch_augments)
    if callable(batch_augments):
        return batch_augments
    raise TypeError('batch_augments must be dict(augments=[…], probs=[…]) or a callable, got '
                    f'{type(batch_augments).__name__}.')


def _is_on(value: Tensor, device: torch.device) -> bool:
    """Whether a tensor is on the device; one without a number stands for any of its type."""
    return value.device.type == device.type and device.index in (None, value.device.index)


def _are_views(inputs: Any) -> bool:
    """Whether it is a list of batches instead of one batch."""
    if isinstance(inputs, Tensor):
        return False
    if not isinstance(inputs, (list, tuple)):
        raise TypeError('inputs must be a tensor (B, C, H, W) or a list of images (C, H, W), got '
                        f'{type(inputs).__name__}.')
    if not inputs or (isinstance(inputs[0], (list, tuple)) and not inputs[0]):
        raise ValueError('The batch is empty: inputs holds no image.')
    first = inputs[0]
    return isinstance(first, (list, tuple)) or (isinstance(first, Tensor) and first.ndim == 4)


def _check_image(image: Any, rank: int) -> None:
    if not isinstance(image, Tensor):
        raise TypeError(f'Images must be tensors, got {type(image).__name__}: let the pipeline '
                        'end in a packing transform.')
    if image.dtype == torch.bool or image.is_complex():
        raise TypeError(f'Images must be real numbers, got {image.dtype}.')
    if image.ndim != rank:
        shape = '(B, C, H, W)' if rank == 4 else '(C, H, W) in a list'
        raise ValueError(f'Images must be {shape}, got shape {tuple(image.shape)}.')


def _class_score(sample: BaseDataElement, position: int, num_classes: int) -> Tensor:
    """The label of a sample as weights ``(num_classes,)`` float32."""
    name = sample_id_of(sample, position)
    score = sample.get('gt_score')
    if score is not None:
        if score.shape != (num_classes,):
            raise ValueError(f'gt_score of sample {name!r} has shape {tuple(score.shape)} for '
                             f'{num_classes} classes.')
        return score.float()
    label = sample.get('gt_label')
    if label is None or label.numel() != 1:
        raise ValueError(f'Sample {name!r} has no single gt_label to make a mixed label from.')
    if not 0 <= int(label) < num_classes:
        raise ValueError(f'gt_label {int(label)} of sample {name!r} is outside 0 … '
                         f'{num_classes - 1}: num_classes is {num_classes}.')
    return functional.one_hot(label.reshape(()), num_classes).float()

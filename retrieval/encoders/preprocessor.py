"""From the loader's batch to the model's: stacked, on the device, normalised on request."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn import functional

from ..checks import whole_number
from ..registry import MODELS
from ..structures import sample_id_of
from .batch_augments import RandomBatchAugment


@MODELS.register_module()
class RetrievalDataPreprocessor(BaseDataPreprocessor):
    """Stack the images of a batch to ``(B, C, H, W)`` float32 on the model's device.

    By default nothing is normalised; a retriever fills in the normalisation that its encoder's
    pretrained weights want, see :func:`retrieval.encoders.fill_in`. In order: channels are reversed
    (``to_rgb``), the values become float32 and normalised, images of unequal size are padded at the
    bottom and the right to the largest of the batch, and labels and images are mixed (in training
    only).

    A padded image depends on the batch that it is in, and so would its embedding: outside training
    a retriever encodes the sizes of a batch one after the other (:func:`parts_of_one_size`).

    Args:
        mean: subtracted, one number a channel or one for all; in the unit of the pixels.
        std: divided by, as ``mean``, which it comes together with.
        only_bytes: normalise uint8 images alone; others the pipeline has normalised.
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

    Example:
        >>> preprocessor = RetrievalDataPreprocessor(mean=[127.5] * 3, std=[127.5] * 3)
        >>> batch = dict(inputs=[torch.full((3, 4, 4), 255, dtype=torch.uint8)], data_samples=None)
        >>> preprocessor(batch)['inputs'].max().item()
        1.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
                 to_rgb: bool = False, pad_size_divisor: int = 1, pad_value: float = 0,
                 to_onehot: bool = False, num_classes: int | None = None,
                 batch_augments: Any = None, non_blocking: bool = False, *,
                 only_bytes: bool = False) -> None:
        super().__init__(non_blocking)
        self._norm = _checked_norm(mean, std)
        if self._norm is not None:
            for name, values in zip(('mean', 'std'), self._norm, strict=True):
                self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        if num_classes is not None:
            whole_number('num_classes', num_classes)
        self.only_bytes = only_bytes
        self.to_rgb = to_rgb
        self.pad_size_divisor = whole_number('pad_size_divisor', pad_size_divisor)
        self.pad_value = pad_value
        self.to_onehot = to_onehot
        self.num_classes = num_classes
        self.batch_augments = _build_augments(batch_augments)

    def settings(self) -> dict[str, Any]:
        """All that changes an image's encoding at test time, as plain values for JSON."""
        mean, std = self._norm or (None, None)
        return {'type': type(self).__name__, 'mean': mean, 'std': std, 'to_rgb': self.to_rgb,
                'pad_size_divisor': self.pad_size_divisor, 'pad_value': float(self.pad_value),
                **({'only_bytes': True} if self.only_bytes else {})}

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
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
        if self._norm is None or self.only_bytes and given.dtype != torch.uint8:
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

    def score(self, inputs: Any, samples: Any, mixing: bool) -> tuple[Any, list[Any]]:
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


def parts_of_one_size(batch: Mapping[str, Any]) -> Iterator[tuple[list[int], Mapping[str, Any]]]:
    """A batch in parts whose images have one height and width, so that none is padded.

    Args:
        batch: ``dict(inputs, data_samples)`` as a loader gives it.

    Yields:
        The places of the part's images in the batch, and the part; the batch itself where it has
        one size already, or several views.

    Example:
        >>> images = [torch.zeros(3, 4, 4), torch.zeros(3, 2, 2), torch.ones(3, 4, 4)]
        >>> [places for places, _ in parts_of_one_size(dict(inputs=images))]
        [[0, 2], [1]]
    """
    images = batch['inputs']
    places = defaultdict(list)
    if not _are_views(images) and all(isinstance(image, Tensor) for image in images):
        for place, image in enumerate(images):
            places[image.shape[-2:]].append(place)
    if len(places) < 2 or any(len(values) != len(images) for values in batch.values() if values):
        yield list(range(len(images))), batch
        return
    for some in places.values():
        yield some, {name: [values[place] for place in some] if values else values
                     for name, values in batch.items()}


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
    """True where a tensor is on the device; one without a number stands for any of its type."""
    return value.device.type == device.type and device.index in (None, value.device.index)


def _are_views(inputs: Any) -> bool:
    """True where it is a list of batches instead of one batch."""
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

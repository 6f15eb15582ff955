"""The targets of a batch: classes and mixed labels, read off its data samples."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..structures import as_labels, sample_id_of


def class_labels(data_samples: Sequence[BaseDataElement] | None, count: int) -> Tensor:
    """The classes of a batch, ``(B,)`` int64.

    Args:
        data_samples: the samples, each with one ``gt_label``.
        count: how many embeddings there are, B.

    Raises:
        ValueError: no samples or another number of them, or a sample without a class, with
            several, or with a negative one (which would index from the end).
    """
    _check_count(data_samples, count)
    samples = data_samples or ()
    labels = [sample.get('gt_label') for sample in samples]
    if not all(isinstance(label, Tensor) and label.dtype == torch.int64 and label.shape == (1,)
               for label in labels):  # one look at all of them: this runs in every iteration
        labels = [_class_of(sample, row) for row, sample in enumerate(samples)]
    joined = torch.cat(labels)
    check_classes(joined, None, samples)
    return joined


def _class_of(sample: BaseDataElement, position: int) -> Tensor:
    """One sample's class, ``(1,)`` int64."""
    name = sample_id_of(sample, position)
    label = sample.get('gt_label')
    if label is None:
        raise ValueError(f'Sample {name!r} has no gt_label, and the loss needs the class of every '
                         'sample: does the dataset have labels, and does the pipeline keep them?')
    label = as_labels(label, 'gt_label')
    if label.numel() != 1:
        raise ValueError(f'gt_label of sample {name!r} has {label.numel()} classes, and the loss '
                         'takes one a sample.')
    return label


def soft_labels(data_samples: Sequence[BaseDataElement] | None, count: int,
                num_classes: int) -> Tensor | None:
    """The mixed labels of a batch, ``(B, num_classes)`` float32, or None where no sample has one.

    Raises:
        ValueError: only some samples have a ``gt_score``, or one has another length.
    """
    _check_count(data_samples, count)
    samples = data_samples or ()
    scores = [sample.get('gt_score') for sample in samples]
    if all(score is None for score in scores):
        return None
    for position, (sample, score) in enumerate(zip(samples, scores, strict=True)):
        if score is None or tuple(score.shape) != (num_classes,):
            given = 'none' if score is None else f'shape {tuple(score.shape)}'
            raise ValueError(f'The batch has mixed labels, and gt_score of sample '
                             f'{sample_id_of(sample, position)!r} is {given} for {num_classes} '
                             'classes.')
    return torch.stack(scores).float()


def check_classes(labels: Tensor, num_classes: int | None,
                  data_samples: Sequence[BaseDataElement], owner: str = 'the loss') -> None:
    """Refuse classes that would index something else than their own weights.

    Args:
        labels: ``(B,)`` int64, or ``(V · B,)`` of several views of the samples.
        num_classes: labels must be below this; None: only not negative.
        data_samples: the samples that they came from.
        owner: whose number of classes it is, for the message.

    Raises:
        ValueError: a label is out of range; its sample is named.
    """
    wrong = labels < 0 if num_classes is None else (labels < 0) | (labels >= num_classes)
    if not bool(wrong.any()):
        return
    position = int(wrong.nonzero()[0])
    name = sample_id_of(data_samples[position % len(data_samples)], position)
    why = ('classes are numbered from 0' if num_classes is None else
           f'{owner} has num_classes={num_classes}, so classes go from 0 to {num_classes - 1}')
    raise ValueError(f'gt_label of sample {name!r} is {int(labels[position])}: {why}.')


def _check_count(data_samples: Sequence[BaseDataElement] | None, count: int) -> None:
    if data_samples is None or len(data_samples) != count:
        given = 'no' if data_samples is None else len(data_samples)
        raise ValueError(f'The loss was given {count} embeddings and {given} data samples: give '
                         'one sample an embedding.')

"""A data sample, and the neighbours that a search returns."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from .registry import nearest_names  # noqa: F401  (installs the compatibility layer first)

Labels = int | Sequence[int] | np.ndarray | Tensor


def as_labels(value: Any, name: str = 'label') -> Tensor:
    """``value`` as a one-dimensional int64 tensor.

    Raises:
        ValueError: it holds fractions, non-finite or missing numbers, or such that 64 bits do not
            hold (the first is named with its row), or has more than one dimension.
        TypeError: it is no number, sequence, array or tensor of numbers.
    """
    try:
        label = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError) as error:
        _refuse_first(value, name)
        raise TypeError(f'{name} must be an integer or a sequence, array or tensor of integers, '
                        f'got {type(value).__name__}.') from error
    if label.dtype == torch.uint64 or label.is_floating_point():
        # NaN, infinity and fractions differ from their remainder, what is too large is refused too
        real = label.reshape(-1)
        wrong = real.to(torch.int64) < 0 if label.dtype == torch.uint64 else ~(
            (real == real.round()) & (real >= -2. ** 63) & (real < 2. ** 63))
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(_refusal(name, label.reshape(-1)[row].item(), row))
    elif label.is_complex() or label.dtype == torch.bool:
        raise TypeError(f'{name} must be integers, got dtype {label.dtype}.')
    if label.ndim > 1:
        raise ValueError(f'{name} must be a number or one-dimensional, got {tuple(label.shape)}.')
    return label.reshape(-1).to(torch.int64)


def _refuse_first(values: Any, name: str) -> None:
    """Raise for the first of several values that is no whole number of 64 bits."""
    if isinstance(values, (str, bytes)) or not hasattr(values, '__iter__'):
        return
    for row, value in enumerate(values):
        if isinstance(value, (str, bytes)):
            raise TypeError(_refusal(name, value, row))
        if value is None or isinstance(value, float) and value != value or \
                isinstance(value, int) and not -2 ** 63 <= value < 2 ** 63:
            raise ValueError(_refusal(name, value, row))


def _refusal(name: str, value: Any, row: int) -> str:
    return (f'{name} must be integers of 64 bits, got {value!r} in row {row}: give whole numbers, '
            'or, for classes of a gallery or an evaluation, names (strings) for all rows.')


def as_scores(value: Any, name: str = 'score') -> Tensor:
    """``value`` as a one-dimensional float32 tensor.

    Raises:
        ValueError: it has another number of dimensions than one.
    """
    score = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if score.ndim != 1:
        raise ValueError(f'{name} must be one-dimensional, got {tuple(score.shape)}.')
    return score.to(torch.float32)


class RetrievalDataSample(BaseDataElement):
    """One image's annotations and results.

    Meta fields: ``sample_idx`` int, its row in its dataset; ``sample_id`` str, equal only for the
    same picture; ``img_path`` str. Data fields: ``gt_label (1,)`` int64, its class;
    ``gt_indices (R,)`` int64, the relevant rows of the gallery where the dataset names them;
    ``gt_score (C,)`` float32 when labels are mixed; ``pred_score (k,)`` float32 descending and
    ``pred_label (k,)`` int64, rows of the gallery aligned with it; ``embedding (D,)`` float32;
    where pictures were compared, ``pred_match``, a list aligned with these, see
    :class:`Neighbors`.

    Example:
        >>> sample = RetrievalDataSample(metainfo=dict(sample_id='a.jpg')).set_gt_label(3)
        >>> sample.gt_label.tolist(), sample.sample_id
        ([3], 'a.jpg')
    """

    def set_gt_label(self, value: Labels) -> RetrievalDataSample:
        """Set the class. Raises ValueError for a fraction, TypeError for no number."""
        self.set_field(as_labels(value, 'gt_label'), 'gt_label', dtype=Tensor)
        return self

    def set_gt_indices(self, value: Labels) -> RetrievalDataSample:
        """Set the relevant rows of the gallery, ``(R,)`` int64."""
        self.set_field(as_labels(value, 'gt_indices'), 'gt_indices', dtype=Tensor)
        return self

    def set_gt_score(self, value: Sequence[float] | np.ndarray | Tensor) -> RetrievalDataSample:
        """Set the mixed label, ``(C,)`` float32, one weight a class."""
        self.set_field(as_scores(value, 'gt_score'), 'gt_score', dtype=Tensor)
        return self

    def set_pred_label(self, value: Labels) -> RetrievalDataSample:
        """Set the rows of the gallery that were found, ``(k,)`` int64, best first."""
        self.set_field(as_labels(value, 'pred_label'), 'pred_label', dtype=Tensor)
        return self

    def set_pred_score(self, value: Sequence[float] | np.ndarray | Tensor) -> RetrievalDataSample:
        """Set the similarities of the rows that were found, ``(k,)`` float32, descending."""
        self.set_field(as_scores(value, 'pred_score'), 'pred_score', dtype=Tensor)
        return self


def sample_id_of(sample: Any, default: Any = None) -> str | None:
    """The identity of a sample's picture: ``sample_id``, else path and box, else ``sample_idx``."""
    sample_id = sample.get('sample_id', None)
    if sample_id is not None:
        return str(sample_id)
    path = sample.get('img_path', None)
    if path is not None:
        box = sample.get('box', None)
        return str(path) if box is None else f"{path}#{','.join(str(edge) for edge in box)}"
    index = sample.get('sample_idx', default)
    return None if index is None else str(index)


def _rebuild(cls: type, state: dict[str, Any], tensor_names: list[str]) -> BaseDataElement:
    sample = cls()
    sample.__dict__.update(
        {name: torch.from_numpy(value) if name in tensor_names else value
         for name, value in state.items()})
    return sample


def _reduce(sample: RetrievalDataSample) -> tuple[Any, ...]:
    """Pickle small CPU tensors as arrays: a tensor costs a file descriptor between processes."""
    state = dict(sample.__dict__)
    names = [name for name, value in state.items()
             if isinstance(value, Tensor) and value.device.type == 'cpu']
    state.update({name: state[name].detach().numpy() for name in names})
    return _rebuild, (type(sample), state, names)


ForkingPickler.register(RetrievalDataSample, _reduce)


@dataclass
class Neighbors:
    """The results of a search, best first.

    Args:
        scores: similarities ``(Q, k)`` float32, descending in every row.
        indices: rows of the gallery ``(Q, k)`` int64, aligned with the scores.
        gallery_ids: the id of every row of the gallery, ``(N,)``, or None.
        matches: where a step compared the pictures, for every query a list with, for each of its
            results, where the query lies in it
            (:class:`retrieval.registration.Registration`), or None.

    Where the queries have different numbers of results (one was left out of its own row, or a
    filter left fewer), short rows end in entries with score ``-inf`` and index ``-1``, which
    :attr:`valid` marks False and :meth:`row` and :attr:`ids` leave out.

    Example:
        >>> found = Neighbors(torch.tensor([[0.9, 0.2]]), torch.tensor([[4, 1]]), list('abcde'))
        >>> found.ids
        [['e', 'b']]
    """

    scores: Tensor
    indices: Tensor
    gallery_ids: Sequence[str] | np.ndarray | None = None
    matches: Sequence[Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        if self.scores.shape != self.indices.shape or self.scores.ndim != 2:
            raise ValueError('Neighbors want scores and indices of one shape (Q, k), got '
                             f'{tuple(self.scores.shape)} and {tuple(self.indices.shape)}.')

    def __len__(self) -> int:
        return self.indices.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Unpack as ``scores, indices``."""
        yield self.scores
        yield self.indices

    @property
    def valid(self) -> Tensor:
        """``(Q, k)`` bool: False at the entries that only fill a short row."""
        return self.indices >= 0

    @property
    def lengths(self) -> Tensor:
        """``(Q,)`` int64: how many results each query has."""
        return self.valid.sum(dim=1)

    @property
    def ids(self) -> list[list[str]]:
        """The ids of the results, a list for each query."""
        if self.gallery_ids is None:
            return [[str(i) for i in row if i >= 0] for row in self.indices.tolist()]
        return [[str(self.gallery_ids[i]) for i in row if i >= 0]
                for row in self.indices.tolist()]

    def row(self, query: int) -> tuple[Tensor, Tensor]:
        """The scores and indices of one query, ``(n,)`` each, without filling."""
        length = int((self.indices[query] >= 0).sum())
        return self.scores[query, :length], self.indices[query, :length]

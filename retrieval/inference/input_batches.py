"""What an inference model may be given, in batches; and the embeddings that come of them."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset


def checked_size(batch_size: Any) -> int:
    """``batch_size`` as it is. Raises ValueError where it is no integer of at least 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'batch_size must be an integer of at least 1, got {batch_size!r}.')
    return batch_size


def count_of(inputs: Any) -> int | None:
    """How many inputs there are, where that is known beforehand."""
    source = inputs.dataset if isinstance(inputs, DataLoader) else inputs
    if isinstance(source, IterableDataset) or not hasattr(source, '__len__'):
        return None
    return len(source)


def batches(inputs: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """``(batch, labels)``, labels where a dataset gives them.

    Args:
        inputs: a tensor or array whose rows are inputs, a list of tensors or of whatever the model
            takes, or a dataset or dataloader of ``(input, label)`` or of inputs alone.

    Raises:
        TypeError: it is something else.
        ValueError: the tensors of a list differ in shape.
    """
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(inputs)
    if isinstance(inputs, (Tensor, list)):
        for start in range(0, len(inputs), batch_size):
            yield _stacked(inputs[start:start + batch_size]), None
        return
    if isinstance(inputs, Dataset):
        inputs = DataLoader(inputs, batch_size=batch_size)
    if not isinstance(inputs, DataLoader):
        raise TypeError('What is embedded must be a tensor, array, list, dataset or dataloader, '
                        f'got {type(inputs).__name__}.')
    for item in inputs:
        yield (item[0], item[1] if len(item) > 1 else None) if isinstance(item, (tuple, list)) \
            else (item, None)


def _stacked(batch: Any) -> Any:
    if not isinstance(batch, list) or not all(isinstance(item, Tensor) for item in batch):
        return batch
    shapes = {tuple(item.shape) for item in batch}
    if len(shapes) > 1:
        raise ValueError(f'The tensors of a list must have one shape, got {sorted(shapes)[:3]}.')
    return torch.stack(batch)


class Collected:
    """Embeddings in the order in which they came.

    Args:
        count: how many will come, where that is known: they are then written in place.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self.filled = 0
        self.rows: Tensor | None = None
        self.parts: list[Tensor] = []
        self.labels: list[Tensor] | None = []

    def add(self, embeddings: Tensor, labels: Any) -> None:
        """Take a batch ``(n, D)``; labels are kept where every batch has integers."""
        if self.rows is None and self.count:
            self.rows = embeddings.new_empty(self.count, embeddings.shape[1])
        stop = self.filled + len(embeddings)
        if self.rows is not None and stop <= len(self.rows) and not self.parts:
            self.rows[self.filled:stop] = embeddings
            self.filled = stop
        else:  # more embeddings than inputs, as of a model that takes several for one
            self.parts.append(embeddings)
        integers = isinstance(labels, Tensor) and not labels.is_floating_point() and (
            labels.dtype != torch.bool and labels.shape == (len(embeddings),))
        if self.labels is not None and integers:
            self.labels.append(labels.cpu())
        else:
            self.labels = None

    def joined(self) -> tuple[Tensor, Tensor | None]:
        """All embeddings ``(N, D)``, and their labels ``(N,)`` int64 or None.

        Raises:
            ValueError: there is none.
        """
        parts = ([] if self.rows is None else [self.rows[:self.filled]]) + self.parts
        if not parts:
            raise ValueError('There is nothing to embed: the inputs are empty.')
        labels = torch.cat(self.labels).long() if self.labels else None
        return parts[0] if len(parts) == 1 else torch.cat(parts), labels

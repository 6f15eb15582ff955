"""A queue of the latest embeddings and their labels."""
from __future__ import annotations

import torch
from torch import Tensor, nn


class EmbeddingQueue(nn.Module):
    """The latest ``size`` embeddings and their labels, in a ring.

    All of it is buffers: a checkpoint holds rows, position and count, so that a resumed run goes on
    with the very queue that it left.

    Args:
        size: how many rows it holds, M.
        embedding_size: their width, D.

    Attributes:
        embeddings: ``(M, D)`` float32.
        labels: ``(M,)`` int64.
        position: the row that is written next, a scalar int64.
        filled: how many rows were ever written, at most M, a scalar int64.

    Raises:
        ValueError: a size that is not a positive integer.
    """

    embeddings: Tensor
    labels: Tensor
    position: Tensor
    filled: Tensor

    def __init__(self, size: int, embedding_size: int) -> None:
        super().__init__()
        for name, value in (('size', size), ('embedding_size', embedding_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f'The {name} of a queue of embeddings must be a positive '
                                 f'integer, got {value!r}.')
        self.size = size
        self.register_buffer('embeddings', torch.zeros(size, embedding_size))
        self.register_buffer('labels', torch.zeros(size, dtype=torch.int64))
        self.register_buffer('position', torch.zeros((), dtype=torch.int64))
        self.register_buffer('filled', torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Write rows over the oldest.

        Args:
            embeddings: ``(n, D)``, at most as many as the queue holds.
            labels: ``(n,)`` int64.

        Returns:
            The rows that they were written to, ``(n,)`` int64.

        Raises:
            ValueError: more rows than the queue holds, or rows of another width.
        """
        count, width = embeddings.shape
        if count > self.size:
            raise ValueError(f'{count} embeddings were to be put into a queue of {self.size}: make '
                             'it at least as large as the batch of all processes.')
        if width != self.embeddings.shape[1]:
            raise ValueError(f'The queue holds embeddings of width {self.embeddings.shape[1]}, and '
                             f'the encoder gives {width}: write embedding_size={width}.')
        rows = (self.position + torch.arange(count, device=self.position.device)) % self.size
        self.embeddings[rows] = embeddings.to(self.embeddings)
        self.labels[rows] = labels.to(self.labels)
        self.position.copy_((self.position + count) % self.size)
        self.filled.copy_((self.filled + count).clamp(max=self.size))
        return rows

    def rows(self) -> tuple[Tensor, Tensor]:
        """Copies of the rows that were written, ``(m, D)`` and ``(m,)``; row r of the ring is row
        r. Copies, since the ring is written over while a graph may still need them.
        """
        filled = int(self.filled)  # until the ring is full, it was written from row 0 on
        return self.embeddings[:filled].clone(), self.labels[:filled].clone()

    def extra_repr(self) -> str:
        return f'size={self.size}, embedding_size={self.embeddings.shape[1]}'

"""A memory of the embeddings of past batches, for losses that compare pairs."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..checks import whole_number
from ..losses.interface import interface_of, limits_of
from ..registry import MODELS
from .loss_terms import build


class EmbeddingQueue(nn.Module):
    """The latest ``size`` embeddings and their labels, in a ring.

    All of it is buffers: a checkpoint holds rows, position and count, so that a resumed run goes on
    with the very queue that it left.

    Args:
        size: how many rows it holds, M.
        embedding_size: their width, D.

    Attributes:
        embeddings: ``(M, D)`` float32; float64 once such rows were put there.
        labels: ``(M,)`` int64.
        position: the row that is written next, a scalar int64.
        filled: how many rows were ever written, at most M, a scalar int64.

    Raises:
        ValueError: a size that is not a positive integer.

    Example:
        >>> queue = EmbeddingQueue(size=4, embedding_size=2)
        >>> queue.put(torch.ones(3, 2), torch.tensor([0, 1, 1])).tolist()
        [0, 1, 2]
        >>> queue.rows()[1].tolist()
        [0, 1, 1]
    """

    embeddings: Tensor
    labels: Tensor
    position: Tensor
    filled: Tensor

    def __init__(self, size: int, embedding_size: int) -> None:
        super().__init__()
        self.size = whole_number('size', size)
        width = whole_number('embedding_size', embedding_size)
        self.register_buffer('embeddings', torch.zeros(size, width))
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
        if embeddings.dtype == torch.float64:  # nothing is rounded; half precision is widened
            self.embeddings = self.embeddings.double()
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

    def reset(self) -> None:
        """Forget every row."""
        for buffer in self.buffers():
            buffer.zero_()

    def extra_repr(self) -> str:
        return f'size={self.size}, embedding_size={self.embeddings.shape[1]}'


ORDERS = ('before', 'after')


@MODELS.register_module()
class CrossBatchMemory(nn.Module):
    """A loss of a batch against the embeddings of past batches (Wang et al., "Cross-Batch Memory
    for Embedding Learning", CVPR 2020).

    The gradient flows into the batch alone. Memory, position, count and the iterations passed are
    buffers, so that a resumed run goes on with them. A sample is never compared with its own
    copy, but well with its embedding of an earlier epoch. Only training writes to the memory.

    Several processes have the same memory where each calls this with the embeddings of all, as
    ``MetricHead`` does. The batch's own loss may be added beside it (the authors' code does): as
    another loss of the ``MetricHead``.

    Args:
        loss: a config or module, ``loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)``.
        embedding_size: the embeddings' width, D.
        memory_size: how many embeddings it holds, M; at least the batch of all processes.
        miner: a config or module, ``miner(embeddings, labels, ref_emb, ref_labels)``, which looks
            among the memory.
        warmup_iters: so many first batches are compared with themselves only and not kept: early
            embeddings drift too fast to be of use.
        enqueue: ``'before'`` the batch enters the memory before it is compared, as in the paper, so
            that its own pairs count too, but those of a sample with its copy. A miner that wants
            the easiest positive would find that copy. ``'after'`` it enters after, so that it is
            compared with past batches only (a first one with itself); for losses that take no
            indices too.

    Raises:
        ValueError: a number out of range, another ``enqueue``, a loss of another width, or a loss
            that takes no reference set, or no indices where the batch enters before.
        TypeError: a loss or miner that is neither config nor module.

    Example:
        >>> loss = dict(type='PML.ContrastiveLoss')
        >>> memory = CrossBatchMemory(loss, embedding_size=2, memory_size=8)
        >>> memory(torch.eye(2), torch.tensor([0, 1])).ndim
        0
        >>> int(memory.queue.filled)
        2
    """

    iterations: Tensor

    def __init__(self, loss: Any, embedding_size: int, memory_size: int = 1024, miner: Any = None,
                 warmup_iters: int = 0, enqueue: str = 'before') -> None:
        super().__init__()
        if enqueue not in ORDERS:
            raise ValueError(f"enqueue must be 'before' or 'after', got {enqueue!r}.")
        self.queue = EmbeddingQueue(memory_size, embedding_size)
        self.loss = build(loss, 'loss')
        self.miner = None if miner is None else build(miner, 'miner')
        _check_loss(self.loss, embedding_size, enqueue == 'before' or miner is not None)
        self.embedding_size = embedding_size
        self.memory_size = memory_size
        self.warmup_iters = whole_number('warmup_iters', warmup_iters, 0)
        self.enqueue = enqueue
        self.register_buffer('iterations', torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Any = None,
                enqueue_mask: Tensor | None = None) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            embeddings: ``(B, D)`` float.
            labels: ``(B,)`` int64.
            indices_tuple: None; the miner is an argument of the memory.
            enqueue_mask: ``(B,)`` bool; where True a row enters the memory and is not trained on,
                where False it is compared and does not enter (as keys and queries do).

        Raises:
            ValueError: indices, a mask of another shape or without a row to compare, or more rows
                than the memory holds.
        """
        if indices_tuple is not None:
            raise ValueError('CrossBatchMemory takes no indices of the batch: write the miner into '
                             "it, as dict(type='retrieval.CrossBatchMemory', miner=dict(…), …).")
        queries = kept = (embeddings, labels)
        if enqueue_mask is not None:
            _check_mask(enqueue_mask, len(embeddings))
            kept = (embeddings[enqueue_mask].detach(), labels[enqueue_mask])
            queries = (embeddings[~enqueue_mask], labels[~enqueue_mask])
        warm = int(self.iterations) >= self.warmup_iters
        if self.training:
            self.iterations += 1
        writes = self.training and warm
        slots = None
        if writes and self.enqueue == 'before':
            slots = self.queue.put(*kept)
        reference = self.queue.rows() if warm else None
        if reference is None or not len(reference[0]):
            reference = None if enqueue_mask is None else kept
        value = self._compare(queries, reference, slots if enqueue_mask is None else None)
        if writes and self.enqueue == 'after':
            self.queue.put(*kept)
        return value

    def reset_queue(self) -> None:
        """Forget every embedding, as at the start of another stage of training."""
        self.queue.reset()

    def _compare(self, queries: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor] | None,
                 own: Tensor | None) -> Tensor:
        """The loss of the queries among a reference set, or among themselves.

        Args:
            own: the row of the reference set that is each query's copy, where there is one.
        """
        more: dict[str, Any] = {}
        if reference is not None:
            rows, classes = reference[0].to(queries[0]), reference[1].to(queries[1])
            more = {'ref_emb': rows, 'ref_labels': classes}
        if self.miner is not None:
            more['indices_tuple'] = self.miner(*queries, **more)
        if own is not None:
            if self.miner is None:
                from pytorch_metric_learning.utils import loss_and_miner_utils

                more['indices_tuple'] = loss_and_miner_utils.get_all_pairs_indices(
                    queries[1], more['ref_labels'])
            more['indices_tuple'] = _without_copies(more['indices_tuple'], own)
        return self.loss(*queries, **more)


def _without_copies(indices: tuple[Tensor, ...], own: Tensor) -> tuple[Tensor, ...]:
    """Triplets, or pairs, without those whose positive is the anchor's own copy."""
    apart = own[indices[0]] != indices[1]
    if len(indices) == 3:
        return tuple(part[apart] for part in indices)
    return (indices[0][apart], indices[1][apart], *indices[2:])


def _check_loss(loss: nn.Module, embedding_size: int, with_indices: bool) -> None:
    """Refuse a loss that cannot be used with a memory, before the first batch."""
    name = type(loss).__name__
    width = limits_of(loss).embedding_size
    if width not in (None, embedding_size):
        raise ValueError(f'The memory has embedding_size={embedding_size}, and its loss {name} was '
                         f'built for {width}: give both the same.')
    interface = interface_of(loss)
    if interface.inputs != 'classes' or not interface.reference:
        raise ValueError(f'{name} compares no embeddings with labelled ones of a memory: name a '
                         'loss of pairs or triplets, such as PML.ContrastiveLoss, '
                         'PML.TripletMarginLoss, PML.MultiSimilarityLoss or PML.SupConLoss.')
    if with_indices and not interface.indices:
        raise ValueError(f'{name} takes no indices of pairs, by which a miner chooses and a sample '
                         "is kept from its own copy: give no miner, and enqueue='after'.")


def _check_mask(mask: Tensor, count: int) -> None:
    if mask.dtype != torch.bool or tuple(mask.shape) != (count,):
        raise ValueError(f'enqueue_mask must be ({count},) bool, got {tuple(mask.shape)} '
                         f'{mask.dtype}.')
    if bool(mask.all()):
        raise ValueError('enqueue_mask is True for every row of the batch, so none is left to '
                         'train on: leave it out to keep and compare all.')

"""A batch of embeddings, of one process and of all."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ..distributed import all_gather_rows, all_gather_with_gradient, world_size


class Batch(NamedTuple):
    """What the losses of a head are given.

    Args:
        embeddings: of all views, one view after another, ``(V · B, D)`` float32.
        labels: their classes, ``(V · B,)`` int64.
        views: how many there are, V.
        extra: what was given beside them, names of :data:`retrieval.heads.extra.NAMES`.
    """

    embeddings: Tensor
    labels: Tensor
    views: int
    extra: dict[str, Tensor]


def gathered(batch: Batch) -> Batch:
    """The batches of all processes as one, in the order that one process would have them.

    Embeddings and reference sets come with their gradients. Processes may hold different numbers
    of samples, but the same number of views and the same ``extra``.
    """
    if world_size() == 1:
        return batch
    extra = dict(batch.extra)
    if 'ref_emb' in extra:
        extra.update(ref_emb=all_gather_with_gradient(extra['ref_emb']),
                     ref_labels=all_gather_rows(extra['ref_labels']))
    if 'enqueue_mask' in extra:
        extra['enqueue_mask'] = _by_view(extra['enqueue_mask'], batch.views, all_gather_rows)
    return Batch(_by_view(batch.embeddings, batch.views, all_gather_with_gradient),
                 _by_view(batch.labels, batch.views, all_gather_rows), batch.views, extra)


def _by_view(rows: Tensor, views: int, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """``(V · B, …)`` of each process to ``(V · sum of B, …)``, the views staying together."""
    if views == 1:
        return gather(rows)
    by_sample = rows.reshape(views, len(rows) // views, *rows.shape[1:]).transpose(0, 1)
    return gather(by_sample).transpose(0, 1).flatten(0, 1)

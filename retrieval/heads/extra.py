"""What a metric loss may be given beside embeddings and labels: a reference set, and a mask."""
from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

NAMES = ('ref_emb', 'ref_labels', 'enqueue_mask')


def refuses(loss: nn.Module, what: str) -> bool:
    """Whether a loss of the library refuses ``'labels'``, ``'ref'`` or ``'indices_tuple'``.

    All its losses have these in their signatures; those that cannot use them call a function named
    after what they refuse, which raises.
    """
    compute = getattr(getattr(type(loss), 'compute_loss', None), '__code__', None)
    return compute is not None and f'{what}_not_supported' in compute.co_names


def taken_extra(loss: nn.Module) -> set[str]:
    """Which of :data:`NAMES` a loss takes."""
    taken = set(NAMES) & set(inspect.signature(loss.forward).parameters)
    return taken - {'ref_emb', 'ref_labels'} if refuses(loss, 'ref') else taken


def checked_extra(embeddings: Tensor, views: int, ref_emb: Tensor | None,
                  ref_labels: Tensor | None, enqueue_mask: Tensor | None) -> dict[str, Tensor]:
    """What was given, by name, on the device of the embeddings.

    Args:
        embeddings: of all views, ``(V · B, D)``.
        views: how many there are, V.
        ref_emb: ``(R, D)`` float, comes back in float32.
        ref_labels: ``(R,)`` int64.
        enqueue_mask: ``(B,)`` or ``(V · B,)`` bool, comes back as the latter.

    Raises:
        ValueError: one of another shape or dtype, or a reference set without its labels.
    """
    extra: dict[str, Tensor] = {}
    device = embeddings.device
    if (ref_emb is None) != (ref_labels is None):
        raise ValueError('Give ref_emb (R, D) and ref_labels (R,) together, or neither.')
    if ref_emb is not None and ref_labels is not None:
        if ref_emb.ndim != 2 or ref_emb.shape[1] != embeddings.shape[1]:
            raise ValueError(f'ref_emb is {tuple(ref_emb.shape)}, and the embeddings '
                             f'{tuple(embeddings.shape)}: it must be (R, {embeddings.shape[1]}).')
        if ref_labels.shape != ref_emb.shape[:1] or ref_labels.dtype != torch.int64:
            raise ValueError(f'ref_labels must be ({len(ref_emb)},) int64, got '
                             f'{tuple(ref_labels.shape)} {ref_labels.dtype}.')
        extra.update(ref_emb=ref_emb.to(device).float(), ref_labels=ref_labels.to(device))
    if enqueue_mask is not None:
        rows = len(embeddings)
        if enqueue_mask.dtype != torch.bool or tuple(enqueue_mask.shape) not in (
                (rows,), (rows // views,)):
            raise ValueError(f'enqueue_mask must be ({rows // views},) bool, an entry a sample, '
                             f'got {tuple(enqueue_mask.shape)} {enqueue_mask.dtype}.')
        extra['enqueue_mask'] = enqueue_mask.to(device).repeat(rows // len(enqueue_mask))
    return extra


def refuse_untaken(extra: Iterable[str], losses: nn.ModuleDict,
                   taken: Iterable[Collection[str]]) -> None:
    """Refuse what was given and would reach no loss.

    Args:
        extra: the names of what was given.
        losses: the losses by name.
        taken: what each takes, :func:`taken_extra`.

    Raises:
        ValueError: no loss takes one of them.
    """
    reached = {name for names in taken for name in names}
    for given in extra:
        if given not in reached:
            kinds = ', '.join(type(loss).__name__ for loss in losses.values())
            raise ValueError(f'{given} was given, and none of the losses takes it: {kinds}.')

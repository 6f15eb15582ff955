"""Which embeddings a loss compares: masks of pairs, and weights from a miner's indices."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..similarity import normalize

Indices = Sequence[Tensor]


def cosine(embeddings: Tensor, ref_emb: Tensor | None = None) -> Tensor:
    """The cosine of each embedding ``(B, D)`` to each reference ``(R, D)``, ``(B, R)``; to the
    batch itself where there is none."""
    queries = normalize(embeddings)
    return queries @ (queries if ref_emb is None else normalize(ref_emb)).T


def pair_masks(embeddings: Tensor, labels: Tensor, indices_tuple: Indices | None = None,
               ref_emb: Tensor | None = None,
               ref_labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The positive and the negative pairs of a batch and its references.

    Args:
        embeddings: ``(B, D)``.
        labels: ``(B,)`` int64.
        indices_tuple: only these pairs: anchors, positives, anchors, negatives, or anchors,
            positives, negatives of triplets, each ``(n,)`` int64. None: all pairs, those of an
            embedding with itself left out where the batch is its own reference.
        ref_emb: ``(R, D)``; None: the batch.
        ref_labels: ``(R,)`` int64.

    Returns:
        Two masks ``(B, R)`` bool.

    Raises:
        ValueError: labels for another number of embeddings, or indices of another kind.
    """
    _check_labels(embeddings, labels, 'labels')
    if ref_emb is None:
        ref_emb, ref_labels = embeddings, labels
    elif ref_labels is not None:
        _check_labels(ref_emb, ref_labels, 'ref_labels')
    elif indices_tuple is None:
        raise ValueError('ref_emb was given without ref_labels: give the references their '
                         'classes, or name the pairs by indices_tuple.')
    if indices_tuple is None:
        assert ref_labels is not None
        same = labels[:, None] == ref_labels.to(labels.device)[None, :]
        negative = ~same
        if ref_emb is embeddings:
            same.fill_diagonal_(False)
        return same, negative
    anchors, positives, others, negatives = as_pairs(indices_tuple)
    masks = torch.zeros(2, len(embeddings), len(ref_emb), dtype=torch.bool,
                        device=embeddings.device)
    masks[0, anchors, positives] = True
    masks[1, others, negatives] = True
    return masks[0], masks[1]


def as_pairs(indices_tuple: Indices) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A miner's indices as anchors and positives, anchors and negatives."""
    if len(indices_tuple) == 3:
        anchors, positives, negatives = indices_tuple
        return anchors, positives, anchors, negatives
    if len(indices_tuple) == 4:
        anchors, positives, others, negatives = indices_tuple
        return anchors, positives, others, negatives
    raise ValueError('indices_tuple must hold 3 tensors (triplets) or 4 (pairs), got '
                     f'{len(indices_tuple)}.')


def element_weights(embeddings: Tensor, indices_tuple: Indices | None) -> Tensor:
    """How often a miner named each embedding, over the most often named one: ``(B,)`` in [0, 1].

    Ones where there are no indices, as pytorch-metric-learning's classification losses have it.
    """
    if indices_tuple is None or not sum(map(len, indices_tuple)):
        return embeddings.new_ones(len(embeddings))
    counts = torch.bincount(torch.cat(list(indices_tuple)), minlength=len(embeddings))
    return counts.to(embeddings) / counts.max()


def _check_labels(embeddings: Tensor, labels: Tensor, name: str) -> None:
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(f'{name} must be ({len(embeddings)},), one for each embedding (B, D); got '
                         f'{tuple(labels.shape)} for embeddings {tuple(embeddings.shape)}.')

"""Losses of two sets of views, without labels, in the place of a loss of labelled embeddings."""
from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class PairedViewLoss(nn.Module):
    """Gives a loss that wants the views of a batch as two sets what belongs together.

    Such a loss, as ``PML.VICRegLoss`` (Bardes et al., ICLR 2022), is called ``loss(embeddings,
    ref_emb=...)``, row by row two views of one picture, and takes no labels. Here the label says
    which picture a row is a view of; the rows of a label are taken in twos, in their order.

    Args:
        loss: a config or module.

    Raises:
        TypeError: a loss that is neither config nor module.
        ValueError: a loss that takes no ``ref_emb``.
    """

    def __init__(self, loss: Any) -> None:
        super().__init__()
        if isinstance(loss, Mapping):
            from .pml import build_component  # late: it imports the library

            loss = build_component(loss)
        if not isinstance(loss, nn.Module):
            raise TypeError("The loss of PairedViewLoss must be a config such as "
                            f"dict(type='PML.VICRegLoss') or a module, got {type(loss).__name__}.")
        if 'ref_emb' not in inspect.signature(loss.forward).parameters:
            raise ValueError(f'{type(loss).__name__} takes no ref_emb: PairedViewLoss is for '
                             'losses of two sets of views, such as PML.VICRegLoss.')
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of embeddings ``(2 n, D)`` and labels ``(2 n,)`` int64, a scalar.

        Raises:
            ValueError: a label with an odd number of rows.
        """
        ordered, order = torch.sort(labels, stable=True)
        first, second = order[0::2], order[1::2]
        if len(first) != len(second) or not torch.equal(ordered[0::2], ordered[1::2]):
            raise ValueError('PairedViewLoss wants an even number of views of every picture: give '
                             'the head a list of two views, as SelfSupervisedRetriever does.')
        return self.loss(embeddings[first], ref_emb=embeddings[second])

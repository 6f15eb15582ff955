"""Pooling by attention with a learned query."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import MODELS
from .pooling import Pooling


@MODELS.register_module()
class AttentionPooling(Pooling):
    """Multi-head attention of one learned query over all positions: each head weighs the positions
    by how well they answer the query (as the pooling of CLIP, Radford et al., ICML 2021, whose
    query is the mean instead, and of Zhai et al., "Scaling Vision Transformers", CVPR 2022).

    The layer is torch's ``MultiheadAttention``. It knows nothing of where a position lies, so that
    maps of every size can be pooled.

    Args:
        in_features: C; :class:`ImageEncoder` fills it in.
        num_heads: how many parts of ``C / num_heads`` channels attend by themselves.
        dropout: the share of the weights that is dropped in training.
        num_prefix_tokens: see :class:`Pooling`; 0 attends to the class token too.

    Raises:
        ValueError: ``num_heads`` does not divide ``in_features``.
    """

    takes_in_features = True

    def __init__(self, in_features: int, num_heads: int = 8, dropout: float = 0.0,
                 num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        if num_heads < 1 or in_features % num_heads:
            fitting = [n for n in range(1, in_features + 1) if in_features % n == 0 and n <= 64]
            raise ValueError(f'num_heads={num_heads} does not divide the {in_features} channels '
                             f'of the features; what does: {fitting}.')
        self.in_features = in_features
        self.query = nn.Parameter(torch.empty(1, 1, in_features))
        nn.init.trunc_normal_(self.query, std=in_features ** -0.5)
        self.attention = nn.MultiheadAttention(in_features, num_heads, dropout, batch_first=True)

    def pool(self, positions: Tensor) -> Tensor:
        if positions.shape[1] != self.in_features:
            raise ValueError(f'AttentionPooling was built for {self.in_features} channels, got '
                             f'{positions.shape[1]}: set in_features.')
        tokens = positions.transpose(1, 2)
        query = self.query.expand(len(tokens), -1, -1)
        return self.attention(query, tokens, tokens, need_weights=False)[0][:, 0]

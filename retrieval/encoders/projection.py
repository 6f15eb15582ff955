"""From pooled features to embeddings: a linear layer or a small network, and a batch-norm neck."""
from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class Projection(nn.Module):
    """A linear layer, and batch normalisation after it on request: ``(B, C) -> (B, D)``.

    Args:
        in_features: C.
        out_features: D; None leaves the linear layer out, so that only the norm is left.
        bias: whether the linear layer has one.
        norm: whether batch normalisation follows (a batch-norm neck, Luo et al., "Bag of Tricks
            and a Strong Baseline for Deep Person Re-identification", 2019).
        hidden_features: the width of a hidden layer with batch normalisation and ReLU before the
            linear layer; None: there is none.

    Raises:
        ValueError: a width that is not a positive integer, neither a width nor a norm, or a hidden
            layer before nothing.
    """

    def __init__(self, in_features: int, out_features: int | None = None, bias: bool = True,
                 norm: bool = False, hidden_features: int | None = None) -> None:
        super().__init__()
        if out_features is None and not norm:
            raise ValueError('A projection needs out_features or norm=True, else it does nothing.')
        for name, value in (('in_features', in_features), ('out_features', out_features),
                            ('hidden_features', hidden_features)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)
                                      or value < 1):
                raise ValueError(f'{name} of a projection must be a positive integer, got '
                                 f'{value!r}.')
        if hidden_features is not None and out_features is None:
            raise ValueError('hidden_features come before the linear layer: give out_features.')
        self.out_features = in_features if out_features is None else out_features
        width = in_features if hidden_features is None else hidden_features
        self.hidden = nn.Identity() if hidden_features is None else nn.Sequential(
            nn.Linear(in_features, hidden_features, bias=False),
            nn.BatchNorm1d(hidden_features), nn.ReLU())
        self.linear = (nn.Identity() if out_features is None
                       else nn.Linear(width, out_features, bias=bias))
        self.norm = nn.BatchNorm1d(self.out_features) if norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(self.linear(self.hidden(features)))


def build_projection(projection: Any, in_features: int | None) -> nn.Module:
    """A projection from its width, config or module; identity for None.

    Raises:
        ValueError: the width of the features is needed and unknown.
        TypeError: it is something else.
    """
    if projection is None:
        return nn.Identity()
    if isinstance(projection, nn.Module):
        return projection
    if isinstance(projection, int) and not isinstance(projection, bool):
        projection = {'out_features': projection}
    if not isinstance(projection, dict):
        raise TypeError('projection must be a width, a config such as dict(out_features=128) or a '
                        f'module, got {type(projection).__name__}.')
    if in_features is None and 'in_features' not in projection:
        raise ValueError("The backbone does not say how wide its features are: give the encoder "
                         'in_features.')
    return MODELS.build({'type': 'retrieval.Projection', 'in_features': in_features,
                         **projection})

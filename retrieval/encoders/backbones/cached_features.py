"""The place of a backbone whose features were extracted before."""
from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from ...registry import MODELS


@MODELS.register_module()
class CachedFeatures(BaseModule):
    """Features ``(B, C, 1, 1)`` that come in the place of images, as ``(B, C)``.

    The transform ``LoadCachedFeatures`` reads them. With this in the place of backbone and pooling
    an :class:`ImageEncoder` trains what comes after them under the same names of weights.

    Args:
        num_features: C.

    Example:
        >>> import torch
        >>> CachedFeatures(4)(torch.zeros(2, 4, 1, 1)).shape
        torch.Size([2, 4])
    """

    def __init__(self, num_features: int, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Raises ValueError for what are no features of this width."""
        if features.shape[1:] != (self.num_features, 1, 1):
            raise ValueError(f'Cached features of width {self.num_features} come as '
                             f'(B, {self.num_features}, 1, 1), got {tuple(features.shape)}: is the '
                             'pipeline [LoadCachedFeatures, PackInputs]?')
        return features.flatten(1)

"""A batch norm between two losses."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS


@MODELS.register_module()
class BatchNormNeck(nn.Module):
    """BNNeck: a batch norm whose input is trained by one loss and its output by another.

    A metric loss wants distances and an identity loss wants angles, so they pull one set of
    features apart; with the norm between them each has its own. H. Luo et al., "Bag of Tricks and a
    Strong Baseline for Deep Person Re-identification", CVPR Workshops 2019. It stands last in a
    sequence, after an :class:`ImageEncoder` with ``normalize=False``, and is trained with a
    :class:`~retrieval.heads.BNNeckHead`; without the second loss
    ``ImageEncoder(projection=dict(norm=True))`` does.

    The norm's shift is not trained, as in the paper: the classes' hyperplanes then pass through the
    origin.

    Args:
        in_features: C.
        normalize: whether the embeddings have length 1, so that they are compared by angle.

    Attributes:
        out_features: C.

    Raises:
        ValueError: the width is not a positive integer.
    """

    def __init__(self, in_features: int, normalize: bool = True) -> None:
        super().__init__()
        if isinstance(in_features, bool) or not isinstance(in_features, int) or in_features < 1:
            raise ValueError('in_features of a BatchNormNeck must be a positive integer, got '
                             f'{in_features!r}.')
        self.out_features = in_features
        self.normalize = normalize
        self.norm = nn.BatchNorm1d(in_features)
        self.norm.bias.requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Features ``(B, C)`` float as embeddings ``(B, C)`` float32; in training as a pair, the
        features before the norm and after it, neither of length 1.

        Raises:
            ValueError: features of another shape.
        """
        width = self.out_features
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(f'The BatchNormNeck was built with in_features={width}, and is given '
                             f'{tuple(features.shape)} instead of (B, {width}).')
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            normed = self.norm(features)
        if self.training:
            return features, normed
        return functional.normalize(normed, dim=1) if self.normalize else normed

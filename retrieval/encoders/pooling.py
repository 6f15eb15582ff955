"""From a feature map or tokens to one vector an image.

Every pooling takes a feature map ``(B, C, H, W)``, tokens ``(B, N, C)``, or a tuple of those of
which the last counts, and returns ``(B, C)`` float32.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import MODELS

Features = Tensor | tuple[Tensor, ...] | list[Tensor]


class Pooling(nn.Module):
    """What the poolings have in common: which positions they pool, and in which precision.

    Args:
        num_prefix_tokens: how many tokens before the patch tokens (class token, registers) are
            left out; None takes it from the backbone (:class:`ImageEncoder` hands it on), else 0.
    """

    def __init__(self, num_prefix_tokens: int | None = None) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, features: Features) -> Tensor:
        features = last_of(features)
        # Half precision keeps too few digits for a sum over positions, or for a power.
        with torch.autocast(features.device.type, enabled=False):
            return self.pool(self.positions(features).float())

    def positions(self, features: Tensor) -> Tensor:
        """The features of all positions, ``(B, C, P)``.

        Raises:
            ValueError: it is neither a feature map nor tokens.
        """
        if features.ndim == 4:
            return features.flatten(2)
        if features.ndim == 3:
            return features[:, self.num_prefix_tokens or 0:].transpose(1, 2)
        raise ValueError(f'{type(self).__name__} pools a feature map (B, C, H, W) or tokens '
                         f'(B, N, C), got shape {tuple(features.shape)}. Where the backbone has '
                         'pooled already, set pooling=None.')

    def pool(self, positions: Tensor) -> Tensor:
        """``(B, C, P) -> (B, C)``."""
        raise NotImplementedError


def last_of(features: Features) -> Tensor:
    """The tensor itself, or the last of several.

    Raises:
        TypeError: it is no tensor and holds none last.
    """
    found = features[-1] if isinstance(features, (tuple, list)) and features else features
    if not isinstance(found, Tensor):
        raise TypeError('Pooling takes a tensor, or a tuple whose last element is one, got '
                        f'{type(found).__name__}.')
    return found


@MODELS.register_module()
class GlobalAveragePooling(Pooling):
    """The mean over all positions (of patch tokens, without the class token)."""

    def pool(self, positions: Tensor) -> Tensor:
        return positions.mean(2)


@MODELS.register_module()
class GlobalMaxPooling(Pooling):
    """The maximum over all positions (of patch tokens, without the class token)."""

    def pool(self, positions: Tensor) -> Tensor:
        return positions.amax(2)


@MODELS.register_module(name=['GeneralizedMeanPooling', 'GeM'])
class GeneralizedMeanPooling(Pooling):
    """``(mean over positions of max(x, eps)^p)^(1/p)``: the mean at p = 1, near the maximum at
    large p (Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018).

    Args:
        p: the power at the start, above 0.
        eps: smaller features count as this.
        clamp: whether they do; without it negative features give NaN unless p is an even integer.
        p_trainable: whether the power is learned.
        num_prefix_tokens: see :class:`Pooling`.

    Raises:
        ValueError: ``p`` or ``eps`` is not above 0.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6, clamp: bool = True,
                 p_trainable: bool = True, num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        if not p > 0 or not eps > 0:
            raise ValueError(f'Generalized mean pooling needs p and eps above 0, got p={p!r} and '
                             f'eps={eps!r}.')
        self.p = nn.Parameter(torch.full((1,), float(p)), requires_grad=p_trainable)
        self.eps = eps
        self.clamp = clamp

    def pool(self, positions: Tensor) -> Tensor:
        if self.clamp:
            positions = positions.clamp(min=self.eps)
        power = self.p.float()
        return positions.pow(power).mean(2).pow(1 / power)

    def extra_repr(self) -> str:
        return f'p={self.p.item():.4g}, eps={self.eps}, p_trainable={self.p.requires_grad}'


@MODELS.register_module()
class ClsTokenPooling(Pooling):
    """The class token, the first of a transformer's tokens."""

    def positions(self, features: Tensor) -> Tensor:
        if features.ndim != 3:
            raise ValueError('ClsTokenPooling takes tokens (B, N, C), got shape '
                             f'{tuple(features.shape)}: a feature map has no class token, pool it '
                             'with GlobalAveragePooling or GeM.')
        return features[:, :1].transpose(1, 2)

    def pool(self, positions: Tensor) -> Tensor:
        return positions[:, :, 0]

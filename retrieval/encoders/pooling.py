"""From a feature map or tokens to one vector an image.

Every pooling takes a feature map ``(B, C, H, W)``, tokens ``(B, N, C)``, or a tuple of those of
which the last counts, and returns ``(B, C)`` float32.
"""
from __future__ import annotations

from typing import Any

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

    #: Whether the pooling has weights that are as wide as the features, and wants ``in_features``.
    takes_in_features = False

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

    def feature_map(self, features: Tensor) -> Tensor:
        """A feature map ``(B, C, H, W)``; patch tokens of a square image are put back into one.

        Raises:
            ValueError: it is neither a feature map nor tokens, or the number of tokens is no
                square.
        """
        if features.ndim == 4:
            return features
        positions = Pooling.positions(self, features)
        side = round(positions.shape[2] ** 0.5)
        if side * side != positions.shape[2]:
            raise ValueError(f'{type(self).__name__} needs to know where each token lies, and '
                             f'{positions.shape[2]} patch tokens are no square image: give square '
                             'images, num_prefix_tokens=… where some are no patches, or another '
                             'pooling (GeM).')
        return positions.unflatten(2, (side, side))

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


@MODELS.register_module(name=['GlobalMaxPooling', 'MAC'])
class GlobalMaxPooling(Pooling):
    """The maximum over all positions (of patch tokens, without the class token); as MAC, maximum
    activations of convolutions, in Tolias et al., "Particular Object Retrieval with Integral
    Max-Pooling of CNN Activations", ICLR 2016.
    """

    def pool(self, positions: Tensor) -> Tensor:
        return positions.amax(2)


@MODELS.register_module()
class SPoC(Pooling):
    """The sum over all positions, with a weight for the middle of the image on request (Babenko
    and Lempitsky, "Aggregating Deep Convolutional Features for Image Retrieval", ICCV 2015).

    Args:
        center_prior: weigh a position by ``exp(-r^2 / (2 s^2))``, where r is its distance from the
            centre, and s a third of the distance from the centre to the nearest border.
        num_prefix_tokens: see :class:`Pooling`.
    """

    def __init__(self, center_prior: bool = False, num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        self.center_prior = center_prior

    def positions(self, features: Tensor) -> Tensor:
        return self.feature_map(features) if self.center_prior else super().positions(features)

    def pool(self, positions: Tensor) -> Tensor:
        if not self.center_prior:
            return positions.sum(2)
        height, width = positions.shape[2:]
        across, down = (torch.arange(size, device=positions.device) + 0.5 - size / 2
                        for size in (width, height))
        squares = down[:, None] ** 2 + across ** 2
        spread = min(height, width) / 2 / 3
        return (positions * torch.exp(-squares / (2 * spread ** 2))).sum((2, 3))


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


@MODELS.register_module(name=['GeMPlus', 'GeM+'])
class GeMPlus(GeneralizedMeanPooling):
    """Generalised mean whose power is not learned but tuned on the evaluation (GeM+ in Shao et al.,
    "Global Features are All You Need for Image Retrieval and Reranking", ICCV 2023).

    The power is a setting, not a weight: a checkpoint that was trained with another pooling loads
    as it is. In the paper :class:`RegionalGeM` comes before it, and images are encoded at several
    scales whose embeddings are joined by their maximum (Scale-GeM, see :class:`MultiScale`).

    Args:
        p: the power; 4.6 is what the paper found.
        eps: smaller features count as this.
        num_prefix_tokens: see :class:`Pooling`.

    Raises:
        ValueError: ``p`` or ``eps`` is not above 0.
    """

    def __init__(self, p: float = 4.6, eps: float = 1e-8,
                 num_prefix_tokens: int | None = None) -> None:
        super().__init__(p, eps, p_trainable=False, num_prefix_tokens=num_prefix_tokens)
        power = self.p.detach()
        del self.p
        self.register_buffer('p', power, persistent=False)
        self.power = float(p)  # a plain attribute, so that fingerprints tell two powers apart

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Leave out the power that was learned with the generalised mean in this place."""
        state_dict.pop(f'{prefix}p', None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f'p={self.power:.4g}, eps={self.eps}'


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

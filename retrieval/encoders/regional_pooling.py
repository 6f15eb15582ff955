"""Poolings over regions of a feature map, for objects that fill a part of the image."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..registry import MODELS
from .pooling import Features, Pooling, last_of

_OVERLAP = 0.4  # of neighbouring regions, as a share of a region


@MODELS.register_module()
class RMAC(Pooling):
    """Regional maximum activations: the sum over square regions of the region's maxima, each
    scaled to length 1 (R-MAC in Tolias et al., "Particular Object Retrieval with Integral
    Max-Pooling of CNN Activations", ICLR 2016).

    At level l = 1, 2, … the regions are ``floor(2 min(H, W) / (l + 1))`` wide. There are l along
    the short edge and ``l + m - 1`` along the long one, evenly spaced, where m is the number of
    regions at level 1 whose overlap is nearest to 40 %. As in the authors' code the whole map is
    a region too. Tokens count as a square map.

    Args:
        levels: how many sizes of regions.
        num_prefix_tokens: see :class:`Pooling`.

    Raises:
        ValueError: ``levels`` is no positive integer.
    """

    def __init__(self, levels: int = 3, num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise ValueError(f'levels must be a positive integer, got {levels!r}.')
        self.levels = levels

    def positions(self, features: Tensor) -> Tensor:
        return self.feature_map(features)

    def pool(self, positions: Tensor) -> Tensor:
        total = functional.normalize(positions.amax((2, 3)), dim=1)
        height, width = positions.shape[2:]
        for top, left, side in regions(height, width, self.levels):
            region = positions[:, :, top:top + side, left:left + side]
            total = total + functional.normalize(region.amax((2, 3)), dim=1)
        return total

    def extra_repr(self) -> str:
        return f'levels={self.levels}'


def regions(height: int, width: int, levels: int) -> list[tuple[int, int, int]]:
    """R-MAC's regions of a map: top row, left column and side of each, without the whole map."""
    short = min(height, width)
    more = _more_along(height, width)
    found = []
    for level in range(1, levels + 1):
        side = 2 * short // (level + 1)
        if side == 0:
            break
        rows, columns = (level + (more if size > short else 0) for size in (height, width))
        found += [(top, left, side) for top in _starts(height, side, rows)
                  for left in _starts(width, side, columns)]
    return found


def _more_along(height: int, width: int) -> int:
    """How many regions more stand along the long edge than along the short one; 1 to 6."""
    short, rest = min(height, width), abs(height - width)
    return min(range(1, 7), key=lambda more: abs(1 - rest / more / short - _OVERLAP))


def _starts(size: int, side: int, count: int) -> list[int]:
    """Where ``count`` regions start that are evenly spaced from border to border."""
    return [0] if count == 1 else [i * (size - side) // (count - 1) for i in range(count)]


@MODELS.register_module()
class RegionalGeM(Pooling):
    """A feature map in which each position is the mean of itself and of the generalised mean
    around it, ``(B, C, H, W) -> (B, C, H, W)`` (Regional-GeM in Shao et al., "Global Features are
    All You Need for Image Retrieval and Reranking", ICCV 2023).

    It stands before a pooling: ``pooling=[dict(type='RegionalGeM'), dict(type='GeM+')]``. The map
    is mirrored at its borders. Tokens count as a square map.

    Args:
        p: the power, above 0.
        size: the side of the square around a position, odd.
        eps: smaller features count as this in the generalised mean.
        num_prefix_tokens: see :class:`Pooling`.

    Raises:
        ValueError: ``p`` or ``eps`` is not above 0, or ``size`` is no odd positive integer.
    """

    def __init__(self, p: float = 2.5, size: int = 5, eps: float = 1e-6,
                 num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        if not p > 0 or not eps > 0:
            raise ValueError(f'RegionalGeM needs p and eps above 0, got p={p!r} and eps={eps!r}.')
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f'size must be an odd positive integer, got {size!r}.')
        self.p = float(p)
        self.size = size
        self.eps = eps

    def forward(self, features: Features) -> Tensor:
        """Raises ValueError for a map that is too small to be mirrored at its borders."""
        features = self.feature_map(last_of(features))
        border = self.size // 2
        if min(features.shape[2:]) <= border:
            raise ValueError(f'A feature map of {tuple(features.shape[2:])} is too small for '
                             f'RegionalGeM(size={self.size}): give larger images or a smaller '
                             'size.')
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            powers = functional.pad(features.clamp(min=self.eps).pow(self.p), (border,) * 4,
                                    mode='reflect')
            around = functional.avg_pool2d(powers, self.size, stride=1).pow(1 / self.p)
            return (features + around) / 2

    def extra_repr(self) -> str:
        return f'p={self.p:.4g}, size={self.size}'

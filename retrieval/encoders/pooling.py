"""From a feature map or tokens to one vector an image.

Every pooling takes a feature map ``(B, C, H, W)``, tokens ``(B, N, C)``, or a tuple of those of
which the last counts, and returns ``(B, C)`` float32. Which tokens are patches is the business of
the base class: a pooling of one's own is a class with a method ``pool``.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checks import whole_number
from ..registry import MODELS
from ..similarity import normalize
from .build import build_encoder

Features = Tensor | tuple[Tensor, ...] | list[Tensor]


class Pooling(nn.Module):
    """The base of the poolings: which positions they pool, and in which precision.

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
    """The mean over all positions (of patch tokens, without the class token).

    Example:
        >>> GlobalAveragePooling()(torch.arange(8.0).reshape(1, 2, 2, 2)).tolist()
        [[1.5, 5.5]]
    """

    def pool(self, positions: Tensor) -> Tensor:
        return positions.mean(2)


@MODELS.register_module(name=['GlobalMaxPooling', 'MAC'])
class GlobalMaxPooling(Pooling):
    """The maximum over all positions (of patch tokens, without the class token); as MAC, maximum
    activations of convolutions, in Tolias et al., "Particular Object Retrieval with Integral
    Max-Pooling of CNN Activations", ICLR 2016.

    Example:
        >>> GlobalMaxPooling()(torch.arange(8.0).reshape(1, 2, 2, 2)).tolist()
        [[3.0, 7.0]]
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

    Example:
        >>> SPoC()(torch.ones(1, 2, 3, 3)).tolist()
        [[9.0, 9.0]]
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

    Example:
        >>> pooled = GeneralizedMeanPooling(p=1.0)(torch.arange(1.0, 5.0).reshape(1, 1, 2, 2))
        >>> round(pooled.item(), 4)
        2.5
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

    Example:
        >>> round(GeMPlus(p=2.0)(torch.tensor([[[[1.0, 7.0]]]])).item(), 4)
        5.0
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
    """The class token, the first of a transformer's tokens.

    Example:
        >>> ClsTokenPooling()(torch.arange(6.0).reshape(1, 3, 2)).tolist()
        [[0.0, 1.0]]
    """

    def positions(self, features: Tensor) -> Tensor:
        if features.ndim != 3:
            raise ValueError('ClsTokenPooling takes tokens (B, N, C), got shape '
                             f'{tuple(features.shape)}: a feature map has no class token, pool it '
                             'with GlobalAveragePooling or GeM.')
        return features[:, :1].transpose(1, 2)

    def pool(self, positions: Tensor) -> Tensor:
        return positions[:, :, 0]


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

    Example:
        >>> AttentionPooling(in_features=8, num_heads=2)(torch.rand(2, 8, 3, 3)).shape
        torch.Size([2, 8])
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

    Example:
        >>> RMAC(levels=2)(torch.rand(2, 8, 4, 6)).shape
        torch.Size([2, 8])
    """

    def __init__(self, levels: int = 3, num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        self.levels = whole_number('levels', levels)

    def positions(self, features: Tensor) -> Tensor:
        return self.feature_map(features)

    def pool(self, positions: Tensor) -> Tensor:
        total = normalize(positions.amax((2, 3)))
        height, width = positions.shape[2:]
        for top, left, side in regions(height, width, self.levels):
            region = positions[:, :, top:top + side, left:left + side]
            total = total + normalize(region.amax((2, 3)))
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

    Example:
        >>> RegionalGeM(size=3)(torch.rand(2, 8, 4, 6)).shape
        torch.Size([2, 8, 4, 6])
    """

    def __init__(self, p: float = 2.5, size: int = 5, eps: float = 1e-6,
                 num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        if not p > 0 or not eps > 0:
            raise ValueError(f'RegionalGeM needs p and eps above 0, got p={p!r} and eps={eps!r}.')
        if whole_number('size', size) % 2 == 0:
            raise ValueError(f'size must be odd, got {size!r}.')
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


@MODELS.register_module()
class PartsPooling(Pooling):
    """Several vectors of an image from one pass: of the whole map, and of a grid of its parts,
    ``(B, C, H, W) -> (B, P, C)``.

    A level l is a grid of l by l parts that are ``2 / (l + 1)`` of the map wide and high, so that
    neighbours share half. :class:`ImageEncoder` hands the vectors on behind one another, and
    :class:`retrieval.index.PartsIndex` compares them. Tokens count as a square map.

    Args:
        pooling: config or module of another pooling, which pools each part.
        levels: the sides of the grids; ``(3,)`` makes 10 vectors, ``(2, 3)`` makes 14.
        num_prefix_tokens: see :class:`Pooling`.

    Raises:
        ValueError: a level is below 2, or there is none.
        TypeError: the pooling is neither config nor module.

    Example:
        >>> PartsPooling(levels=(2,))(torch.rand(1, 8, 6, 4)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, pooling: Any = dict(type='retrieval.GeneralizedMeanPooling'),  # noqa: B006, C408
                 levels: Sequence[int] = (3,), num_prefix_tokens: int | None = None) -> None:
        super().__init__(num_prefix_tokens)
        self.levels = tuple(whole_number('levels', level, 2) for level in levels)
        if not self.levels:
            raise ValueError('PartsPooling wants a level at least, such as levels=(3,).')
        self.pooling = build_encoder(pooling, 'pooling')
        self.parts = 1 + sum(level * level for level in self.levels)

    def forward(self, features: Features) -> Tensor:
        features = self.feature_map(last_of(features))
        return torch.stack([self.pooling(features[:, :, top:bottom, left:right])
                            for top, bottom, left, right in self.regions(*features.shape[2:])], 1)

    def regions(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Top, bottom, left and right of the whole map and of each part, a row after the other."""
        found = [(0, height, 0, width)]
        for level in self.levels:
            rows, columns = _spans(height, level), _spans(width, level)
            found += [(*row, *column) for row in rows for column in columns]
        return found

    def extra_repr(self) -> str:
        return f'levels={self.levels}'


def _spans(size: int, level: int) -> list[tuple[int, int]]:
    """Where so many parts of an edge begin and end, each of which is at least a position wide."""
    wide = 2 * size / (level + 1)
    starts = [round(place * (size - wide) / (level - 1)) for place in range(level)]
    starts = [min(start, size - 1) for start in starts]
    return [(start, min(size, max(start + 1, round(start + wide)))) for start in starts]

"""From pooled features to embeddings: a linear layer, a small network, or a batch-norm neck."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..checks import whole_number
from ..registry import MODELS
from ..similarity import normalize
from .whitening import principal_components


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

    Example:
        >>> Projection(in_features=8, out_features=4)(torch.zeros(2, 8)).shape
        torch.Size([2, 4])
    """

    def __init__(self, in_features: int, out_features: int | None = None, bias: bool = True,
                 norm: bool = False, hidden_features: int | None = None) -> None:
        super().__init__()
        if out_features is None and not norm:
            raise ValueError('A projection needs out_features or norm=True, else it does nothing.')
        for name, value in (('in_features', in_features), ('out_features', out_features),
                            ('hidden_features', hidden_features)):
            if value is not None:
                whole_number(name, value)
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


def start_at_components(projection: Any, features: Any) -> bool:
    """Let a linear projection start at the principal components of what it will project.

    So it begins with what the features know, and not with a mixture of them.

    Args:
        projection: a :class:`Projection`; one with a hidden layer or without a linear one, wider
            than its input, or of another kind, is left as it is.
        features: array or tensor ``(N, in_features)``.

    Returns:
        Whether it was changed.

    Raises:
        ValueError: fewer than two features, or one that is not finite.

    Example:
        >>> rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        >>> start_at_components(Projection(in_features=4, out_features=2), rows)
        True
    """
    if not isinstance(projection, Projection) or not isinstance(projection.linear, nn.Linear):
        return False
    linear = projection.linear
    if not isinstance(projection.hidden, nn.Identity) or linear.out_features > linear.in_features:
        return False
    fit = principal_components(features, linear.out_features)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(fit.projection))
        if linear.bias is not None:
            linear.bias.copy_(torch.from_numpy(-fit.projection @ fit.mean))
    return True


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

    Example:
        >>> neck = BatchNormNeck(4)
        >>> before, after = neck.train()(torch.rand(3, 4))
        >>> neck.eval()(torch.rand(3, 4)).shape
        torch.Size([3, 4])
    """

    def __init__(self, in_features: int, normalize: bool = True) -> None:
        super().__init__()
        self.out_features = whole_number('in_features', in_features)
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
        return normalize(normed) if self.normalize else normed

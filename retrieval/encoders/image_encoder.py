"""From images to embeddings: backbone, pooling, projection, length 1."""
from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS
from .pooling import ClsTokenPooling, Pooling
from .sequence import build_encoder
from .weight_files import KeyMapping
from .weights import load_checkpoint

# What backbones call the number of their channels.
_WIDTHS = ('num_features', 'feat_dim', 'channels', 'embed_dims')


@MODELS.register_module()
class Projection(nn.Module):
    """A linear layer, and batch normalisation after it on request: ``(B, C) -> (B, D)``.

    Args:
        in_features: C.
        out_features: D; None leaves the linear layer out, so that only the norm is left.
        bias: whether the linear layer has one.
        norm: whether batch normalisation follows (a batch-norm neck, Luo et al., "Bag of Tricks
            and a Strong Baseline for Deep Person Re-identification", 2019).

    Raises:
        ValueError: a width that is not a positive integer, or neither a width nor a norm.
    """

    def __init__(self, in_features: int, out_features: int | None = None, bias: bool = True,
                 norm: bool = False) -> None:
        super().__init__()
        if out_features is None and not norm:
            raise ValueError('A projection needs out_features or norm=True, else it does nothing.')
        for name, value in (('in_features', in_features), ('out_features', out_features)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)
                                      or value < 1):
                raise ValueError(f'{name} of a projection must be a positive integer, got '
                                 f'{value!r}.')
        self.out_features = in_features if out_features is None else out_features
        self.linear = (nn.Identity() if out_features is None
                       else nn.Linear(in_features, out_features, bias=bias))
        self.norm = nn.BatchNorm1d(self.out_features) if norm else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(self.linear(features))


@MODELS.register_module()
class ImageEncoder(BaseModule):
    """Backbone, pooling, optional projection and L2 norm: ``(B, 3, H, W) -> (B, D)`` float32.

    Args:
        backbone: a config, a list of configs in a row, or a module. Its output is a feature map,
            tokens, or a tuple of which the last counts.
        pooling: a config or module; None where the backbone returns ``(B, C)``.
        projection: None, an output width, or a config: ``dict(out_features, bias, norm)``, with
            ``type`` for another module than :class:`Projection`; it is built with ``in_features``.
        normalize: whether the embeddings have length 1.
        frozen: whether the backbone stays as it is: no gradient, always in evaluation mode.
        in_features: the backbone's number of channels, where it does not say itself (as
            ``num_features``, ``feat_dim`` or ``embed_dims``).
        init_cfg: MMEngine's initialisation.
        checkpoint: load the weights of the whole encoder from this local file, also out of a
            retriever's checkpoint.
        checkpoint_prefix, key_mapping, checkpoint_strict: see :func:`load_weights`.

    Attributes:
        embedding_size: D, or None where a foreign backbone or projection does not say its width.

    Raises:
        ValueError: a part's config is refused, or the backbone's width is needed and unknown.
        TypeError: a part is neither config nor module.
    """

    def __init__(self, backbone: Any,
                 pooling: Any = dict(type='retrieval.GlobalAveragePooling'),  # noqa: B006, C408
                 projection: int | dict | nn.Module | None = None, normalize: bool = True,
                 frozen: bool = False, in_features: int | None = None,
                 init_cfg: dict | None = None, *, checkpoint: str | None = None,
                 checkpoint_prefix: str | None = None, key_mapping: KeyMapping | None = None,
                 checkpoint_strict: bool = True) -> None:
        super().__init__(init_cfg)
        self.backbone = build_encoder(backbone, 'backbone')
        self.pooling = nn.Identity() if pooling is None else build_encoder(pooling, 'pooling')
        self._tell_tokens()
        width = in_features if in_features is not None else _width(self.backbone)
        self.projection = _build_projection(projection, width)
        self.embedding_size: int | None = (
            width if projection is None else getattr(self.projection, 'out_features', None))
        self.normalize = normalize
        self.frozen = False
        if frozen:
            self.freeze()
        load_checkpoint(self, checkpoint, checkpoint_prefix, key_mapping, checkpoint_strict)
        # MMEngine initialises after this constructor, parts of its own libraries among them.
        self._keep_weights = checkpoint is not None

    def _tell_tokens(self) -> None:
        """Tell the pooling which of the backbone's tokens are no patches."""
        tokens = getattr(self.backbone, 'num_prefix_tokens', None)
        if isinstance(self.pooling, Pooling) and self.pooling.num_prefix_tokens is None:
            self.pooling.num_prefix_tokens = tokens
        if isinstance(self.pooling, ClsTokenPooling) and not getattr(
                self.backbone, 'has_class_token', True):
            raise ValueError('ClsTokenPooling needs a class token, and '
                             f'{getattr(self.backbone, "model_name", "the backbone")} has none: '
                             'take GlobalAveragePooling or GeM.')

    def init_weights(self) -> None:
        """MMEngine's initialisation, unless the weights came from a file."""
        if not self._keep_weights:
            super().init_weights()

    def freeze(self, frozen: bool = True) -> None:
        """Take the backbone out of training, or put it back."""
        self.backbone.requires_grad_(not frozen)
        self.frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> ImageEncoder:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` float32 of images ``(B, 3, H, W)`` float.

        Raises:
            ValueError: the images have another rank, or the features are not pooled.
            TypeError: the images are not floating point.
        """
        _check_images(images)
        pooled = self.pooling(self.backbone(images))
        if isinstance(pooled, (tuple, list)):
            pooled = pooled[-1]
        if pooled.ndim != 2:
            raise ValueError(f'The features {tuple(pooled.shape)} are not pooled to (B, C): set '
                             "pooling, as dict(type='GlobalAveragePooling').")
        embeddings = self.projection(pooled).float()
        return functional.normalize(embeddings, dim=1) if self.normalize else embeddings


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f'ImageEncoder takes a float tensor (B, 3, H, W), got {given}: the data '
                        'preprocessor makes one.')
    if images.ndim != 4:
        raise ValueError(f'ImageEncoder takes images (B, 3, H, W), got shape '
                         f'{tuple(images.shape)}.')


def _width(backbone: nn.Module) -> int | None:
    """The number of channels that a backbone, or the last part of a sequence, says it has."""
    speakers = [backbone, backbone[-1] if isinstance(backbone, nn.Sequential) else backbone]
    found = (getattr(speaker, name, None) for speaker in speakers for name in _WIDTHS)
    # Some of mmpretrain's list the width of each stage.
    last = (widths[-1] if isinstance(widths, (list, tuple)) and widths else widths
            for widths in found)
    return next((width for width in last if isinstance(width, int)), None)


def _build_projection(projection: Any, in_features: int | None) -> nn.Module:
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

"""From images to embeddings: backbone, pooling, projection, whitening, length 1."""
from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS
from .multi_scale import build_multi_scale
from .pooling import ClsTokenPooling, Pooling
from .projection import build_projection
from .sequence import build_encoder
from .weight_files import KeyMapping
from .weights import load_checkpoint
from .whitening import Whitening, build_whitening

# What backbones call the number of their channels.
_WIDTHS = ('num_features', 'feat_dim', 'channels', 'embed_dims')


@MODELS.register_module()
class ImageEncoder(BaseModule):
    """Backbone, pooling, projection, whitening and L2 norm: ``(B, 3, H, W) -> (B, D)`` float32.

    All but the backbone may be left out. With a whitening, the embeddings have length 1 before it
    as well as after it; of several scales, those embeddings are joined before it.

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
        whitening: None, an output width, or a config: ``dict(out_features)``, with ``type`` for
            another module than :class:`Whitening`; it is built with ``in_features``.
        multi_scale: None, or a dict of the arguments of :class:`MultiScale`: how an image is
            encoded in evaluation; training always sees one size.
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
                 init_cfg: dict | None = None, *, whitening: Any = None,
                 multi_scale: Any = None, checkpoint: str | None = None,
                 checkpoint_prefix: str | None = None, key_mapping: KeyMapping | None = None,
                 checkpoint_strict: bool = True) -> None:
        super().__init__(init_cfg)
        self.backbone = build_encoder(backbone, 'backbone')
        width = in_features if in_features is not None else _width(self.backbone)
        self.pooling = _build_pooling(pooling, width)
        self._tell_tokens()
        self.projection = build_projection(projection, width)
        self.in_features = width
        self._projected: int | None = (
            width if projection is None else getattr(self.projection, 'out_features', None))
        self.whitening = build_whitening(whitening, self._projected)
        self.multi_scale = build_multi_scale(multi_scale)
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
        for part in self.pooling.modules():
            if isinstance(part, Pooling) and part.num_prefix_tokens is None:
                part.num_prefix_tokens = tokens
        if isinstance(self.pooling, ClsTokenPooling) and not getattr(
                self.backbone, 'has_class_token', True):
            raise ValueError('ClsTokenPooling needs a class token, and '
                             f'{getattr(self.backbone, "model_name", "the backbone")} has none: '
                             'take GlobalAveragePooling or GeM.')

    @property
    def embedding_size(self) -> int | None:
        """D, or None where a foreign part does not say its width."""
        if isinstance(self.whitening, nn.Identity) or (
                isinstance(self.whitening, Whitening) and not bool(self.whitening.fitted)):
            return self._projected
        return getattr(self.whitening, 'out_features', None)

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
        described = self.describe(images)
        if isinstance(self.whitening, nn.Identity):
            return described
        return self._scaled(self.whitening(described).float())

    def describe(self, images: Tensor) -> Tensor:
        """What the whitening is given, ``(B, D)`` float32: projected, of length 1 where
        ``normalize``, and in evaluation joined from all scales.
        """
        if self.multi_scale is None or self.training:
            return self._describe(images)
        return self._scaled(self.multi_scale(self._describe, images))

    def _describe(self, images: Tensor) -> Tensor:
        return self._scaled(self.projection(self.pool(images)).float())

    def _scaled(self, embeddings: Tensor) -> Tensor:
        return functional.normalize(embeddings, dim=1) if self.normalize else embeddings

    def pool(self, images: Tensor) -> Tensor:
        """What the projection is given: the pooled features ``(B, C)``."""
        pooled = self.pooling(self.backbone(images))
        if isinstance(pooled, (tuple, list)):
            pooled = pooled[-1]
        if pooled.ndim != 2:
            raise ValueError(f'The features {tuple(pooled.shape)} are not pooled to (B, C): set '
                             "pooling, as dict(type='GlobalAveragePooling').")
        return pooled

    def up_to(self, part: str) -> ImageEncoder:
        """An encoder that ends early and shares this one's modules.

        Args:
            part: ``'pooling'`` for the features that the projection is given, of one size of the
                image and any length; ``'projection'`` for what the whitening is given.

        Raises:
            ValueError: another part.
        """
        if part not in ('pooling', 'projection'):
            raise ValueError(f"part must be 'pooling' or 'projection', got {part!r}.")
        whole = part == 'projection'
        shortened = ImageEncoder(
            self.backbone, self.pooling, self.projection if whole else None,
            self.normalize and whole, in_features=self.in_features,
            multi_scale=self.multi_scale if whole else None)
        shortened.frozen, shortened.training = self.frozen, self.training
        return shortened


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


def _build_pooling(pooling: Any, in_features: int | None) -> nn.Module:
    """A pooling, told the width of the features where it has weights of that width."""
    if pooling is None:
        return nn.Identity()
    if isinstance(pooling, dict) and 'in_features' not in pooling and in_features is not None:
        kind = pooling.get('type')
        cls = MODELS.get(kind) if isinstance(kind, str) else kind
        if getattr(cls, 'takes_in_features', False):
            pooling = {**pooling, 'in_features': in_features}
    return build_encoder(pooling, 'pooling')

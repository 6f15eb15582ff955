"""From images to embeddings: backbone, pooling, projection, whitening, length 1; several scales."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS, unknown_name
from ..similarity import normalize
from .build import build_encoder
from .pooling import ClsTokenPooling, PartsPooling, Pooling
from .projection import build_projection
from .weights import load_weights
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
            retriever's checkpoint: a path, or what :class:`~retrieval.encoders.Checkpoint` takes.

    Attributes:
        embedding_size: D, or None where a foreign backbone or projection does not say its width.
        parts: of how many vectors behind one another an embedding consists, each of length 1 where
            ``normalize``; more than 1 with :class:`~retrieval.encoders.PartsPooling`.

    Raises:
        ValueError: a part's config is refused, or the backbone's width is needed and unknown.
        TypeError: a part is neither config nor module.

    Example:
        >>> backbone = nn.Conv2d(3, 8, kernel_size=4, stride=4)
        >>> encoder = ImageEncoder(backbone, projection=5, in_features=8)
        >>> encoder(torch.rand(2, 3, 16, 16)).norm(dim=1).round(decimals=4).tolist()
        [1.0, 1.0]
    """

    def __init__(self, backbone: Any,
                 pooling: Any = dict(type='retrieval.GlobalAveragePooling'),  # noqa: B006, C408
                 projection: int | dict[str, Any] | nn.Module | None = None, normalize: bool = True,
                 frozen: bool = False, in_features: int | None = None,
                 init_cfg: dict[str, Any] | None = None, *, whitening: Any = None,
                 multi_scale: Any = None, checkpoint: Any = None) -> None:
        super().__init__(init_cfg)
        self.backbone = build_encoder(backbone, 'backbone')
        width = in_features if in_features is not None else _width(self.backbone)
        self.pooling = _build_pooling(pooling, width)
        self._tell_tokens()
        self.parts = max((module.parts for module in self.pooling.modules()
                          if isinstance(module, PartsPooling)), default=1)
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
        if checkpoint is not None:
            load_weights(self, checkpoint)
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
        fitted = not isinstance(self.whitening, nn.Identity) and (
            not isinstance(self.whitening, Whitening) or bool(self.whitening.fitted))
        width = getattr(self.whitening, 'out_features', None) if fitted else self._projected
        return None if width is None else self.parts * width

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
        found = self._whitened(self.describe(images))
        return found.flatten(1)  # several vectors of an image stand behind one another

    @property
    def has_words(self) -> bool:
        """True where the backbone has a text tower too (:class:`DualEncoder`)."""
        return bool(getattr(self.backbone, 'has_words', False))

    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(B, D)`` float32 of texts, which go the way of images from the projection
        on.

        Raises:
            ValueError: the backbone has no text tower.
        """
        if not self.has_words:
            name = getattr(self.backbone, 'model_name', type(self.backbone).__name__)
            raise ValueError(f'The encoder {name} has no text tower, so it cannot take words.')
        backbone: Any = self.backbone
        found = backbone.embed_words(texts)
        return self._whitened(self._scaled(self.projection(found).float()))

    def _whitened(self, described: Tensor) -> Tensor:
        if isinstance(self.whitening, nn.Identity):
            return described
        return self._scaled(self.whitening(described).float())

    def describe(self, images: Tensor) -> Tensor:
        """The input of the whitening, ``(B, D)`` float32: projected, of length 1 where
        ``normalize``, and in evaluation joined from all scales; of several parts ``(B, P, D)``.
        """
        if self.multi_scale is None or self.training:
            return self._describe(images)
        return self._scaled(self.multi_scale(self._describe, images))

    def _describe(self, images: Tensor) -> Tensor:
        return self._scaled(self.projection(self.pool(images)).float())

    def _scaled(self, embeddings: Tensor) -> Tensor:
        return normalize(embeddings) if self.normalize else embeddings

    def pool(self, images: Tensor) -> Tensor:
        """The input of the projection: the pooled features ``(B, C)``, or ``(B, P, C)``."""
        pooled = self.pooling(self.backbone(images))
        if isinstance(pooled, (tuple, list)):
            pooled = pooled[-1]
        if pooled.ndim != (2 if self.parts == 1 else 3):
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
        if self.parts > 1:
            raise ValueError(f'Each image has {self.parts} vectors here: fit with the pooling of '
                             'PartsPooling alone, and set PartsPooling afterwards.')
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


AGGREGATES = ('mean', 'gem', 'max')


class MultiScale(nn.Module):
    """Encodes an image at several sizes, and joins the embeddings.

    Sizes are changed as in the evaluation of Radenović et al. (2018): bilinear, without
    anti-aliasing, to ``floor(scale * size)`` pixels.

    Args:
        scales: what height and width are multiplied by; 1 leaves the image as it is.
        flip: whether the mirror image of each size is encoded too.
        aggregate: ``'mean'``; ``'gem'``, the generalised mean over sizes, where what lies below 0
            is shifted up by the lowest number of the image's embeddings before, and back after;
            ``'max'``, its limit for large powers (Scale-GeM in Shao et al., "Global Features are
            All You Need for Image Retrieval and Reranking", ICCV 2023).
        p: the power of ``'gem'``, above 0.

    Raises:
        ValueError: no scales, one that is not above 0, an unknown aggregate, or a ``p`` that is
            not above 0.

    Example:
        >>> encode = lambda images: images.mean((2, 3))
        >>> joined = MultiScale(scales=(1, 0.5))(encode, torch.ones(2, 3, 8, 8))
        >>> joined.shape
        torch.Size([2, 3])
    """

    def __init__(self, scales: Sequence[float] = (1.0, 2 ** -0.5, 0.5), flip: bool = False,
                 aggregate: str = 'mean', p: float = 3.0) -> None:
        super().__init__()
        self.scales = tuple(float(scale) for scale in scales)
        if not self.scales or not all(scale > 0 for scale in self.scales):
            raise ValueError(f'scales must be numbers above 0, at least one, got {scales!r}.')
        if aggregate not in AGGREGATES:
            raise ValueError(unknown_name('aggregate of scales', aggregate, AGGREGATES))
        if not p > 0:
            raise ValueError(f'The power of aggregate="gem" must be above 0, got p={p!r}.')
        self.flip = bool(flip)
        self.aggregate = aggregate
        self.p = float(p)

    def forward(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The joined embeddings ``(B, D)``, not of length 1.

        Args:
            encode: ``(B, C, H, W) -> (B, D)``.
            images: ``(B, C, H, W)``.
        """
        return self.join(torch.stack([encode(view) for view in self.views(images)]))

    def views(self, images: Tensor) -> Iterator[Tensor]:
        """The images at each scale, each followed by its mirror image.

        Raises:
            ValueError: a scale leaves no pixel of them.
        """
        for scale in self.scales:
            size = [int(edge * scale) for edge in images.shape[-2:]]
            if min(size) < 1:
                raise ValueError(f'Images of {tuple(images.shape[-2:])} have no pixel left at '
                                 f'scale {scale:g}: give larger images or scales.')
            view = images if scale == 1 else functional.interpolate(
                images, scale_factor=scale, mode='bilinear', align_corners=False)
            yield view
            if self.flip:
                yield view.flip(3)

    def join(self, embeddings: Tensor) -> Tensor:
        """``(V, B, D) -> (B, D)``."""
        if self.aggregate == 'mean':
            return embeddings.mean(0)
        if self.aggregate == 'max':
            return embeddings.amax(0)
        lowest = embeddings.amin((0, -1)).clamp(max=0)[..., None]
        return (embeddings - lowest).pow(self.p).mean(0).pow(1 / self.p) + lowest

    def extra_repr(self) -> str:
        return f'scales={self.scales}, flip={self.flip}, aggregate={self.aggregate!r}, p={self.p}'


def build_multi_scale(given: Any) -> MultiScale | None:
    """From a dict of its arguments, a list of scales, or a module; None stays None.

    Raises:
        TypeError: something else, or an argument that there is not.
    """
    if given is None or isinstance(given, MultiScale):
        return given
    if isinstance(given, Mapping):
        return MultiScale(**given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        return MultiScale(given)
    raise TypeError('multi_scale must be a list of scales, or a dict such as '
                    f'dict(scales=(1, 0.7071, 0.5), flip=True), got {type(given).__name__}.')


@MODELS.register_module()
class MultiScaleEncoder(BaseModule):
    """Any encoder at several scales, in evaluation only: ``(B, C, H, W) -> (B, D)``.

    :class:`ImageEncoder` does it by itself (``multi_scale=…``), under the same names of weights,
    and joins the scales before it whitens; this is for other encoders.

    Args:
        encoder: config, list of configs, or module; of a tuple, the last element counts.
        normalize: whether embeddings have length 1, each before they are joined, and afterwards.
        init_cfg: MMEngine's initialisation.
        kwargs: those of :class:`MultiScale`.

    Raises:
        ValueError: an argument of :class:`MultiScale`, or an ImageEncoder.

    Example:
        >>> plain = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> encoder = MultiScaleEncoder(plain, scales=(1, 0.5))
        >>> encoder.eval()(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, encoder: Any, normalize: bool = True, init_cfg: dict[str, Any] | None = None,
                 **kwargs: Any) -> None:

        super().__init__(init_cfg)
        self.encoder = build_encoder(encoder, 'encoder')
        if isinstance(self.encoder, ImageEncoder):
            raise ValueError('An ImageEncoder encodes at several scales by itself: give it '
                             'multi_scale=dict(scales=…), without MultiScaleEncoder around it.')
        self.multi_scale = MultiScale(**kwargs)
        self.normalize = normalize

    def forward(self, images: Tensor) -> Any:
        """Embeddings; in training, what the encoder returns."""
        if self.training:
            return self.encoder(images)
        joined = self.multi_scale(self._encode, images)
        return normalize(joined) if self.normalize else joined

    def _encode(self, images: Tensor) -> Tensor:
        found = self.encoder(images)
        found = (found[-1] if isinstance(found, (tuple, list)) else found).float()
        return normalize(found) if self.normalize else found

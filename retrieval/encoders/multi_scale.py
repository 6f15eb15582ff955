"""One embedding of an image from several sizes of it, and from its mirror image."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..registry import MODELS, unknown_name
from .sequence import build_encoder

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
        lowest = embeddings.amin((0, 2)).clamp(max=0)[:, None]
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
    """

    def __init__(self, encoder: Any, normalize: bool = True, init_cfg: dict | None = None,
                 **kwargs: Any) -> None:
        from .image_encoder import ImageEncoder

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
        return functional.normalize(joined, dim=1) if self.normalize else joined

    def _encode(self, images: Tensor) -> Tensor:
        found = self.encoder(images)
        found = (found[-1] if isinstance(found, (tuple, list)) else found).float()
        return functional.normalize(found, dim=1) if self.normalize else found

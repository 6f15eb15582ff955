"""Queries by an old and a new model at once, each of which sees a picture as it is used to."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from mmcv.transforms import BaseTransform
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, cat, nn

from ..datasets.base import build_pipeline
from ..gallery import Gallery
from ..registry import TRANSFORMS
from .image_to_image import ImageToImageRetriever
from .model_change import EmbeddingMap, ModelChange

Pipeline = Sequence[dict[str, Any]]
Batches = list[Tensor]  # one, or one a picture where they have several sizes


@dataclass(frozen=True)
class TwoViews:
    """A picture as each of two pipelines packs it, ``(C, H, W)``."""

    new: Tensor
    old: Tensor


@TRANSFORMS.register_module()
class BothPipelines(BaseTransform):
    """A picture through two pipelines, each from the file to ``PackInputs``.

    Args:
        new, old: the pipelines. What is packed beside the picture is the new one's.

    Example:
        >>> import numpy as np
        >>> both = BothPipelines([dict(type='PackInputs')],
        ...                      [dict(type='ResizeEdge', scale=4), dict(type='PackInputs')])
        >>> item = both(dict(img=np.zeros((8, 8, 3), np.uint8)))['inputs']
        >>> item.new.shape, item.old.shape
        (torch.Size([3, 8, 8]), torch.Size([3, 4, 4]))
    """

    def __init__(self, new: Pipeline, old: Pipeline) -> None:
        self.new, self.old = build_pipeline(new), build_pipeline(old)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack both views as one :class:`TwoViews`."""
        old = cast(dict[str, Any], self.old(copy.deepcopy(results)))
        new = cast(dict[str, Any], self.new(results))
        return new | dict(inputs=TwoViews(new['inputs'], old['inputs']))


def both_pipelines(new: Pipeline, old: Pipeline) -> list[dict[str, Any]]:
    """The pipeline of queries for two models: theirs, where it is the same; none where one has
    none.

    Example:
        >>> both_pipelines([dict(type='PackInputs')], [dict(type='PackInputs')])
        [{'type': 'PackInputs'}]
    """
    if list(new) == list(old) or not new or not old:
        return list(new and old)
    return [dict(type='retrieval.BothPipelines', new=list(new), old=list(old))]


class BothPreprocessors(BaseDataPreprocessor):
    """What each of two models makes of a batch.

    Args:
        new, old: their data preprocessors.
    """

    def __init__(self, new: Any, old: Any) -> None:
        super().__init__()
        self.new, self.old = new, old

    def settings(self) -> dict[str, Any]:
        """Of both."""
        sides: dict[str, Any] = dict(new=self.new, old=self.old)
        return {name: one.settings() if hasattr(one, 'settings') else type(one).__name__
                for name, one in sides.items()}

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """A batch of pictures, or of :class:`TwoViews`; ``inputs`` are those of the new model and
        those of the old one.
        """
        given = [one if isinstance(one, TwoViews) else TwoViews(one, one) for one in data['inputs']]
        sides = [one.new for one in given], [one.old for one in given]
        move: Any = getattr(self.new, 'move', self.cast_data)
        return {'inputs': [_batches(self.new, sides[0]), _batches(self.old, sides[1])],
                'data_samples': move(data.get('data_samples'))}


def _batches(preprocessor: Any, images: list[Tensor]) -> Batches:
    """Pictures as one batch where they have one size, else each alone: none is padded."""
    alike = len({image.shape for image in images}) == 1
    return [preprocessor(dict(inputs=part, data_samples=None), False)['inputs']
            for part in ([images] if alike else [[image] for image in images])]


class ChangingEncoder(nn.Module):
    """Images to the embeddings that :attr:`ModelChange.gallery` is searched with.

    Args:
        change: of the models.
        new: the new model's encoder.
        old: the old one's; None with weight 1.
    """

    def __init__(self, change: ModelChange, new: nn.Module, old: nn.Module | None) -> None:
        super().__init__()
        self.change, self.new, self.old = change, new, old

    @property
    def has_words(self) -> bool:
        """True where each model that encodes queries has a text tower."""
        return all(getattr(one, 'has_words', False) for one in (self.new, self.old or self.new))

    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """Texts to ``(B, D + E + D)``, or ``(B, E)`` without the old one."""
        one: Any = self.old
        return self.change.join(cast(Any, self.new).embed_words(texts),
                                None if one is None else one.embed_words(texts))

    def forward(self, images: Any) -> Tensor:
        """Images ``(B, C, H, W)``, or what :class:`BothPreprocessors` made, to ``(B, D + E + D)``;
        without the old model images to ``(B, E)``.
        """
        if self.old is None:
            return self.change.join(_last(self.new(images)), None)
        if isinstance(images, Tensor):
            images = [images], [images]
        new, old = (cat([_last(encoder(batch)) for batch in batches])
                    for encoder, batches in zip((self.new, self.old), images, strict=True))
        return self.change.join(new, old)


def _last(features: Any) -> Tensor:
    return features[-1] if isinstance(features, (tuple, list)) else features


def changing_retriever(old_gallery: Gallery, new_gallery: Gallery, new: ImageToImageRetriever,
                       old: ImageToImageRetriever | None = None,
                       learned: EmbeddingMap | None = None) -> ImageToImageRetriever:
    """A retriever that searches the rows of both models.

    Args:
        old_gallery, new_gallery: see :class:`ModelChange`.
        new: the new model.
        old: the old one, so that every query is encoded by both, in batches that
            :func:`both_pipelines` made; where it is None, by the new one alone.
        learned: the map between them, where it is known already.

    Example:
        >>> import torch
        >>> rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> ids = list(map(str, range(60)))
        >>> mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> model = changing_retriever(Gallery(rows, ids), Gallery(rows[:30], ids[:30]),
        ...                            ImageToImageRetriever(mean, topk=1))
        >>> model.predict(rows[40].reshape(1, 3, 1, 1))[0].pred_label
        tensor([40])
    """
    change = ModelChange(old_gallery, new_gallery, 1. if old is None else 0.5, learned)
    encoder = ChangingEncoder(change, new.image_encoder, None if old is None else old.image_encoder)
    preprocessor = new.data_preprocessor if old is None else BothPreprocessors(
        new.data_preprocessor, old.data_preprocessor)
    return ImageToImageRetriever(encoder, change.gallery, topk=new.topk, check_fingerprint=False,
                                 data_preprocessor=preprocessor).eval()

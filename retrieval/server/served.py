"""A model that is served, and what goes with it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evaluation import MatchCalibration
from ..gallery import GalleryStore
from ..index import MilvusIndex
from .batching import Encoder


@dataclass(eq=False)
class Served:
    """A model, how pictures come to it, and what is known with it alone.

    Args:
        model: a retriever, with its prototype where that is not published later.
        pipeline: config of the test pipeline.
        calibration: of this model's scores.
        store: the store that it searches and that can be changed, or None.
        cache: where the embeddings of a folder are kept, or None.
        spare: another such file, from which embeddings are taken where they fit.
        projection: ``(D, E)`` float32, what embeddings are multiplied by, or None.
        gallery: the latest that was published, without the projection.

    Example:
        >>> import torch
        >>> from retrieval.retrievers import ImageToImageRetriever
        >>> served = Served(ImageToImageRetriever(torch.nn.Flatten()), [dict(type='PackInputs')])
        >>> sorted(served.fingerprint)[:2], served.close()
        (['pipeline', 'pooling'], None)
    """

    model: Any
    pipeline: Sequence[dict[str, Any]]
    calibration: MatchCalibration | None = None
    store: GalleryStore | None = None
    cache: Path | None = None
    spare: Path | None = None
    projection: Tensor | None = None
    gallery: Any = None
    encoder: Encoder = field(init=False)

    def __post_init__(self) -> None:
        self.encoder = Encoder(self.model, self.pipeline)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Of the model, as plain values."""
        return dict(self.model.fingerprint().as_dict())

    @property
    def shared(self) -> MilvusIndex | None:
        """The index that other processes change and search, or None."""
        prototype = self.model.prototype
        return prototype if isinstance(prototype, MilvusIndex) else None

    def latest(self) -> Any:
        """What it searches now: the store as it is, the gallery that was published last, or None
        for the model's own prototype.
        """
        if self.store is not None:
            return self.store.load(copy=True)
        return self.gallery if self.model.prototype is None else None

    def close(self) -> None:
        """End its thread; searches that still run encode by themselves."""
        self.encoder.batcher.close()

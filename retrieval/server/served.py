"""A model that is served, and what goes with it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evaluation import MatchCalibration, calibrate_without_labels
from ..gallery import Gallery, GalleryStore
from ..index import MilvusIndex
from .batching import Encoder

_SEARCHED = 500  # rows, for a calibration of the gallery itself: a second of 37,000

@dataclass(eq=False)
class Served:
    """A model, how pictures come to it, and what is known with it alone.

    Args:
        model: a retriever, with its prototype where that is not published later.
        pipeline: config of the test pipeline.
        calibration: of this model's scores.
        cut: criterion and target of a calibration that is made of the gallery itself, without
            labels, when :meth:`calibrate` is called; in the place of ``calibration``.
        store: the store that it searches and that can be changed, or None.
        cache: where the embeddings of a folder are kept, or None.
        spare: another such file, from which embeddings are taken where they fit.
        projection: ``(D, E)`` float32, what embeddings are multiplied by, or None.
        gallery: the latest that was published, without the projection.
        mixture: the :class:`~retrieval.server.changing.BothModels` that it is of, or None.

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
    cut: tuple[str, float | None] | None = None
    store: GalleryStore | None = None
    cache: Path | None = None
    spare: Path | None = None
    projection: Tensor | None = None
    gallery: Any = None
    mixture: Any = None
    encoder: Encoder = field(init=False)
    _calibrated: int = field(default=0, init=False)  # of how many rows

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

    def calibrate(self, gallery: Any) -> None:
        """Make the calibration of a gallery, where ``cut`` says how, and anew where a tenth of its
        rows has come or gone; of too few rows there is none.
        """
        if self.cut is None or not isinstance(gallery, Gallery):
            return
        if abs(len(gallery) - self._calibrated) * 10 <= self._calibrated:
            return
        try:
            self.calibration = calibrate_without_labels(
                gallery.embeddings, *self.cut, similarity=self.model.similarity,
                max_queries=_SEARCHED)
        except ValueError:  # too few rows
            self.calibration = None
        self._calibrated = len(gallery)

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
